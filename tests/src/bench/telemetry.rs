//! What telemetry costs the daemon: its processor time while workloads open connections at a steady rate, with telemetry off,
//! as it is by default, and with each flow told. Rounds of the three are neighbours, so that other load is the same for all.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

use super::Options;
use super::load::{Load, TCP_PORTS};
use super::pairs::{Ratio, median};
use super::report::Machine;
use crate::agent::Agent;
use crate::workload::Workload;
use crate::world::World;

/// New connections in a second, all workloads together; fewer where the machine can't carry them.
const RATE: u32 = 10_000;
/// Workloads that open them: limits of events hold for each.
const CLIENTS: u32 = 4;
/// Ports to which a workload is refused before it begins: each is a row of the kernel's counters and a series.
const REFUSED: std::ops::Range<u16> = 20_000..22_000;
/// Time between scrapes.
const SCRAPE: Duration = Duration::from_secs(5);
/// What was told is read after so long.
const SETTLE: Duration = Duration::from_millis(300);
/// More of one core than without telemetry, at [`RATE`].
const GATE: f64 = 0.10;

/// What is on. The first is without telemetry.
const VARIANTS: [(&str, &[(&str, &str)]); 3] = [
    (
        "off",
        // One of 2^32 allowed flows becomes an event, nothing is written to a disk, nobody reads.
        &[("audit", "\"off\""), ("history", "\"off\""), ("event-sample", "4294967296")],
    ),
    ("as by default", &[("event-limit-allowed", "1000"), ("event-limit-denied", "1000")]),
    ("each flow told", &[("event-limit-allowed", "0"), ("event-limit-denied", "0")]),
];

/// One round of one variant.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    /// Connections in a second.
    rate: f64,
    /// The daemon's time, as a share of one core.
    share: f64,
    /// The daemon's seconds for 10,000 connections.
    seconds: f64,
    /// Flows that the reader got, for each connection.
    told: f64,
    /// Flows that it was too slow for.
    lost: u64,
}

/// A variant against the one without telemetry.
#[derive(Debug, Serialize)]
struct Found {
    name: &'static str,
    /// Medians.
    rate: f64,
    share: f64,
    told: f64,
    lost: u64,
    /// Share of one core more than without telemetry, for 10,000 connections in a second.
    more: Ratio,
}

impl Found {
    fn verdict(&self) -> &'static str {
        // Looks and scrapes cost the same however few connections there are, so that few of them make too much of it.
        let is_carried = self.rate >= 0.9 * f64::from(RATE);
        match self.more {
            more if more.high <= GATE => "met",
            more if more.low > GATE && is_carried => "ABOVE",
            _ => "open",
        }
    }
}

#[derive(Debug, Serialize)]
struct Findings {
    machine: Machine,
    /// Connections in a second that were asked for.
    offered: u32,
    rounds: Vec<[Round; 3]>,
    found: Vec<Found>,
    seconds: f64,
}

/// Measures and prints. Exit code 1 if the gate is missed and `gate` says that this matters.
pub fn run(options: Options) -> ExitCode {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("the benchmark needs root: it makes cgroups and loads kernel programs");
        return ExitCode::from(2);
    }
    let (pairs, lasts) = if options.short { (3, 5) } else { (12, 10) };
    let findings = measure(pairs, Duration::from_secs(lasts), options.json);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&findings).expect("plain values"));
    } else {
        print!("{}", text(&findings));
    }
    let above = findings.found.iter().any(|found| found.verdict() == "ABOVE");
    ExitCode::from(u8::from(options.gate && above))
}

fn measure(pairs: usize, lasts: Duration, quiet: bool) -> Findings {
    let (machine, start) = (Machine::now(), Instant::now());
    let mut sites: Vec<Site> = VARIANTS.iter().map(|(name, settings)| Site::start(name, settings)).collect();
    let offered = calibrate(&mut sites);
    let mut rounds = Vec::new();
    for pair in 0..pairs {
        let mut all = [None; 3];
        // Forth and back in turns: what changes slowly is the same for all.
        for place in 0..all.len() {
            let at = if pair % 2 == 0 { place } else { all.len() - 1 - place };
            all[at] = Some(sites[at].round(offered, lasts));
        }
        let all = all.map(|round| round.expect("each had its turn"));
        if !quiet {
            eprint!("{}", line(pair + 1, &all));
        }
        rounds.push(all);
    }
    let found = (1..VARIANTS.len()).map(|at| found(at, &rounds)).collect();
    Findings { machine, offered, rounds, found, seconds: start.elapsed().as_secs_f64() }
}

fn found(at: usize, rounds: &[[Round; 3]]) -> Found {
    let each = |of: fn(&Round, &Round) -> f64| -> Vec<f64> {
        rounds.iter().map(|round| of(&round[at], &round[0])).collect()
    };
    Found {
        name: VARIANTS[at].0,
        rate: median(each(|with, _| with.rate)),
        share: median(each(|with, _| with.share)),
        told: median(each(|with, _| with.told)),
        lost: rounds.iter().map(|round| round[at].lost).sum(),
        more: Ratio::of(&each(|with, without| with.seconds - without.seconds)),
    }
}

/// The rate that all of them carry, and all of them warm.
fn calibrate(sites: &mut [Site]) -> u32 {
    let mut rate = RATE;
    loop {
        let carried = sites.iter_mut().map(|site| site.round(rate, Duration::from_secs(3)).rate);
        let carried = carried.fold(f64::INFINITY, f64::min);
        if carried >= 0.98 * f64::from(rate) || rate < 1_000 {
            return rate;
        }
        rate = rate / 10 * 8;
    }
}

fn line(number: usize, rounds: &[Round; 3]) -> String {
    let mut text = format!("{number:>4}");
    for Round { rate, share, .. } in rounds {
        write!(text, "  {rate:>8.0} /s {:>6.2} %", share * 100.0).expect("memory");
    }
    text + "\n"
}

fn text(findings: &Findings) -> String {
    let Findings { machine, offered, rounds, found, seconds } = findings;
    let mut text = format!(
        "Linux {}, {} x {}, load average before: {}; {seconds:.0} s\n\n{offered} connections/s of {CLIENTS} workloads, {} \
         rows of counters; a scrape each {} s and a reader of all flows\n\npair",
        machine.kernel,
        machine.processors,
        machine.processor,
        machine.load,
        REFUSED.len(),
        SCRAPE.as_secs(),
    );
    for (name, _) in VARIANTS {
        write!(text, "  {name:>20}").expect("memory");
    }
    text.push('\n');
    rounds.iter().enumerate().for_each(|(at, round)| text += &line(at + 1, round));
    writeln!(
        text,
        "\n{:<16} {:>10} {:>34}  {:<10} {:>16} {:>6}",
        "telemetry", "daemon", "more of a core, at 10,000/s", "gate", "flows/connection", "lost"
    )
    .expect("memory");
    for one in found {
        let Ratio { median, low, high } = one.more;
        let more = format!("{:.2} % ({:.2}-{:.2})", median * 100.0, low * 100.0, high * 100.0);
        let gate = format!("{:.0} % {}", GATE * 100.0, one.verdict());
        writeln!(
            text,
            "{:<16} {:>8.2} % {more:>34}  {gate:<10} {:>16.2} {:>6}",
            one.name,
            one.share * 100.0,
            one.told,
            one.lost,
        )
        .expect("memory");
    }
    text
}

/// A daemon with its workloads. Dropped in this order: who reads, processes, daemon, directories.
struct Site {
    reader: Option<Reader>,
    clients: Vec<Load>,
    _server: Load,
    daemon: ClockId,
    agent: Agent,
    _workloads: Vec<Workload>,
    _world: World,
}

impl Site {
    fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let is_on = name != VARIANTS[0].0;
        let world = World::new(&format!("telemetry-{}", name.replace(' ', "-")));
        let names = (0..CLIENTS).map(|number| format!("client-{number}"));
        let workloads: Vec<Workload> =
            names.chain(["server".to_owned()]).map(|name| world.workload(&name)).collect();
        let mut agent = Agent::new(&world);
        let attach = world.relative(&world.guarded());
        agent.configure(&[&[("attach", attach.as_str())], settings].concat());
        agent.workloads(&workloads);
        std::fs::write(agent.policies().join("policies.yaml"), policies()).expect("the policies");
        agent.run();
        let mut loads: Vec<Load> =
            workloads.iter().map(|it| Load::start(&it.cgroup, world.namespace(), None)).collect();
        let mut server = loads.pop().expect("the last one");
        server.serve();
        let refused = loads[0].refused(REFUSED, Ipv4Addr::LOCALHOST);
        assert_eq!(refused, REFUSED.len() as u64, "the daemon enforces");
        let pid = Pid::from_raw(i32::try_from(agent.pid()).expect("a process id"));
        Self {
            reader: is_on.then(|| Reader::start(&agent.socket())),
            clients: loads,
            _server: server,
            daemon: clock_getcpuclockid(pid).expect("the daemon's clock"),
            agent,
            _workloads: workloads,
            _world: world,
        }
    }

    /// Connections at this rate for so long, and what they cost.
    fn round(&mut self, rate: u32, lasts: Duration) -> Round {
        let (start, before) = (Instant::now(), self.counts());
        for client in &mut self.clients {
            client.begin(rate / CLIENTS, lasts, Ipv4Addr::LOCALHOST);
        }
        while self.reader.is_some() && start.elapsed() + SCRAPE < lasts {
            std::thread::sleep(SCRAPE / 2);
            assert!(self.agent.get("/metrics").is_some_and(|(code, _)| code == 200), "a scrape");
            std::thread::sleep(SCRAPE / 2);
        }
        let connections: u64 = self.clients.iter_mut().map(Load::done).sum();
        let took = start.elapsed().as_secs_f64();
        std::thread::sleep(SETTLE);
        let after = self.counts();
        assert!(connections > 0, "nobody got through");
        let daemon = after.daemon.saturating_sub(before.daemon).as_secs_f64();
        let connections = number(connections);
        Round {
            rate: connections / took,
            share: daemon / took,
            seconds: daemon / connections * 10_000.0,
            told: number(after.told - before.told) / connections,
            lost: after.lost - before.lost,
        }
    }

    fn counts(&self) -> Counts {
        let of = |count: fn(&Told) -> &AtomicU64| {
            self.reader.as_ref().map_or(0, |reader| count(&reader.told).load(Ordering::Relaxed))
        };
        Counts {
            daemon: clock_gettime(self.daemon).expect("the daemon runs").into(),
            told: of(|told| &told.flows),
            lost: of(|told| &told.lost),
        }
    }
}

struct Counts {
    daemon: Duration,
    told: u64,
    lost: u64,
}

/// Far below 2^52.
#[allow(clippy::cast_precision_loss, reason = "connections of some seconds")]
fn number(count: u64) -> f64 {
    count as f64
}

/// Each client may call the server, and the server takes calls of clients.
fn policies() -> String {
    let mut text = String::new();
    let port = TCP_PORTS[0];
    for number in 0..CLIENTS {
        writeln!(
            text,
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: client-{number}}}\nspec:\n  \
             subject: {{matchLabels: {{app: client-{number}}}}}\n  egress:\n    - to: [{{workloads: {{matchLabels: {{app: \
             server}}}}}}]\n      ports: [{{port: {port}}}]\n---"
        )
        .expect("memory");
    }
    text + "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: server}\nspec:\n  \
            subject: {matchLabels: {app: server}}\n  ingress:\n    - from: [{workloads: {}}]\n"
}

#[derive(Debug, Default)]
struct Told {
    flows: AtomicU64,
    lost: AtomicU64,
}

/// What `enforcer observe -f` asks for, read as quickly as it comes and only counted: its own time is no part of this.
#[derive(Debug)]
struct Reader {
    stream: UnixStream,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).expect("the daemon listens");
        stream.write_all(b"GET /v1/flows?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").expect("a request");
        let told = Arc::new(Told::default());
        let (mut input, counts) = (stream.try_clone().expect("a descriptor"), Arc::clone(&told));
        let thread = std::thread::spawn(move || {
            let (mut bytes, mut rest) = (vec![0; 256 << 10], Vec::new());
            while let Ok(count @ 1..) = input.read(&mut bytes) {
                rest.extend_from_slice(&bytes[..count]);
                let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
                rest[..end].split(|byte| *byte == b'\n').for_each(|line| counts.take(line));
                rest.drain(..=end);
            }
        });
        Self { stream, told, thread: Some(thread) }
    }
}

impl Told {
    /// A line of the answer: a flow, what was lost, or the sizes and headers between them.
    fn take(&self, line: &[u8]) {
        if let Some(count) = line.strip_prefix(b"{\"lost_events\":") {
            let digits = std::str::from_utf8(count).ok().and_then(|text| text.strip_suffix('}'));
            let count = digits.and_then(|text| text.parse().ok()).expect("a count");
            self.lost.fetch_add(count, Ordering::Relaxed);
        } else if line.starts_with(b"{") {
            self.flows.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The daemon may have closed it.
        self.stream.shutdown(Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
