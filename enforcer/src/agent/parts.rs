//! The parts around the owner: sources, the ring's reader, the API.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enforcer_common::abi::flow::FlowEvent;
use enforcer_common::hook::Hook;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::audit::Auditor;
use super::canary;
use super::coverage::Watch;
use super::logs::Logs;
use super::outputs::Outputs;
use super::owner::{Orders, Owner};
use super::sample::Sinks;
use super::scrape::{self, Scrape};
use super::start::{self, Started};
use super::supervise::{closed, supervise};
use super::{Error, SharedKernel, clock, cluster, lock, report, revoke, runtimes, sample};
use crate::api::{self, Access, Backend, FlowLog, Readiness};
use crate::config::Config;
use crate::domain::canary::Outcome;
use crate::domain::conditions::Why;
use crate::domain::names::Names;
use crate::engine::{self, Event, Facts};
use crate::kernel::{Events, Kernel, Repair, Revoker};
use crate::sources::{
    self, CgroupTree, Directories, Look, Managed, OwnEvent, PolicyDir, PolicyEvent, PolicyPath, StaticFile,
};
use crate::store::Store;
use crate::telemetry::Pipeline;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Gauges;

/// Events on their way to the owner; a source that is quicker than the owner waits.
pub(super) const EVENTS: usize = 256;
/// Requests on their way to the owner; beyond that, clients wait.
pub(super) const CALLS: usize = 256;
/// Parts have so long to finish what they are at.
const GRACE: Duration = Duration::from_secs(5);
/// The ring is read for so long after the end has begun.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// What the parts share.
pub(super) struct Shared {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) demand: watch::Receiver<u64>,
    pub(super) closing: watch::Receiver<bool>,
}

/// Starts all parts and runs the owner until the end.
pub(super) async fn run(config: &Config, started: Started) -> Result<(), Error> {
    let Started {
        facts,
        cgroup_root,
        state,
        store,
        mut kernel,
        pins: _pins,
        adopted,
        access,
        socket,
        socket_file: _socket_file,
        monitoring,
        host,
    } = started;
    let ring = kernel.take_events()?;
    let logs = Logs::start(config, &facts, &adopted, &host)?;
    let kernel: SharedKernel = Arc::new(Mutex::new(kernel));
    let (events, event_queue) = mpsc::channel(EVENTS);
    let (calls, call_queue) = mpsc::channel(CALLS);
    let (demand, demanded) = watch::channel(0);
    let (close, closing) = watch::channel(false);
    let (names, names_seen) = watch::channel(Arc::new(Names::default()));
    let (readiness, readiness_seen) = watch::channel(Readiness::default());
    let (gauges, gauges_seen) = watch::channel(first_gauges(&lock(&kernel)));
    let pipeline = Arc::new(Pipeline::new(names_seen.clone(), host));
    let malformed = Arc::new(AtomicU64::new(0));
    let scrape = Arc::new(Scrape {
        kernel: Arc::clone(&kernel),
        names: names_seen,
        gauges: gauges_seen,
        pipeline: Arc::clone(&pipeline),
        malformed: Arc::clone(&malformed),
        exporter: scrape::exporter(config),
        started: Instant::now(),
    });
    let questions = calls.clone();
    let backend = backend(config, (&logs, calls), &pipeline, &scrape, readiness_seen);
    let shared = Shared { events, demand: demanded, closing };
    let mut parts = JoinSet::new();
    let (canary, target) = watch::channel(canary::Target::default());
    spawn_canary(&mut parts, (config, &cgroup_root), target, &gauges, &shared).await;
    spawn_indexed(&mut parts, (config, &cgroup_root), (&store, questions, &gauges), &shared);
    spawn_sources(&mut parts, config, cgroup_root.clone(), &shared);
    parts.spawn(read_ring(
        ring,
        (Arc::clone(&pipeline), logs.audit.clone()),
        malformed,
        shared.events.clone(),
        shared.closing.clone(),
    ));
    spawn_servers(&mut parts, config, (socket, access), monitoring, &backend, &shared);
    let (in_force, latest) = watch::channel(None);
    spawn_revocation(&mut parts, (config.pins.clone(), cgroup_root), latest, &gauges, &shared);
    spawn_sampler(&mut parts, config, &facts, &logs, &shared);
    drop(shared);
    drop(backend);
    let openings = Watch::new(config, &lock(&kernel));
    let history = logs.history.clone();
    let outputs = Outputs { names, readiness, gauges, demand, in_force, canary, pipeline, history };
    let results = (outputs, Auditor::new(logs.audit.clone()));
    let owner = Owner::new(state, store, (kernel, config.pins.clone()), results, openings);
    let ended = owner.run(adopted, Orders::of(config, facts.mode), event_queue, call_queue).await;
    fail_point!("owner-ended");
    close.send_replace(true);
    join(parts).await;
    logs.stop(&ended).await;
    fail_point!("parts-ended");
    ended
}

/// What the servers need.
fn backend(
    config: &Config,
    (logs, calls): (&Logs, mpsc::Sender<api::Call>),
    pipeline: &Arc<Pipeline>,
    scrape: &Arc<Scrape>,
    readiness: watch::Receiver<Readiness>,
) -> Backend {
    let (reader, loser, text) = (Arc::clone(pipeline), Arc::clone(pipeline), Arc::clone(scrape));
    let flows = FlowLog {
        next: pipeline.next(),
        read: Arc::new(move |from, most| reader.page(from, most)),
        missed: Arc::new(move |flows| loser.missed(flows)),
    };
    Backend {
        requests: logs.gate(config, calls),
        history: logs.reader(),
        flows,
        edges: Arc::clone(scrape).edges(config),
        metrics: Arc::new(move || text.text()),
        readiness,
    }
}

/// Waits for the parts, but not for ever.
async fn join(mut parts: JoinSet<()>) {
    if tokio::time::timeout(GRACE, async { while parts.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("{} parts did not end in time and are left behind", parts.len());
    }
}

/// What the gauges say before anything has happened: every series is there.
fn first_gauges(kernel: &Kernel) -> Gauges {
    Gauges {
        version: start::VERSION,
        start_seconds: clock::wall_seconds(),
        problems: start::no_problems(),
        foreign: Hook::ALL.iter().map(|hook| (hook.program(), 0)).collect(),
        repairs: Repair::ALL.iter().map(|kind| (kind.label(), 0)).collect(),
        storage_charged: kernel.storage_is_charged().is_some(),
        canary_attempts: Outcome::LABELS.map(|label| (label, 0)).into(),
        standing: Why::of_policies().map(|why| (why.label(), 0)).collect(),
        ..Gauges::default()
    }
}

/// Starts a source whose events become the engine's.
fn spawn_source<L: Look>(
    parts: &mut JoinSet<()>,
    shared: &Shared,
    name: &'static str,
    make: impl Fn() -> L + Send + 'static,
    convert: fn(L::Event) -> Event,
) where
    L::Event: 'static,
{
    let (events, demand, closing) = (shared.events.clone(), shared.demand.clone(), shared.closing.clone());
    let start = {
        let events = events.clone();
        move || {
            let (sender, mut told) = mpsc::channel(EVENTS);
            let running = sources::run(make(), sender, demand.clone());
            let (events, closing) = (events.clone(), closing.clone());
            tokio::spawn(async move {
                let forward = async {
                    while let Some(event) = told.recv().await {
                        if events.send(convert(event)).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    ended = running => ended.map_err(|error| error.to_string()),
                    () = forward => Ok(()),
                    () = closed(closing) => Ok(()),
                }
            })
        }
    };
    parts.spawn(supervise(name, events, shared.closing.clone(), start));
}

fn spawn_sources(parts: &mut JoinSet<()>, config: &Config, cgroup_root: PathBuf, shared: &Shared) {
    let tree = CgroupTree::new(cgroup_root);
    let defaults = Config::default();
    if let Some(path) = config.workloads.clone() {
        // The default files need not exist; what somebody named must.
        let optional = defaults.workloads.as_ref() == Some(&path);
        let tree = tree.clone();
        let make = move || StaticFile::new(path.clone(), tree.clone(), optional);
        spawn_source(parts, shared, "the source of workloads", make, Event::Workloads);
    }
    if !config.policies.is_empty() {
        let paths: Vec<PolicyPath> = config
            .policies
            .iter()
            .map(|path| PolicyPath { path: path.clone(), optional: defaults.policies.contains(path) })
            .collect();
        let convert = |event| match event {
            PolicyEvent::Files(files) => Event::PolicyFiles(files),
            PolicyEvent::Problem(message) => Event::SourceProblem { source: engine::POLICIES, message },
        };
        let make = move || PolicyDir::new(paths.clone());
        spawn_source(parts, shared, "the source of policy files", make, convert);
    }
    if !config.managed.is_empty() {
        let directories = config.managed.clone();
        let make = move || Managed::new(tree.clone(), directories.clone());
        spawn_source(parts, shared, "the source of managed cgroups", make, Event::Managed);
    }
}

/// The sources that find directories by other names than paths, and the index that they need; and what is told the cluster.
fn spawn_indexed(
    parts: &mut JoinSet<()>,
    (config, cgroup_root): (&Config, &Path),
    (store, questions, gauges): (&Store, mpsc::Sender<api::Call>, &watch::Sender<Gauges>),
    shared: &Shared,
) {
    let directories = Directories::new(cgroup_root.to_owned());
    runtimes::spawn_directories(parts, &directories, shared);
    runtimes::spawn(parts, config, &directories, shared);
    spawn_own_addresses(parts, shared);
    let heard = (&shared.events, &shared.closing);
    let host = start::fact("/proc/sys/kernel/hostname");
    cluster::spawn(parts, config, &host, &store.cluster(), &directories, heard);
    report::spawn(parts, config, &host, &questions, gauges, heard);
}

/// The host's own addresses, by which it is found that a peer is here.
fn spawn_own_addresses(parts: &mut JoinSet<()>, shared: &Shared) {
    let (events, demand, closing) = (shared.events.clone(), shared.demand.clone(), shared.closing.clone());
    let start = move || {
        let (sender, mut told) = mpsc::channel(EVENTS);
        let running = sources::run_own_addresses(sender, demand.clone());
        let (events, closing) = (events.clone(), closing.clone());
        tokio::spawn(async move {
            let forward = async {
                while let Some(event) = told.recv().await {
                    let event = match event {
                        OwnEvent::Addresses(addresses) => Event::OwnAddresses(addresses),
                        OwnEvent::Problem(message) => Event::SourceProblem { source: engine::OWN, message },
                    };
                    if events.send(event).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                ended = running => ended.map_err(|error| error.to_string()),
                () = forward => Ok(()),
                () = closed(closing) => Ok(()),
            }
        })
    };
    let name = "the source of own addresses";
    parts.spawn(supervise(name, shared.events.clone(), shared.closing.clone(), start));
}

fn spawn_servers(
    parts: &mut JoinSet<()>,
    config: &Config,
    (socket, access): (tokio::net::UnixListener, Access),
    monitoring: Option<tokio::net::TcpListener>,
    backend: &Backend,
    shared: &Shared,
) {
    // The sockets of the first start were made before; later ones are made anew.
    let mut socket = Some(socket);
    let (path, closing, with) = (config.socket.clone(), shared.closing.clone(), backend.clone());
    let start = move || -> JoinHandle<Result<(), String>> {
        let listener = socket.take().map_or_else(|| api::bind(&path, &access), Ok);
        let (access, closing, with) = (access.clone(), closing.clone(), with.clone());
        tokio::spawn(async move {
            let listener = listener.map_err(|error| error.to_string())?;
            ended(api::server::serve(listener, with, access, closed(closing.clone())).await, &closing)
        })
    };
    parts.spawn(supervise("the API", shared.events.clone(), shared.closing.clone(), start));
    let Some(address) = config.metrics_listen else { return };
    let mut monitoring = monitoring;
    let (closing, with) = (shared.closing.clone(), backend.clone());
    let start = move || -> JoinHandle<Result<(), String>> {
        let listener = monitoring.take().map_or_else(|| start::listen(address), Ok);
        let (closing, with) = (closing.clone(), with.clone());
        tokio::spawn(async move {
            let listener = listener.map_err(|error| error.to_string())?;
            ended(api::http::serve(listener, with, closed(closing.clone())).await, &closing)
        })
    };
    parts.spawn(supervise("the monitoring port", shared.events.clone(), shared.closing.clone(), start));
}

fn spawn_revocation(
    parts: &mut JoinSet<()>,
    (pins, cgroup_root): (PathBuf, PathBuf),
    latest: watch::Receiver<revoke::Latest>,
    gauges: &watch::Sender<Gauges>,
    shared: &Shared,
) {
    let (gauges, closing) = (gauges.clone(), shared.closing.clone());
    let start = move || -> JoinHandle<Result<(), String>> {
        let revoker = Revoker::new(&pins, &cgroup_root).map_err(|error| error.to_string());
        let (latest, gauges, closing) = (latest.clone(), gauges.clone(), closing.clone());
        tokio::spawn(async move { revoke::run(revoker?, latest, gauges, closing).await })
    };
    let name = "the revocation of open sockets";
    parts.spawn(supervise(name, shared.events.clone(), shared.closing.clone(), start));
}

/// The canary, and first of all its directory.
async fn spawn_canary(
    parts: &mut JoinSet<()>,
    (config, cgroup_root): (&Config, &Path),
    target: watch::Receiver<canary::Target>,
    gauges: &watch::Sender<Gauges>,
    shared: &Shared,
) {
    let attach = start::attach(config, cgroup_root).unwrap_or_else(|_| cgroup_root.to_owned());
    let (canary, told) = canary::prepare(config, &attach);
    // The queue is empty, and its reader is yet to come.
    shared.events.send(Event::Canary(told)).await.ok();
    if let Some(canary) = canary {
        let told = (shared.events.clone(), gauges.clone());
        parts.spawn(canary::run(canary, target, told, shared.closing.clone(), Instant::now()));
    }
}

/// Feeds audit log and flow history, if there is one of them.
fn spawn_sampler(parts: &mut JoinSet<()>, config: &Config, facts: &Facts, logs: &Logs, shared: &Shared) {
    if logs.audit.is_none() && logs.history.is_none() {
        return;
    }
    let (audit, history) = (logs.audit.clone(), logs.history.clone());
    let sinks = Sinks { audit, history, boot_id: facts.boot_id.clone() };
    let (pins, interval, closing) = (config.pins.clone(), config.audit_interval, shared.closing.clone());
    let start = move || sample::start(&pins, &sinks, interval, &closing);
    parts.spawn(supervise("the reader of counters", shared.events.clone(), shared.closing.clone(), start));
}

/// A server may end only when it was asked to.
fn ended(result: std::io::Result<()>, closing: &watch::Receiver<bool>) -> Result<(), String> {
    match result {
        Err(error) => Err(error.to_string()),
        Ok(()) if *closing.borrow() => Ok(()),
        Ok(()) => Err("it stopped listening".to_owned()),
    }
}

/// Reads the ring until the end. There is one reader for the life of the process, so a failure is waited out here.
async fn read_ring(
    mut ring: Events,
    (pipeline, audit): (Arc<Pipeline>, Option<Audit>),
    malformed: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    closing: watch::Receiver<bool>,
) {
    const NAME: &str = "the reader of the event ring";
    let mut batch: Vec<FlowEvent> = Vec::new();
    let mut failed = false;
    let mut last = false;
    loop {
        let read = tokio::select! {
            read = ring.next(&mut batch) => Some(read),
            () = closed(closing.clone()), if !last => { last = true; continue }
            () = tokio::time::sleep(LAST_LOOK), if last => None,
        };
        malformed.store(ring.malformed(), Ordering::Relaxed);
        pipeline.record(&batch);
        if let Some(audit) = &audit {
            audit.details(&batch);
        }
        batch.clear();
        let problem = match read {
            None => return,
            Some(Ok(())) => None,
            Some(Err(error)) => Some(format!("{NAME} fails, events are lost and counters are not: {error}")),
        };
        if failed != problem.is_some() {
            failed = problem.is_some();
            events.send(Event::Part { name: NAME, problem }).await.ok();
        }
        if failed {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
