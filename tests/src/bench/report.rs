//! What is printed, for people.

use std::fmt::Write as _;
use std::fs;

use serde::Serialize;

use super::pairs::Ratio;
use super::{Comparison, Findings};

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Release.
    pub kernel: String,
    /// Model of the processors.
    pub processor: String,
    /// Their number.
    pub processors: usize,
    /// Means of waiting processes over 1, 5 and 15 minutes, before the first round.
    pub load: String,
}

impl Machine {
    /// This one.
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg");
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// One comparison.
pub(super) fn line(comparison: &Comparison) -> String {
    let Comparison { load, what, with, rate_with, rate, cpu, wall, gate, .. } = comparison;
    let gate = gate.map_or_else(String::new, |gate| format!("{gate:.2} {}", comparison.verdict()));
    format!(
        "{load:<14} {what:<44} {rate:>8.0} /s  {with:<22} {rate_with:>8.0} /s  {}  {}  {gate}\n",
        ratio(cpu),
        ratio(wall)
    )
}

fn ratio(ratio: &Ratio) -> String {
    format!("{:.3} ({:.3}-{:.3})", ratio.median, ratio.low, ratio.high)
}

/// Everything.
pub(super) fn text(findings: &Findings) -> String {
    let Findings { machine, comparisons, programs, skipped, seconds } = findings;
    let mut text = String::new();
    let mut say = |line: String| text.push_str(&line);
    say(format!(
        "Linux {}, {} x {}, load average before: {}; {seconds:.0} s\n\n",
        machine.kernel, machine.processors, machine.processor, machine.load
    ));
    say(format!(
        "{:<14} {:<44} {:>11}  {:<22} {:>11}  {:<19}  {:<19}  {}\n",
        "load", "what", "rate", "with", "rate", "ratio by CPU time", "by wall clock", "gate"
    ));
    for comparison in comparisons {
        say(line(comparison));
    }
    say(format!("\n{:<14} {:<12} {:>9} {:>8}\n", "load", "program", "runs each", "ns a run"));
    say(format!("{:<14} {:<12} {:>9} {:>8.0}\n", "(any)", "(empty)", "", programs.empty));
    for row in &programs.rows {
        say(format!("{:<14} {:<12} {:>9.2} {:>8.0}\n", row.load, row.name, row.runs, row.nanoseconds));
    }
    for reason in skipped {
        writeln!(text, "\nSKIPPED {reason}").expect("memory");
    }
    text
}
