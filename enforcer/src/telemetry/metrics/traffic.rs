//! From what flows carried to series.

use std::collections::BTreeMap;

use enforcer_common::abi::flow::{Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;

use super::budget::{self, Amount as _, OVERFLOW, Sum, Told};
use super::exposition::Exposition;
use super::naming::Naming;
use super::table::{self as m, Definition};
use crate::domain::flow::protocol_name;

/// Values of the labels of the metrics of traffic, in the order of their definition.
pub(super) type Labels = [String; 7];
const SOURCE: usize = 0;
const PROTOCOL: usize = 4;
const ROLE: usize = 6;
/// Only TCP has connections that the kernel counts for.
const TCP: &str = "TCP";

/// The series that holds a series beyond the budget: protocol and role stay.
pub(super) fn overflow(labels: &Labels) -> Labels {
    let mut overflow = Labels::default();
    for at in [PROTOCOL, ROLE] {
        overflow[at].clone_from(&labels[at]);
    }
    OVERFLOW.clone_into(&mut overflow[SOURCE]);
    overflow
}

/// Traffic by labels. Rows whose labels are the same are summed.
pub(super) fn traffic(
    rows: &[(TrafficKey, Traffic)],
    naming: &mut Naming<'_>,
) -> BTreeMap<Labels, Sum<Traffic>> {
    let mut sums = BTreeMap::new();
    for (key, amount) in rows {
        let (subject, peer) = (naming.of(key.subject), naming.of(key.peer));
        let alive = subject.alive && peer.alive;
        let role = Role::from_code(key.role.into());
        // A socket from before enforcer, whose role is not known, stands where most are.
        let (source, destination) = if role == Role::Server { (peer, subject) } else { (subject, peer) };
        let labels = [
            source.name,
            source.namespace,
            destination.name,
            destination.namespace,
            protocol_name(key.protocol),
            naming.port(key.port),
            role.label().to_owned(),
        ];
        budget::sum(&mut sums, labels, amount, alive);
    }
    sums
}

/// Series of one set of labels, at most.
pub(super) const SERIES: usize = 9;

type Reader = fn(&Traffic) -> f64;

/// What is counted of every protocol.
const EVERY: [(&Definition, Reader); 4] = [
    (m::SENT_PACKETS, |amount| number(amount.packets_sent)),
    (m::RECEIVED_PACKETS, |amount| number(amount.packets_received)),
    (m::SENT_BYTES, |amount| number(amount.bytes_sent)),
    (m::RECEIVED_BYTES, |amount| number(amount.bytes_received)),
];

/// What only connections have.
const STREAMS: [(&Definition, Reader); 4] = [
    (m::OPENED, |amount| number(amount.opened)),
    (m::CLOSED, |amount| number(amount.closed)),
    (m::RETRANSMITS, |amount| number(amount.retransmits)),
    (m::ROUND_TRIPS, |amount| number(amount.rtt_microseconds) / 1e6),
];

/// Writes one series of each metric that means something for the protocol.
pub(super) fn write(exposition: &mut Exposition, labels: &Labels, told: &Told<Traffic>) {
    let values = labels.each_ref().map(|label| &**label);
    for (definition, read) in EVERY {
        exposition.add_value(definition, &values, read(&told.counted));
    }
    if values[PROTOCOL] != TCP {
        return;
    }
    for (definition, read) in STREAMS {
        exposition.add_value(definition, &values, read(&told.counted));
    }
    let active = told.whole.opened.since(&told.whole.closed);
    exposition.add(m::ACTIVE, &values, active);
}

/// Writes what expired series had told, by metric.
pub(super) fn write_expired(exposition: &mut Exposition, expired: &Traffic) {
    for (definition, read) in EVERY.into_iter().chain(STREAMS) {
        exposition.add_value(m::EXPIRED, &[definition.name], read(expired));
    }
}

/// The format has floating-point numbers only; above 2^53 they are no longer exact.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn number(count: u64) -> f64 {
    count as f64
}
