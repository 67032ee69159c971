//! One of everything that is printed.

use enforcer::domain::command::{
    Change, Changed, EndpointInfo, IdentityInfo, PolicyChange, PolicyInfo, Status,
};
use enforcer::domain::flow::{Flow, FlowEndpoint, FlowIp, FlowL4, FlowProcess, FlowRule};
use enforcer::domain::workload::EndpointState;

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
        ip: FlowIp { destination: "127.0.0.1".into(), version: "IPv4".into() },
        l4: FlowL4 { protocol: "TCP".into(), destination_port: 5432 },
        source: end(256, "default", "app=web", &["web"]),
        destination: end(258, "default", "app=db", &["db"]),
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

/// Denied, allowed by a rule, allowed by default to the world over IPv6, audited, and with an evil command name.
pub(crate) fn flows() -> Vec<Flow> {
    let denied = denied();
    let allowed = Flow {
        time: "2026-02-07T02:03:09.005Z".into(),
        verdict: "FORWARDED".into(),
        drop_reason_desc: "ALLOWED_BY_RULE".into(),
        l4: FlowL4 { protocol: "TCP".into(), destination_port: 8080 },
        destination: end(257, "default", "app=api", &["api-1", "api-2"]),
        decided_by: denied.decided_by.clone().map(|rule| FlowRule { rule: "ingress[0]".into(), ..rule }),
        errno: None,
        ..denied.clone()
    };
    let world = Flow {
        verdict: "FORWARDED".into(),
        drop_reason_desc: "ALLOWED_BY_DEFAULT".into(),
        ip: FlowIp { destination: "2001:db8::1".into(), version: "IPv6".into() },
        l4: FlowL4 { protocol: "UDP".into(), destination_port: 53 },
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
    vec![denied, allowed, world, audited, evil]
}

pub(crate) fn policies() -> Vec<PolicyInfo> {
    let db = PolicyInfo {
        namespace: "default".into(),
        name: "db-only-from-api".into(),
        kind: "TrafficPolicy".into(),
        mode: "enforce".into(),
        origin: "pushed".into(),
        rules: 1,
        isolates: texts(&["ingress"]),
        selects: texts(&["default/db"]),
        text: "# who may ask the database\nkind: TrafficPolicy".into(),
    };
    let audit = PolicyInfo {
        namespace: "shop".into(),
        name: "egress".into(),
        mode: "audit".into(),
        origin: "/etc/enforcer/policies.d/shop.yaml".into(),
        rules: 12,
        isolates: texts(&["ingress", "egress"]),
        selects: Vec::new(),
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
        ingress_policies: Vec::new(),
        egress_policies: texts(&["default/web-egress"]),
    };
    let waiting = EndpointInfo {
        name: "db".into(),
        cgroup_id: None,
        state: EndpointState::WaitingForCgroup,
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

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        state: "enforcing".into(),
        problems: Vec::new(),
        mode: "enforce".into(),
        generation: 7,
        policies: 3,
        entries: 24,
        identities: 5,
        endpoints: 3,
        endpoints_waiting: 0,
        kernel: "6.12.0".into(),
        cgroup_root: "/sys/fs/cgroup".into(),
        pins: "/sys/fs/bpf/enforcer".into(),
        hooks: texts(&["sock_create", "connect4", "connect6", "sendmsg4", "sendmsg6"]),
        notices: Vec::new(),
        unguarded: texts(&["raw and packet sockets are not judged"]),
        uptime_seconds: 192,
    }
}

pub(crate) fn degraded() -> Status {
    Status {
        state: "degraded".into(),
        notices: texts(&["program somebody of another owner runs at hook connect4"]),
        problems: texts(&["the address map is full", "the static source can't be read"]),
        mode: "audit".into(),
        endpoints_waiting: 2,
        hooks: Vec::new(),
        ..status()
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
        entries_before: 12,
        entries_after: 20,
    }
}
