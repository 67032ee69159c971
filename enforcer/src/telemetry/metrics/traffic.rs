//! From what flows carried to series.

use std::collections::BTreeMap;

use enforcer_common::abi::flow::{Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;
use enforcer_common::id::IdentityId;

use super::super::names::short;
use super::Exposition;
use super::budget::{self, OVERFLOW};
use super::table as m;
use crate::domain::flow::protocol_name;
use crate::domain::names::Names;

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
pub(super) fn traffic(rows: &[(TrafficKey, Traffic)], names: &Names) -> BTreeMap<Labels, Traffic> {
    let mut shorts = BTreeMap::new();
    let mut identity = |id: u32| shorts.entry(id).or_insert_with(|| short(names, IdentityId(id))).clone();
    let mut series = BTreeMap::new();
    for (key, amount) in rows {
        let (subject, peer) = (identity(key.subject), identity(key.peer));
        let role = Role::from_code(key.role.into());
        // A socket from before enforcer, whose role is not known, stands where most are.
        let ((source_namespace, source), (destination_namespace, destination)) =
            if role == Role::Server { (peer, subject) } else { (subject, peer) };
        let labels = [
            source,
            source_namespace,
            destination,
            destination_namespace,
            protocol_name(key.protocol),
            key.port.to_string(),
            role.label().to_owned(),
        ];
        budget::add(&mut series, labels, *amount);
    }
    series
}

/// Writes one series of each metric that means something for the protocol.
pub(super) fn write(exposition: &mut Exposition, labels: &Labels, amount: &Traffic) {
    let values = labels.each_ref().map(|label| &**label);
    for (definition, value) in [
        (m::SENT_PACKETS, amount.packets_sent),
        (m::RECEIVED_PACKETS, amount.packets_received),
        (m::SENT_BYTES, amount.bytes_sent),
        (m::RECEIVED_BYTES, amount.bytes_received),
    ] {
        exposition.add(definition, &values, value);
    }
    if values[PROTOCOL] != TCP {
        return;
    }
    for (definition, value) in
        [(m::OPENED, amount.opened), (m::CLOSED, amount.closed), (m::RETRANSMITS, amount.retransmits)]
    {
        exposition.add(definition, &values, value);
    }
    exposition.add_value(m::ROUND_TRIPS, &values, seconds(amount.rtt_microseconds));
}

/// The format has floating-point numbers only; above 2^53 microseconds (285 years) they are no longer exact.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}
