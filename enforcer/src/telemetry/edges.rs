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
    // Of each edge what the source's policy let through, what the destination's did, and what that refused.
    let mut judged: BTreeMap<Key, [u64; 3]> = BTreeMap::new();
    for (key, count) in counters.iter().filter(|(key, _)| !canary::is_one_of(key.subject, key.peer)) {
        let ingress = key.direction == Direction::Ingress as u8;
        let (source, destination) = if ingress { (key.peer, key.subject) } else { (key.subject, key.peer) };
        let edge = (source, destination, key.port, key.protocol);
        match Outcome::from_code(key.outcome) {
            Some(Outcome::Forwarded) => judged.entry(edge).or_default()[usize::from(ingress)] += count,
            Some(Outcome::Dropped) => {
                found.entry(edge).or_default().denied += count;
                judged.entry(edge).or_default()[2] += if ingress { *count } else { 0 };
            }
            Some(Outcome::Audit) => found.entry(edge).or_default().audited += count,
            None => {}
        }
    }
    for (edge, [egress, ingress, refused]) in judged {
        // A flow that both ends let through has a verdict of each, and one that the server's policy refused may have been let
        // through by the client's before. Where one end only is here, the other has said nothing.
        found.entry(edge).or_default().allowed = egress.saturating_sub(refused).max(ingress);
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
        let size = |end: &Traffic| end.opened + end.packets_sent + end.packets_received;
        let one = if size(&client) >= size(&server) { client } else { server };
        let counts = found.entry(edge).or_default();
        counts.opened = one.opened;
        counts.closed = one.closed;
        counts.bytes = one.bytes_sent + one.bytes_received;
        counts.round_trip_microseconds = one.rtt_microseconds;
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::reason::Reason;

    use super::*;

    fn verdict(subject: u32, peer: u32, direction: Direction, outcome: Outcome) -> FlowKey {
        FlowKey {
            subject,
            peer,
            rule: 0,
            port: 5432,
            protocol: 6,
            reason: Reason::AllowedByRule as u8,
            direction: direction as u8,
            outcome: outcome as u8,
            reserved: 0,
        }
    }

    fn carried(subject: u32, peer: u32, role: Role, opened: u64) -> (TrafficKey, Traffic) {
        let key = TrafficKey { subject, peer, port: 5432, protocol: 6, role: role as u8, reserved: 0 };
        (key, Traffic { opened, closed: 1, bytes_sent: 10, bytes_received: 5, ..Traffic::NONE })
    }

    #[test]
    fn a_flow_counts_once_however_many_ends_have_judged_it() {
        let (web, db, far, canary) = (256, 257, IdentityId::WORLD.0, IdentityId::CANARY.0);
        let counters = [
            // Both ends are here: seven let through by both, and three that only the server refused.
            (verdict(web, db, Direction::Egress, Outcome::Forwarded), 10),
            (verdict(db, web, Direction::Ingress, Outcome::Forwarded), 7),
            (verdict(db, web, Direction::Ingress, Outcome::Dropped), 3),
            // One end: four let through, then six refused.
            (verdict(web, far, Direction::Egress, Outcome::Forwarded), 4),
            (verdict(web, far, Direction::Egress, Outcome::Dropped), 6),
            (verdict(canary, 0, Direction::Egress, Outcome::Dropped), 9),
        ];
        let traffic = [
            carried(web, db, Role::Client, 7),
            carried(db, web, Role::Server, 7),
            carried(web, far, Role::Client, 4),
        ];
        let found = edges(&counters, &traffic, &Names::default(), &[]);
        let told: Vec<_> = found
            .edges
            .iter()
            .map(|Edge { ends, counts }| {
                (ends.destination.as_str(), counts.allowed, counts.denied, counts.opened, counts.bytes)
            })
            .collect();
        assert_eq!(told, [("identity:257", 7, 3, 7, 15), ("reserved:world", 4, 6, 4, 15)]);
    }
}
