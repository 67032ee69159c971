//! From the kernel's counters to edges with names.

use std::collections::BTreeMap;

use enforcer_common::abi::flow::{FlowKey, Outcome, Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;
use enforcer_common::id::IdentityId;
use enforcer_common::verdict::Direction;

use super::names::short;
use crate::domain::canary;
use crate::domain::edges::{Counts, Edge, Edges, Ends};
use crate::domain::flow::protocol_name;
use crate::domain::names::Names;

/// Client, server, port and protocol, as numbers.
type Key = (u32, u32, u16, u8);

/// All edges. `name_labels` are the labels by which workloads are called.
pub fn edges(
    counters: &[(FlowKey, u64)],
    traffic: &[(TrafficKey, Traffic)],
    names: &Names,
    name_labels: &[String],
) -> Edges {
    let mut found: BTreeMap<Key, Counts> = BTreeMap::new();
    verdicts(counters, &mut found);
    carried(traffic, &mut found);
    let mut shorts: BTreeMap<u32, String> = BTreeMap::new();
    let mut name = |id: u32| {
        let called = || match short(names, IdentityId(id), name_labels) {
            (namespace, name) if namespace.is_empty() => name,
            (namespace, name) => format!("{namespace}/{name}"),
        };
        shorts.entry(id).or_insert_with(called).clone()
    };
    let mut named: BTreeMap<Ends, Counts> = BTreeMap::new();
    for ((source, destination, port, protocol), counts) in found {
        let (source, destination) = (name(source), name(destination));
        let ends = Ends { source, destination, port, protocol: protocol_name(protocol) };
        named.entry(ends).or_default().add(&counts);
    }
    Edges { edges: named.into_iter().map(|(ends, counts)| Edge { ends, counts }).collect() }
}

fn verdicts(counters: &[(FlowKey, u64)], found: &mut BTreeMap<Key, Counts>) {
    // A flow that both ends let through has a verdict of each.
    let mut allowed: BTreeMap<Key, [u64; 2]> = BTreeMap::new();
    for (key, count) in counters.iter().filter(|(key, _)| !canary::is_one_of(key.subject, key.peer)) {
        let ingress = key.direction == Direction::Ingress as u8;
        let (source, destination) = if ingress { (key.peer, key.subject) } else { (key.subject, key.peer) };
        let edge = (source, destination, key.port, key.protocol);
        match Outcome::from_code(key.outcome) {
            Some(Outcome::Forwarded) => allowed.entry(edge).or_default()[usize::from(ingress)] += count,
            Some(Outcome::Dropped) => found.entry(edge).or_default().denied += count,
            Some(Outcome::Audit) => found.entry(edge).or_default().audited += count,
            None => {}
        }
    }
    for (edge, [egress, ingress]) in allowed {
        let counts = found.entry(edge).or_default();
        let refused = counts.denied;
        // What the server's policy refused the client's had let through.
        counts.allowed = egress.saturating_sub(refused).max(ingress);
    }
}

fn carried(traffic: &[(TrafficKey, Traffic)], found: &mut BTreeMap<Key, Counts>) {
    let mut ends: BTreeMap<Key, [Traffic; 2]> = BTreeMap::new();
    for (key, row) in traffic {
        let serves = key.role == Role::Server as u8;
        let (source, destination) = if serves { (key.peer, key.subject) } else { (key.subject, key.peer) };
        let edge = (source, destination, key.port, key.protocol);
        ends.entry(edge).or_insert([Traffic::NONE; 2])[usize::from(serves)].add(row);
    }
    for (edge, [client, server]) in ends {
        // Both ends may be here, and have counted the same.
        let one = if client.opened + client.packets_sent + client.packets_received
            >= server.opened + server.packets_sent + server.packets_received
        {
            client
        } else {
            server
        };
        let counts = found.entry(edge).or_default();
        counts.opened = one.opened;
        counts.closed = one.closed;
        counts.bytes = one.bytes_sent + one.bytes_received;
        counts.round_trip_microseconds = one.rtt_microseconds;
    }
}
