//! The wall clock jumps by years. Only in emulated machines: nobody's clock is changed but a guest's.

use enforcer_tests::patience;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use super::stage::{PROBE, Stage};
use super::{Figures, sized};
use crate::registry::skip;

const YEARS: [i64; 4] = [10, -10, 10, -10];
const SECONDS: i64 = 365 * 24 * 3600;

pub(super) fn clock() {
    if !patience::is_emulated() {
        skip("the clock is only changed in an emulated machine: `cargo xtask vm 6.1 6.12 -- faults::clock`");
    }
    let mut figures = Figures::new("clock");
    let stage = Stage::enforcing("clock");
    let generation = stage.agent.status().generation;
    let load = stage.load();
    let start = now();
    let mut changed = 0;
    for years in YEARS {
        let to = TimeSpec::new(now().tv_sec() + years * SECONDS, 0);
        clock_settime(ClockId::CLOCK_REALTIME, to).unwrap();
        for _ in 0..sized(10, 200) {
            changed += u64::from(stage.good.connect(PROBE).errno != 0);
            changed += u64::from(stage.bad.connect(PROBE).errno != super::stage::EPERM);
        }
    }
    let outcome = load.rest();
    let status = stage.agent.status();
    // Four jumps forth and back: what is left is the time that it took.
    assert!((now().tv_sec() - start.tv_sec()).abs() < 3600, "the clock is back");
    figures.note("jumps", YEARS.len());
    figures.exactly("changed-verdicts", changed, 0);
    outcome.figures(&mut figures);
    figures.exactly("generations", status.generation - generation, 0);
    figures.exactly("problems", status.problems.len() as u64, 0);
    figures.finish();
}

fn now() -> TimeSpec {
    clock_gettime(ClockId::CLOCK_REALTIME).unwrap()
}
