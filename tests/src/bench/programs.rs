//! What the kernel itself counts: how often each program runs for one operation, and how long.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use enforcer_common::hook::Hook;
use serde::Serialize;

use super::load::Kind;
use super::site::Site;
use crate::bpf::{self, Runs};

/// Runs of a program for one load.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// What is measured.
    pub load: &'static str,
    /// The program's name.
    pub name: &'static str,
    /// Runs for one operation.
    pub runs: f64,
    /// Nanoseconds of one run, with the kernel's clock.
    pub nanoseconds: f64,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct Programs {
    /// Nanoseconds of a program that does nothing: the kernel's clock.
    pub empty: f64,
    /// Those that ran.
    pub rows: Vec<Program>,
}

/// Operations of one load.
const COUNTS: [(Kind, u64); 4] =
    [(Kind::Connections, 3_000), (Kind::Stream, 20_000), (Kind::Datagrams, 20_000), (Kind::Bulk, 3_000)];

/// Has the kernel count, in rounds of their own: counting costs, too.
pub(super) fn measure(site: &mut Site) -> Programs {
    let direct = site.direct().expect("a site where something is enforced");
    let absent = direct.kernel().absent_hooks().clone();
    let mut programs = BTreeMap::<Hook, OwnedFd>::new();
    for hook in Hook::ALL.iter().filter(|hook| !absent.contains_key(hook)) {
        let program = direct.kernel().program(hook.program()).unwrap_or_else(|error| panic!("{error}"));
        programs.insert(*hook, program);
    }
    let _counting = bpf::enable_statistics().expect("statistics of programs");
    let mut rows = Vec::new();
    for (kind, count) in COUNTS {
        let before: Vec<Runs> = programs.values().map(runs).collect();
        site.round(kind, count);
        for ((hook, program), before) in programs.iter().zip(before) {
            let now = runs(program);
            if now.count > before.count {
                rows.push(Program {
                    load: kind.label(),
                    name: hook.program(),
                    runs: ratio(now.count - before.count, count),
                    nanoseconds: ratio(now.nanoseconds - before.nanoseconds, now.count - before.count),
                });
            }
        }
    }
    Programs { empty: empty(), rows }
}

fn runs(program: &OwnedFd) -> Runs {
    bpf::runs(program.as_fd()).expect("what the kernel counts of a program")
}

/// Nanoseconds of a run that does nothing.
fn empty() -> f64 {
    let program = bpf::empty_program().expect("the smallest program");
    bpf::test_run(program.as_fd(), &mut [0; 64], 100_000).expect("run it");
    let runs = runs(&program);
    ratio(runs.nanoseconds, runs.count)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}
