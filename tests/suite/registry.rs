//! All tests, and those that were skipped with their reasons.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use enforcer_tests::patience;
use libtest_mimic::{Completion, Trial};

/// A test: its name and what it does.
pub(crate) type Test = (&'static str, fn());

static SKIPPED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Ends a test that can't be run here.
struct Skip(String);

/// What an emulated machine leaves out unless it is asked for by name: what does not depend on the kernel, and would take
/// most of the time there. Each start of a daemon has all programs verified, which takes a second natively and 15 s there.
const NATIVE: &[(&str, &str)] = &[
    ("across::", "it is about user space alone"),
    ("audit::", "it is about user space alone"),
    ("bad_input::", "it is about user space alone"),
    ("policies::offline", "it is about user space alone"),
    ("explain::", "it is about user space, and takes too long"),
    ("revocation::audit_mode_cuts_nothing", "it takes too long"),
    ("confinement::without", "it is about user space alone"),
    ("canary::", "it is about user space, and takes too long"),
    ("cluster_api::", "it is about user space alone"),
    ("bypass::everything_leaks_without_its_hooks", "each probe with its hooks off takes too long"),
    ("kubernetes::", "it is about the source, and takes too long"),
    ("lifecycle::", "`faults::kills` ends and follows daemons here"),
    ("live_changes::quarantine", "it takes too long"),
    ("live_changes::a_confirmed", "it takes too long"),
    (
        "live_changes::an_unconfirmed",
        "`live_changes::a_rule_expires_without_the_daemon` is by kernel time too",
    ),
    (
        "conformance::named_ports",
        "policies become tables in user space; `differential` has this kernel judge by random ones",
    ),
    (
        "conformance::a_pass",
        "policies become tables in user space; `differential` has this kernel judge by random ones",
    ),
    (
        "conformance::services",
        "policies become tables in user space; `differential` has this kernel judge by random ones",
    ),
    ("containers::", "who is who is told by cgroups alike on every kernel"),
    ("protocols::icmp", "packets are read and judged alike on every kernel"),
    ("protocols::echo", "packets are read and judged alike on every kernel"),
    ("readers::", "it is about user space alone"),
    ("never_a_gap::", "it is about the daemon's watch, and takes too long"),
    ("pages::", "it is about user space alone"),
    ("residue::", "it is about the suite itself"),
    ("revocation::many_at_once", "it takes too long"),
    ("revocation::other_labels", "sockets are cut as in `revocation::a_push`, whatever the change came from"),
    ("runtimes::", "it is about user space, and needs packages"),
    (
        "sockets::",
        "`differential` has this kernel judge real sockets by random policies, with rules about their kinds",
    ),
    ("faults::points", "it takes too long"),
    ("faults::swaps", "it takes too long"),
    ("faults::state_files", "it is about user space alone"),
    ("faults::full_maps", "it is about user space alone"),
    ("faults::full_bindings", "it is about user space alone"),
    ("faults::idle", "it is about user space alone"),
    ("faults::storm", "it takes too long"),
    ("faults::churn", "it takes too long"),
    ("faults::first_instruction", "it takes too long"),
    ("faults::stalled", "it takes too long"),
];

/// What takes long in an emulated machine, and runs in one of them only: the beginning of its kernel's release. Natively it runs
/// on a third.
const ONE_KERNEL: &[(&str, &str)] = &[
    // What of a kernel is open is looked up in the same files; what leaks is tried on both, by `bypass::nothing_leaks`.
    ("bypass::what_is_listed", "6.1."),
    ("confinement::every_thread", "6.1."),
    ("faults::clock", "6.12."),
    ("faults::kills", "6.1."),
    ("faults::memory", "6.12."),
    ("hooks::an_own_address_besides_loopback", "6.1."),
    ("live_changes::a_rule_expires", "6.12."),
    // Sockets are found and destroyed by the same requests; `revocation::a_push` makes them on both, by both families.
    ("revocation::connected_datagrams", "6.1."),
    ("revocation::other_namespaces", "6.12."),
];

/// What runs only when it is asked for by name, on every machine.
const LONG: &[(&str, &str)] = &[
    (
        "bypass::what_closes_it_is_enough",
        "a third pass of all probes, which tells which hook is enough alone; `cargo xtask bypass` runs it",
    ),
    (
        "confinement::each_capability",
        "an agent for each of them takes too long: `cargo xtask cluster-test` runs it on two kernels",
    ),
    (
        "protocols::sctp_by_port",
        "it waits for time-outs, and only emulated kernels have SCTP: `cargo xtask vm 6.12 -- protocols::sctp` runs it",
    ),
];

/// Every test of every module. `all`: also those that this machine would leave out.
pub(crate) fn trials(all: bool) -> Vec<Trial> {
    let modules: &[(&str, &[Test])] = &[
        ("across", crate::across::TESTS),
        ("audit", crate::audit::TESTS),
        ("bad_input", crate::bad_input::TESTS),
        ("bypass", crate::bypass::TESTS),
        ("canary", crate::canary::TESTS),
        ("cluster_api", crate::cluster_api::TESTS),
        ("churn", crate::churn::TESTS),
        ("confinement", crate::confinement::TESTS),
        ("conformance", crate::conformance::TESTS),
        ("containers", crate::containers::TESTS),
        ("counters", crate::counters::TESTS),
        ("differential", crate::differential::TESTS),
        ("explain", crate::explain::TESTS),
        ("faults", crate::faults::TESTS),
        ("hooks", crate::hooks::TESTS),
        ("identity", crate::identity::TESTS),
        ("kubernetes", crate::kubernetes::TESTS),
        ("lifecycle", crate::lifecycle::TESTS),
        ("live_changes", crate::live_changes::TESTS),
        ("never_a_gap", crate::never_a_gap::TESTS),
        ("pages", crate::pages::TESTS),
        ("policies", crate::policies::TESTS),
        ("protocols", crate::protocols::TESTS),
        ("readers", crate::readers::TESTS),
        ("replies", crate::replies::TESTS),
        ("residue", crate::residue::TESTS),
        ("revocation", crate::revocation::TESTS),
        ("runtimes", crate::runtimes::TESTS),
        ("sockets", crate::sockets::TESTS),
        ("systemd", crate::systemd::TESTS),
        ("traffic", crate::traffic::TESTS),
        ("verifier", crate::verifier::TESTS),
    ];
    let named = modules.iter().flat_map(|(module, tests)| tests.iter().map(move |test| (module, test)));
    named.map(|(module, (name, run))| trial(format!("{module}::{name}"), *run, all)).collect()
}

/// Why this test is left out here.
fn left_out(name: &str) -> Option<String> {
    let find = |list: &'static [(&str, &str)]| list.iter().find(|(start, _)| name.starts_with(start));
    if let Some((_, reason)) = find(LONG) {
        return Some((*reason).to_owned());
    }
    if !patience::is_emulated() {
        return None;
    }
    if let Some((_, release)) = find(ONE_KERNEL).filter(|(_, release)| !is_release(release)) {
        return Some(format!("of the emulated machines, {release}x runs it"));
    }
    let (_, reason) = find(NATIVE)?;
    Some(format!("{reason}: it ran natively, and runs here by `cargo xtask vm 6.1 6.12 -- {name}`"))
}

/// Whether this kernel is of a line.
fn is_release(start: &str) -> bool {
    nix::sys::utsname::uname()
        .is_ok_and(|system| system.release().to_str().is_some_and(|release| release.starts_with(start)))
}

/// Ends this test as skipped.
pub(crate) fn skip(reason: impl Into<String>) -> ! {
    // Unlike a panic, this says nothing on its way.
    resume_unwind(Box::new(Skip(reason.into())))
}

/// Name and reason of every test that was skipped.
pub(crate) fn skipped() -> Vec<(String, String)> {
    SKIPPED.lock().expect("nobody panics here").clone()
}

/// The tests that took longest, longest first.
pub(crate) fn slowest(count: usize) -> Vec<(Duration, String)> {
    let mut times = TIMES.lock().expect("nobody panics here").clone();
    times.sort();
    times.into_iter().rev().take(count).collect()
}

fn trial(name: String, run: fn(), all: bool) -> Trial {
    Trial::ignorable_test(name.clone(), move || {
        if let Some(reason) = left_out(&name).filter(|_| !all) {
            SKIPPED.lock().expect("nobody panics here").push((name, reason.clone()));
            return Ok(Completion::ignored_with(reason));
        }
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(run));
        TIMES.lock().expect("nobody panics here").push((start.elapsed(), name.clone()));
        let Err(panic) = result else { return Ok(Completion::Completed) };
        match panic.downcast::<Skip>() {
            Ok(skip) => {
                SKIPPED.lock().expect("nobody panics here").push((name, skip.0.clone()));
                Ok(Completion::ignored_with(skip.0))
            }
            Err(panic) => resume_unwind(panic),
        }
    })
}
