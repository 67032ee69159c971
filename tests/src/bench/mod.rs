//! What enforcement costs: paired rounds of the same load, with and without it. The method is told in docs/benchmarks.md.

pub mod cluster;
pub mod load;
mod pairs;
pub mod policy;
mod programs;
mod report;
mod site;
pub mod telemetry;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::load::Kind;
use self::pairs::{Ratio, median};
use self::programs::Programs;
use self::report::Machine;
use self::site::{Round, Rules, Site};

/// What to measure, from the command line of `cargo xtask bench`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Fewer pairs.
    pub short: bool,
    /// Exit code 1 if an interval lies below its gate.
    pub gate: bool,
    /// For machines.
    pub json: bool,
}

impl Options {
    /// Reads them; what is not known is refused.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--short" => options.short = true,
                "--gate" => options.gate = true,
                "--json" => options.json = true,
                other => return Err(format!("`{other}` is no option; there are --short, --gate and --json")),
            }
        }
        Ok(options)
    }
}

/// How long one round should take: long against a switch of processes, short against what else changes on the machine.
const ROUND: Duration = Duration::from_millis(25);

/// A ratio and what it must not be below.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What is measured.
    pub load: &'static str,
    /// What is compared.
    pub what: String,
    /// With what.
    pub with: &'static str,
    /// Operations in a second of processor time, `with`.
    pub rate_with: f64,
    /// The same, of what is compared.
    pub rate: f64,
    /// Rate in processor time: other load on the machine changes it little.
    pub cpu: Ratio,
    /// Rate in time that passed.
    pub wall: Ratio,
    /// Pairs of rounds.
    pub pairs: usize,
    /// What the design asks for, if it does.
    pub gate: Option<f64>,
}

impl Comparison {
    /// Whether the interval lies below the gate.
    pub fn is_below(&self) -> bool {
        self.gate.is_some_and(|gate| self.cpu.high < gate)
    }

    /// In a word.
    pub fn verdict(&self) -> &'static str {
        match self.gate {
            None => "",
            Some(_) if self.is_below() => "BELOW",
            Some(gate) if self.cpu.low >= gate => "met",
            Some(_) => "open",
        }
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Where.
    pub machine: Machine,
    /// By how much less.
    pub comparisons: Vec<Comparison>,
    /// What the kernel counts of the programs.
    pub programs: Programs,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// Seconds, all together.
    pub seconds: f64,
}

/// Measures and prints.
pub fn run(options: Options) -> ExitCode {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("the benchmark needs root: it makes cgroups and loads kernel programs");
        return ExitCode::from(2);
    }
    let bench =
        Bench { pairs: if options.short { 24 } else { 240 }, short: options.short, quiet: options.json };
    let findings = bench.measure();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&findings).expect("plain values"));
    } else {
        print!("{}", report::text(&findings));
    }
    let below = findings.comparisons.iter().any(Comparison::is_below);
    if options.gate && below { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
struct Bench {
    pairs: usize,
    short: bool,
    quiet: bool,
}

/// What a comparison is called and must reach.
#[derive(Clone, Copy, Debug)]
struct Label<'a> {
    what: &'a str,
    with: &'static str,
    gate: Option<f64>,
}

impl Bench {
    fn measure(self) -> Findings {
        let start = Instant::now();
        let machine = Machine::now();
        let mut comparisons = Vec::new();
        let mut skipped = Vec::new();
        let mut none = Site::bare("none");
        let mut enforced = Site::enforced("enforced");
        for kind in Kind::ALL {
            let gate = if kind == Kind::Connections { 0.93 } else { 0.98 };
            let label = Label { what: "enforced", with: "none", gate: Some(gate) };
            comparisons.push(self.compare(label, kind, &mut none, &mut enforced));
        }
        let mut idle = Site::idle("idle");
        for kind in Kind::ALL {
            let label = Label { what: "programs that do nothing", with: "none", gate: None };
            comparisons.push(self.compare(label, kind, &mut none, &mut idle));
        }
        drop(idle);
        let mut remembering = Site::remembering("remembering", &enforced);
        let label = Label { what: "programs that do nothing, with storage", with: "none", gate: None };
        comparisons.push(self.compare(label, Kind::Connections, &mut none, &mut remembering));
        drop(remembering);
        let programs = programs::measure(&mut enforced);
        if site::has("nft") {
            for (name, rules) in NFTABLES {
                let mut nft = Site::nftables("nft", &site::rules(rules));
                let label = Label { what: name, with: "none", gate: None };
                comparisons.push(self.compare(label, Kind::Connections, &mut none, &mut nft));
                let what = format!("enforced (against {name})");
                let label = Label { what: &what, with: "nftables", gate: Some(1.0) };
                comparisons.push(self.compare(label, Kind::Connections, &mut nft, &mut enforced));
            }
        } else {
            skipped.push("nftables: `nft` is not installed (Debian's package is `nftables`)".to_owned());
        }
        drop(enforced);
        comparisons.push(self.table_sizes());
        drop(none);
        if site::has("ip") {
            self.veth(&mut comparisons);
        } else {
            skipped.push("veth: `ip` is not installed (Debian's package is `iproute2`)".to_owned());
        }
        Findings { machine, comparisons, programs, skipped, seconds: start.elapsed().as_secs_f64() }
    }

    fn table_sizes(self) -> Comparison {
        let mut small = Site::with_entries("t100", 100);
        let mut large = Site::with_entries("t1000000", site::SPREAD);
        let label =
            Label { what: "enforced, 1,000,000 entries", with: "enforced, 100 entries", gate: Some(0.97) };
        self.compare(label, Kind::Connections, &mut small, &mut large)
    }

    fn veth(self, comparisons: &mut Vec<Comparison>) {
        let (mut none, mut enforced) = (Site::veth("veth-none", false), Site::veth("veth", true));
        let kinds = if self.short { &Kind::ALL[..1] } else { &Kind::ALL[..] };
        for kind in kinds {
            let label = Label { what: "enforced, veth", with: "none, veth", gate: None };
            comparisons.push(self.compare(label, *kind, &mut none, &mut enforced));
        }
    }

    /// Rounds in the order A B B A A B B A: what changes slowly is the same for both.
    fn compare(self, label: Label<'_>, kind: Kind, with: &mut Site, what: &mut Site) -> Comparison {
        let count = calibrate(kind, with, what);
        let (mut cpu, mut wall, mut rates) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
        for pair in 0..self.pairs {
            let mut rounds = [None, None];
            for second in [pair % 2, 1 - pair % 2] {
                let site = if second == 1 { &mut *what } else { &mut *with };
                rounds[second] = Some(site.round(kind, count));
            }
            let [Some(a), Some(b)] = rounds else { continue };
            cpu.push(a.cpu.as_secs_f64() / b.cpu.as_secs_f64());
            wall.push(a.wall.as_secs_f64() / b.wall.as_secs_f64());
            rates.0.push(rate(count, a));
            rates.1.push(rate(count, b));
        }
        let comparison = Comparison {
            load: kind.label(),
            what: label.what.to_owned(),
            with: label.with,
            rate_with: median(rates.0),
            rate: median(rates.1),
            cpu: Ratio::of(&cpu),
            wall: Ratio::of(&wall),
            pairs: cpu.len(),
            gate: label.gate,
        };
        if !self.quiet {
            eprint!("{}", report::line(&comparison));
        }
        comparison
    }
}

const NFTABLES: [(&str, Rules); 4] = [
    ("nftables, 1 rule", Rules::List(0)),
    ("nftables, 1,000 rules", Rules::List(999)),
    ("nftables, 10,000 rules", Rules::List(9_999)),
    ("nftables, a set of 10,000", Rules::Set(10_000)),
];

/// Operations in a second of processor time.
fn rate(count: u64, round: Round) -> f64 {
    // Far below 2^52.
    #[allow(clippy::cast_precision_loss, reason = "a few thousand operations a round")]
    let count = count as f64;
    count / round.cpu.as_secs_f64()
}

/// How many operations make a round, and both sites warm. By processor time, so that a busy machine measures the same.
fn calibrate(kind: Kind, with: &mut Site, what: &mut Site) -> u64 {
    let mut count = 8;
    loop {
        let slower = with.round(kind, count).cpu.max(what.round(kind, count).cpu);
        if slower >= ROUND / 2 {
            let factor = ROUND.as_nanos() * u128::from(count) / slower.as_nanos();
            return u64::try_from(factor).unwrap_or(count).max(1);
        }
        count *= 2;
    }
}
