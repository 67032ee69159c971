//! The audit log: one thread that writes, and a handle that never waits for it.
//!
//! ```text
//!   owner: facts, names --try_send--> [bounded queue] --> writer --> files
//!   kernel counters: the last sample --------------------/   |
//!   event ring: details, as far as there is room -----------/    status: problem, counts, head
//! ```
//!
//! Invariants:
//! * Nobody waits for the disk. What the queue has no room for is counted by kind, and said in the next record that gets
//!   through.
//! * Counts of verdicts can't be lost: they are the difference of a kernel counter and what was written of it before, and
//!   "written" moves only when the record is in the file. While the disk is away they wait in the kernel.
//! * Events only add detail.

mod details;
pub mod files;
pub mod read;
mod state;
mod verdicts;
mod workloads;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use enforcer_common::abi::flow::{FlowEvent, FlowKey};
use tokio::sync::oneshot;

use self::details::Details;
pub use self::files::{Flush, Settings};
use crate::domain::audit::Kind;
use crate::domain::audit::chain::Head;
use crate::domain::audit::fact::Fact;
use crate::domain::audit::record::Host;
use crate::domain::counted::Epoch;
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// Facts that can wait.
const QUEUE: usize = 4_096;
/// Bytes of facts that can wait.
const QUEUE_BYTES: usize = 16 << 20;
/// The disk may take so long before it is a problem.
const SLOW: Duration = Duration::from_secs(5);

/// A look at the kernel's counters of verdicts.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When it began.
    pub at: Timestamp,
    /// The map.
    pub epoch: Epoch,
    /// Its rows.
    pub rows: Vec<(FlowKey, u64)>,
}

/// How the log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Why nothing can be written now, one sentence.
    pub problem: Option<String>,
    /// Records written since the start, by kind.
    pub written: BTreeMap<Kind, u64>,
    /// Records lost since the start, by kind.
    pub lost: BTreeMap<Kind, u64>,
    /// The newest record.
    pub head: Head,
}

enum Message {
    Fact(Timestamp, Box<Fact>),
    Names(Timestamp, Arc<Names>),
    /// Answer when everything before this is in the file and flushed.
    Flush(oneshot::Sender<Result<(), String>>),
    Stop,
}

/// What handle and writer share.
struct Shared {
    status: Mutex<Status>,
    /// Losses that no record has said yet.
    unsaid: Mutex<BTreeMap<Kind, u64>>,
    /// Since when the writer waits for the disk.
    writing: Mutex<Option<Instant>>,
    queued: AtomicUsize,
    /// The end was asked for, whether or not the queue had room to say so.
    ending: AtomicBool,
    sample: Mutex<Option<Sample>>,
    details: Mutex<Details>,
    now: fn() -> Timestamp,
}

/// About how many bytes of their own names take while they wait: sets of names share all but the paths to what differs.
const NAMES_SIZE: usize = 4 << 10;

/// Whatever a panicking thread was doing: each of these is a value that is replaced or added to as a whole.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lose(&self, kind: Kind) {
        *lock(&self.unsaid).entry(kind).or_default() += 1;
        *lock(&self.status).lost.entry(kind).or_default() += 1;
    }
}

/// The handle. Copies are the same log.
#[derive(Clone)]
pub struct Audit {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("status", &*lock(&self.shared.status)).finish_non_exhaustive()
    }
}

impl Audit {
    /// Starts the writer. `now` is the wall clock. What is wrong with the directory is told by [`Audit::status`], and
    /// tried again.
    ///
    /// # Errors
    /// If there is no room for a thread.
    pub fn start(
        settings: Settings,
        host: Host,
        now: fn() -> Timestamp,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (audit, inbox) = Self::new(now);
        let shared = Arc::clone(&audit.shared);
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer::Writer::new(settings, host, shared).run(&inbox))?;
        Ok((audit, thread))
    }

    fn new(now: fn() -> Timestamp) -> (Self, Receiver<Message>) {
        let (queue, inbox) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            status: Mutex::default(),
            unsaid: Mutex::default(),
            writing: Mutex::default(),
            queued: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            sample: Mutex::default(),
            details: Mutex::default(),
            now,
        });
        (Self { queue, shared }, inbox)
    }

    /// Has a fact recorded, or counts it as lost. Whether there was room for it.
    pub fn tell(&self, fact: Fact) -> bool {
        let (kind, size) = (fact.kind(), fact.size());
        self.send(kind, size, Message::Fact((self.shared.now)(), Box::new(fact)))
    }

    /// From now on these names are valid; workloads that came, changed and went are recorded.
    pub fn names(&self, names: &Arc<Names>) {
        let size = NAMES_SIZE;
        self.send(Kind::Identity, size, Message::Names((self.shared.now)(), Arc::clone(names)));
    }

    fn send(&self, kind: Kind, size: usize, message: Message) -> bool {
        // One that is larger than all that may wait may wait alone.
        let before = self.shared.queued.fetch_add(size, Ordering::AcqRel);
        let is_too_much = before > 0 && before + size > QUEUE_BYTES;
        let is_taken = !is_too_much && self.queue.try_send(message).is_ok();
        if !is_taken {
            self.shared.queued.fetch_sub(size, Ordering::AcqRel);
            self.shared.lose(kind);
        }
        is_taken
    }

    /// Hands over the newest look at the counters; one that was not taken yet is replaced, which loses nothing.
    pub fn sample(&self, sample: Sample) {
        *lock(&self.shared.sample) = Some(sample);
    }

    /// Notes details of denied and audited flows, as far as there is room.
    pub fn details(&self, events: &[FlowEvent]) {
        lock(&self.shared.details).note(events);
    }

    /// Answers when everything that was told before is in the file and flushed, or with why it can't be.
    pub fn flushed(&self) -> oneshot::Receiver<Result<(), String>> {
        let (sender, answer) = oneshot::channel();
        if let Err(
            TrySendError::Full(Message::Flush(sender)) | TrySendError::Disconnected(Message::Flush(sender)),
        ) = self.queue.try_send(Message::Flush(sender))
        {
            // The asker may be gone.
            sender.send(Err("more waits to be written than there is room for".to_owned())).ok();
        }
        answer
    }

    /// How the log is.
    pub fn status(&self) -> Status {
        let mut status = lock(&self.shared.status).clone();
        let waits = lock(&self.shared.writing).map(|since| since.elapsed()).filter(|waits| *waits > SLOW);
        if let (Some(waits), None) = (waits, &status.problem) {
            status.problem = Some(format!("its disk has not answered for {} s", waits.as_secs()));
        }
        status
    }

    /// Has everything written that is told, and the writer end.
    pub fn stop(&self) {
        self.shared.ending.store(true, Ordering::Release);
        // Where the queue is full the writer ends when it has taken everything.
        self.queue.try_send(Message::Stop).ok();
    }
}
