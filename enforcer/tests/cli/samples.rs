//! One of everything that is printed.

mod status;

use enforcer::domain::answer::{Answer, Explained, Side};
use enforcer::domain::command::{
    Change, Changed, EndpointInfo, IdentityInfo, PolicyChange, PolicyInfo, QuarantineInfo,
};
use enforcer::domain::conditions::{Condition, ConditionStatus, ConditionType, PolicyStatus};
use enforcer::domain::flow::{Flow, FlowEndpoint, FlowIp, FlowL4, FlowProcess, FlowRule};
use enforcer::domain::history::{History, HistoryEdge, HistoryTraffic};
use enforcer::domain::offline::port_text;
use enforcer::domain::workload::EndpointState;

pub(crate) use status::{degraded, status};

pub(crate) fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn end(identity: u32, namespace: &str, label: &str, workloads: &[&str]) -> FlowEndpoint {
    let workloads = texts(workloads);
    FlowEndpoint { identity, namespace: namespace.into(), labels: texts(&[label]), workloads, cgroup_id: 42 }
}

/// Denied by isolation, by the port of a database.
pub(crate) fn denied() -> Flow {
    Flow {
        time: "2026-11-22T12:53:39.168123456Z".into(),
        verdict: "DROPPED".into(),
        drop_reason_desc: "POLICY_DENIED".into(),
        ip: FlowIp { destination: "127.0.0.1".into(), version: "IPv4".into(), ..FlowIp::default() },
        l4: FlowL4 { protocol: "TCP".into(), source_port: 0, destination_port: 5432 },
        source: end(256, "default", "app=web", &["web"]),
        destination: end(258, "default", "app=db", &["db"]),
        role: "client".into(),
        traffic_direction: "INGRESS".into(),
        decided_by: Some(FlowRule {
            namespace: "default".into(),
            name: "db-only-from-api".into(),
            kind: "TrafficPolicy".into(),
            rule: "ingress (isolated)".into(),
        }),
        errno: Some("EPERM".into()),
        hook: "connect4".into(),
        generation: 3,
        socket_cookie: 77,
        process: FlowProcess { pid: 1234, uid: 1000, comm: "curl".into() },
        node_name: "node-1".into(),
    }
}

/// Denied, allowed by a rule, allowed by default to the world over IPv6, audited, and with an evil command name; then
/// what packets and sockets are refused for.
pub(crate) fn flows() -> Vec<Flow> {
    let denied = denied();
    let allowed = Flow {
        time: "2026-02-07T02:03:09.005Z".into(),
        verdict: "FORWARDED".into(),
        drop_reason_desc: "ALLOWED_BY_RULE".into(),
        l4: FlowL4 { protocol: "TCP".into(), source_port: 0, destination_port: 8080 },
        destination: end(257, "default", "app=api", &["api-1", "api-2"]),
        decided_by: denied.decided_by.clone().map(|rule| FlowRule { rule: "ingress[0]".into(), ..rule }),
        errno: None,
        ..denied.clone()
    };
    let world = Flow {
        verdict: "FORWARDED".into(),
        drop_reason_desc: "ALLOWED_BY_DEFAULT".into(),
        ip: FlowIp { destination: "2001:db8::1".into(), version: "IPv6".into(), ..FlowIp::default() },
        l4: FlowL4 { protocol: "UDP".into(), source_port: 0, destination_port: 53 },
        destination: end(2, "", "reserved:world", &[]),
        traffic_direction: "EGRESS".into(),
        decided_by: None,
        errno: None,
        process: FlowProcess::default(),
        ..denied.clone()
    };
    let audited = Flow { verdict: "AUDIT".into(), errno: None, ..denied.clone() };
    let evil = Flow {
        process: FlowProcess { comm: "\u{1b}[2Ksh\nx".into(), ..denied.process.clone() },
        ..denied.clone()
    };
    let mut all = vec![denied, allowed, world, audited, evil];
    all.extend(refused());
    all
}

/// A packet from elsewhere that reaches a server, a socket that may not be, an option, and a port that is taken.
fn refused() -> [Flow; 4] {
    let incoming = Flow {
        ip: FlowIp { source: "2001:db8::7".into(), destination: String::new(), version: "IPv6".into() },
        l4: FlowL4 { protocol: "TCP".into(), source_port: 40_000, destination_port: 5432 },
        source: end(2, "", "reserved:world", &[]),
        role: "server".into(),
        errno: None,
        hook: "ingress".into(),
        process: FlowProcess::default(),
        ..denied()
    };
    let raw = Flow {
        drop_reason_desc: "SOCKET_KIND".into(),
        ip: FlowIp::default(),
        l4: FlowL4 { protocol: "RAW".into(), source_port: 0, destination_port: 0 },
        destination: FlowEndpoint::default(),
        traffic_direction: "EGRESS".into(),
        decided_by: None,
        hook: "sock_create".into(),
        process: FlowProcess { comm: "ping".into(), ..denied().process },
        ..denied()
    };
    let option = Flow {
        drop_reason_desc: "SOCKET_OPTION".into(),
        l4: FlowL4 { protocol: String::new(), source_port: 0, destination_port: 0 },
        hook: "setsockopt".into(),
        ..raw.clone()
    };
    let taken = Flow {
        drop_reason_desc: "PORT_TAKEN".into(),
        ip: FlowIp { destination: "::".into(), version: "IPv6".into(), ..FlowIp::default() },
        traffic_direction: "EGRESS".into(),
        decided_by: None,
        errno: Some("EADDRINUSE".into()),
        hook: "bind6".into(),
        ..denied()
    };
    [incoming, raw, option, taken]
}

fn standing() -> PolicyStatus {
    let condition = |kind, reason: &str, message: &str| Condition {
        kind,
        status: ConditionStatus::True,
        reason: reason.into(),
        message: message.into(),
        last_transition_time: "2026-11-22T12:53:39Z".into(),
        observed_generation: 7,
    };
    PolicyStatus {
        summary: "Enforcing".into(),
        generation: 7,
        since: "2026-11-22T12:53:39Z".into(),
        pending: Vec::new(),
        conditions: vec![
            condition(ConditionType::Accepted, "Accepted", "it is valid and loaded"),
            condition(ConditionType::Programmed, "Programmed", "generation 7 has it"),
            condition(ConditionType::Enforcing, "Enforcing", "under generation 7 \"it\" was tried"),
        ],
    }
}

pub(crate) fn policies() -> Vec<PolicyInfo> {
    let db = PolicyInfo {
        namespace: "default".into(),
        name: "db-only-from-api".into(),
        kind: "TrafficPolicy".into(),
        mode: "enforce".into(),
        origin: "pushed".into(),
        rules: 1,
        expired: 0,
        expires: None,
        isolates: texts(&["ingress"]),
        selects: texts(&["default/db"]),
        text: "# who may ask the database\nkind: TrafficPolicy".into(),
        status: standing(),
    };
    let audit = PolicyInfo {
        namespace: "shop".into(),
        name: "egress".into(),
        mode: "audit".into(),
        origin: "/etc/enforcer/policies.d/shop.yaml".into(),
        rules: 12,
        expired: 2,
        expires: Some("2026-12-24T18:00:00Z".into()),
        isolates: texts(&["ingress", "egress", "listen"]),
        selects: Vec::new(),
        status: PolicyStatus { summary: "AuditMode".into(), ..standing() },
        ..db.clone()
    };
    vec![db, audit]
}

pub(crate) fn identities() -> Vec<IdentityInfo> {
    let identity = |id, namespace: &str, labels: &[&str], workloads: &[&str]| IdentityInfo {
        id,
        namespace: namespace.into(),
        labels: texts(labels),
        workloads: texts(workloads),
    };
    vec![
        identity(2, "", &["reserved:world"], &[]),
        identity(256, "default", &["app=web", "tier=front"], &["default/web"]),
        identity(16_777, "shop", &[], &["shop/a", "shop/b"]),
    ]
}

pub(crate) fn endpoints() -> Vec<EndpointInfo> {
    let web = EndpointInfo {
        namespace: "default".into(),
        name: "web".into(),
        identity: 256,
        labels: texts(&["app=web", "tier=front"]),
        cgroup: Some("/demo.slice/web.service".into()),
        cgroup_id: Some(4711),
        addresses: Vec::new(),
        state: EndpointState::Bound,
        quarantined: true,
        ingress_policies: Vec::new(),
        egress_policies: texts(&["default/web-egress"]),
        listen_policies: Vec::new(),
        socket_policies: Vec::new(),
    };
    let waiting = EndpointInfo {
        name: "db".into(),
        cgroup_id: None,
        state: EndpointState::WaitingForCgroup,
        quarantined: false,
        ingress_policies: texts(&["default/db-only-from-api", "default/x"]),
        ..web.clone()
    };
    let remote = EndpointInfo {
        name: "far".into(),
        cgroup: None,
        cgroup_id: None,
        labels: Vec::new(),
        addresses: texts(&["192.0.2.1/32", "2001:db8::/64"]),
        state: EndpointState::Remote,
        egress_policies: Vec::new(),
        ..web.clone()
    };
    vec![web, waiting, remote]
}

pub(crate) fn quarantines() -> Vec<QuarantineInfo> {
    let web = QuarantineInfo {
        namespace: "default".into(),
        name: "web".into(),
        since: "2026-11-22T12:53:39Z".into(),
        until: Some("2026-11-22T13:03:39Z".into()),
        allow_from: texts(&["forensics/probe", "role=probe,team=blue", "192.0.2.0/24"]),
        by: Some(1000),
        exists: true,
    };
    let gone = QuarantineInfo {
        namespace: "shop".into(),
        name: "gone".into(),
        until: None,
        allow_from: Vec::new(),
        by: None,
        exists: false,
        ..web.clone()
    };
    vec![web, gone]
}

/// A service of which one backend is refused.
pub(crate) fn explained(from: &str, to: &str, (protocol, port): (u8, u16)) -> Explained {
    let side = |direction: &str, subject: &str, verdict: &str| Side {
        direction: direction.into(),
        subject: subject.into(),
        verdict: verdict.into(),
        reason: "MIXED_BACKENDS".into(),
        text: "policies allow some of the service's backends and deny others".into(),
        precedence: 5,
        policy: Some("shop/web".into()),
        rule: Some("shop/web egress (isolated)".into()),
        rule_name: None,
        passed_by: None,
        errno: (verdict == "DROPPED").then(|| "EPERM".into()),
        isolated_by: Vec::new(),
        nearest_miss: None,
    };
    let answer = |to: &str, port: u16, verdict: &str| Answer {
        from: from.into(),
        to: to.into(),
        port: port_text(protocol, port),
        verdict: verdict.into(),
        ends: vec![side("egress", from, verdict)],
    };
    Explained {
        generation: 7,
        mode: "enforce".into(),
        answer: answer(&format!("service/{to}"), port, "DROPPED"),
        backends: vec![answer("shop/db-1", 5432, "FORWARDED"), answer("shop/db-2", 5432, "DROPPED")],
        notes: vec!["shop/db-2 has no process yet: its cgroup does not exist".into()],
    }
}

pub(crate) fn changed(dry_run: bool) -> Changed {
    let change = |name: &str, change, selects: &[&str]| PolicyChange {
        name: name.into(),
        change,
        selects: texts(selects),
    };
    Changed {
        generation: 7,
        dry_run,
        policies: vec![
            change("default/db", Change::Created, &["default/db", "default/db-2"]),
            change("default/idle", Change::Configured, &[]),
            change("default/old", Change::Deleted, &[]),
            change("default/same", Change::Unchanged, &["default/web"]),
        ],
        confirm_until: None,
        entries_before: 12,
        entries_after: 20,
    }
}

/// Edges of the flows that `observe` shows.
pub(crate) fn history() -> History {
    let edges = flows().into_iter().enumerate().map(|(at, flow)| HistoryEdge {
        first_seen: "2026-11-22T11:00:00.000000000Z".into(),
        last_seen: flow.time,
        traffic: if flow.verdict == "DROPPED" {
            HistoryTraffic::default()
        } else {
            HistoryTraffic {
                opened: 3,
                closed: 3,
                source_bytes: 1_200,
                destination_bytes: 65_000,
                ..Default::default()
            }
        },
        verdict: flow.verdict,
        drop_reason_desc: flow.drop_reason_desc,
        traffic_direction: flow.traffic_direction,
        source: flow.source,
        destination: flow.destination,
        l4: flow.l4,
        decided_by: flow.decided_by,
        verdicts: 10 * at as u64 + 1,
    });
    History { edges: edges.collect(), more: false }
}
