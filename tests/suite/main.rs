//! The live suite: one binary that tries everything against a real kernel.
//!
//! `--can-run` says whether this kernel can, `--clean` removes what a killed run left, a filter selects tests.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests panic where they stand: the line number is the message"
)]

mod across;
mod audit;
mod bad_input;
mod bypass;
mod canary;
mod churn;
mod cluster_api;
mod confinement;
mod conformance;
mod containers;
mod counters;
mod differential;
mod explain;
mod faults;
mod hooks;
mod identity;
mod kubernetes;
mod lifecycle;
mod live_changes;
mod never_a_gap;
mod pages;
mod policies;
mod protocols;
mod readers;
mod registry;
mod replies;
mod residue;
mod revocation;
mod runtimes;
mod sockets;
mod systemd;
mod traffic;
mod verifier;

use std::process::ExitCode;

use enforcer_tests::{direct, first, hammer, patience, puppet};
use libtest_mimic::Arguments;

/// This kernel can't run the suite.
const CANNOT: u8 = 3;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(puppet::ARGUMENT) => {
            puppet::live();
            ExitCode::SUCCESS
        }
        Some(hammer::ARGUMENT) => {
            hammer::live();
            ExitCode::SUCCESS
        }
        Some(first::ARGUMENT) => {
            first::live();
            ExitCode::SUCCESS
        }
        Some("--can-run") => can_run(),
        Some("--clean") => clean(),
        _ => run(),
    }
}

fn run() -> ExitCode {
    let (soak, arguments): (Vec<String>, Vec<String>) =
        std::env::args().partition(|argument| argument == faults::SOAK);
    faults::set_soak(!soak.is_empty());
    let mut arguments = Arguments::from_iter(arguments);
    if !patience::is_emulated() {
        // They wait more than they work: for time-outs of refused packets, for what is looked at once a second. An emulated
        // processor has enough to do with one of each.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        arguments.test_threads.get_or_insert(2 * processors);
    }
    let conclusion = libtest_mimic::run(&arguments, registry::trials(arguments.filter.is_some()));
    direct::finish();
    for (time, name) in registry::slowest(12) {
        println!("slow: {:.1} s {name}", time.as_secs_f64());
    }
    for (name, reason) in registry::skipped() {
        println!("SKIP {name}: {reason}");
    }
    conclusion.exit_code()
}

/// Loading the programs is the question; everything else follows from it.
fn can_run() -> ExitCode {
    if !nix::unistd::Uid::effective().is_root() {
        println!("the live suite needs root: it makes cgroups and loads kernel programs");
        return ExitCode::from(CANNOT);
    }
    let no_tree = enforcer::config::cgroup_root(None).err().map(|error| error.to_string());
    let no_programs = || enforcer::kernel::probe::programs().err().map(|error| error.to_string());
    match no_tree.or_else(no_programs) {
        None => ExitCode::SUCCESS,
        Some(reason) => {
            println!("{reason}");
            ExitCode::from(CANNOT)
        }
    }
}

fn clean() -> ExitCode {
    let problems = enforcer_tests::residue::clean(|line| println!("{line}"));
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!("nothing is left of earlier runs");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
