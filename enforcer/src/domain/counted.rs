//! From counters that only rise to what was added since the last look: exact, whatever happens in between.
//!
//! A counter begins anew with its map (another boot, new pins) or with its row. Then all of it is new; nothing is ever
//! negative. Who looks keeps the last look where a restart finds it, together with what was made of it.

use std::collections::HashMap;
use std::hash::Hash;

use enforcer_common::abi::flow::{FlowKey, Traffic, TrafficKey};
use serde::{Deserialize, Serialize};

/// The life of a map: numbers of another one do not compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// The kernel's name for this run of the host.
    pub boot_id: String,
    /// Number of the map, unique within a run of the host.
    pub map: u32,
}

/// A row of verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Identity of the workload whose policy was judged.
    pub subject: u32,
    /// Identity of the other end.
    pub peer: u32,
    /// The rule that decided, or 0.
    pub rule: u32,
    /// Port of the server side.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Code of the reason.
    pub reason: u8,
    /// Code of the direction.
    pub direction: u8,
    /// Code of the outcome.
    pub outcome: u8,
}

impl From<FlowKey> for Edge {
    fn from(key: FlowKey) -> Self {
        let FlowKey { subject, peer, rule, port, protocol, reason, direction, outcome, reserved: _ } = key;
        Self { subject, peer, rule, port, protocol, reason, direction, outcome }
    }
}

impl Edge {
    /// As numbers, to be written down.
    pub fn numbers(self) -> [u32; 8] {
        let Self { subject, peer, rule, port, protocol, reason, direction, outcome } = self;
        [subject, peer, rule, port.into(), protocol.into(), reason.into(), direction.into(), outcome.into()]
    }

    /// The reverse; `None` if a number is too high.
    pub fn from_numbers(numbers: [u32; 8]) -> Option<Self> {
        let [subject, peer, rule, port, protocol, reason, direction, outcome] = numbers;
        let byte = |number: u32| u8::try_from(number).ok();
        Some(Self {
            subject,
            peer,
            rule,
            port: u16::try_from(port).ok()?,
            protocol: byte(protocol)?,
            reason: byte(reason)?,
            direction: byte(direction)?,
            outcome: byte(outcome)?,
        })
    }
}

/// A row of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Carrier {
    /// Identity of the workload whose socket it is.
    pub subject: u32,
    /// Identity of the other end.
    pub peer: u32,
    /// Port of the server side.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Code of the subject's role.
    pub role: u8,
}

impl From<TrafficKey> for Carrier {
    fn from(key: TrafficKey) -> Self {
        let TrafficKey { subject, peer, port, protocol, role, reserved: _ } = key;
        Self { subject, peer, port, protocol, role }
    }
}

/// Something that only rises.
pub trait Amount: Copy {
    /// What came on top of an earlier state; `None` if this is no later state of the same counter.
    fn since(&self, earlier: &Self) -> Option<Self>;
    /// Whether it is nothing.
    fn is_nothing(&self) -> bool;
}

impl Amount for u64 {
    fn since(&self, earlier: &Self) -> Option<Self> {
        self.checked_sub(*earlier)
    }

    fn is_nothing(&self) -> bool {
        *self == 0
    }
}

impl Amount for Traffic {
    fn since(&self, earlier: &Self) -> Option<Self> {
        let not_less = self.opened >= earlier.opened
            && self.closed >= earlier.closed
            && self.packets_sent >= earlier.packets_sent
            && self.packets_received >= earlier.packets_received
            && self.bytes_sent >= earlier.bytes_sent
            && self.bytes_received >= earlier.bytes_received
            && self.retransmits >= earlier.retransmits
            && self.rtt_microseconds >= earlier.rtt_microseconds;
        not_less.then(|| {
            let mut difference = *self;
            difference.subtract(earlier);
            difference
        })
    }

    fn is_nothing(&self) -> bool {
        *self == Self::NONE
    }
}

/// The last look at the rows of one map.
#[derive(Clone, Debug, Default)]
pub struct Counted<K, A> {
    epoch: Epoch,
    rows: HashMap<K, A>,
}

impl<K: Copy + Eq + Hash, A: Amount> Counted<K, A> {
    /// A look that was kept.
    pub fn new(epoch: Epoch, rows: impl IntoIterator<Item = (K, A)>) -> Self {
        Self { epoch, rows: rows.into_iter().collect() }
    }

    /// The map that was looked at.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The rows as they were.
    pub fn rows(&self) -> impl Iterator<Item = (&K, &A)> {
        self.rows.iter()
    }

    /// A look at a map begins. Of another map nothing counts that was seen before. Whether it is another one.
    pub fn enter(&mut self, epoch: &Epoch) -> bool {
        if self.epoch == *epoch {
            return false;
        }
        self.epoch = epoch.clone();
        self.rows.clear();
        true
    }

    /// What came to a row since it was taken last; `None` if nothing did.
    pub fn added(&self, key: &K, now: A) -> Option<A> {
        let added = match self.rows.get(key) {
            Some(earlier) => now.since(earlier).unwrap_or(now),
            None => now,
        };
        (!added.is_nothing()).then_some(added)
    }

    /// What came to a row was written down.
    pub fn take(&mut self, key: K, now: A) {
        self.rows.insert(key, now);
    }

    /// Rows that the map does not have any more.
    pub fn gone(&self, is_there: impl Fn(&K) -> bool) -> Vec<K> {
        self.rows.keys().filter(|key| !is_there(key)).copied().collect()
    }

    /// Forgets a row, so that a new one of that name is new.
    pub fn forget(&mut self, key: &K) {
        self.rows.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(map: u32) -> Epoch {
        Epoch { boot_id: "boot".into(), map }
    }

    #[test]
    fn what_was_added_is_exact_and_never_negative() {
        let mut counted: Counted<u32, u64> = Counted::default();
        assert!(counted.enter(&epoch(1)));
        assert_eq!(counted.added(&7, 5), Some(5));
        assert_eq!(counted.added(&7, 5), Some(5), "not written down yet");
        counted.take(7, 5);
        assert_eq!(counted.added(&7, 5), None);
        assert_eq!(counted.added(&7, 9), Some(4));
        assert_eq!(counted.added(&7, 2), Some(2), "the row began anew");
        assert!(!counted.enter(&epoch(1)));
        assert!(counted.enter(&epoch(2)));
        assert_eq!(counted.added(&7, 9), Some(9), "the map is another one");
        counted.take(7, 9);
        assert_eq!(counted.gone(|_| true), [0; 0]);
        assert_eq!(counted.gone(|key| *key != 7), [7]);
        counted.forget(&7);
        assert_eq!(counted.added(&7, 10), Some(10), "the row was removed and came back");
    }

    #[test]
    fn rows_of_traffic_rise_as_a_whole_or_begin_anew() {
        let earlier = Traffic { bytes_sent: 10, opened: 2, ..Traffic::NONE };
        let later = Traffic { bytes_sent: 15, opened: 2, ..Traffic::NONE };
        assert_eq!(later.since(&earlier), Some(Traffic { bytes_sent: 5, ..Traffic::NONE }));
        assert_eq!(Traffic { opened: 1, ..later }.since(&earlier), None);
    }

    #[test]
    fn an_edge_is_its_numbers() {
        let edge = Edge {
            subject: 1 << 31,
            peer: 2,
            rule: 3,
            port: 65_535,
            protocol: 255,
            reason: 6,
            direction: 1,
            outcome: 2,
        };
        assert_eq!(Edge::from_numbers(edge.numbers()), Some(edge));
        assert_eq!(Edge::from_numbers([0, 0, 0, 65_536, 0, 0, 0, 0]), None);
    }
}
