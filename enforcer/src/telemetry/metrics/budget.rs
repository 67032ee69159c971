//! How many series are told apart, and for how long. Sums stay exact whatever becomes of a series.
//!
//! ```text
//!             a place is free                    its workload is gone, and it is quiet
//!   new ─────────────────────────► told ───────────────────────────────────────────────► expired
//!    │                              ▲ ▲                                                     │
//!    └─ none is ──► in the overflow ┘ └──────────────── it counts again ────────────────────┘
//! ```
//!
//! What a set of labels has counted is split in three parts, which never shrink: what the overflow has taken in, what has
//! expired, and what its own series tells. So a series that comes back begins at zero, no counter ever falls, and no
//! increase is seen twice or never.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use enforcer_common::abi::flow::Traffic;

/// What the label says that tells the overflow from everything else.
pub(super) const OVERFLOW: &str = "_overflow";
/// How long a series stays after its last change and the end of its workload.
pub(super) const STAYS: Duration = Duration::from_mins(1);

/// What series count.
pub(super) trait Amount: Copy + PartialEq {
    /// Nothing.
    const NONE: Self;
    /// Adds another.
    fn add(&mut self, other: &Self);
    /// What came since an earlier amount of the same.
    fn since(&self, earlier: &Self) -> Self;
    /// Series with more of it are worth more.
    fn weight(&self) -> u64;
}

impl Amount for u64 {
    const NONE: Self = 0;

    fn add(&mut self, other: &Self) {
        *self += other;
    }

    fn since(&self, earlier: &Self) -> Self {
        self.saturating_sub(*earlier)
    }

    fn weight(&self) -> u64 {
        *self
    }
}

impl Amount for Traffic {
    const NONE: Self = Self::NONE;

    fn add(&mut self, other: &Self) {
        self.add(other);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            opened: self.opened.saturating_sub(earlier.opened),
            closed: self.closed.saturating_sub(earlier.closed),
            packets_sent: self.packets_sent.saturating_sub(earlier.packets_sent),
            packets_received: self.packets_received.saturating_sub(earlier.packets_received),
            bytes_sent: self.bytes_sent.saturating_sub(earlier.bytes_sent),
            bytes_received: self.bytes_received.saturating_sub(earlier.bytes_received),
            retransmits: self.retransmits.saturating_sub(earlier.retransmits),
            rtt_microseconds: self.rtt_microseconds.saturating_sub(earlier.rtt_microseconds),
        }
    }

    fn weight(&self) -> u64 {
        self.bytes_sent + self.bytes_received + self.opened
    }
}

/// Everything that was counted under one set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum<A> {
    /// How much.
    pub(super) amount: A,
    /// Whether the workloads at both ends are there, of any of the rows.
    pub(super) alive: bool,
}

/// What a series tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told<A> {
    /// For counters.
    pub(super) counted: A,
    /// All that was ever counted under these labels, for what is a difference of two counters.
    pub(super) whole: A,
}

/// Where a set of labels is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    New,
    Told,
    Overflow,
    Expired,
}

#[derive(Clone, Copy, Debug)]
struct Entry<A> {
    place: Place,
    /// All that was counted at the last look.
    last: A,
    /// What of it the overflow tells.
    overflow: A,
    /// What of it has expired.
    expired: A,
    /// The look since which nothing changed and its workloads are gone.
    quiet: Duration,
}

impl<A: Amount> Entry<A> {
    fn new(now: Duration) -> Self {
        Self { place: Place::New, last: A::NONE, overflow: A::NONE, expired: A::NONE, quiet: now }
    }

    /// Takes in what was counted meanwhile; whether it asks for a place.
    fn look(&mut self, sum: &Sum<A>, now: Duration, first: bool) -> bool {
        // Under another name now: what is left here was counted by others.
        if sum.amount.weight() < self.last.weight() {
            *self = Self::new(now);
        }
        let changed = sum.amount != self.last;
        self.last = sum.amount;
        if changed || sum.alive {
            self.quiet = now;
        }
        match self.place {
            // From before this process, of workloads that are gone: that was told long ago.
            Place::New if first && !sum.alive => {
                self.expire();
                false
            }
            Place::New => true,
            Place::Overflow | Place::Expired => changed,
            Place::Told => {
                if !sum.alive && now.saturating_sub(self.quiet) >= STAYS {
                    self.expire();
                }
                false
            }
        }
    }

    fn expire(&mut self) {
        self.place = Place::Expired;
        self.expired = self.last.since(&self.overflow);
    }

    fn told(&self) -> A {
        self.last.since(&self.overflow).since(&self.expired)
    }
}

/// Stands for a set of labels: there can be as many as the kernel's maps have rows, and their texts would take tens of
/// megabytes. Two keyed hashes, so that no two sets of one host ever meet.
type Fingerprint = (u64, u64);

/// Which sets of labels are told apart.
#[derive(Debug)]
pub(super) struct Budget<const LABELS: usize, A> {
    limit: usize,
    entries: HashMap<Fingerprint, Entry<A>>,
    keys: (RandomState, RandomState),
    looked: bool,
    overflow: fn(&[String; LABELS]) -> [String; LABELS],
}

impl<const LABELS: usize, A: Amount> Budget<LABELS, A> {
    /// `overflow` tells the labels of the series that takes in one that is beyond the limit.
    pub(super) fn new(limit: usize, overflow: fn(&[String; LABELS]) -> [String; LABELS]) -> Self {
        let keys = (RandomState::new(), RandomState::new());
        Self { limit, entries: HashMap::new(), keys, looked: false, overflow }
    }

    /// The series to tell. Until it is settled which workloads there are, all of them count as there. Of those that ask for one of the places that are left, those with the highest counts get one.
    pub(super) fn fold(
        &mut self,
        sums: BTreeMap<[String; LABELS], Sum<A>>,
        now: Duration,
        settled: bool,
    ) -> BTreeMap<[String; LABELS], Told<A>> {
        let first = settled && !self.looked;
        self.looked |= settled;
        let mut before = std::mem::take(&mut self.entries);
        self.entries.reserve(sums.len());
        let mut asking = Vec::new();
        for (labels, sum) in &sums {
            let print = self.print(labels);
            let mut entry = before.remove(&print).unwrap_or_else(|| Entry::new(now));
            let sum = Sum { alive: sum.alive || !settled, ..*sum };
            if entry.look(&sum, now, first) {
                asking.push((entry.last.weight(), print));
            }
            self.entries.insert(print, entry);
        }
        // Stable, so that equals come in the order of their labels.
        asking.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let mut places = self.limit.saturating_sub(self.told());
        for (_, print) in asking {
            if let Some(entry) = self.entries.get_mut(&print) {
                entry.place = if places > 0 { Place::Told } else { Place::Overflow };
                places = places.saturating_sub(1);
            }
        }
        let mut series = BTreeMap::new();
        for labels in sums.into_keys() {
            self.tell(labels, &mut series);
        }
        series
    }

    fn print(&self, labels: &[String; LABELS]) -> Fingerprint {
        (self.keys.0.hash_one(labels), self.keys.1.hash_one(labels))
    }

    fn tell(&mut self, labels: [String; LABELS], series: &mut BTreeMap<[String; LABELS], Told<A>>) {
        let print = self.print(&labels);
        let Some(entry) = self.entries.get_mut(&print) else { return };
        if entry.place == Place::Overflow {
            entry.overflow = entry.last.since(&entry.expired);
        }
        if entry.overflow != A::NONE || entry.place == Place::Overflow {
            let whole = if entry.place == Place::Overflow { entry.last } else { A::NONE };
            add(series, (self.overflow)(&labels), &entry.overflow, &whole);
        }
        if entry.place == Place::Told {
            add(series, labels, &entry.told(), &entry.last);
        }
    }

    /// Sets of labels that have a series of their own.
    pub(super) fn told(&self) -> usize {
        self.count(Place::Told)
    }

    /// Sets of labels that only the overflow tells.
    pub(super) fn folded(&self) -> usize {
        self.count(Place::Overflow)
    }

    fn count(&self, place: Place) -> usize {
        self.entries.values().filter(|entry| entry.place == place).count()
    }

    /// Sets of labels that can have a series of their own.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What all series that have expired had told.
    pub(super) fn expired(&self) -> A {
        let mut sum = A::NONE;
        self.entries.values().for_each(|entry| sum.add(&entry.expired));
        sum
    }
}

fn add<K: Ord, A: Amount>(series: &mut BTreeMap<K, Told<A>>, labels: K, counted: &A, whole: &A) {
    let told = series.entry(labels).or_insert(Told { counted: A::NONE, whole: A::NONE });
    told.counted.add(counted);
    told.whole.add(whole);
}

/// Adds a row to the sum of its labels.
pub(super) fn sum<K: Ord, A: Amount>(sums: &mut BTreeMap<K, Sum<A>>, labels: K, amount: &A, alive: bool) {
    let sum = sums.entry(labels).or_insert(Sum { amount: A::NONE, alive: false });
    sum.amount.add(amount);
    sum.alive |= alive;
}
