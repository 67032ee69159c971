//! What becomes of a flow, by what is in force.

use std::net::IpAddr;

use super::*;
use crate::domain::Mode;
use crate::domain::answer::Explained;
use crate::domain::cluster::{Backend, Service, ServicePort};

fn request(from: &str, to: &str, port: u16) -> Request {
    Request::Explain { from: from.into(), to: to.into(), protocol: 6, port }
}

fn explained(world: &mut World, from: &str, to: &str, port: u16) -> Explained {
    match world.answer(request(from, to, port)) {
        Reply::Explained(explained) => *explained,
        other => panic!("{other:?}"),
    }
}

/// Verdict, reason and rule of the end that decides.
fn verdict(world: &mut World, from: &str, to: &str, port: u16) -> String {
    let Explained { answer, .. } = explained(world, from, to, port);
    let side = answer.ends.iter().find(|side| side.verdict == answer.verdict).expect("an end");
    let side = if answer.verdict == "FORWARDED" { answer.ends.last().expect("an end") } else { side };
    format!(
        "{} {} {} {}",
        answer.verdict,
        side.reason,
        side.rule.clone().unwrap_or_default(),
        side.precedence
    )
}

#[test]
fn the_table_in_force_is_asked() {
    let mut world = World::enforcing();
    assert_eq!(verdict(&mut world, "web", "db", 5432), "FORWARDED ALLOWED_BY_DEFAULT  7");
    world.changed(push(&["db<api"]));
    assert_eq!(
        verdict(&mut world, "web", "db", 5432),
        "DROPPED POLICY_DENIED default/db ingress (isolated) 5"
    );
    assert_eq!(verdict(&mut world, "api", "db", 5432), "FORWARDED ALLOWED_BY_RULE default/db ingress[0] 4");
    assert_eq!(
        verdict(&mut world, "host", "db", 5432),
        "DROPPED POLICY_DENIED default/db ingress (isolated) 5"
    );
    let miss = explained(&mut world, "web", "default/db", 1);
    assert_eq!(miss.generation, generation(&world).unwrap().0);
    assert_eq!(miss.answer.ends[1].isolated_by, ["default/db"]);
    assert!(
        miss.answer.ends[1].nearest_miss.as_ref().unwrap().starts_with("default/db ingress[0]"),
        "{miss:?}"
    );
    // A quarantine is by directory, and by kernel time.
    let wish = crate::domain::command::QuarantineWish {
        workload: "default/api".into(),
        seconds: Some(60),
        allow_from: Vec::new(),
        by: None,
    };
    world.answer(Request::QuarantineAdd(wish));
    assert_eq!(verdict(&mut world, "api", "db", 5432), "DROPPED QUARANTINED  1");
    // Questions carry the time; nothing else has happened since.
    world.state.now = at(61);
    world.next += 1;
    let ticket = world.next;
    world.step(Event::Request { ticket: Ticket(ticket), request: request("api", "db", 1), now: at(61) });
    let Some(Reply::Explained(later)) = world.replies.remove(&ticket) else { panic!("an answer") };
    assert_eq!(later.answer.verdict, "FORWARDED");
}

#[test]
fn what_is_not_there_is_refused_with_a_name() {
    let mut world = World::new();
    world.batch([adopted()]);
    assert!(world.refusal(request("web", "db", 1)).message.contains("no policy tables of this agent"));
    let mut world = World::enforcing();
    let refusal = world.refusal(request("wbe", "db", 1));
    assert!(refusal.not_found && refusal.message.contains("did you mean `default/web`?"), "{refusal:?}");
    let refusal = world.refusal(request("192.0.2.1", "192.0.2.2", 1));
    assert!(refusal.message.contains("between two addresses"), "{refusal:?}");
    world.batch([workloads(&["web@1", "db@-"])]);
    let waiting = explained(&mut world, "web", "db", 1);
    assert_eq!(waiting.notes, ["default/db has no process yet: its cgroup does not exist"]);
}

#[test]
fn a_service_is_explained_by_those_behind_it() {
    let mut world = World::enforcing();
    let address = |last: u8| IpAddr::from([192, 0, 2, last]);
    let mut all: Vec<_> = ["web@1", "api@2", "db@3"].into_iter().map(workload).collect();
    for (resolved, last) in all.iter_mut().zip(1..) {
        Arc::make_mut(&mut resolved.workload).addresses = vec![address(last).into()];
    }
    let backend = |last| Backend { address: address(last), port: 8080 };
    let port = ServicePort { protocol: 6, port: 80, backends: vec![backend(2), backend(3)] };
    let service = Service {
        namespace: "default".into(),
        name: "front".into(),
        addresses: vec![address(100)],
        ports: vec![port],
    };
    world.batch([Event::Workloads(WorkloadEvent::Snapshot {
        source: "static".into(),
        workloads: all,
        namespaces: Vec::new(),
        services: vec![service],
    })]);
    let egress = policy("x<api")
        .text
        .replace("app: x", "app: web")
        .replace("ingress:", "egress:")
        .replace("from:", "to:");
    world.changed(apply(vec![PolicyFile { name: "x".into(), text: egress }]));
    for name in ["front", "service/default/front", "192.0.2.100"] {
        let found = explained(&mut world, "web", name, 80);
        assert_eq!(found.answer.verdict, "DROPPED");
        assert_eq!(found.answer.ends[0].reason, "MIXED_BACKENDS");
        let each: Vec<_> =
            found.backends.iter().map(|it| format!("{} {} {}", it.to, it.port, it.verdict)).collect();
        assert_eq!(each, ["default/api TCP/8080 FORWARDED", "default/db TCP/8080 DROPPED"]);
    }
    let nobody = explained(&mut world, "web", "front", 81);
    assert_eq!(nobody.notes, ["nobody answers for service/default/front on that port"]);
    // An address of a workload stands for it, and one of nobody for the world.
    assert_eq!(explained(&mut world, "192.0.2.1", "192.0.2.3", 1).answer.ends[0].subject, "default/web");
    assert_eq!(
        verdict(&mut world, "web", "198.51.100.1", 1),
        "DROPPED POLICY_DENIED default/x egress (isolated) 5"
    );
}

#[test]
fn a_mode_that_refuses_nothing_is_part_of_the_answer() {
    for (mode, word) in [(Mode::Audit, "AUDIT"), (Mode::Off, "FORWARDED")] {
        let facts = Facts { mode, ..facts(&[]) };
        let mut world = World::with(State::new(facts, Remembered::default()).unwrap());
        world.batch([adopted(), workloads(&["web@1", "db@3"]), files(&["db<api"])]);
        let found = explained(&mut world, "web", "db", 1);
        assert_eq!((found.answer.verdict.as_str(), found.mode.as_str()), (word, mode.name()));
        assert!(found.answer.ends.iter().all(|side| side.errno.is_none()));
        assert_eq!(found.notes.len(), 1);
    }
}
