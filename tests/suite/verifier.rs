//! What the kernel's verifier makes of each program, on every kernel that the suite runs on.

use enforcer::kernel::probe;
use enforcer_common::hook::Hook;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] =
    &[("every_program_is_within_the_budget", every_program_is_within_the_budget)];

/// Verified instructions of one program. The kernel's own limit is 1,000,000; another kernel, or another compiler, can
/// need several times as many for the same program.
const BUDGET: u32 = 200_000;

fn every_program_is_within_the_budget() {
    let costs = probe::programs().unwrap_or_else(|error| panic!("{error}"));
    for hook in Hook::ALL.iter().filter(|hook| !hook.is_optional()) {
        assert!(costs.iter().any(|cost| cost.program == hook.program()), "{hook:?} is not loaded");
    }
    let said: Vec<String> =
        costs.iter().map(|cost| format!("{} {}", cost.program, cost.instructions_verified)).collect();
    println!("verifier: {}", said.join(", "));
    for cost in &costs {
        assert!(cost.instructions_verified > 0, "{} was verified", cost.program);
        assert!(cost.instructions_verified <= BUDGET, "{cost:?}");
    }
}
