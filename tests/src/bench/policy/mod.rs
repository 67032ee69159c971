//! What a change of policies or workloads costs the daemon: compiling, in time and memory, and what a change takes until the
//! kernel has it.
//!
//! Compiling is told in processor time, which other load on the machine changes little. What goes by way of the kernel and
//! the disk is told by the clock on the wall.

mod live;
mod site;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use enforcer::domain::cluster::KnownService;
use enforcer::domain::policy::compile::{Scene, compile_scene};
use enforcer::domain::registry::Registry;
use enforcer_common::abi::policy::Row;
use enforcer_common::id::Generation;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use self::live::{Live, Took};
use self::site::Site;

/// Numbers of policies.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Workloads, and the namespaces that they are in.
const WORKLOADS: usize = 10_000;
const NAMESPACES: usize = 200;
/// The size that gates speak of.
const GATED: usize = 1_000;
/// Longest time to compile [`GATED`] policies and to have the kernel judge by them.
const COMPILE_GATE: Duration = Duration::from_secs(1);
/// Most memory of the whole process.
const MEMORY_GATE: u64 = 256 << 20;
/// Longest time from the event of a workload of a known class until it is in force.
const WORKLOAD_GATE: Duration = Duration::from_millis(5);
/// New workloads of each kind.
const ADDED: usize = 25;

/// Services of the row that is about them, and the ports of each, no two of which have a number in common.
const SERVICES: usize = 500;
const SERVICE_PORTS: usize = 3;

/// One size.
#[derive(Debug, Serialize)]
struct Compiled {
    policies: usize,
    /// Services, and their ports with numbers of their own.
    services: usize,
    ports: usize,
    identities: usize,
    /// Processor time, median.
    milliseconds: f64,
    /// Resident memory of the whole process at its highest, what is compiled included.
    peak_bytes: u64,
    entries: usize,
    table_bytes: usize,
}

/// A push of policies, by the clock on the wall.
#[derive(Debug, Serialize)]
struct Pushed {
    policies: usize,
    /// Reading and checking the documents.
    read_milliseconds: f64,
    /// Working out what changes, the table above all.
    compile_milliseconds: f64,
    /// Filling the kernel's table and switching to it.
    swap_milliseconds: f64,
    /// Resident memory of the whole process at its highest, workloads included.
    peak_bytes: u64,
}

/// One new workload, by the clock on the wall.
#[derive(Debug, Serialize)]
struct Added {
    what: &'static str,
    /// Whether the gate speaks of it.
    gated: bool,
    /// From the event to the last effect, median and worst.
    milliseconds: f64,
    worst_milliseconds: f64,
    /// Medians of its parts.
    engine_milliseconds: f64,
    disk_milliseconds: f64,
    kernel_milliseconds: f64,
    /// Whether a new table was needed.
    publishes: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    compiled: Vec<Compiled>,
    pushed: Pushed,
    added: Vec<Added>,
}

/// Measures and prints. Exit code 1 if a gate is missed and `gate` says that this matters.
pub fn run(gate: bool, json: bool) -> ExitCode {
    let ordinary = |policies: &usize| compiled(*policies, (NAMESPACES * site::APPS, 1), Site::services);
    let mut compiled: Vec<Compiled> = SIZES.iter().map(ordinary).collect();
    compiled.push(self::compiled(GATED, (SERVICES, SERVICES * SERVICE_PORTS), |site, registry| {
        site.distinct_services(registry, SERVICES, SERVICE_PORTS)
    }));
    let site = Site::new(WORKLOADS, NAMESPACES);
    let mut live = Live::start(&site, GATED);
    let pushed = pushed(&site, &mut live);
    let report = Report { compiled, pushed, added: added(&site, &mut live) };
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
        "{:>9} {:>9} {:>6} {:>11} {:>10} {:>10} {:>10} {:>10}",
        "policies", "services", "ports", "identities", "compile", "memory", "entries", "table"
    );
    for one in &report.compiled {
        println!(
            "{:>9} {:>9} {:>6} {:>11} {:>7.1} ms {:>6} MiB {:>10} {:>6} MiB",
            one.policies,
            one.services,
            one.ports,
            one.identities,
            one.milliseconds,
            one.peak_bytes >> 20,
            one.entries,
            one.table_bytes >> 20,
        );
    }
    let Pushed { policies, read_milliseconds, compile_milliseconds, swap_milliseconds, peak_bytes } =
        &report.pushed;
    println!(
        "\na push of {policies} policies, through the kernel: {read_milliseconds:.0} ms to read them, \
         {compile_milliseconds:.0} ms to compile, {swap_milliseconds:.0} ms to swap; {} MiB",
        peak_bytes >> 20
    );
    println!("\none more workload, {GATED} policies, through the disk and the kernel");
    println!("  {:<46} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "median", "worst", "engine", "disk", "kernel");
    for one in &report.added {
        println!(
            "  {:<46} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2} ms{}",
            one.what,
            one.milliseconds,
            one.worst_milliseconds,
            one.engine_milliseconds,
            one.disk_milliseconds,
            one.kernel_milliseconds,
            if one.publishes { ", with a new table" } else { "" },
        );
    }
}

/// What the design asks for and is not so.
fn misses(report: &Report) -> Vec<String> {
    let mut misses = Vec::new();
    let seconds = |gate: Duration| gate.as_secs_f64() * 1_000.0;
    let Pushed { compile_milliseconds, swap_milliseconds, peak_bytes, .. } = &report.pushed;
    let push = compile_milliseconds + swap_milliseconds;
    if push > seconds(COMPILE_GATE) {
        misses.push(format!("{GATED} policies took {push:.0} ms to compile and to swap"));
    }
    if *peak_bytes > MEMORY_GATE {
        misses.push(format!("{GATED} policies took {} MiB", peak_bytes >> 20));
    }
    for one in report.compiled.iter().filter(|one| one.policies == GATED) {
        if one.milliseconds > seconds(COMPILE_GATE) || one.peak_bytes > MEMORY_GATE {
            misses.push(format!(
                "{GATED} policies with {} services took {:.0} ms and {} MiB to compile",
                one.services,
                one.milliseconds,
                one.peak_bytes >> 20
            ));
        }
    }
    for one in report.added.iter().filter(|one| one.gated && one.milliseconds > seconds(WORKLOAD_GATE)) {
        misses.push(format!("one workload {} took {:.1} ms", one.what, one.milliseconds));
    }
    misses
}

/// Compiles so many policies with these services, again and again.
fn compiled(
    policies: usize,
    (services, ports): (usize, usize),
    known: impl FnOnce(&Site, &mut Registry) -> Vec<KnownService>,
) -> Compiled {
    let site = Site::new(WORKLOADS, NAMESPACES);
    let policies = site.policies(policies);
    let mut registry = Registry::default();
    for workload in site.workloads() {
        registry.identity(&site::identity(&workload));
    }
    let scene =
        Scene { namespaces: site.namespaces(), services: known(&site, &mut registry), ..Scene::default() };
    assert_eq!(scene.services.len(), services, "what the row says");
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
        services,
        ports,
        identities,
        milliseconds: median(times),
        peak_bytes: memory("VmHWM:"),
        entries,
        table_bytes: rows * size_of::<Row>(),
    }
}

/// Pushes other policies, again and again.
fn pushed(site: &Site, live: &mut Live) -> Pushed {
    fs::write("/proc/self/clear_refs", "5").expect("a process may do that to itself");
    let took: Vec<Took> = (1..=5).map(|round| live.push(site, GATED, 8_080 + round)).collect();
    assert!(took.iter().all(|took| took.publishes), "every push is another table");
    Pushed {
        policies: GATED,
        read_milliseconds: median_of(&took, |took| took.taken),
        compile_milliseconds: median_of(&took, |took| took.engine),
        swap_milliseconds: median_of(&took, |took| took.kernel),
        peak_bytes: memory("VmHWM:"),
    }
}

/// Adds one workload after the other.
fn added(site: &Site, live: &mut Live) -> Vec<Added> {
    let mut next = WORKLOADS;
    let mut number = || {
        next += 1;
        next
    };
    // Of an app whose pods have no labels of their own.
    let plain =
        |number: usize| number / (2 * NAMESPACES) * (2 * NAMESPACES) + NAMESPACES + number % NAMESPACES;
    let mut all = Vec::new();
    let mut measure = |what, gated, add: &mut dyn FnMut(usize) -> Took| {
        let took: Vec<Took> = (0..ADDED).map(|_| add(number())).collect();
        let total = |took: &Took| took.total;
        all.push(Added {
            what,
            gated,
            milliseconds: median_of(&took, total),
            worst_milliseconds: took.iter().map(|took| total(took).as_secs_f64()).fold(0.0, f64::max)
                * 1_000.0,
            engine_milliseconds: median_of(&took, |took| took.taken + took.engine),
            disk_milliseconds: median_of(&took, |took| took.disk),
            kernel_milliseconds: median_of(&took, |took| took.kernel),
            publishes: took.iter().any(|took| took.publishes),
        });
    };
    measure("of a known label set", true, &mut |number| live.add(site.workload(plain(number), ""), None));
    measure("that answers for a service too", true, &mut |number| {
        let number = plain(number) + 10 * 2 * NAMESPACES;
        let service = site.service(number % site.service_count(), Some(number));
        live.add(site.workload(number, ""), Some(service))
    });
    measure("of a new label set of a known class", true, &mut |number| {
        live.add(site.workload(number + 100_000, &format!("new-{number}")), None)
    });
    measure("of a new class (first in its namespace)", false, &mut |number| {
        let mut workload = site.workload(number + 200_000, "");
        let here = std::sync::Arc::make_mut(&mut workload.workload);
        here.key.namespace = format!("new-{number}");
        live.add(workload, None)
    });
    all
}

fn median_of(took: &[Took], part: impl Fn(&Took) -> Duration) -> f64 {
    median(took.iter().map(part).collect())
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
