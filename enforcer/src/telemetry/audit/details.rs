//! What events add to counts: who called, and what it got. For one interval, and for so many edges.

use std::collections::HashMap;

use enforcer_common::abi::flow::{FlowEvent, Outcome};
use enforcer_common::abi::identity::Role;
use enforcer_common::verdict::{Direction, Word};

use crate::domain::canary;
use crate::domain::counted::Edge;

/// Edges whose details are kept for an interval.
const EDGES: usize = 8_192;

/// What events told of one edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detail {
    /// How many there were.
    pub(super) events: u64,
    /// The last of them.
    pub(super) last: FlowEvent,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Details(HashMap<Edge, Detail>);

impl Details {
    pub(super) fn note(&mut self, events: &[FlowEvent]) {
        for event in events.iter().filter(|event| event.outcome != Outcome::Forwarded as u8) {
            if canary::is_one_of(event.subject, event.peer) {
                continue;
            }
            let Some(edge) = edge(event) else { continue };
            if self.0.len() < EDGES || self.0.contains_key(&edge) {
                let detail = self.0.entry(edge).or_insert(Detail { events: 0, last: *event });
                detail.events += 1;
                detail.last = *event;
            }
        }
    }

    /// Those of one edge, which are not kept any longer.
    pub(super) fn take(&mut self, edge: &Edge) -> Option<Detail> {
        self.0.remove(edge)
    }

    /// Forgets everything: an interval is over.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The row that this event was counted in.
fn edge(event: &FlowEvent) -> Option<Edge> {
    let direction = Direction::from_code(event.direction)?;
    let (word, judges) = match direction {
        Direction::Egress => (Word(event.egress), Role::Client),
        Direction::Ingress => (Word(event.ingress), Role::Server),
    };
    let serves = Role::from_code(event.role.into()) == Role::Server;
    // Counted at whose policy it was, told at whose socket it was.
    let is_own = serves == (judges == Role::Server);
    let (subject, peer) = if is_own { (event.subject, event.peer) } else { (event.peer, event.subject) };
    Some(Edge {
        subject,
        peer,
        rule: word.rule().0,
        port: event.port,
        protocol: event.protocol,
        reason: word.reason_code(),
        direction: event.direction,
        outcome: event.outcome,
    })
}
