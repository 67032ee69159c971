//! Events and counters in, words and numbers out.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::abi;
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowEvent, FlowKey, Outcome};
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::id::{CgroupId, IdentityId, RuleId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Direction, Tier, Word};
use proptest::prelude::*;
use tokio::sync::watch;

use super::metrics::{Exporter, Gauges, KernelSample, METRICS};
use super::*;
use crate::domain::labels::LabelSet;
use crate::domain::names::Names;
use crate::domain::policy::model::{PolicyKey, RuleDirection, RuleKey};
use crate::domain::registry::IdentityKey;
use crate::domain::workload::WorkloadKey;

const WEB: u32 = 256;
const DB: u32 = 257;
const BATCH: u32 = 258;

/// `web` is one workload in cgroup 11, `db` has ten, `batch` has no label that names it.
fn names() -> Names {
    let labels = |pairs: &[(&str, &str)]| {
        LabelSet(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    };
    let identity = |labels| IdentityKey { namespace: "shop".into(), labels };
    let workload = |name: String| WorkloadKey { namespace: "shop".into(), name };
    let rule = |index| RuleKey {
        policy: PolicyKey { namespace: "shop".into(), name: "db".into() },
        direction: RuleDirection::Ingress,
        index,
    };
    Names {
        identities: [
            (IdentityId(WEB), identity(labels(&[("app", "web"), ("tier", "front")]))),
            (IdentityId(DB), identity(labels(&[("app", "db")]))),
            (IdentityId(BATCH), identity(labels(&[("job", "nightly")]))),
        ]
        .into(),
        workloads: [
            (IdentityId(WEB), vec![workload("web".into())]),
            (IdentityId(DB), (0..10).map(|count| workload(format!("db-{count}"))).collect()),
        ]
        .into(),
        cgroups: [(CgroupId(11), workload("web".into()))].into(),
        rules: [(RuleId(1), (rule(None), None)), (RuleId(2), (rule(Some(0)), Some("from-api".into())))]
            .into(),
    }
}

fn pipeline() -> Pipeline {
    // A receiver keeps the last value when the sender is gone.
    Pipeline::new(watch::channel(Arc::new(names())).1, "host-1".into())
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
    let flow = pipeline.recent(1).remove(0);
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:25.000000123Z",
        "verdict": "DROPPED",
        "drop_reason_desc": "POLICY_DENIED",
        "IP": {"destination": "127.0.0.1", "ipVersion": "IPv4"},
        "l4": {"protocol": "TCP", "destination_port": 5432},
        "source": {"identity": WEB, "namespace": "shop", "labels": ["app=web", "tier=front"], "workloads": ["web"],
                   "cgroup_id": 11},
        "destination": {"identity": DB, "namespace": "shop", "labels": ["app=db"],
                        "workloads": ["db-0", "db-1", "db-2", "db-3", "db-4", "db-5", "db-6", "db-7", "(2 more)"],
                        "cgroup_id": 0},
        "traffic_direction": "INGRESS",
        "decided_by": {"namespace": "shop", "name": "db", "kind": "TrafficPolicy", "rule": "ingress (isolated)"},
        "errno": "ECONNREFUSED",
        "hook": "connect4",
        "generation": 7,
        "socket_cookie": 99,
        "process": {"pid": 1234, "uid": 33, "comm": "curl"},
        "node_name": "host-1",
    });
    assert_eq!(serde_json::to_value(&*flow).unwrap(), expected);
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
    let flows = pipeline.recent(9);
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
    pipeline.record(&[FlowEvent { cookie: 1, ..event() }]);
    let told = HISTORY as u64 + 11;
    assert_eq!(pipeline.counts(), ReadCounts { read: told + 5, told, undecodable: 5 });
    assert_eq!(pipeline.recent(usize::MAX).len(), HISTORY);
    let last: Vec<u64> = pipeline.recent(2).iter().map(|flow| flow.socket_cookie).collect();
    assert_eq!(last, [99, 1], "oldest first");
}

#[tokio::test]
async fn a_slow_follower_loses_flows_and_is_told_how_many() {
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};
    let pipeline = pipeline();
    let mut follower = pipeline.live().subscribe();
    let sent = 1_500_u64;
    for cookie in 0..sent {
        pipeline.record(&[FlowEvent { cookie, ..event() }]);
    }
    let Err(RecvError::Lagged(lost)) = follower.recv().await else {
        panic!("a follower that far behind lags")
    };
    let mut got = 0;
    while follower.try_recv().is_ok() {
        got += 1;
    }
    assert_eq!(follower.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(lost + got, sent);
    assert_eq!(pipeline.counts().told, sent);
}

fn key(
    subject: u32,
    peer: u32,
    direction: Direction,
    outcome: Outcome,
    reason: Reason,
    rule: u32,
) -> FlowKey {
    FlowKey {
        subject,
        peer,
        rule,
        port: 5432,
        protocol: 6,
        reason: reason as u8,
        direction: direction as u8,
        outcome: outcome as u8,
        reserved: 0,
    }
}

fn render(exporter: &Exporter, counters: Vec<(FlowKey, u64)>) -> String {
    let mut stats = [0; Stat::COUNT];
    stats[Stat::EventsLost as usize] = 4;
    let kernel = KernelSample { counters, stats, hooks: vec![Hook::Connect4] };
    let gauges = Gauges {
        version: "1.2.3",
        start_seconds: 1.5,
        ready: true,
        problems: [("source", 2)].into(),
        generation: 7,
        endpoints: [("bound", 3)].into(),
        repairs: [("pin", 2)].into(),
        foreign: [("connect4", 1)].into(),
        revocation: metrics::Revocation {
            destroyed: [((6, Reason::Isolated as u8), 5)].into(),
            ..metrics::Revocation::default()
        },
        ..Gauges::default()
    };
    let read = ReadCounts { read: 11, told: 9, undecodable: 2 };
    exporter.render(Some(&kernel), &names(), &gauges, read, 1)
}

#[test]
fn counters_become_series_with_source_and_destination() {
    let text = render(
        &Exporter::default(),
        vec![
            (key(WEB, DB, Direction::Egress, Outcome::Forwarded, Reason::AllowedByDefault, 0), 5),
            (key(DB, WEB, Direction::Ingress, Outcome::Dropped, Reason::Isolated, 1), 3),
            (key(DB, BATCH, Direction::Ingress, Outcome::Forwarded, Reason::AllowedByRule, 2), 2),
            (key(IdentityId::HOST.0, DB, Direction::Egress, Outcome::Audit, Reason::DeniedByRule, 77), 1),
        ],
    );
    for line in [
        r#"enforcer_policy_verdicts_total{action="forwarded",match="none",direction="egress",source="web",source_namespace="shop",destination="db",destination_namespace="shop",protocol="TCP",port="5432",policy="",rule=""} 5"#,
        r#"enforcer_policy_verdicts_total{action="dropped",match="none",direction="ingress",source="web",source_namespace="shop",destination="db",destination_namespace="shop",protocol="TCP",port="5432",policy="shop/db",rule="ingress (isolated)"} 3"#,
        r#"enforcer_policy_verdicts_total{action="forwarded",match="all",direction="ingress",source="job=nightly",source_namespace="shop",destination="db",destination_namespace="shop",protocol="TCP",port="5432",policy="shop/db",rule="ingress[0]"} 2"#,
        r#"enforcer_policy_verdicts_total{action="audit",match="all",direction="egress",source="reserved:host",source_namespace="",destination="db",destination_namespace="shop",protocol="TCP",port="5432",policy="",rule="rule 77"} 1"#,
        r#"enforcer_drop_total{reason="POLICY_DENIED",protocol="TCP",direction="ingress"} 3"#,
        r#"enforcer_lost_events_total{source="ring"} 4"#,
        r#"enforcer_lost_events_total{source="malformed"} 3"#,
        r"enforcer_events_read_total 11",
        r#"enforcer_kernel_stats_total{stat="events_lost"} 4"#,
        r#"enforcer_hook_attached{hook="connect4"} 1"#,
        r#"enforcer_hook_attached{hook="connect6"} 0"#,
        r#"enforcer_map_entries{map_name="counters"} 4"#,
        r#"enforcer_map_capacity{map_name="bindings"} 65536"#,
        r#"enforcer_policy_generation{state="enforced"} 7"#,
        r#"enforcer_degraded{reason="source"} 2"#,
        r#"enforcer_build_info{version="1.2.3"} 1"#,
        "enforcer_ready 1",
        "process_start_time_seconds 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
    }
}

#[test]
fn every_defined_metric_is_there_and_well_named() {
    let text = render(
        &Exporter::default(),
        vec![(key(WEB, DB, Direction::Egress, Outcome::Dropped, Reason::Isolated, 1), 1)],
    );
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == metrics::Kind::Counter, "{}", metric.name);
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
    }
    let defined: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        assert!(defined.contains(&line.split(' ').next().unwrap()), "{line}");
    }
}

#[test]
fn without_the_kernel_the_agent_speaks_for_itself() {
    let text = Exporter::default().render(
        None,
        &names(),
        &Gauges { policies: 3, ..Gauges::default() },
        ReadCounts::default(),
        0,
    );
    assert!(text.contains("enforcer_kernel_readable 0") && text.contains("enforcer_policies 3"), "{text}");
    assert!(!text.contains("enforcer_policy_verdicts_total"));
}

/// Series of verdicts: labels -> count.
fn series(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.strip_prefix("enforcer_policy_verdicts_total"))
        .map(|line| {
            let (labels, count) = line.rsplit_once(' ').unwrap();
            (labels.to_owned(), count.parse().unwrap())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the budget: no count is lost, no series comes back after it was folded, and none falls.
    #[test]
    fn sums_stay_exact_beyond_the_budget(
        rows in proptest::collection::btree_map(0..40_u16, 1..100_u64, 1..30),
        more in proptest::collection::btree_map(0..40_u16, 1..100_u64, 1..30),
        budget in 0..20_usize,
    ) {
        let exporter = Exporter::new(budget);
        let counters = |rows: &BTreeMap<u16, u64>| -> Vec<(FlowKey, u64)> {
            let base = key(WEB, DB, Direction::Egress, Outcome::Forwarded, Reason::AllowedByDefault, 0);
            rows.iter().map(|(port, count)| (FlowKey { port: *port, ..base }, *count)).collect()
        };
        let first = series(&render(&exporter, counters(&rows)));
        let mut grown = rows.clone();
        for (port, count) in &more {
            *grown.entry(*port).or_default() += count;
        }
        let second = series(&render(&exporter, counters(&grown)));
        prop_assert_eq!(first.values().sum::<u64>(), rows.values().sum::<u64>());
        prop_assert_eq!(second.values().sum::<u64>(), grown.values().sum::<u64>());
        prop_assert!(second.len() <= budget + 1);
        for (labels, count) in &first {
            // The overflow may shrink to nothing only if nothing was ever folded, which `first` shows.
            prop_assert!(second.get(labels).is_some_and(|now| now >= count), "{} fell", labels);
        }
    }
}
