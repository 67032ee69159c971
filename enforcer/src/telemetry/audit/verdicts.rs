//! Denied and audited verdicts, from counters to records.

use std::net::Ipv6Addr;

use enforcer_common::abi::flow::Outcome;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::id::RuleId;
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::Direction;

use super::super::names;
use super::details::Detail;
use crate::domain::audit::Kind;
use crate::domain::audit::record::{Action, Host, Network, Place, Process, Record, User, Verdicts};
use crate::domain::counted::Edge;
use crate::domain::flow::{FlowEndpoint, protocol_name};
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// Whether verdicts of this row are recorded.
pub(super) fn is_recorded(edge: &Edge) -> bool {
    edge.outcome != Outcome::Forwarded as u8
}

/// What is known of an interval.
pub(super) struct Interval<'a> {
    pub(super) start: Option<Timestamp>,
    pub(super) end: Timestamp,
    pub(super) map: u32,
    pub(super) names: &'a Names,
    pub(super) host: &'a Host,
}

/// The record of `count` verdicts, after which the counter says `total`.
pub(super) fn record(
    edge: Edge,
    (count, total): (u64, u64),
    detail: Option<Detail>,
    interval: &Interval<'_>,
    now: Timestamp,
) -> Record {
    let Interval { start, end, map, names, host } = interval;
    let denied = edge.outcome == Outcome::Dropped as u8;
    let (word, types, outcome): (_, &[&str], _) = if denied {
        ("flow-denied", &["connection", "denied"], "failure")
    } else {
        ("flow-audited", &["connection", "allowed"], "success")
    };
    let action = Action { kind: Kind::Verdict, action: word, category: "network", types, outcome };
    let mut record = Record::new(now, host, action, String::new());
    let subject = names::endpoint(names, edge.subject, 0);
    let peer = names::endpoint(names, edge.peer, 0);
    let ingress = edge.direction == Direction::Ingress as u8;
    let (source, destination) = if ingress { (peer, subject) } else { (subject, peer) };
    let protocol = protocol_name(edge.protocol);
    record.message = format!(
        "{count} {} by {}: {} -> {} {protocol}/{}",
        if denied { "denied" } else { "audited" },
        Direction::from_code(edge.direction).map_or("?", Direction::label),
        address(&source),
        address(&destination),
        edge.port,
    );
    record.name_end("source", &source);
    record.name_end("destination", &destination);
    let place = |who: &FlowEndpoint| Place { address: address(who), ..Place::default() };
    record.source = Some(place(&source));
    record.destination = Some(Place { port: Some(edge.port), ..place(&destination) });
    record.network = Some(Network {
        direction: if ingress { "ingress" } else { "egress" }.to_owned(),
        transport: protocol.to_ascii_lowercase(),
        iana_number: edge.protocol.to_string(),
    });
    if let Some(rule) = names::rule(names, RuleId(edge.rule)) {
        record.name_rule(edge.rule, rule);
    }
    record.event.reason = Reason::from_code(edge.reason)
        .map_or_else(|| edge.reason.to_string(), |reason| reason.label().to_owned());
    (record.event.start, record.event.end) = (*start, Some(*end));
    let mut verdicts = Verdicts { count, total, map: *map, edge: edge.numbers(), ..Verdicts::default() };
    if let Some(detail) = detail {
        add(&mut record, &mut verdicts, &detail);
    }
    record.enforcer.verdicts = Some(verdicts);
    record
}

/// What the last event told.
fn add(record: &mut Record, verdicts: &mut Verdicts, Detail { events, last }: &Detail) {
    verdicts.events = *events;
    record.enforcer.generation = Some(last.generation);
    if last.errno != 0 {
        let known = Errno::ALL.iter().find(|errno| errno.number() == i32::from(last.errno));
        verdicts.errno = known.map_or_else(|| last.errno.to_string(), |errno| errno.name().to_owned());
    }
    if let Some(hook) = Hook::from_code(last.hook) {
        hook.program().clone_into(&mut verdicts.hook);
    }
    if last.pid != 0 {
        let end = last.comm.iter().position(|byte| *byte == 0).unwrap_or(last.comm.len());
        let name = String::from_utf8_lossy(&last.comm[..end]).into_owned();
        record.process = Some(Process { pid: last.pid, name });
        record.user = Some(User { id: last.uid.to_string(), group: None });
    }
    let other = Address { high: last.address_high, low: last.address_low };
    if other != (Address { high: 0, low: 0 }) {
        let ip = Ipv6Addr::from(other.bytes()).to_canonical().to_string();
        let serves = last.role == enforcer_common::abi::identity::Role::Server as u8;
        let place = if serves { &mut record.source } else { &mut record.destination };
        if let Some(place) = place {
            place.ip = ip;
        }
    }
    if last.client_port != 0
        && let Some(source) = &mut record.source
    {
        source.port = Some(last.client_port);
    }
}

/// What people call it: the only workload's name, or the labels.
fn address(who: &FlowEndpoint) -> String {
    let name = match who.workloads.as_slice() {
        [one] => one.clone(),
        _ => who.labels.join(","),
    };
    if who.namespace.is_empty() { name } else { format!("{}/{name}", who.namespace) }
}
