//! The thread that writes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::files::{Found, Log, Notice, Settings};
use super::state::State;
use super::verdicts::{self, Interval};
use super::{Message, NAMES_SIZE, Sample, Shared, lock, workloads};
use crate::domain::audit::Kind;
use crate::domain::audit::record::{Action, Host, Record};
use crate::domain::counted::Edge;
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// Time between looks at the sample and flushes.
const TICK: Duration = Duration::from_secs(1);
/// Records of workloads that wait at most while the log can't be written.
const WAITING: usize = 100_000;
/// Records that are added together at most.
const BATCH: usize = 64;
/// What was made records of is written down at least this often, so that a start has few records to read.
const SAVE: Duration = Duration::from_mins(1);

/// See the module.
pub(super) struct Writer {
    settings: Settings,
    host: Host,
    shared: Arc<Shared>,
    log: Option<Log>,
    state: State,
    /// Records that are not in the file yet, each with what it takes of the queue's bytes.
    pending: VecDeque<(Record, usize)>,
    /// The names that were looked at last.
    names: Option<Arc<Names>>,
    /// When the last look at the counters was.
    looked: Option<Timestamp>,
    saved: Instant,
    /// Flushes that somebody waits for.
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
}

impl Writer {
    pub(super) fn new(settings: Settings, host: Host, shared: Arc<Shared>) -> Self {
        Self {
            settings,
            host,
            shared,
            log: None,
            state: State::default(),
            pending: VecDeque::new(),
            names: None,
            looked: None,
            saved: Instant::now(),
            waiting: Vec::new(),
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        let mut next = Instant::now();
        loop {
            self.work(Instant::now() >= next);
            if Instant::now() >= next {
                next = Instant::now() + TICK;
            }
            let received = inbox.recv_timeout(next.saturating_duration_since(Instant::now()));
            let mut received = match received {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) if self.shared.ending.load(Ordering::Acquire) => {
                    return self.end();
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            };
            while let Some(message) = received {
                if !self.take(message) {
                    return self.end();
                }
                received = if self.pending.len() < BATCH { inbox.try_recv().ok() } else { None };
            }
        }
    }

    /// Takes a message; `false` if it is the last.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Fact(at, fact) => {
                let size = fact.size();
                self.wait(fact.record(at, &self.host), size);
            }
            Message::Names(at, names) => {
                let before = self.names.as_ref().map(|names| names.version);
                let known = self.state.workloads.get_or_insert_default();
                let records = workloads::changes(known, before, &names, at, &self.host);
                for record in records {
                    self.wait(record, 0);
                }
                self.shared.queued.fetch_sub(NAMES_SIZE, Ordering::AcqRel);
                self.names = Some(names);
            }
            Message::Flush(asker) => self.waiting.push(asker),
            Message::Stop => return false,
        }
        true
    }

    /// Has a record wait to be written, if there is room for it; facts have theirs by the queue's bytes.
    fn wait(&mut self, record: Record, size: usize) {
        if size == 0 && self.pending.len() >= WAITING {
            self.shared.lose(record.enforcer.kind);
        } else {
            self.pending.push_back((record, size));
        }
    }

    /// Writes what there is, and notes how that went.
    fn work(&mut self, tick: bool) {
        if !tick
            && self.waiting.is_empty()
            && (self.pending.is_empty() || lock(&self.shared.status).problem.is_some())
        {
            return;
        }
        *lock(&self.shared.writing) = Some(Instant::now());
        let result = self.write(tick);
        *lock(&self.shared.writing) = None;
        let problem = result.err().map(|error| {
            format!("the audit log in {} can't be written: {error}", self.settings.directory.display())
        });
        let mut status = lock(&self.shared.status);
        status.problem.clone_from(&problem);
        if let Some(log) = &self.log {
            status.head = log.head();
        }
        drop(status);
        for asker in self.waiting.drain(..) {
            // The asker may be gone.
            asker.send(problem.clone().map_or(Ok(()), Err)).ok();
        }
    }

    fn write(&mut self, tick: bool) -> io::Result<()> {
        if self.log.is_none() {
            self.open()?;
        }
        self.write_pending()?;
        if tick {
            let sample = lock(&self.shared.sample).take();
            if let Some(sample) = sample {
                self.write_verdicts(&sample).inspect_err(|_| {
                    // Counts wait in the kernel; a newer look has them all.
                    lock(&self.shared.sample).get_or_insert(sample);
                })?;
            }
        }
        let Some(log) = &mut self.log else { return Ok(()) };
        if tick || !self.waiting.is_empty() {
            log.flush()?;
        }
        if tick && self.saved.elapsed() >= SAVE {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> io::Result<()> {
        self.saved = Instant::now();
        // Workloads that wait to be written are known already.
        match &self.log {
            Some(log) if self.pending.is_empty() => {
                self.state.save(&self.settings.directory, log.head().sequence)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let (log, found) = Log::open(&self.settings)?;
        let mut state = State::load(&self.settings.directory, log.files())?;
        if let Some(names) = &self.names {
            // They came while the log could not be opened: what differs is what was found here.
            self.pending.retain(|(record, _)| record.enforcer.kind != Kind::Identity);
            let known = state.workloads.get_or_insert_default();
            let records = workloads::changes(known, None, names, (self.shared.now)(), &self.host);
            self.pending.extend(records.into_iter().map(|record| (record, 0)));
        }
        self.state = state;
        self.log = Some(log);
        let now = (self.shared.now)();
        for record in found_records(&found, now, &self.host).into_iter().rev() {
            self.pending.push_front((record, 0));
        }
        Ok(())
    }

    fn write_pending(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            let count = self.pending.len().min(BATCH);
            let mut records: Vec<Record> =
                self.pending.iter().take(count).map(|(record, _)| record.clone()).collect();
            self.append(&mut records)?;
            for (_, size) in self.pending.drain(..count) {
                self.shared.queued.fetch_sub(size, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// Adds records to the file, with what was lost before them.
    fn append(&mut self, records: &mut [Record]) -> io::Result<()> {
        let now = (self.shared.now)();
        let unsaid = lock(&self.shared.unsaid).clone();
        if let Some(first) = records.first_mut() {
            first.enforcer.lost.clone_from(&unsaid);
        }
        let Some(log) = &mut self.log else { return Ok(()) };
        let notices = log.append(records, now)?;
        let mut still = lock(&self.shared.unsaid);
        for (kind, said) in unsaid {
            if let Some(count) = still.get_mut(&kind) {
                *count -= said;
            }
        }
        still.retain(|_, count| *count > 0);
        drop(still);
        let mut status = lock(&self.shared.status);
        for record in records.iter() {
            *status.written.entry(record.enforcer.kind).or_default() += 1;
        }
        status.head = log.head();
        drop(status);
        if notices.iter().any(|notice| matches!(notice, Notice::Removed { .. })) {
            // What was counted is not to be read from records that are gone.
            self.saved = self.saved.checked_sub(SAVE).unwrap_or(self.saved);
        }
        for notice in notices {
            self.pending.push_back((notice_record(&notice, now, &self.host), 0));
        }
        Ok(())
    }

    /// One record for each row that has risen. What was written is noted at once, so that a failure in between costs
    /// nothing.
    fn write_verdicts(&mut self, sample: &Sample) -> io::Result<()> {
        let another = self.state.counted.enter(&sample.epoch);
        // Where the clock was set back nobody can say when the interval began.
        let start = self.looked.filter(|looked| !another && *looked <= sample.at);
        let rows = sample.rows.iter().map(|(key, total)| (Edge::from(*key), *total));
        let risen: Vec<(Edge, u64, u64)> = rows
            .clone()
            .filter(|(edge, _)| verdicts::is_recorded(edge))
            .filter_map(|(edge, total)| Some((edge, self.state.counted.added(&edge, total)?, total)))
            .collect();
        for batch in risen.chunks(BATCH) {
            let names = self.names.clone().unwrap_or_default();
            let (end, map) = (sample.at, sample.epoch.map);
            let interval = Interval { start, end, map, names: &names, host: &self.host };
            let now = (self.shared.now)();
            let mut records: Vec<Record> = batch
                .iter()
                .map(|(edge, added, total)| {
                    let detail = lock(&self.shared.details).take(edge);
                    verdicts::record(*edge, (*added, *total), detail, &interval, now)
                })
                .collect();
            self.append(&mut records)?;
            for (edge, _, total) in batch {
                self.state.counted.take(*edge, *total);
            }
        }
        lock(&self.shared.details).clear();
        let there: std::collections::HashSet<Edge> = rows.map(|(edge, _)| edge).collect();
        for gone in self.state.counted.gone(|edge| there.contains(edge)) {
            self.state.counted.forget(&gone);
        }
        self.looked = Some(sample.at);
        self.write_pending()
    }

    /// Writes what is left, as far as the disk takes it.
    fn end(mut self) {
        self.work(true);
        let saved = self.save().and_then(|()| self.log.as_mut().map_or(Ok(()), Log::flush));
        if let Err(error) = saved {
            tracing::warn!("the audit log was not closed as it should be: {error}");
        }
        for (record, _) in &self.pending {
            tracing::warn!("not in the audit log: {}", record.message);
        }
    }
}

/// A record about the log itself.
fn about_log(action: &'static str, message: String, failed: bool, at: Timestamp, host: &Host) -> Record {
    let outcome = if failed { "failure" } else { "success" };
    let action = Action { kind: Kind::Log, action, category: "host", types: &["info"], outcome };
    Record::new(at, host, action, message)
}

fn found_records(found: &Found, at: Timestamp, host: &Host) -> Vec<Record> {
    let Found { torn, torn_kept, missing, no_checkpoint } = found;
    let mut records = Vec::new();
    if let Some(problem) = no_checkpoint {
        let message = format!(
            "the log has records and no checkpoint, so it can't be told whether all are there: {problem}"
        );
        records.push(about_log("audit-checkpoint-lost", message, true, at, host));
    }
    if let Some((from, to)) = missing {
        let message =
            format!("records {from} to {to} were written and are not there; their numbers stay empty");
        records.push(about_log("audit-records-missing", message, true, at, host));
    }
    if !torn.is_empty() {
        let place =
            torn_kept.as_ref().map(|path| format!(", kept in {}", path.display())).unwrap_or_default();
        let message = format!(
            "{} bytes behind the last whole record were set aside{place}: a crash interrupted their writing, or somebody \
             added them",
            torn.len()
        );
        let mut record = about_log("audit-torn-line", message, true, at, host);
        if torn_kept.is_none() {
            record.event.original = String::from_utf8_lossy(torn).into_owned();
        }
        records.push(record);
    }
    records
}

fn notice_record(notice: &Notice, at: Timestamp, host: &Host) -> Record {
    match notice {
        Notice::Removed { from, to } => {
            let message = format!("records {from} to {to} were removed: the log has reached its total size");
            about_log("audit-retention", message, false, at, host)
        }
        Notice::Touched { path } => {
            let message = format!(
                "somebody changed or removed {} while it was written to; a new file begins",
                path.display()
            );
            about_log("audit-file-touched", message, true, at, host)
        }
    }
}
