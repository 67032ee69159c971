//! The last flows, and who reads them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enforcer_common::abi::flow::FlowEvent;
use tokio::sync::watch;

use super::words::{Codes, Remembered, Resolver};
use crate::domain::canary;
use crate::domain::flow::FlowPage;
use crate::domain::names::Names;

/// Flows that are remembered, for those who look back and for those who follow: whoever is further behind loses some.
pub const HISTORY: usize = 8_192;

/// What became of the events that were read from the ring. The first is the sum of the next three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Events read.
    pub read: u64,
    /// Flows told.
    pub told: u64,
    /// Events with a code that this version does not know; they are lost.
    pub undecodable: u64,
    /// Events about the canary, which nobody asked for; they are no flows.
    pub canary: u64,
    /// Flows that were told and that a reader was too slow for, once for each such reader.
    pub missed: u64,
}

/// Remembers the last events, and puts those into words that somebody reads.
///
/// Each flow has a number. A reader knows the number of the one that it reads next, and that is all there is of it here: it costs
/// no memory and nobody any time while it does not read, and learns from the numbers how many flows it was too slow for.
#[derive(Debug)]
pub struct Pipeline {
    names: watch::Receiver<Arc<Names>>,
    node: String,
    /// Nanoseconds from boot time to wall-clock time.
    offset: AtomicI64,
    kept: Mutex<Kept>,
    /// Number of the flow that comes next: how many were told.
    next: watch::Sender<u64>,
    undecodable: AtomicU64,
    canary: AtomicU64,
    missed: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    flows: VecDeque<Remembered>,
    /// Number of the flow that comes next.
    next: u64,
    resolver: Resolver,
}

impl Kept {
    /// Number of the oldest flow.
    fn oldest(&self) -> u64 {
        self.next - self.flows.len() as u64
    }
}

impl Pipeline {
    /// A pipeline that knows these names; `node` is the name of this host.
    pub fn new(names: watch::Receiver<Arc<Names>>, node: String) -> Self {
        let flows = VecDeque::with_capacity(HISTORY);
        Self {
            names,
            node,
            offset: AtomicI64::new(0),
            kept: Mutex::new(Kept { flows, next: 0, resolver: Resolver::default() }),
            next: watch::Sender::new(0),
            undecodable: AtomicU64::new(0),
            canary: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }

    /// Sets what has to be added to a time since boot to get wall-clock time, in nanoseconds. It changes when the
    /// clock is set, so the agent sets it again and again.
    pub fn set_clock_offset(&self, nanoseconds: i64) {
        self.offset.store(nanoseconds, Ordering::Relaxed);
    }

    /// Takes what was read from the ring. Waits for nobody who reads.
    pub fn record(&self, events: &[FlowEvent]) {
        let names = Arc::clone(&self.names.borrow());
        let offset = self.offset.load(Ordering::Relaxed);
        let (mut canary, mut undecodable) = (0, 0);
        let mut kept = self.kept();
        let Kept { flows, next, resolver } = &mut *kept;
        resolver.names(names);
        for event in events {
            if canary::is_one_of(event.subject, event.peer) {
                canary += 1;
            } else if let Some(codes) = Codes::of(event) {
                if flows.len() == HISTORY {
                    flows.pop_front();
                }
                flows.push_back(resolver.remember(event, codes, offset));
                *next += 1;
            } else {
                undecodable += 1;
            }
        }
        let next = kept.next;
        drop(kept);
        self.canary.fetch_add(canary, Ordering::Relaxed);
        self.undecodable.fetch_add(undecodable, Ordering::Relaxed);
        self.next.send_if_modified(|known| std::mem::replace(known, next) != next);
    }

    /// The flows from this number on, at most `most`, oldest first.
    pub fn page(&self, from: u64, most: usize) -> FlowPage {
        let kept = self.kept();
        // A number that is yet to come is as good as the next one.
        let first = from.clamp(kept.oldest(), kept.next);
        let skipped = usize::try_from(first - kept.oldest()).unwrap_or(usize::MAX);
        let remembered: Vec<Remembered> = kept.flows.iter().skip(skipped).take(most).cloned().collect();
        drop(kept);
        // Words take many times as long, and the reader of the ring does not wait for them.
        let flows: Vec<_> = remembered.iter().map(|flow| flow.flow(&self.node)).collect();
        FlowPage { lost: first.saturating_sub(from), next: first + flows.len() as u64, flows }
    }

    /// The number that the next flow gets; it changes when flows were told.
    pub fn next(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// A reader was too slow for so many flows.
    pub fn missed(&self, flows: u64) {
        self.missed.fetch_add(flows, Ordering::Relaxed);
    }

    /// What became of the events.
    pub fn counts(&self) -> ReadCounts {
        let [undecodable, canary, missed] =
            [&self.undecodable, &self.canary, &self.missed].map(|count| count.load(Ordering::Relaxed));
        let told = *self.next.borrow();
        ReadCounts { read: told + undecodable + canary, told, undecodable, canary, missed }
    }

    /// What is kept is whole whatever a panicking thread was doing: flows are added one by one, and counted by their number.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
