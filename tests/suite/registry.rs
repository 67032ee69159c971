//! All tests, and those that were skipped with their reasons.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Trial};

/// A test: its name and what it does.
pub(crate) type Test = (&'static str, fn());

static SKIPPED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Ends a test that can't be run here.
struct Skip(String);

/// Every test of every module.
pub(crate) fn trials() -> Vec<Trial> {
    let modules: [(&str, &[Test]); 15] = [
        ("bad_input", crate::bad_input::TESTS),
        ("bypass", crate::bypass::TESTS),
        ("churn", crate::churn::TESTS),
        ("counters", crate::counters::TESTS),
        ("differential", crate::differential::TESTS),
        ("faults", crate::faults::TESTS),
        ("hooks", crate::hooks::TESTS),
        ("identity", crate::identity::TESTS),
        ("lifecycle", crate::lifecycle::TESTS),
        ("live_changes", crate::live_changes::TESTS),
        ("never_a_gap", crate::never_a_gap::TESTS),
        ("policies", crate::policies::TESTS),
        ("replies", crate::replies::TESTS),
        ("residue", crate::residue::TESTS),
        ("revocation", crate::revocation::TESTS),
    ];
    let named = modules.into_iter().flat_map(|(module, tests)| tests.iter().map(move |test| (module, test)));
    named.map(|(module, (name, run))| trial(format!("{module}::{name}"), *run)).collect()
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

fn trial(name: String, run: fn()) -> Trial {
    Trial::ignorable_test(name.clone(), move || {
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
