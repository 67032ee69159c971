//! Who talks with whom, counted since the kernel's maps were made; and how fast, between two looks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All edges at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edges {
    /// In the order of names.
    pub edges: Vec<Edge>,
}

/// One client, one server, one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Who they are.
    #[serde(flatten)]
    pub ends: Ends,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The ends of an edge. Workloads that are called the same are one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ends {
    /// `namespace/name` of the end that opens flows, or `reserved:NAME`.
    pub source: String,
    /// The same of the end that is called.
    pub destination: String,
    /// Port of the destination.
    pub port: u16,
    /// Name of the protocol.
    pub protocol: String,
}

/// What an edge has counted. Where both ends are on this host, the end that has counted more counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Flows that were let through.
    pub allowed: u64,
    /// Refusals.
    pub denied: u64,
    /// Flows that would have been refused.
    pub audited: u64,
    /// Connections that were established.
    pub opened: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Bytes both ways: of a connection when it ends, of datagrams at once.
    pub bytes: u64,
    /// Sum of the round-trip times of the closed connections, in microseconds.
    pub round_trip_microseconds: u64,
}

impl Counts {
    /// What came on top since `earlier`; nothing where the counters began anew.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            allowed: self.allowed.saturating_sub(earlier.allowed),
            denied: self.denied.saturating_sub(earlier.denied),
            audited: self.audited.saturating_sub(earlier.audited),
            opened: self.opened.saturating_sub(earlier.opened),
            closed: self.closed.saturating_sub(earlier.closed),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            round_trip_microseconds: self
                .round_trip_microseconds
                .saturating_sub(earlier.round_trip_microseconds),
        }
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.audited += other.audited;
        self.opened += other.opened;
        self.closed += other.closed;
        self.bytes += other.bytes;
        self.round_trip_microseconds += other.round_trip_microseconds;
    }
}

/// An edge in motion.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Who they are.
    pub ends: Ends,
    /// Flows that were let through, per second.
    pub flows: f64,
    /// Refusals per second, those that are only audited included.
    pub denied: f64,
    /// Bytes per second.
    pub bytes: f64,
    /// Connections that are open.
    pub active: u64,
    /// Mean round-trip time in microseconds of the connections that closed meanwhile, or else of all that ever did.
    pub round_trip: Option<f64>,
}

/// What can be on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Flows per second.
    Flows,
    /// Refusals per second.
    Denied,
    /// Bytes per second.
    Bytes,
    /// Open connections.
    Active,
    /// Round-trip time.
    RoundTrip,
}

impl Order {
    /// All of them, in the order of the columns.
    pub const ALL: [Self; 5] = [Self::Flows, Self::Denied, Self::Bytes, Self::Active, Self::RoundTrip];

    fn of(self, rate: &Rate) -> f64 {
        match self {
            Self::Flows => rate.flows,
            Self::Denied => rate.denied,
            Self::Bytes => rate.bytes,
            #[expect(clippy::cast_precision_loss, reason = "only the order counts")]
            Self::Active => rate.active as f64,
            Self::RoundTrip => rate.round_trip.unwrap_or(-1.0),
        }
    }
}

/// How fast every edge went between two looks that are so many seconds apart, the largest first.
#[expect(clippy::cast_precision_loss, reason = "rates are shown with two digits")]
pub fn rates(before: &Edges, now: &Edges, seconds: f64, order: Order) -> Vec<Rate> {
    let earlier: BTreeMap<&Ends, &Counts> =
        before.edges.iter().map(|edge| (&edge.ends, &edge.counts)).collect();
    let per_second = |count: u64| count as f64 / seconds.max(0.001);
    let mean = |counts: &Counts| {
        (counts.closed > 0).then(|| counts.round_trip_microseconds as f64 / counts.closed as f64)
    };
    let mut rates: Vec<Rate> = now
        .edges
        .iter()
        .map(|Edge { ends, counts }| {
            // An edge that was not there before has come meanwhile.
            let change = earlier.get(ends).map_or(*counts, |earlier| counts.since(earlier));
            Rate {
                ends: ends.clone(),
                flows: per_second(change.allowed),
                denied: per_second(change.denied + change.audited),
                bytes: per_second(change.bytes),
                active: counts.opened.saturating_sub(counts.closed),
                round_trip: mean(&change).or_else(|| mean(counts)),
            }
        })
        .collect();
    rates.sort_by(|one, other| {
        order.of(other).total_cmp(&order.of(one)).then_with(|| one.ends.cmp(&other.ends))
    });
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(source: &str, counts: Counts) -> Edge {
        let ends = Ends {
            source: source.into(),
            destination: "default/db".into(),
            port: 5432,
            protocol: "TCP".into(),
        };
        Edge { ends, counts }
    }

    #[test]
    fn what_came_between_two_looks() {
        let web =
            Counts { allowed: 10, opened: 10, closed: 8, round_trip_microseconds: 800, ..Counts::default() };
        let before = Edges { edges: vec![edge("web", web), edge("idle", web)] };
        let more = Counts {
            allowed: 30,
            opened: 30,
            closed: 18,
            bytes: 5_000,
            round_trip_microseconds: 2_800,
            ..web
        };
        let late = Counts { denied: 6, audited: 2, ..Counts::default() };
        let now = Edges { edges: vec![edge("web", more), edge("idle", web), edge("late", late)] };
        let found = rates(&before, &now, 2.0, Order::Flows);
        let names = |rates: &[Rate]| rates.iter().map(|rate| rate.ends.source.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), ["web", "idle", "late"]);
        let first = &found[0];
        assert_eq!((first.flows, first.bytes, first.active), (10.0, 2_500.0, 12));
        assert_eq!(first.round_trip, Some(200.0), "of the ten that closed meanwhile");
        assert_eq!(found[1].round_trip, Some(100.0), "of all that ever did");
        assert_eq!((found[2].denied, found[2].round_trip), (4.0, None));
        assert_eq!(names(&rates(&before, &now, 2.0, Order::Denied))[0], "late");
        assert_eq!(names(&rates(&before, &now, 2.0, Order::RoundTrip)), ["web", "idle", "late"]);
        // New maps: nothing is negative.
        let anew = rates(&now, &before, 1.0, Order::Bytes);
        assert!(anew.iter().all(|rate| rate.flows >= 0.0 && rate.bytes >= 0.0), "{anew:?}");
    }
}
