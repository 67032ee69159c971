//! Reads under change: no look-up in the kernel is ever wrong, torn, missing or of two generations.

use enforcer_tests::churn::{Plan, run};
use enforcer_tests::patience;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[("reads_are_right_under_change", reads_are_right_under_change)];

fn reads_are_right_under_change() {
    let short = Plan { verdicts: patience::scaled(400_000, 100_000), swaps: patience::scaled(50, 20) };
    let plan = short.or_environment();
    let found = run(plan);
    println!("churn: {found}");
    assert!(found.faults().is_empty(), "{found}");
    // Else nothing was put to the test.
    assert!(found.sum.asked >= plan.verdicts && found.swaps >= plan.swaps, "{found}");
    assert!(
        found.sum.bound > 0 && found.sum.placed > 0 && found.sum.swapped > 0 && found.changes > 0,
        "{found}"
    );
}
