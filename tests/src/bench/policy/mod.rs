//! What a change of policies or workloads costs the daemon: compiling, in time and memory, and what a new workload takes.
//!
//! Times are those of the processor: other load on the machine changes them little.

mod site;

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use enforcer::domain::cluster::KnownService;
use enforcer::domain::command::PolicyFile;
use enforcer::domain::policy::compile::{Scene, compile_scene};
use enforcer::domain::registry::Registry;
use enforcer::domain::workload::{Resolved, WorkloadEvent};
use enforcer::engine::{Adopted, Done, Effect, Event, Facts, POLICIES, Remembered, State, step};
use enforcer_common::abi::policy::Row;
use enforcer_common::id::Generation;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use self::site::Site;

/// Numbers of policies.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Workloads, and the namespaces that they are in.
const WORKLOADS: usize = 10_000;
const NAMESPACES: usize = 200;
/// The size that gates speak of.
const GATED: usize = 1_000;
/// Longest time to compile [`GATED`] policies.
const COMPILE_GATE: Duration = Duration::from_secs(1);
/// Most memory of the whole process.
const MEMORY_GATE: u64 = 256 << 20;
/// Longest time from a workload's event to the order that puts it in force.
const WORKLOAD_GATE: Duration = Duration::from_millis(5);

/// One size.
#[derive(Debug, Serialize)]
struct Compiled {
    policies: usize,
    identities: usize,
    /// Processor time, median.
    milliseconds: f64,
    /// Resident memory of the whole process at its highest, what is compiled included.
    peak_bytes: u64,
    entries: usize,
    table_bytes: usize,
}

/// One new workload.
#[derive(Debug, Serialize)]
struct Added {
    what: &'static str,
    /// Processor time of the engine until the workload is in force, median.
    milliseconds: f64,
    /// Whether a new table was needed.
    publishes: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    compiled: Vec<Compiled>,
    added: Vec<Added>,
}

/// Measures and prints. Exit code 1 if a gate is missed and `gate` says that this matters.
pub fn run(gate: bool, json: bool) -> ExitCode {
    let compiled: Vec<Compiled> = SIZES.iter().map(|policies| compiled(*policies)).collect();
    let added = vec![
        // Of an app whose pods have no labels of their own.
        added("of a known identity", |site, number| site.workload(number + NAMESPACES, "")),
        added("with a new label set", |site, number| site.workload(number, &format!("new-{number}"))),
    ];
    let report = Report { compiled, added };
    if json {
        println!("{}", serde_json::to_string(&report).expect("numbers and texts"));
    } else {
        print(&report);
    }
    let misses = misses(&report);
    for miss in &misses {
        eprintln!("{miss}");
    }
    ExitCode::from(u8::from(gate && !misses.is_empty()))
}

fn print(report: &Report) {
    println!("{WORKLOADS} workloads in {NAMESPACES} namespaces\n");
    println!(
        "{:>9} {:>11} {:>10} {:>10} {:>10} {:>10}",
        "policies", "identities", "compile", "memory", "entries", "table"
    );
    for one in &report.compiled {
        println!(
            "{:>9} {:>11} {:>7.1} ms {:>6} MiB {:>10} {:>6} MiB",
            one.policies,
            one.identities,
            one.milliseconds,
            one.peak_bytes >> 20,
            one.entries,
            one.table_bytes >> 20,
        );
    }
    println!("\none more workload, {GATED} policies");
    for one in &report.added {
        let how = if one.publishes { "with a new table" } else { "without a new table" };
        println!("  {:<22} {:>7.2} ms, {how}", one.what, one.milliseconds);
    }
}

/// What the design asks for and is not so.
fn misses(report: &Report) -> Vec<String> {
    let mut misses = Vec::new();
    let seconds = |gate: Duration| gate.as_secs_f64() * 1_000.0;
    for one in report.compiled.iter().filter(|one| one.policies == GATED) {
        if one.milliseconds > seconds(COMPILE_GATE) {
            misses.push(format!("{GATED} policies took {:.0} ms to compile", one.milliseconds));
        }
        if one.peak_bytes > MEMORY_GATE {
            misses.push(format!("{GATED} policies took {} MiB", one.peak_bytes >> 20));
        }
    }
    for one in report.added.iter().filter(|one| one.milliseconds > seconds(WORKLOAD_GATE)) {
        misses.push(format!("one workload {} took {:.1} ms", one.what, one.milliseconds));
    }
    misses
}

/// Compiles so many policies, again and again.
fn compiled(policies: usize) -> Compiled {
    let site = Site::new(WORKLOADS, NAMESPACES);
    let policies = site.policies(policies);
    let mut registry = Registry::default();
    for workload in site.workloads() {
        registry.identity(&site::identity(&workload));
    }
    let services: Vec<KnownService> = site.services(&mut registry);
    let scene = Scene { namespaces: site.namespaces(), services, ..Scene::default() };
    let identities = registry.identities().count();
    // From now on the highest is told anew.
    fs::write("/proc/self/clear_refs", "5").expect("a process may do that to itself");
    let mut times = Vec::new();
    let (mut entries, mut rows) = (0, 0);
    for round in 0..3 {
        let begin = processor();
        let table = compile_scene(&policies, &scene, &mut registry, Generation(round + 1)).expect("it fits");
        times.push(processor().saturating_sub(begin));
        (entries, rows) = (table.entries(), table.rows().len());
    }
    Compiled {
        policies: policies.len(),
        identities,
        milliseconds: median(times),
        peak_bytes: memory("VmHWM:"),
        entries,
        table_bytes: rows * size_of::<Row>(),
    }
}

/// Adds one workload after the other to an engine that enforces.
fn added(what: &'static str, new: impl Fn(&Site, usize) -> Resolved) -> Added {
    let site = Site::new(WORKLOADS, NAMESPACES);
    let facts =
        Facts { required: BTreeSet::from(["static".to_owned(), POLICIES.to_owned()]), ..Facts::default() };
    let mut state = State::new(facts, Remembered::default()).expect("nothing was saved");
    let mut workloads = site.workloads();
    let file = PolicyFile { name: "policies.yaml".into(), text: site.documents(GATED) };
    let mut events = vec![
        Event::Adopted(Adopted::default()),
        Event::PolicyFiles(vec![file]),
        snapshot(&workloads),
        Event::Quiet,
    ];
    perform(&mut state, &mut events);
    let mut times = Vec::new();
    let mut publishes = false;
    for number in 0..9 {
        workloads.push(new(&site, WORKLOADS + number));
        let mut events = vec![snapshot(&workloads), Event::Quiet];
        let (time, published) = perform(&mut state, &mut events);
        times.push(time);
        publishes |= published;
    }
    Added { what, milliseconds: median(times), publishes }
}

fn snapshot(workloads: &[Resolved]) -> Event {
    Event::Workloads(WorkloadEvent::Snapshot {
        source: "static".into(),
        workloads: workloads.to_vec(),
        namespaces: Vec::new(),
        services: Vec::new(),
    })
}

/// Steps through events and acknowledges every effect at once. Returns how long the engine took until bindings and
/// addresses were on their way, and whether there was a new table.
fn perform(state: &mut State, events: &mut Vec<Event>) -> (Duration, bool) {
    let (mut time, mut applied, mut published) = (Duration::ZERO, Duration::ZERO, false);
    while !events.is_empty() {
        let event = events.remove(0);
        let begin = processor();
        let effects = step(state, event);
        time += processor().saturating_sub(begin);
        for effect in effects {
            let done = match effect {
                Effect::Save(_) => Done::Saved,
                Effect::Publish(_) => {
                    published = true;
                    Done::Published
                }
                Effect::Apply(_) => {
                    applied = time;
                    Done::Applied(Vec::new())
                }
                Effect::Attach => Done::Attached(vec!["connect4".into()]),
                _ => continue,
            };
            events.push(Event::Done(done));
        }
    }
    (applied, published)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}

/// Processor time of this thread.
fn processor() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has one");
    now.into()
}

/// A number of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("every kernel tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}
