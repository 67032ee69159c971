//! The flow history: what every edge carried in every minute, in `SQLite`, from the kernel's counters.
//!
//! ```text
//!   kernel counters: the last sample --> one thread --> flows.db: added to the minute of the sample, together with
//!   names: the last ones ---------------/               the counters themselves, in one transaction
//!                                                       API, `flows history` <-- readers of their own
//! ```
//!
//! Invariants:
//! * A count is in the database once or not at all: the counters that were seen last are written with what was made of
//!   them. What can't be written waits in the kernel.
//! * Nobody waits for the disk; memory is bounded by the rows of the kernel's maps.
//! * A damaged database is set aside under another name, never removed and never repaired.

mod database;
pub mod query;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use enforcer_common::abi::flow::{FlowKey, Traffic, TrafficKey};

use self::write::Writer;
use crate::domain::counted::Epoch;
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// The disk may take so long before it is a problem.
const SLOW: Duration = Duration::from_secs(30);
/// The thread looks for its end this often.
const TICK: Duration = Duration::from_secs(1);

/// Where the history is and how much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The database.
    pub path: PathBuf,
    /// How long flows are kept.
    pub age: Duration,
    /// How large the database may become, in bytes.
    pub size: u64,
}

/// A look at the kernel's counters.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When it began.
    pub at: Timestamp,
    /// The map of verdicts, and its rows.
    pub verdicts: (Epoch, Vec<(FlowKey, u64)>),
    /// The map of traffic, and its rows.
    pub traffic: (Epoch, Vec<(TrafficKey, Traffic)>),
}

/// How the history is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Why nothing can be written now, or what was damaged.
    pub problem: Option<String>,
    /// Samples that are in the database.
    pub written: u64,
    /// Samples that were not taken when the next one came; what they counted is in that one.
    pub merged: u64,
    /// Attempts to write that failed.
    pub failures: u64,
    /// Databases that were damaged and set aside.
    pub set_aside: u64,
    /// Size of the database in bytes.
    pub size: u64,
}

#[derive(Default)]
struct Shared {
    status: Mutex<Status>,
    sample: Mutex<Option<Sample>>,
    names: Mutex<Arc<Names>>,
    writing: Mutex<Option<Instant>>,
    ending: AtomicBool,
}

/// Each of these is a value that is replaced as a whole.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle. Copies are the same history.
#[derive(Clone)]
pub struct History {
    wake: SyncSender<()>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("status", &*lock(&self.shared.status)).finish_non_exhaustive()
    }
}

impl History {
    /// Starts the thread. What is wrong with the database is told by [`History::status`], and tried again.
    ///
    /// # Errors
    /// If there is no room for a thread.
    pub fn start(settings: Settings) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (wake, woken) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let history = Self { wake, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || run(Writer::new(settings), &shared, &woken))?;
        Ok((history, thread))
    }

    /// These names are valid now.
    pub fn names(&self, names: &Arc<Names>) {
        *lock(&self.shared.names) = Arc::clone(names);
    }

    /// Hands over the newest look at the counters.
    pub fn sample(&self, sample: Sample) {
        if lock(&self.shared.sample).replace(sample).is_some() {
            lock(&self.shared.status).merged += 1;
        }
        // Full means that it is awake already.
        self.wake.try_send(()).ok();
    }

    /// How the history is.
    pub fn status(&self) -> Status {
        let mut status = lock(&self.shared.status).clone();
        let waits = lock(&self.shared.writing).map(|since| since.elapsed()).filter(|waits| *waits > SLOW);
        if let (Some(waits), None) = (waits, &status.problem) {
            status.problem = Some(format!("its disk has not answered for {} s", waits.as_secs()));
        }
        status
    }

    /// Has the last sample written and the thread end.
    pub fn stop(&self) {
        self.shared.ending.store(true, Ordering::Release);
        self.wake.try_send(()).ok();
    }
}

fn run(mut writer: Writer, shared: &Shared, woken: &Receiver<()>) {
    loop {
        let is_alone = matches!(woken.recv_timeout(TICK), Err(RecvTimeoutError::Disconnected));
        // Before the sample is taken: what comes after it is not the last.
        let is_over = is_alone || shared.ending.load(Ordering::Acquire);
        let sample = lock(&shared.sample).take();
        if let Some(sample) = sample {
            let names = Arc::clone(&lock(&shared.names));
            *lock(&shared.writing) = Some(Instant::now());
            let result = writer.write(&sample, &names);
            *lock(&shared.writing) = None;
            let mut status = lock(&shared.status);
            match result {
                Ok(()) => status.written += 1,
                Err(_) => status.failures += 1,
            }
            status.problem = result.err().or_else(|| writer.damage());
            (status.set_aside, status.size) = (writer.set_aside, writer.size);
        }
        if is_over {
            return;
        }
    }
}
