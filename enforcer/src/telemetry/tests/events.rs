//! Events of the kernel, as flows.

use std::sync::Arc;

use enforcer_common::abi;
use enforcer_common::abi::flow::{FlowEvent, Outcome};
use enforcer_common::abi::identity::Role;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::id::{IdentityId, RuleId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Direction, Tier, Word};
use tokio::sync::watch;

use super::super::*;
use super::{DB, WEB, names};
use crate::domain::flow::{Flow, FlowEndpoint, FlowIp, FlowPage};

fn pipeline() -> Pipeline {
    // A receiver keeps the last value when the sender is gone.
    Pipeline::new(watch::channel(Arc::new(names())).1, "host-1".into())
}

/// The last flows, oldest first.
fn recent(pipeline: &Pipeline, count: u64) -> Vec<Flow> {
    pipeline.page(pipeline.counts().told.saturating_sub(count), usize::MAX).flows
}

/// web -> db, refused by the isolation of db.
fn event() -> FlowEvent {
    let address = Address::v4(0x7f00_0001);
    FlowEvent {
        version: u16::try_from(abi::VERSION).unwrap(),
        size: 0,
        hook: Hook::Connect4 as u8,
        protocol: 6,
        port: 5432,
        time: 5_000_000_000,
        generation: 7,
        cookie: 99,
        subject_cgroup: 11,
        peer_cgroup: 0,
        address_high: address.high,
        address_low: address.low,
        egress: Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE).0,
        ingress: Word::deny(Tier::Isolation, Errno::ConnRefused, Reason::Isolated, RuleId(1)).0,
        subject: WEB,
        peer: DB,
        pid: 1234,
        uid: 33,
        direction: Direction::Ingress as u8,
        outcome: Outcome::Dropped as u8,
        errno: 111,
        caller: 0,
        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        role: 1,
        reserved: 0,
        client_port: 40_000,
        reserved2: 0,
    }
}

#[test]
fn an_event_in_words() {
    let pipeline = pipeline();
    pipeline.set_clock_offset(1_700_000_000_000_000_123);
    pipeline.record(&[event()]);
    let flow = recent(&pipeline, 1).remove(0);
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:25.000000123Z",
        "verdict": "DROPPED",
        "drop_reason_desc": "POLICY_DENIED",
        "IP": {"destination": "127.0.0.1", "ipVersion": "IPv4"},
        "l4": {"protocol": "TCP", "source_port": 40000, "destination_port": 5432},
        "source": {"identity": WEB, "namespace": "shop", "labels": ["app=web", "tier=front"], "workloads": ["web"],
                   "cgroup_id": 11},
        "destination": {"identity": DB, "namespace": "shop", "labels": ["app=db"],
                        "workloads": ["db-0", "db-1", "db-2", "db-3", "db-4", "db-5", "db-6", "db-7", "(2 more)"],
                        "cgroup_id": 0},
        "role": "client",
        "traffic_direction": "INGRESS",
        "decided_by": {"namespace": "shop", "name": "db", "kind": "TrafficPolicy", "rule": "ingress (isolated)"},
        "errno": "ECONNREFUSED",
        "hook": "connect4",
        "generation": 7,
        "socket_cookie": 99,
        "process": {"pid": 1234, "uid": 33, "comm": "curl"},
        "node_name": "host-1",
    });
    assert_eq!(serde_json::to_value(&flow).unwrap(), expected);
}

#[test]
fn a_server_sees_who_called_and_nobody_gets_an_errno() {
    let pipeline = pipeline();
    let remote = Address::v4(0xc000_0207);
    pipeline.record(&[FlowEvent {
        hook: Hook::Ingress as u8,
        role: Role::Server as u8,
        subject: DB,
        peer: IdentityId::WORLD.0,
        subject_cgroup: 0,
        address_high: remote.high,
        address_low: remote.low,
        pid: 0,
        uid: 0,
        comm: [0; 16],
        ..event()
    }]);
    let flow = recent(&pipeline, 1).remove(0);
    assert_eq!(
        (flow.source.labels[0].as_str(), flow.destination.labels[0].as_str()),
        ("reserved:world", "app=db")
    );
    let json = serde_json::to_value(&flow).unwrap();
    assert_eq!(json["IP"], serde_json::json!({"source": "192.0.2.7", "ipVersion": "IPv4"}));
    assert_eq!(
        json["l4"],
        serde_json::json!({"protocol": "TCP", "source_port": 40000, "destination_port": 5432})
    );
    assert_eq!((flow.role.as_str(), flow.errno.as_deref(), flow.process.pid), ("server", None, 0));
}

#[test]
fn a_refused_socket_has_nobody_at_the_other_end() {
    let pipeline = pipeline();
    let refused = |reason| Word::deny(Tier::Default, Errno::Perm, reason, RuleId::NONE).0;
    let base = FlowEvent {
        direction: Direction::Egress as u8,
        errno: 1,
        ingress: 0,
        peer: 0,
        port: 0,
        client_port: 0,
        address_high: 0,
        address_low: 0,
        ..event()
    };
    let kind = FlowEvent { egress: refused(Reason::SocketKind), protocol: 255, ..base };
    let taken = FlowEvent { egress: refused(Reason::PortTaken), peer: DB, port: 80, ..base };
    pipeline.record(&[
        FlowEvent { hook: Hook::SockCreate as u8, ..kind },
        FlowEvent { hook: Hook::SocketCreate as u8, protocol: 0, ..kind },
        FlowEvent {
            hook: Hook::Setsockopt as u8,
            protocol: 0,
            egress: refused(Reason::SocketOption),
            ..base
        },
        FlowEvent { hook: Hook::Bind6 as u8, ..taken },
        // Unreadable: not even the address is known, but there was another end.
        FlowEvent { hook: Hook::Egress as u8, egress: refused(Reason::MalformedPacket), ..base },
    ]);
    let flows = recent(&pipeline, 9);
    for flow in &flows[..3] {
        assert_eq!((&flow.destination, &flow.ip), (&FlowEndpoint::default(), &FlowIp::default()));
        assert_eq!((flow.source.workloads[0].as_str(), flow.errno.as_deref()), ("web", Some("EPERM")));
    }
    assert_eq!(flows[0].l4.protocol, "RAW");
    assert_eq!((flows[1].l4.protocol.as_str(), flows[1].drop_reason_desc.as_str()), ("", "SOCKET_KIND"));
    assert_eq!((flows[3].ip.destination.as_str(), flows[3].l4.destination_port), ("::", 80));
    assert_eq!(
        (flows[3].destination.labels[0].as_str(), flows[3].errno.as_deref()),
        ("app=db", Some("EADDRINUSE"))
    );
    assert_eq!(
        (flows[4].destination.labels[0].as_str(), &flows[4].ip),
        ("reserved:unknown", &FlowIp::default())
    );
    assert_eq!(flows[4].errno, None);
}

#[test]
fn what_has_no_name_is_shown_by_number() {
    let pipeline = pipeline();
    let allow = |rule| Word::allow(Tier::Allow, Reason::AllowedByRule, RuleId(rule)).0;
    let base = FlowEvent { direction: 0, outcome: 0, errno: 0, ..event() };
    pipeline.record(&[
        FlowEvent { egress: allow(2), peer: IdentityId::HOST.0, ..base },
        FlowEvent { egress: allow(9), peer: 999, errno: 5, protocol: 50, address_low: 1, ..base },
    ]);
    let flows = recent(&pipeline, 9);
    assert_eq!(flows[0].decided_by.as_ref().unwrap().rule, "ingress[0] (from-api)");
    assert_eq!(flows[0].destination.labels, ["reserved:host"]);
    assert_eq!(flows[0].errno, None);
    assert_eq!(flows[1].decided_by.as_ref().unwrap().rule, "rule 9");
    assert_eq!(flows[1].destination.labels, ["identity:999"]);
    assert_eq!((flows[1].errno.as_deref(), flows[1].l4.protocol.as_str()), (Some("5"), "50"));
    assert_eq!((flows[1].ip.version.as_str(), flows[1].ip.destination.as_str()), ("IPv6", "::1"));
}

#[test]
fn what_is_read_is_told_or_counted_as_lost() {
    let pipeline = pipeline();
    let bad = [
        FlowEvent { version: 99, ..event() },
        FlowEvent { hook: 200, ..event() },
        FlowEvent { outcome: 7, ..event() },
        FlowEvent { direction: 7, ..event() },
        FlowEvent { ingress: event().ingress | 0xc8, ..event() },
    ];
    pipeline.record(&bad);
    pipeline.record(&vec![event(); HISTORY + 10]);
    let canary = IdentityId::CANARY.0;
    pipeline.record(&[
        FlowEvent { subject: canary, cookie: 2, ..event() },
        FlowEvent { cookie: 1, ..event() },
        FlowEvent { peer: canary, cookie: 3, ..event() },
    ]);
    let told = HISTORY as u64 + 11;
    assert_eq!(pipeline.counts(), ReadCounts { read: told + 7, told, undecodable: 5, canary: 2, missed: 0 });
    assert_eq!(recent(&pipeline, u64::MAX).len(), HISTORY);
    let last: Vec<u64> = recent(&pipeline, 2).iter().map(|flow| flow.socket_cookie).collect();
    assert_eq!(last, [99, 1], "oldest first");
}

#[test]
fn whoever_reads_from_a_number_learns_what_is_gone() {
    let pipeline = pipeline();
    let sent = HISTORY as u64 + 1_500;
    for cookie in 0..sent {
        pipeline.record(&[FlowEvent { cookie, ..event() }]);
    }
    let page = pipeline.page(100, 10);
    assert_eq!((page.lost, page.next, page.flows.len()), (1_400, 1_510, 10));
    let numbers: Vec<(u64, u64)> =
        page.numbered().map(|(number, flow)| (number, flow.socket_cookie)).collect();
    assert_eq!((numbers[0], numbers[9]), ((1_500, 1_500), (1_509, 1_509)), "numbers begin with 0");
    let rest = pipeline.page(page.next, usize::MAX);
    assert_eq!(page.lost + (page.flows.len() + rest.flows.len()) as u64, sent - 100);
    // What is yet to come, and nothing at all.
    assert_eq!(pipeline.page(rest.next, 1), FlowPage { lost: 0, flows: Vec::new(), next: sent });
    assert_eq!(pipeline.page(u64::MAX, 1), FlowPage { lost: 0, flows: Vec::new(), next: sent });
    assert_eq!(pipeline.page(0, 0), FlowPage { lost: 1_500, flows: Vec::new(), next: 1_500 });
    pipeline.missed(page.lost);
    assert_eq!((pipeline.counts().told, pipeline.counts().missed), (sent, 1_400));
}

#[tokio::test]
async fn who_waits_for_flows_is_woken_by_flows_only() {
    let pipeline = pipeline();
    let mut next = pipeline.next();
    pipeline.record(&[FlowEvent { version: 99, ..event() }]);
    assert!(!next.has_changed().unwrap(), "no flow");
    pipeline.record(&[event(), event()]);
    next.changed().await.unwrap();
    assert_eq!(*next.borrow_and_update(), 2);
}

#[test]
fn a_flow_keeps_the_names_of_its_time() {
    let (sender, receiver) = watch::channel(Arc::new(names()));
    let pipeline = Pipeline::new(receiver, "host-1".into());
    pipeline.record(&[event()]);
    sender.send_replace(Arc::default());
    pipeline.record(&[event()]);
    let flows = recent(&pipeline, 2);
    assert_eq!(flows[0].source.labels, ["app=web", "tier=front"]);
    assert_eq!(flows[1].source.labels, [format!("identity:{WEB}")]);
    assert_eq!(flows[1].decided_by.as_ref().unwrap().rule, "rule 1");
}
