//! Counters of the kernel, as series.

use std::collections::BTreeMap;

use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowKey, Outcome, Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;
use enforcer_common::hook::Hook;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Direction;
use proptest::prelude::*;

use super::super::metrics::{Exporter, Gauges, KernelSample, Kind, METRICS, Revocation};
use super::super::{ReadCounts, audit, history};
use super::{BATCH, DB, WEB, names};

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

fn render(exporter: &Exporter, counters: Vec<(FlowKey, u64)>) -> String {
    render_with(exporter, counters, vec![carried(WEB, DB, 6, 5432, Role::Client)])
}

fn render_with(
    exporter: &Exporter,
    counters: Vec<(FlowKey, u64)>,
    traffic: Vec<(TrafficKey, Traffic)>,
) -> String {
    let mut stats = [0; Stat::COUNT];
    stats[Stat::EventsLost as usize] = 4;
    let kernel = KernelSample { counters, traffic, stats, hooks: vec![Hook::Connect4] };
    let gauges = Gauges {
        audit: Some(audit::Status::default()),
        history: Some(history::Status::default()),
        version: "1.2.3",
        start_seconds: 1.5,
        ready: true,
        problems: [("source", 2)].into(),
        generation: 7,
        endpoints: [("bound", 3)].into(),
        unguarded: [("af_packet", 1), ("af_vsock", 0)].into(),
        repairs: [("pin", 2)].into(),
        foreign: [("connect4", 1)].into(),
        revocation: Revocation {
            destroyed: [((6, Reason::Isolated as u8), 5)].into(),
            ..Revocation::default()
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
        r#"enforcer_build_info{version="1.2.3"} 1"#,
        "enforcer_ready 1",
        "process_start_time_seconds 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
    }
}

#[test]
fn traffic_is_told_by_role_and_only_tcp_has_connections() {
    let rows = vec![
        carried(WEB, DB, 6, 5432, Role::Client),
        carried(DB, WEB, 6, 5432, Role::Server),
        carried(BATCH, IdentityId::WORLD.0, 17, 53, Role::Client),
    ];
    let text = render_with(&Exporter::default(), Vec::new(), rows);
    let web = r#"source="web",source_namespace="shop",destination="db",destination_namespace="shop",protocol="TCP",port="5432""#;
    let dns = r#"source="job=nightly",source_namespace="shop",destination="reserved:world",destination_namespace="",protocol="UDP",port="53""#;
    for (name, value) in [
        ("enforcer_connections_opened_total", "5"),
        ("enforcer_connections_closed_total", "4"),
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
    let exporter = Exporter::new(10, 1);
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
        &Exporter::default(),
        vec![(key(WEB, DB, Direction::Egress, Outcome::Dropped, Reason::Isolated, 1), 1)],
    );
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
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
        let exporter = Exporter::new(budget, 1);
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
