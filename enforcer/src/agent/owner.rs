//! The owner of the state: one task, which feeds the engine and performs what it asks for.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enforcer_common::hook::Hook;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::audit::Auditor;
use super::coverage::{self, Watch};
use super::notify::Notifier;
use super::outputs::Outputs;
use super::pins::PinsLock;
use super::{Error, SharedKernel, clock, lock};
use crate::api::{Call, Readiness};
use crate::config::Config;
use crate::domain::audit::fact::Fact;
use crate::domain::command::Reply;
use crate::domain::delta::Operation;
use crate::domain::publication::Publication;
use crate::domain::revoke::InForce;
use crate::domain::time::Clocks;
use crate::domain::{EventLimits, Mode};
use crate::engine::{self, Adopted, Done, Effect, Event, Level, Save, State, Step, Ticket};
use crate::kernel::{Scheduled, Seeded, Seen};
use crate::store::{self, Store};
use crate::telemetry::history::History;

/// Time between looks at what the kernel has.
const TICK: Duration = Duration::from_secs(1);
/// Events that are taken together at most, so that a flood of them can't keep work from beginning.
const BATCH: usize = 256;

/// What the kernel is told once, when the owner begins.
pub(super) struct Orders {
    /// What is done with a denial.
    pub(super) mode: Mode,
    /// Bits of the kinds of sockets that workloads may create.
    pub(super) socket_kinds: u64,
    /// Which events are told.
    pub(super) events: EventLimits,
}

impl Orders {
    pub(super) fn of(config: &Config, mode: Mode) -> Self {
        Self { mode, socket_kinds: config.socket_kinds(), events: config.event_limits() }
    }
}

/// The owner.
pub(super) struct Owner {
    state: State,
    store: Store,
    kernel: SharedKernel,
    outputs: Outputs,
    auditor: Auditor,
    notifier: Notifier,
    started: Instant,
    /// Events that come before those from outside: acknowledgements.
    next: VecDeque<Event>,
    replies: BTreeMap<Ticket, oneshot::Sender<Reply>>,
    tickets: u64,
    attached: bool,
    mode: Mode,
    /// What the last look at the kernel found.
    seen: Seen,
    openings: Watch,
    pins: PathBuf,
    /// On the directory of pins, if it was made anew meanwhile.
    lock: Option<PinsLock>,
    ended: Option<Result<(), Error>>,
}

/// What wakes the owner.
enum Wake {
    Event(Event),
    Call(Call),
    Tick,
    End(&'static str),
    Reload,
}

impl Owner {
    pub(super) fn new(
        state: State,
        store: Store,
        (kernel, pins): (SharedKernel, PathBuf),
        (outputs, auditor): (Outputs, Auditor),
        openings: Watch,
    ) -> Self {
        Self {
            state,
            store,
            kernel,
            outputs,
            auditor,
            notifier: Notifier::from_environment(),
            started: Instant::now(),
            next: VecDeque::new(),
            replies: BTreeMap::new(),
            tickets: 0,
            attached: false,
            mode: Mode::default(),
            seen: Seen::default(),
            openings,
            pins,
            lock: None,
            ended: None,
        }
    }

    /// Runs until the engine says that it is over.
    pub(super) async fn run(
        mut self,
        adopted: Adopted,
        orders: Orders,
        mut events: mpsc::Receiver<Event>,
        mut calls: mpsc::Receiver<Call>,
    ) -> Result<(), Error> {
        self.mode = orders.mode;
        let mut signals = Signals::new().map_err(Error::Signals)?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.feed(Event::Adopted(adopted));
        // Not before: an agent that refuses to go on must not change what the kernel does with denials.
        if self.ended.is_none() {
            let mut kernel = lock(&self.kernel);
            kernel.set_socket_kinds(orders.socket_kinds)?;
            kernel.set_event_limits(orders.events)?;
            kernel.set_mode(orders.mode)?;
            kernel.set_own_namespace()?;
            fail_point!("mode-set");
        }
        self.look_for_openings();
        while self.ended.is_none() {
            let wake = tokio::select! {
                Some(event) = events.recv() => Wake::Event(event),
                Some(call) = calls.recv() => Wake::Call(call),
                _ = tick.tick() => Wake::Tick,
                wake = signals.next() => wake,
            };
            // Whatever came meanwhile belongs to the same batch.
            self.batch(wake, &mut events, &mut calls);
            self.forget_gone();
            self.feed(Event::Quiet);
        }
        self.ended.unwrap_or(Ok(()))
    }

    /// What was told is in the kernel before anybody is answered, so that no answer is ahead of what is enforced.
    fn batch(&mut self, first: Wake, events: &mut mpsc::Receiver<Event>, calls: &mut mpsc::Receiver<Call>) {
        let mut asked = Vec::new();
        let mut is_news = false;
        match first {
            Wake::Call(call) => asked.push(call),
            other => {
                self.wake(other);
                is_news = true;
            }
        }
        for event in std::iter::from_fn(|| events.try_recv().ok()).take(BATCH) {
            self.wake(Wake::Event(event));
            is_news = true;
        }
        asked.extend(std::iter::from_fn(|| calls.try_recv().ok()).take(BATCH));
        if is_news && !asked.is_empty() {
            self.feed(Event::Quiet);
        }
        for call in asked {
            self.wake(Wake::Call(call));
        }
    }

    /// A client that gave up was told so: its change must not happen afterwards.
    fn forget_gone(&mut self) {
        let gone = self.replies.extract_if(.., |_, sender| sender.is_closed());
        let gone: Vec<Ticket> = gone.map(|(ticket, _)| ticket).collect();
        for ticket in gone {
            self.auditor.gone(ticket);
            self.feed(Event::Gone(ticket));
        }
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Event(event) => self.feed(event),
            Wake::Call(Call { request, from, reply }) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.auditor.asked(ticket, &request, from);
                self.replies.insert(ticket, reply);
                self.feed(Event::Request { ticket, request, now: self.now() });
            }
            Wake::Tick => self.tick(),
            Wake::Reload => {
                tracing::info!("SIGHUP: all files are read again");
                self.outputs.demand.send_modify(|count| *count += 1);
            }
            Wake::End(signal) => {
                tracing::info!(
                    "{signal}: ending; what is attached stays and enforces, `enforcer uninstall` removes it"
                );
                fail_point!("stopping");
                self.notifier.stopping();
                self.feed(Event::Shutdown);
            }
        }
    }

    fn now(&self) -> Clocks {
        clock::clocks(self.started.elapsed())
    }

    fn tick(&mut self) {
        self.outputs.pipeline.set_clock_offset(clock::boot_to_wall());
        // Before the hooks are attached they are missing, which is no problem then.
        if self.attached {
            self.watch();
        }
        self.look_for_openings();
        self.look_at_logs();
        self.feed(Event::Tick(self.now()));
    }

    /// Looks at how audit log and flow history are.
    fn look_at_logs(&mut self) {
        let history = self.outputs.history.as_ref().map(History::status);
        for event in self.auditor.look(history.as_ref()) {
            self.feed(event);
        }
        let audit = self.auditor.status();
        self.outputs.gauges.send_if_modified(|gauges| {
            let changed = gauges.audit != audit || gauges.history != history;
            (gauges.audit, gauges.history) = (audit, history);
            changed
        });
    }

    /// Looks at what is open, and tells what changed.
    fn look_for_openings(&mut self) {
        let Some(coverage) = self.openings.look(engine::opened_kinds(&self.state)) else { return };
        let names: Vec<_> = coverage.unguarded.iter().map(|open| open.vector.as_str()).collect();
        tracing::info!(
            "{} ways past enforcer are open here, see `enforcer status --unguarded`: {}",
            names.len(),
            names.join(" ")
        );
        self.outputs.gauges.send_modify(|gauges| gauges.unguarded = coverage::numbers(&coverage));
        self.feed(Event::Coverage(coverage));
    }

    /// Has the kernel looked at, and put right.
    fn watch(&mut self) {
        let seen = lock(&self.kernel).watch();
        if seen == self.seen {
            return;
        }
        for (kind, said) in &seen.repairs {
            tracing::warn!("repaired: {said}");
            self.auditor.tell(Fact::Repaired { kind: kind.label(), message: said.clone() });
        }
        if seen.pins_made {
            match PinsLock::take(&self.pins) {
                Ok(lock) => self.lock = Some(lock),
                Err(error) => tracing::warn!("the new directory of pins is not locked: {error}"),
            }
        }
        self.outputs.gauges.send_modify(|gauges| {
            for (kind, _) in &seen.repairs {
                *gauges.repairs.entry(kind.label()).or_default() += 1;
            }
            gauges.foreign = Hook::ALL
                .iter()
                .map(|hook| (hook.program(), seen.foreign.get(hook).copied().unwrap_or_default()))
                .collect();
        });
        if seen.problems != self.seen.problems {
            self.feed(Event::KernelProblems(seen.problems.clone()));
        }
        let hooks = seen.hooks.iter().map(|hook| hook.program().to_owned()).collect();
        self.feed(Event::KernelSeen { notices: seen.notices.clone(), hooks });
        // A repair is told once, however often the same is repaired.
        self.seen = Seen { repairs: Vec::new(), pins_made: false, ..seen };
    }

    /// Feeds the engine, performs what it asks for, and feeds it the acknowledgements, until nothing is left.
    fn feed(&mut self, event: Event) {
        self.next.push_back(event);
        while let Some(event) = self.next.pop_front() {
            let acknowledgement = matches!(event, Event::Done(_) | Event::Failed { .. });
            for effect in engine::step(&mut self.state, event) {
                self.perform(effect);
            }
            // The end of a change is the moment for the next one.
            if acknowledgement && self.next.is_empty() {
                self.next.push_back(Event::Quiet);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.auditor.perform(&effect);
        match effect {
            Effect::Save(save) => {
                let Save { registry, write, remove, quarantines, confirmation } = *save;
                fail_point!("before-save");
                let saved =
                    self.store.save(&store::Changes { registry, write, remove, quarantines, confirmation });
                fail_point!("after-save");
                self.acknowledge(Step::Save, saved.map(|()| Done::Saved));
            }
            Effect::Publish(publication) => self.publish(&publication),
            Effect::Place { publication, placed } => {
                fail_point!("before-publish");
                let result = lock(&self.kernel).learn(publication.chain().map(|(table, _)| table), &placed);
                fail_point!("after-publish");
                self.acknowledge(Step::Publish, result.map(|()| Done::Published));
            }
            Effect::Apply(operations) => {
                fail_point!("before-apply");
                let failures = self.apply(&operations);
                fail_point!("after-apply");
                self.next.push_back(Event::Done(Done::Applied(failures)));
            }
            Effect::Attach => {
                fail_point!("before-attach");
                let mut kernel = lock(&self.kernel);
                let attached = kernel.attach().map(|seeded| {
                    self.attached = true;
                    tell_seeded(&seeded);
                    Done::Attached(
                        kernel.attached_hooks().iter().map(|hook| hook.program().to_owned()).collect(),
                    )
                });
                drop(kernel);
                fail_point!("after-attach");
                self.acknowledge(Step::Attach, attached);
            }
            Effect::Revoke { table, tables } => {
                if self.mode == Mode::Enforce {
                    let in_force = Arc::new(InForce::new(table, tables));
                    self.outputs.in_force.send_replace(Some(in_force));
                }
            }
            Effect::Reply { ticket, reply } => {
                fail_point!("before-reply");
                if let Some(sender) = self.replies.remove(&ticket) {
                    // The asker may be gone.
                    sender.send(reply).ok();
                    fail_point!("after-reply");
                }
            }
            Effect::PublishNames(names) => self.outputs.names(names),
            // These are the auditor's.
            Effect::Changed { .. } | Effect::Problem { .. } => {}
            Effect::Readiness { ready, reason } => {
                self.notifier.readiness(ready, &reason);
                self.outputs.gauges.send_modify(|gauges| gauges.ready = ready);
                self.outputs.readiness.send_replace(Readiness { ready, reason });
            }
            Effect::Report(report) => self.outputs.report(&report),
            Effect::Log { level: Level::Info, message } => tracing::info!("{message}"),
            Effect::Log { level: Level::Warn, message } => tracing::warn!("{message}"),
            Effect::Refuse(message) => self.ended = Some(Err(Error::Refused(message))),
            Effect::Stop => self.ended = Some(Ok(())),
        }
    }

    fn publish(&mut self, publication: &Publication) {
        fail_point!("before-publish");
        let begin = Instant::now();
        let chain: Vec<Scheduled<'_>> = publication
            .chain()
            .map(|(table, until)| Scheduled { table, until: until.map(|until| until.0) })
            .collect();
        let published = lock(&self.kernel).publish(&chain);
        let table = &publication.table;
        tracing::info!(
            "generation {}: {} entries, {} rows, {} successors, published in {} us",
            table.generation(),
            table.entries(),
            table.rows().len(),
            publication.next.len(),
            begin.elapsed().as_micros(),
        );
        fail_point!("after-publish");
        self.outputs.gauges.send_modify(|gauges| match &published {
            Ok(()) => gauges.published.observe(begin.elapsed()),
            Err(_) => gauges.unpublished += 1,
        });
        self.acknowledge(Step::Publish, published.map(|()| Done::Published));
    }

    fn apply(&self, operations: &[Operation]) -> Vec<(usize, String)> {
        let mut kernel = lock(&self.kernel);
        let apply = |operation| kernel.apply(operation).err();
        let results = operations.iter().map(apply).enumerate();
        results.filter_map(|(at, error)| Some((at, error?.to_string()))).collect()
    }

    fn acknowledge<E: std::fmt::Display>(&mut self, step: Step, result: Result<Done, E>) {
        self.next.push_back(match result {
            Ok(done) => Event::Done(done),
            Err(error) => Event::Failed { step, message: error.to_string() },
        });
    }
}

/// Says what was found of sockets that were older than the hooks.
fn tell_seeded(seeded: &Seeded) {
    if seeded.recorded > 0 {
        tracing::info!(
            "{} sockets from before got the identity of the process that holds them",
            seeded.recorded
        );
    }
    if let Some(complaint) = seeded.complaint() {
        tracing::warn!("{complaint}");
    }
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wake {
        tokio::select! {
            _ = self.terminate.recv() => Wake::End("SIGTERM"),
            _ = self.interrupt.recv() => Wake::End("SIGINT"),
            _ = self.hangup.recv() => Wake::Reload,
        }
    }
}
