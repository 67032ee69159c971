//! Many distinct flows: what is kept of them is bounded, and nothing is lost that is not told.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::abi;
use enforcer_common::abi::flow::{FlowEvent, FlowKey, Outcome, Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::id::RuleId;
use enforcer_common::limits;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Direction, Tier, Word};
use tokio::sync::watch;

use super::super::*;
use super::series::{exporter, render_with};
use super::{DB, WEB, names};

/// How many flows, and how many of them the kernel's maps hold at a time: `ENFORCER_FLOWS` says another number, with maps
/// that are full.
fn sizes() -> (usize, usize) {
    let asked = std::env::var("ENFORCER_FLOWS").ok().and_then(|text| text.parse().ok());
    asked.map_or((limits::COUNTERS / 2, limits::COUNTERS / 8), |flows| (flows, limits::COUNTERS))
}

/// Series of workloads and rules that are told apart.
const BUDGET: usize = 1_000;

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Port and host part of an address that no other number has.
fn distinct(number: usize) -> (u16, u32) {
    (u16::try_from(number % 60_000).unwrap() + 1, u32::try_from(number / 60_000).unwrap())
}

fn event(number: usize) -> FlowEvent {
    let (port, host) = distinct(number);
    let address = Address::v4(0xc633_6400 + host);
    FlowEvent {
        version: u16::try_from(abi::VERSION).unwrap(),
        size: 0,
        hook: Hook::Connect4 as u8,
        protocol: 6,
        port,
        time: number as u64,
        generation: 7,
        cookie: number as u64,
        subject_cgroup: 11,
        peer_cgroup: 0,
        address_high: address.high,
        address_low: address.low,
        egress: Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE).0,
        ingress: Word::NONE.0,
        subject: WEB,
        peer: DB,
        pid: 1,
        uid: 2,
        direction: Direction::Egress as u8,
        outcome: Outcome::Forwarded as u8,
        errno: 0,
        caller: 0,
        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        role: 1,
        reserved: 0,
        client_port: 40_000,
        reserved2: 0,
    }
}

fn counted(number: usize) -> (FlowKey, u64) {
    let (port, host) = distinct(number);
    let key = FlowKey {
        subject: WEB,
        peer: DB + host,
        rule: 0,
        port,
        protocol: 6,
        reason: Reason::AllowedByDefault as u8,
        direction: Direction::Egress as u8,
        outcome: Outcome::Forwarded as u8,
        reserved: 0,
    };
    (key, 1)
}

fn carried(number: usize) -> (TrafficKey, Traffic) {
    let (port, host) = distinct(number);
    let key = TrafficKey {
        subject: WEB,
        peer: DB + host,
        port,
        protocol: 6,
        role: Role::Client as u8,
        reserved: 0,
    };
    (key, Traffic { bytes_sent: 10, ..Traffic::NONE })
}

/// The sum of a counter over all its series.
fn sum(text: &str, name: &str) -> (usize, f64) {
    let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let values: Vec<f64> = series.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
    (values.len(), values.iter().sum())
}

#[test]
fn distinct_flows_take_bounded_memory() {
    let pipeline = Pipeline::new(watch::channel(Arc::new(names())).1, "host-1".into());
    let (flows, rows) = sizes();
    let exporter = exporter(BUDGET);
    let mut memory = BTreeMap::new();
    for first in (0..flows).step_by(rows) {
        let batch = first..flows.min(first + rows);
        // As they come out of the ring.
        for start in batch.clone().step_by(1_024) {
            let events: Vec<FlowEvent> = (start..batch.end.min(start + 1_024)).map(event).collect();
            pipeline.record(&events);
        }
        // Maps with rows that nobody has seen before.
        let counters: Vec<_> = batch.clone().map(counted).collect();
        let traffic: Vec<_> = batch.clone().map(carried).collect();
        let edges = super::super::edges::edges(&counters, &traffic, &names(), &[]);
        assert_eq!(edges.edges.len(), batch.len());
        drop(edges);
        let text = render_with(&exporter, counters, traffic);
        let (series, verdicts) = sum(&text, "enforcer_policy_verdicts_total");
        assert!(series <= BUDGET, "{series} series");
        let told = u32::try_from(batch.len()).unwrap();
        assert!(verdicts >= f64::from(told), "{verdicts} verdicts are told of {}", batch.len());
        drop(text);
        memory.insert(batch.end, resident());
    }
    println!("resident KiB by flows so far: {memory:?}");
    let counts = pipeline.counts();
    assert_eq!((counts.told, counts.undecodable), (flows as u64, 0));
    assert_eq!(pipeline.page(0, usize::MAX).flows.len(), HISTORY);
    let (first, last) = (memory.values().next().unwrap(), memory.values().next_back().unwrap());
    assert!(*last < first + 64 * 1_024, "it grows with what it has seen: {memory:?}");
}
