//! From how long things took to distributions.
//!
//! A distribution is some thirty series, so they are told by server and not by pair: how long it takes to reach somebody is
//! rarely a matter of who calls.

use std::collections::BTreeMap;

use enforcer_common::abi::flow::{Latency, TrafficKey};
use enforcer_common::abi::identity::Role;

use super::budget::{self, Amount, OVERFLOW, Sum, Told};
use super::exposition::Exposition;
use super::histogram::Histogram;
use super::naming::Naming;
use super::table as m;

/// Values of the labels, in the order of their definition.
pub(super) type Labels = [String; 3];

/// Series of one set of labels, at most: two distributions, each with its buckets, sum and count.
pub(super) const SERIES: usize = 2 * Histogram::SERIES;

impl Amount for Latency {
    const NONE: Self = Self::NONE;

    fn add(&mut self, other: &Self) {
        self.add(other);
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        let buckets = since.handshake.iter_mut().zip(earlier.handshake);
        buckets.chain(since.round_trip.iter_mut().zip(earlier.round_trip)).for_each(|(count, before)| {
            *count = count.saturating_sub(before);
        });
        since.handshake_microseconds =
            self.handshake_microseconds.saturating_sub(earlier.handshake_microseconds);
        since.round_trip_microseconds =
            self.round_trip_microseconds.saturating_sub(earlier.round_trip_microseconds);
        since
    }

    fn weight(&self) -> u64 {
        self.handshake.iter().chain(&self.round_trip).sum()
    }
}

/// The series that holds a series beyond the budget: the role stays.
pub(super) fn overflow([_, _, role]: &Labels) -> Labels {
    [OVERFLOW.to_owned(), String::new(), role.clone()]
}

/// Times by labels. Rows whose labels are the same are summed.
pub(super) fn latency(
    rows: &[(TrafficKey, Latency)],
    naming: &mut Naming<'_>,
) -> BTreeMap<Labels, Sum<Latency>> {
    let mut sums = BTreeMap::new();
    for (key, amount) in rows {
        let role = Role::from_code(key.role.into());
        let server = naming.of(if role == Role::Server { key.subject } else { key.peer });
        let labels = [server.name, server.namespace, role.label().to_owned()];
        budget::sum(&mut sums, labels, amount, server.alive);
    }
    sums
}

/// Writes the distributions that there is something in: only a client sees a handshake as a whole.
pub(super) fn write(exposition: &mut Exposition, labels: &Labels, told: &Told<Latency>) {
    let Latency { handshake, handshake_microseconds, round_trip, round_trip_microseconds } = told.counted;
    let values = labels.each_ref().map(|label| &**label);
    for (definition, counts, microseconds) in [
        (m::HANDSHAKE, handshake, handshake_microseconds),
        (m::ROUND_TRIP, round_trip, round_trip_microseconds),
    ] {
        let histogram = Histogram { counts, microseconds };
        if histogram.count() > 0 {
            exposition.add_histogram(definition, &values, &histogram);
        }
    }
}

/// Writes how often what has expired was counted, by metric.
pub(super) fn write_expired(exposition: &mut Exposition, expired: &Latency) {
    exposition.add(m::EXPIRED, &[m::HANDSHAKE.name], expired.handshake.iter().sum());
    exposition.add(m::EXPIRED, &[m::ROUND_TRIP.name], expired.round_trip.iter().sum());
}
