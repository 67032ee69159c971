//! Pushes as quickly as a thousand a minute.

use std::time::{Duration, Instant};

use super::stage::{PROBE, Stage};
use super::{Figures, is_long, millis, quantile, resident_kilobytes, sized};

/// What the pushed policy tells the refused.
const EHOSTUNREACH: i32 = 113;
/// Pushes in a minute.
const PACE: u64 = 1_000;
/// Growth that no leak would stay below: a thousand pushes are to cost nothing that lasts.
const GROWTH_KILOBYTES: u64 = 8 << 10;

pub(super) fn storm() {
    let mut figures = Figures::new("storm");
    let stage = Stage::enforcing("storm");
    let count = sized(5 * PACE / 60, 5 * PACE);
    let generation = stage.agent.status().generation;
    let (mut times, mut stale, mut refused) = (Vec::new(), 0, 0);
    let mut resident = 0;
    let pace = Duration::from_mins(1) / u32::try_from(PACE).unwrap();
    let start = Instant::now();
    for number in 0..count {
        // Each one means the opposite of the one before.
        let action = if number % 2 == 0 { "Deny" } else { "Allow" };
        let policy = format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: pushed}}\nspec: {{errno: \
             EHOSTUNREACH, subject: {{matchLabels: {{app: good}}}}, egress: [{{action: {action}, ports: [{{port: \
             7020}}]}}, {{}}]}}\n"
        );
        let begin = Instant::now();
        let told = stage.agent.cli_with(&["policy", "apply", "-f", "-"], &policy);
        times.push(millis(begin));
        refused += u64::from(told.code != 0);
        let wanted = if number % 2 == 0 { EHOSTUNREACH } else { 0 };
        stale += u64::from(stage.good.connect(PROBE).errno != wanted);
        // After the first tenth, whatever is kept per kind of thing is there.
        if number == count / 10 {
            resident = resident_kilobytes(stage.agent.pid());
        }
        let due = pace * u32::try_from(number + 1).unwrap();
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let status = stage.agent.status();
    figures.note("pushes", count);
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    figures.note("a-minute", format!("{:.0}", count as f64 / minutes));
    figures.exactly("refused", refused, 0);
    figures.exactly("stale-verdicts", stale, 0);
    figures.exactly("generations", status.generation - generation, count);
    figures.exactly("problems", status.problems.len() as u64, 0);
    figures.note("p50-ms", quantile(&mut times, 500));
    // From the start of the command to its end, in which the push is in force.
    figures.time("p99-ms", quantile(&mut times, 990), 1_000);
    let growth = resident_kilobytes(stage.agent.pid()).saturating_sub(resident);
    if is_long() {
        figures.at_most("grown-kb", growth, GROWTH_KILOBYTES);
    } else {
        figures.note("grown-kb", growth);
    }
    figures.note("resident-kb", resident);
    figures.finish();
}
