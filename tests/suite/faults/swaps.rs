//! The daemon is replaced by the next one under load, and its programs in their links with it.

use super::stage::Stage;
use super::{Figures, sized};
use enforcer_common::hook::Hook;

pub(super) fn swaps() {
    let mut figures = Figures::new("swaps");
    let mut stage = Stage::enforcing("swaps");
    let load = stage.load();
    let count = sized(2, 100);
    let mut replaced = 0;
    for _ in 0..count {
        assert_eq!(stage.agent.terminate(), 0);
        stage.agent.run();
        // A hook is told as attached only if its link runs a program of this very process.
        let hooks = stage.agent.status().hooks;
        let required = Hook::ALL.iter().filter(|hook| !hook.is_optional());
        replaced += u64::from(required.clone().all(|hook| hooks.iter().any(|name| name == hook.program())));
    }
    let outcome = load.rest();
    stage.check();
    figures.exactly("swaps", replaced, count);
    outcome.figures(&mut figures);
    figures.finish();
}
