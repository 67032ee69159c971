//! What is told to the audit log: each change once, when it is in force, with who asked.

use super::*;
use crate::domain::audit::fact::Changed as Told;
use crate::domain::command::QuarantineWish;

/// `+pushed db`, `~file db`, `-pushed db`; `q+web`, `q-web`.
pub(super) fn words(changed: &Told) -> String {
    match changed {
        Told::Policy { name, origin, before, after, .. } => {
            let sign = match (before, after) {
                (None, _) => "+",
                (_, None) => "-",
                (before, after) if before == after => "=",
                _ => "~",
            };
            format!("{sign}{name} {origin}")
        }
        Told::Quarantine { workload, terms: Some(_), was_there: false } => format!("q+{workload}"),
        Told::Quarantine { workload, terms: Some(_), .. } => format!("q~{workload}"),
        Told::Quarantine { workload, terms: None, .. } => format!("q-{workload}"),
    }
}

fn audited(world: &mut World) -> Vec<String> {
    std::mem::take(&mut world.audited)
}

#[test]
fn policies_are_told_when_they_are_in_force_with_who_asked() {
    let mut world = World::enforcing();
    audited(&mut world);
    world.changed(push(&["db<api"]));
    assert_eq!(audited(&mut world), ["1: +default/db pushed"]);
    world.changed(push(&["db<api", "api<web"]));
    world.changed(push(&["db<web"]));
    world.changed(delete(&["db"]));
    assert_eq!(
        audited(&mut world),
        ["2: +default/api pushed", "3: ~default/db pushed", "4: -default/db pushed"]
    );
    world.changed(push(&["api<web"]));
    assert_eq!(audited(&mut world), [""; 0], "nothing was changed");
    world.batch([files(&["db<web"])]);
    let told = audited(&mut world);
    assert!(told.len() == 1 && told[0].starts_with("nobody: +default/db "), "{told:?}");
    world.restart();
    let kernel = world.adopted();
    world.batch([kernel, workloads(&["web@1", "api@2", "db@3"]), files(&["db<web"])]);
    let told = audited(&mut world);
    assert!(
        told.iter().all(|told| told.starts_with("nobody: +default/db ")),
        "what was pushed was told: {told:?}"
    );
}

#[test]
fn quarantines_are_told_when_they_begin_and_end() {
    let mut world = World::enforcing();
    audited(&mut world);
    let wish = QuarantineWish { workload: "web".into(), seconds: Some(60), allow_from: Vec::new(), by: None };
    world.answer(Request::QuarantineAdd(wish.clone()));
    world.answer(Request::QuarantineAdd(QuarantineWish { seconds: Some(30), ..wish }));
    assert_eq!(audited(&mut world), ["1: q+default/web", "2: q~default/web"]);
    world.batch([Event::Tick(at(31))]);
    assert_eq!(audited(&mut world), ["nobody: q-default/web"]);
}

#[test]
fn what_fails_is_a_problem_and_no_change() {
    let mut world = World::enforcing();
    audited(&mut world);
    world.broken = vec![Step::Publish];
    assert!(matches!(world.answer(push(&["db<api"])), Reply::Refused(_)));
    assert_eq!(audited(&mut world)[..1], ["kernel wrong"]);
}
