//! `kill -9` of the daemon, at random moments, under load.

use std::time::{Duration, Instant};

use super::stage::{Stage, whole};
use super::{Dice, Figures, millis, sized};

/// A daemon that has been started is ready in this time.
const READY_MILLIS: u64 = 2_000;

pub(super) fn kills() {
    let mut figures = Figures::new("kills");
    let mut dice = Dice::new("kills");
    let mut stage = Stage::enforcing("kills");
    let before = stage.agent.metrics();
    let load = stage.load();
    let count = sized(2, 200);
    let mut slowest = 0;
    let mut while_starting = 0;
    for _ in 0..count {
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        stage.agent.kill9();
        // Every third is killed again before it is ready, at any point of its start.
        if dice.below(3) == 0 {
            stage.agent.spawn();
            std::thread::sleep(Duration::from_millis(dice.below(READY_MILLIS / 2)));
            while_starting += u64::from(!stage.agent.is_ready());
            stage.agent.kill9();
        }
        std::thread::sleep(Duration::from_millis(dice.below(100)));
        let start = Instant::now();
        stage.agent.run();
        slowest = slowest.max(millis(start));
    }
    let outcome = load.rest();
    stage.check();
    let now = stage.agent.metrics();
    figures.note("kills", count + while_starting);
    figures.note("while-starting", while_starting);
    outcome.figures(&mut figures);
    // Counters outlive all of them: what was refused is in them, once each.
    let grown = |marks: &[&str]| Stage::verdicts(&now, marks) - Stage::verdicts(&before, marks);
    let forbidden = |port: &'static str| [r#"action="dropped""#, r#"direction="ingress""#, port];
    let counted = grown(&forbidden(r#"port="7011""#)) + grown(&forbidden(r#"port="7012""#));
    figures.exactly("refused-counted", counted, outcome.refused);
    let full = r#"enforcer_kernel_stats_total{stat="counters_full"}"#;
    figures.exactly("uncounted", whole(now[full] - before[full]), 0);
    figures.time("slowest-ready-ms", slowest, READY_MILLIS);
    figures.finish();
}
