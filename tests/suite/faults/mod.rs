//! What goes wrong on real machines, on purpose, and what must not come of it.
//!
//! Every fault has a short form in the suite and a long one that `cargo xtask soak` runs (with [`SOAK`]). Each prints one
//! line of figures with their gates; what is judged are figures, and times only in the long form, which has the machine
//! to itself.

mod churn;
mod clock;
mod files;
mod first;
mod full;
mod idle;
mod kills;
mod memory;
mod points;
mod stage;
mod stalled;
mod storm;
mod swaps;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use enforcer_tests::patience;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("kills", kills::kills),
    ("points", points::points),
    ("swaps", swaps::swaps),
    ("memory", memory::memory),
    ("full_maps", full::full_maps),
    ("full_bindings", full::full_bindings),
    ("idle", idle::idle),
    ("stalled", stalled::stalled),
    ("state_files", files::state_files),
    ("clock", clock::clock),
    ("churn", churn::churn),
    ("storm", storm::storm),
    ("first_instruction", first::first_instruction),
];

/// The argument that asks for the long forms.
pub(crate) const SOAK: &str = "--soak";

static LONG: AtomicBool = AtomicBool::new(false);

/// Chooses between the short and the long forms, once.
pub(crate) fn set_soak(long: bool) {
    LONG.store(long, Ordering::SeqCst);
}

/// Whether the long forms are run.
fn is_long() -> bool {
    LONG.load(Ordering::SeqCst)
}

/// How much of something: in the short form, in the long form. Emulated machines do a part of either.
fn sized(short: u64, long: u64) -> u64 {
    let count = if is_long() { long } else { short };
    patience::scaled(count, count.div_ceil(10))
}

/// What a fault is judged by.
struct Figures {
    name: &'static str,
    line: String,
    failed: Vec<String>,
}

impl Figures {
    fn new(name: &'static str) -> Self {
        Self { name, line: String::new(), failed: Vec::new() }
    }

    /// A figure that nothing depends on.
    fn note(&mut self, what: &str, value: impl std::fmt::Display) {
        write!(self.line, " {what}={value}").unwrap();
    }

    /// A figure that must be exactly this.
    fn exactly(&mut self, what: &str, value: u64, gate: u64) {
        self.gate(what, value, gate, value == gate);
    }

    /// A figure that must be this or less.
    fn at_most(&mut self, what: &str, value: u64, gate: u64) {
        self.gate(what, value, gate, value <= gate);
    }

    /// A figure that must be this or more, without which the others say nothing.
    fn at_least(&mut self, what: &str, value: u64, gate: u64) {
        self.gate(what, value, gate, value >= gate);
    }

    /// Milliseconds that are judged only where the machine does nothing else.
    fn time(&mut self, what: &str, millis: u64, gate: u64) {
        if is_long() && !patience::is_emulated() {
            self.at_most(what, millis, gate);
        } else {
            self.note(what, millis);
        }
    }

    fn gate(&mut self, what: &str, value: u64, gate: u64, good: bool) {
        write!(self.line, " {what}={value} gate={gate}").unwrap();
        if !good {
            self.failed.push(format!("{what} is {value}, and the gate is {gate}"));
        }
    }

    /// Prints the line; fails if a gate was missed.
    #[track_caller]
    fn finish(self) {
        let verdict = if self.failed.is_empty() { "ok" } else { "FAILED" };
        // The harness has begun a line of its own.
        println!("\nsoak: {}:{} {verdict}", self.name, self.line);
        assert!(self.failed.is_empty(), "{}: {}", self.name, self.failed.join("; "));
    }
}

/// Random numbers that can be had again by their seed (splitmix64).
struct Dice(u64);

impl Dice {
    /// Seeded by the clock; says its seed, so that a run can be repeated.
    fn new(name: &str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = u64::from(since.subsec_nanos()) ^ since.as_secs();
        println!("soak: {name}: seed {seed}");
        Self(seed)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}

/// Kilobytes of memory that a process has (`VmRSS`).
fn resident_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The value at this fraction (in thousandths) of the sorted values.
fn quantile(values: &mut [u64], thousandths: usize) -> u64 {
    values.sort_unstable();
    let at = (values.len() * thousandths).div_ceil(1000).max(1) - 1;
    values.get(at).copied().unwrap_or_default()
}

/// Milliseconds since then.
fn millis(since: std::time::Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap()
}
