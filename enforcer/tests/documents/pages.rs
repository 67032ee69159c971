//! What the pages of the documentation show is what the language takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use enforcer::config::Config;
use enforcer::domain::SocketKind;
use enforcer::domain::answer::answer_socket;
use enforcer::domain::cluster_file::Cluster;
use enforcer::domain::expectation;
use enforcer::domain::offline::{End, Offline};
use enforcer::domain::policy::diagnostic::Code;
use enforcer::domain::policy::model::Policy;
use enforcer::domain::timestamp::Timestamp;
use enforcer::domain::workload::WorkloadKey;
use enforcer::domain::workload_file::parse_workloads;

use super::{check_one, file};

#[test]
fn every_whole_example_of_the_manual_is_a_policy() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md")).unwrap();
    let examples = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut kinds = BTreeSet::new();
    for text in examples.filter(|text| text.starts_with("apiVersion:")) {
        let outcome = check_one(text);
        assert!(outcome.diagnostics.is_empty(), "{text}\n{:?}", outcome.diagnostics);
        kinds.extend(outcome.policies.iter().map(|checked| checked.policy.key.kind.label()));
    }
    assert_eq!(kinds.len(), 4, "an example of each kind: {kinds:?}");
}

/// Those of the page for plain hosts are what it says they are.
#[test]
fn every_whole_example_for_hosts_is_accepted() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/host.md")).unwrap();
    let (mut policies, mut workloads) = (0, 0);
    for text in page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        if text.starts_with("apiVersion:") {
            let outcome = check_one(text);
            assert!(outcome.diagnostics.is_empty(), "{text}\n{:?}", outcome.diagnostics);
            policies += 1;
        } else if text.starts_with("workloads:") {
            let outcome = parse_workloads(&file(text));
            assert!(outcome.diagnostics.is_empty(), "{text}\n{:?}", outcome.diagnostics);
            workloads += 1;
        }
    }
    assert_eq!((policies, workloads), (3, 1));
}

#[test]
fn the_manual_lists_every_code() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md")).unwrap();
    for code in Code::ALL {
        let row = format!("| `{}` | {} |", code.slug(), code.text());
        assert!(manual.contains(&row), "docs/policy.md lacks the row\n{row}");
    }
}

/// A policy of the manual as it stands there, by a part of it, and what becomes of which flows under it. Where the manual shows
/// a part of a document, the rest is put around it.
const JUDGED: &[(&str, &str)] = &[
    (
        "name: db-only-from-api",
        "workloads: [{name: db, labels: {app: db}}, {name: api, labels: {app: api}}, {name: web, labels: {app: web}}]
flows:
- {from: api, to: db, port: 5432, verdict: FORWARDED}
- {from: api, to: db, port: 5433, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: web, to: db, port: 5432, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: db, to: web, port: 80, verdict: FORWARDED}",
    ),
    (
        "types: [echo-request]",
        "workloads: [{name: a}, {name: b}]
flows:
- {from: a, to: b, protocol: ICMP, port: 8, verdict: FORWARDED}
- {from: a, to: b, protocol: ICMP, port: 5, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: a, to: b, port: 80, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}",
    ),
    (
        "container: main",
        "workloads: [{name: web, labels: {app: web}, containers: [main, proxy]}, {name: db}]
flows:
- {from: default/web/main, to: db, port: 15001, verdict: FORWARDED}
- {from: default/web/main, to: db, port: 80, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: default/web/proxy, to: db, port: 80, verdict: FORWARDED}",
    ),
    (
        "  subject: {}\n  ingress: []\n  egress: []",
        "workloads: [{name: a}, {name: b, namespace: other}, {name: c, namespace: other}]
flows:
- {from: a, to: other/b, port: 80, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: other/b, to: a, port: 80, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: other/b, to: other/c, port: 80, verdict: FORWARDED}",
    ),
    (
        "app: migration",
        "workloads: [{name: db}, {name: job, labels: {app: migration}}]
flows:
- {from: job, to: db, port: 80, verdict: FORWARDED}
- {from: db, to: job, port: 80, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}",
    ),
    (
        "        - port: 8080",
        "workloads: [{name: a}, {name: b}]
flows:
- {from: host, to: a, port: 8080, verdict: FORWARDED}
- {from: 192.0.2.1, to: a, port: 8080, verdict: FORWARDED}
- {from: b, to: a, port: 80, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}",
    ),
    (
        "trust: guest",
        "workloads: [{name: a}, {name: g, namespace: far, labels: {trust: guest}}]
flows:
- {from: far/g, to: a, port: 80, verdict: DROPPED, reason: POLICY_DENY, errno: ECONNREFUSED}
- {from: a, to: far/g, port: 80, verdict: FORWARDED}",
    ),
    (
        "name: vault",
        "workloads:
- {name: v, namespace: vault, labels: {app: vault}, ports: [{name: https, port: 8443}]}
- {name: p, namespace: payments, serviceAccount: teller}
- {name: q, namespace: shop, serviceAccount: teller}
flows:
- {from: payments/p, to: vault/v, port: 8443, verdict: FORWARDED}
- {from: payments/p, to: vault/v, port: 443, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: shop/q, to: vault/v, port: 8443, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}",
    ),
    (
        "- port: postgres",
        "workloads:
- {name: db, namespace: shop, labels: {app: db}, ports: [{name: postgres, port: 5432}]}
- {name: web, namespace: shop, labels: {app: web}}
- {name: far, labels: {app: web}}
flows:
- {from: shop/web, to: shop/db, port: 5432, verdict: FORWARDED}
- {from: shop/web, to: shop/db, port: 5433, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}
- {from: far, to: shop/db, port: 5432, verdict: DROPPED, reason: POLICY_DENIED, errno: EPERM}",
    ),
    (
        "no-guests",
        "namespaces: [{name: lobby, labels: {kind: guest}}]
workloads: [{name: g, namespace: lobby}, {name: a}]
flows:
- {from: lobby/g, to: a, port: 80, verdict: DROPPED, reason: POLICY_DENY, errno: EPERM}
- {from: a, to: lobby/g, port: 80, verdict: FORWARDED}",
    ),
];

/// The document of which an example is a part.
fn whole(example: &str) -> String {
    let head = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: example}\n";
    match example {
        _ if example.starts_with("apiVersion:") => example.to_owned(),
        _ if example.starts_with("spec:") => format!("{head}{example}"),
        _ => format!("{head}spec:\n  subject: {{}}\n{example}"),
    }
}

/// Who may create which kinds under the example of rules about sockets.
fn creates_as_it_says(policies: Vec<Policy>) {
    let scene = "workloads:
- {name: prober, namespace: monitoring, labels: {app: prober}}
- {name: grafana, namespace: monitoring}
- {name: web, namespace: shop}
flows:
- {from: shop/web, to: monitoring/prober, port: 80, verdict: FORWARDED}";
    let nothing = Cluster::default();
    let cluster = expectation::parse(&file(scene), &nothing).unwrap().cluster(&nothing);
    let offline = Offline::new(policies, &cluster, Timestamp::EARLIEST).unwrap();
    let setting = Config::default().socket_kinds();
    for (namespace, name, kind, expected) in [
        (
            "monitoring",
            "prober",
            SocketKind::Raw,
            "FORWARDED clustertrafficpolicy/diagnosis sockets[0] (ping)",
        ),
        (
            "monitoring",
            "prober",
            SocketKind::Ping,
            "FORWARDED clustertrafficpolicy/diagnosis sockets[0] (ping)",
        ),
        ("monitoring", "prober", SocketKind::Sctp, "DROPPED SOCKET_KIND EPERM"),
        ("monitoring", "prober", SocketKind::Tcp, "FORWARDED"),
        ("monitoring", "grafana", SocketKind::Raw, "DROPPED SOCKET_KIND EPERM"),
        ("shop", "web", SocketKind::Mptcp, "DROPPED shop/plain-tcp sockets[0] (no-mptcp) POLICY_DENY EACCES"),
        ("shop", "web", SocketKind::Tcp, "FORWARDED"),
    ] {
        let end = End::Workload(WorkloadKey { namespace: namespace.into(), name: name.into() });
        let found = answer_socket(&offline, &end, kind, setting & kind.bit() != 0);
        let side = &found.ends[0];
        let mut text = found.verdict.clone();
        if let (Some(rule), Some(name)) = (&side.rule, &side.rule_name) {
            write!(text, " {rule} ({name})").unwrap();
        }
        if let Some(errno) = &side.errno {
            write!(text, " {} {errno}", side.reason).unwrap();
        }
        assert_eq!(text, expected, "{end} {}", kind.name());
    }
}

#[test]
fn every_example_of_the_manual_does_what_it_says() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md")).unwrap();
    let examples: Vec<&str> =
        manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let (mut judged, mut listening, mut sockets, mut workloads) = (0, 0, 0, 0);
    for example in &examples {
        if example.starts_with("workloads:") || example.starts_with("namespaces:") {
            // Beside `workloads` the file may describe the cluster.
            let text =
                if example.starts_with("workloads:") { String::new() } else { "workloads: []\n".into() };
            let found = parse_workloads(&file(&(text + example)));
            assert!(found.diagnostics.is_empty(), "{example}\n{:?}", found.diagnostics);
            workloads += 1;
            continue;
        }
        // Before anything in it is over.
        let outcome = check_one(&whole(example));
        assert!(outcome.diagnostics.is_empty(), "{example}\n{:?}", outcome.diagnostics);
        let policies: Vec<_> = outcome.policies.into_iter().map(|checked| checked.policy).collect();
        if example.starts_with("  listen:") {
            assert_eq!(policies[0].listen.as_ref().map(Vec::len), Some(1));
            listening += 1;
            continue;
        }
        if example.contains("  sockets:") {
            creates_as_it_says(policies);
            sockets += 1;
            continue;
        }
        let about = JUDGED.iter().filter(|(part, _)| example.contains(part)).collect::<Vec<_>>();
        let [(_, expected)] = about.as_slice() else { panic!("{} expectations for\n{example}", about.len()) };
        let nothing = Cluster::default();
        let expectation = expectation::parse(&file(expected), &nothing)
            .unwrap_or_else(|diagnostics| panic!("{expected}\n{diagnostics:?}"));
        let cluster = expectation.cluster(&nothing);
        let offline = Offline::new(policies, &cluster, Timestamp::EARLIEST).unwrap();
        let rules: BTreeMap<_, _> = offline.registry().rules().map(|(key, id)| (id, key.clone())).collect();
        for flow in &expectation.flows {
            let found = flow.difference(&offline.judge(&flow.flow()), |id| rules.get(&id).cloned());
            assert_eq!(found, None, "line {} of\n{expected}\nunder\n{example}", flow.line);
        }
        judged += 1;
    }
    let found = (judged, listening, sockets, workloads);
    assert_eq!(found, (JUDGED.len(), 1, 1, 2), "every example is of some kind");
}
