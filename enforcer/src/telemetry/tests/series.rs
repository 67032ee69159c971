//! Counters of the kernel, as series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowKey, Latency, Outcome, Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;
use enforcer_common::hook::Hook;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Direction;
use proptest::prelude::*;

use super::super::metrics::{
    AgentSample, Exporter, Gauges, Histogram, KernelSample, Kind, LABELS, METRICS, Options, Revocation,
};
use super::super::{ReadCounts, audit, history};
use super::{BATCH, DB, WEB, names};
use crate::domain::SeriesLabel;
use crate::domain::labels::LabelSet;
use crate::domain::registry::IdentityKey;

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

fn carried(subject: u32, peer: u32, protocol: u8, port: u16, role: Role) -> (TrafficKey, Traffic) {
    let key = TrafficKey { subject, peer, port, protocol, role: role as u8, reserved: 0 };
    let traffic = Traffic {
        opened: 5,
        closed: 4,
        packets_sent: 30,
        packets_received: 20,
        bytes_sent: 3_000,
        bytes_received: 2_000,
        retransmits: 1,
        rtt_microseconds: 2_500_000,
    };
    (key, traffic)
}

/// With the default options, but for the budget.
pub(super) fn exporter(series: usize) -> Exporter {
    Exporter::new(options(series))
}

fn options(series: usize) -> Options {
    let name_labels = ["app.kubernetes.io/name", "app", "k8s-app"].map(str::to_owned).to_vec();
    Options { series, labels: SeriesLabel::ALL.to_vec(), name_labels }
}

/// Three handshakes of web with db, one of 40 us and two of 2 s, and a round trip that db measured.
fn times() -> Vec<(TrafficKey, Latency)> {
    let (client, _) = carried(WEB, DB, 6, 5432, Role::Client);
    let (server, _) = carried(DB, WEB, 6, 5432, Role::Server);
    let mut seen = Latency { handshake_microseconds: 4_000_040, ..Latency::NONE };
    seen.handshake[6] = 1;
    seen.handshake[21] = 2;
    let mut measured = Latency { round_trip_microseconds: 30, ..Latency::NONE };
    measured.round_trip[5] = 1;
    vec![(client, seen), (server, measured)]
}

fn render(exporter: &Exporter, counters: Vec<(FlowKey, u64)>) -> String {
    render_with(exporter, counters, vec![carried(WEB, DB, 6, 5432, Role::Client)])
}

pub(super) fn render_with(
    exporter: &Exporter,
    counters: Vec<(FlowKey, u64)>,
    traffic: Vec<(TrafficKey, Traffic)>,
) -> String {
    let mut stats = [0; Stat::COUNT];
    stats[Stat::EventsLost as usize] = 4;
    let runs = Some(vec![(Hook::Connect4, 40, Duration::from_micros(10))]);
    let kernel =
        KernelSample { counters, traffic, latency: times(), stats, hooks: vec![Hook::Connect4], runs };
    let mut published = Histogram::default();
    published.observe(Duration::from_millis(3));
    let gauges = Gauges {
        audit: Some(audit::Status::default()),
        history: Some(history::Status::default()),
        version: "1.2.3",
        start_seconds: 1.5,
        ready: true,
        problems: [("source", 2)].into(),
        generation: 7,
        published: published.clone(),
        unpublished: 1,
        endpoints: [("bound", 3)].into(),
        unguarded: [("af_packet", 1), ("af_vsock", 0)].into(),
        repairs: [("pin", 2)].into(),
        foreign: [("connect4", 1)].into(),
        revocation: Revocation {
            destroyed: [((6, Reason::Isolated as u8), 5)].into(),
            ..Revocation::default()
        },
        canary_attempts: [("refused", 2)].into(),
        standing: [("Enforcing", 3)].into(),
        reports: [(("lease", "done"), 4)].into(),
        sources: [(("kubernetes".to_owned(), "Pod".to_owned()), (12, true))].into(),
        ..Gauges::default()
    };
    let read = ReadCounts { read: 14, told: 9, undecodable: 2, canary: 3, missed: 5 };
    let agent = AgentSample { names: &names(), gauges: &gauges, read, malformed: 1, now: Duration::ZERO };
    exporter.render(Some(&kernel), agent)
}

#[test]
fn counters_become_series_with_source_and_destination() {
    let text = render(
        &exporter(10_000),
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
        r"enforcer_events_read_total 14",
        r#"enforcer_kernel_stats_total{stat="events_lost"} 4"#,
        r#"enforcer_kernel_stats_total{stat="traffic_full"} 0"#,
        r#"enforcer_kernel_stats_total{stat="packet_unread"} 0"#,
        r#"enforcer_hook_attached{hook="connect4"} 1"#,
        r#"enforcer_hook_attached{hook="connect6"} 0"#,
        r#"enforcer_map_entries{map_name="counters"} 4"#,
        r#"enforcer_map_entries{map_name="traffic"} 1"#,
        r#"enforcer_map_capacity{map_name="bindings"} 65536"#,
        r#"enforcer_map_capacity{map_name="traffic"} 65536"#,
        r#"enforcer_unguarded_vectors{vector="af_packet"} 1"#,
        r#"enforcer_unguarded_vectors{vector="af_vsock"} 0"#,
        r#"enforcer_policy_generation{state="enforced"} 7"#,
        r#"enforcer_degraded{reason="source"} 2"#,
        r#"enforcer_rule_hits_total{policy="shop/db",rule="ingress (isolated)",action="dropped"} 3"#,
        r#"enforcer_rule_hits_total{policy="",rule="rule 77",action="audit"} 1"#,
        r#"enforcer_flows_total{verdict="FORWARDED",protocol="TCP",direction="egress"} 5"#,
        r#"enforcer_overhead_program_runs_total{program="connect4"} 40"#,
        r#"enforcer_overhead_program_seconds_total{program="connect4"} 0.00001"#,
        "enforcer_overhead_statistics_enabled 1",
        r#"enforcer_identity{type="workload"} 3"#,
        r#"enforcer_identity{type="reserved"} 5"#,
        r#"enforcer_endpoint_state{state="bound"} 3"#,
        r#"enforcer_policy_change_total{outcome="fail"} 1"#,
        r#"enforcer_policy_publish_seconds_bucket{le="0.002048"} 0"#,
        r#"enforcer_policy_publish_seconds_bucket{le="0.004096"} 1"#,
        r#"enforcer_policy_publish_seconds_bucket{le="+Inf"} 1"#,
        "enforcer_policy_publish_seconds_sum 0.003",
        "enforcer_policy_publish_seconds_count 1",
        r#"enforcer_bpf_map_pressure{map_name="counters"} 0.00006103515625"#,
        r#"enforcer_metrics_series{budget="verdicts"} 4"#,
        r#"enforcer_metrics_series_limit{budget="traffic"} 3492"#,
        r#"enforcer_handshake_seconds_bucket{destination="db",destination_namespace="shop",role="client",le="0.000032"} 0"#,
        r#"enforcer_handshake_seconds_bucket{destination="db",destination_namespace="shop",role="client",le="0.000064"} 1"#,
        r#"enforcer_handshake_seconds_bucket{destination="db",destination_namespace="shop",role="client",le="2.097152"} 3"#,
        r#"enforcer_handshake_seconds_bucket{destination="db",destination_namespace="shop",role="client",le="+Inf"} 3"#,
        r#"enforcer_handshake_seconds_sum{destination="db",destination_namespace="shop",role="client"} 4.00004"#,
        r#"enforcer_handshake_seconds_count{destination="db",destination_namespace="shop",role="client"} 3"#,
        r#"enforcer_round_trip_seconds_count{destination="db",destination_namespace="shop",role="server"} 1"#,
        r#"enforcer_metrics_series{budget="latency"} 116"#,
        r#"enforcer_metrics_expired_total{metric="enforcer_sent_bytes_total"} 0"#,
        r#"enforcer_build_info{version="1.2.3"} 1"#,
        r#"enforcer_canary_attempts_total{result="refused"} 2"#,
        r#"enforcer_policy_status{status="Enforcing"} 3"#,
        "enforcer_canary_verdicts_total 0",
        "enforcer_ready 1",
        "process_start_time_seconds 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
    }
}

#[test]
fn the_canary_is_counted_apart() {
    let text = render(
        &exporter(1_000),
        vec![
            (key(WEB, DB, Direction::Egress, Outcome::Dropped, Reason::Isolated, 1), 3),
            (key(IdentityId::CANARY.0, 0, Direction::Egress, Outcome::Dropped, Reason::Canary, 0), 8),
            (key(0, IdentityId::CANARY.0, Direction::Ingress, Outcome::Forwarded, Reason::Canary, 0), 4),
        ],
    );
    assert!(text.contains("\nenforcer_canary_verdicts_total 12\n"), "{text}");
    assert!(
        text.contains(
            "\nenforcer_drop_total{reason=\"POLICY_DENIED\",protocol=\"TCP\",direction=\"egress\"} 3\n"
        ),
        "{text}"
    );
    assert!(!text.contains("CANARY") && !text.contains("reserved:canary"), "{text}");
    assert!(
        text.contains("\nenforcer_map_entries{map_name=\"counters\"} 3\n"),
        "what the map holds is told: {text}"
    );
}

#[test]
fn traffic_is_told_by_role_and_only_tcp_has_connections() {
    let rows = vec![
        carried(WEB, DB, 6, 5432, Role::Client),
        carried(DB, WEB, 6, 5432, Role::Server),
        carried(BATCH, IdentityId::WORLD.0, 17, 53, Role::Client),
    ];
    let text = render_with(&exporter(10_000), Vec::new(), rows);
    let web = r#"source="web",source_namespace="shop",destination="db",destination_namespace="shop",protocol="TCP",port="5432""#;
    let dns = r#"source="job=nightly",source_namespace="shop",destination="reserved:world",destination_namespace="",protocol="UDP",port="53""#;
    for (name, value) in [
        ("enforcer_connections_opened_total", "5"),
        ("enforcer_connections_closed_total", "4"),
        ("enforcer_connections_active", "1"),
        ("enforcer_sent_packets_total", "30"),
        ("enforcer_received_packets_total", "20"),
        ("enforcer_sent_bytes_total", "3000"),
        ("enforcer_received_bytes_total", "2000"),
        ("enforcer_retransmitted_packets_total", "1"),
        ("enforcer_round_trip_seconds_total", "2.5"),
    ] {
        for role in ["client", "server"] {
            let line = format!("{name}{{{web},role=\"{role}\"}} {value}");
            assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
        }
        let datagrams =
            name.contains("packets_total") && !name.contains("retransmitted") || name.contains("bytes");
        let line = format!("{name}{{{dns},role=\"client\"}} {value}");
        assert_eq!(text.lines().any(|found| found == line), datagrams, "{line}\n{text}");
    }
}

#[test]
fn traffic_beyond_the_budget_is_summed_and_what_was_told_stays() {
    let exporter = exporter(30);
    let (first, second) = (carried(WEB, DB, 6, 1, Role::Client), carried(WEB, DB, 6, 2, Role::Client));
    render_with(&exporter, Vec::new(), vec![first]);
    // The newcomer has carried more, and still does not take the place of what was told before.
    let larger = (second.0, Traffic { bytes_sent: 9_000, ..second.1 });
    let text = render_with(&exporter, Vec::new(), vec![larger, first, carried(DB, WEB, 17, 3, Role::Server)]);
    let sent: Vec<&str> =
        text.lines().filter(|line| line.starts_with("enforcer_sent_bytes_total{")).collect();
    let overflow = r#"source="_overflow",source_namespace="",destination="",destination_namespace="""#;
    assert_eq!(sent.len(), 3, "{sent:#?}");
    assert!(sent.iter().any(|line| line.contains(r#"port="1",role="client"} 3000"#)), "{sent:#?}");
    for rest in
        [r#"protocol="TCP",port="",role="client"} 9000"#, r#"protocol="UDP",port="",role="server"} 3000"#]
    {
        let line = format!("enforcer_sent_bytes_total{{{overflow},{rest}");
        assert!(sent.contains(&line.as_str()), "{line}\n{sent:#?}");
    }
}

#[test]
fn every_defined_metric_is_there_and_well_named() {
    let text = render(
        &exporter(10_000),
        vec![(key(WEB, DB, Direction::Egress, Outcome::Dropped, Reason::Isolated, 1), 1)],
    );
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        assert!(!metric.unit.is_empty() && !metric.bound.text().is_empty(), "{}", metric.name);
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
    }
    let defined: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        assert!(defined.contains(&line.split(' ').next().unwrap()), "{line}");
    }
}

#[test]
fn without_the_kernel_the_agent_speaks_for_itself() {
    let text = exporter(10_000).render(
        None,
        AgentSample {
            names: &names(),
            gauges: &Gauges { policies: 3, ..Gauges::default() },
            read: ReadCounts::default(),
            malformed: 0,
            now: Duration::ZERO,
        },
    );
    assert!(text.contains("enforcer_kernel_readable 0") && text.contains("enforcer_policy 3"), "{text}");
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

#[test]
fn labels_are_explained_and_the_explained_are_used() {
    let mut used: Vec<&str> = METRICS.iter().flat_map(|metric| metric.labels).copied().collect();
    used.sort_unstable();
    used.dedup();
    let explained: Vec<&str> = LABELS.iter().map(|(label, _)| *label).collect();
    assert_eq!(explained, used);
}

#[test]
fn what_series_are_not_told_apart_by_is_summed() {
    let counters = || {
        vec![
            (key(WEB, DB, Direction::Egress, Outcome::Forwarded, Reason::AllowedByDefault, 0), 5),
            (key(BATCH, DB, Direction::Egress, Outcome::Forwarded, Reason::AllowedByRule, 2), 2),
            (
                key(
                    BATCH,
                    IdentityId::WORLD.0,
                    Direction::Egress,
                    Outcome::Forwarded,
                    Reason::AllowedByRule,
                    2,
                ),
                1,
            ),
        ]
    };
    let with = |labels: Vec<SeriesLabel>, name_labels: &[&str]| {
        let name_labels = name_labels.iter().map(|label| (*label).to_owned()).collect();
        render(&Exporter::new(Options { series: 100, labels, name_labels }), counters())
    };
    let text = with(vec![SeriesLabel::Namespace], &[]);
    let found = series(&text);
    let total = r#"protocol="TCP",port="",policy="",rule=""}"#;
    let to = |matched: &str, to: &str| {
        format!(
            r#"{{action="forwarded",match="{matched}",direction="egress",source="",source_namespace="shop",{to},{total}"#
        )
    };
    let db = r#"destination="",destination_namespace="shop""#;
    let world = r#"destination="reserved:world",destination_namespace="""#;
    assert_eq!(
        found,
        BTreeMap::from([(to("none", db), 5), (to("all", db), 2), (to("all", world), 1)]),
        "{text}"
    );
    let text = with(SeriesLabel::ALL.to_vec(), &["tier"]);
    assert!(text.contains(r#"source="front""#) && text.contains(r#"destination="app=db""#), "{text}");
}

#[test]
fn label_values_from_strangers_are_escaped() {
    let mut names = names();
    let labels = [("app".to_owned(), "a\"b\\c\nd-\u{1f980}".to_owned())].into();
    names.identities.insert_mut(IdentityId(WEB), Arc::new(IdentityKey::new("shop", LabelSet(labels))));
    let kernel = KernelSample {
        counters: vec![(key(WEB, DB, Direction::Egress, Outcome::Dropped, Reason::Isolated, 1), 1)],
        ..KernelSample::default()
    };
    let agent = AgentSample {
        names: &names,
        gauges: &Gauges::default(),
        read: ReadCounts::default(),
        malformed: 0,
        now: Duration::ZERO,
    };
    let text = exporter(10).render(Some(&kernel), agent);
    assert!(text.contains("source=\"a\\\"b\\\\c\\nd-\u{1f980}\""), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the budget: no count is lost, no series comes back after it was folded, and none falls.
    #[test]
    fn sums_stay_exact_beyond_the_budget(
        rows in proptest::collection::btree_map(0..40_u16, 1..100_u64, 1..30),
        more in proptest::collection::btree_map(0..40_u16, 1..100_u64, 1..30),
        all in 0..50_usize,
    ) {
        let exporter = exporter(all);
        let places = all * 35 / 100;
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
        prop_assert!(second.len() <= places + 1);
        for (labels, count) in &first {
            // The overflow may shrink to nothing only if nothing was ever folded, which `first` shows.
            prop_assert!(second.get(labels).is_some_and(|now| now >= count), "{} fell", labels);
        }
    }
}
