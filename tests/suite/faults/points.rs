//! The daemon ends at every step of what it does: the first start, a start over what another one left, a push, its end.

use std::collections::BTreeMap;

use enforcer::fail::{POINTS, When};
use enforcer_common::hook::Hook;
use nix::sys::signal::Signal;

use super::stage::{PROBE, Stage};
use super::{Figures, is_long};

/// What `kill -9` makes of an exit code.
const KILLED: i32 = 137;
/// What the pushed policy tells the refused.
const EHOSTUNREACH: i32 = 113;

/// The points of the short form; the long form has all.
const SHORT: [(When, &str); 4] = [
    (When::First, "kinds-written"),
    (When::Restart, "program-replaced"),
    (When::Push, "file-renamed"),
    (When::Stop, "owner-ended"),
];

pub(super) fn points() {
    let mut figures = Figures::new("points");
    let points = chosen();
    let count = |when| points.iter().filter(|(of, _, _)| *of == when).count();
    let steps = [When::First, When::Restart, When::Push, When::Stop];
    for when in steps {
        figures.note(&format!("{when:?}").to_lowercase(), count(when));
    }
    let mut stage = Stage::enforcing("points");
    let load = stage.load();
    let mut taken_back = 0;
    for (number, (when, point, turn)) in points.iter().enumerate() {
        if *when != When::First {
            println!("soak: points: {when:?} {point} {turn}");
        }
        match when {
            When::Restart => restart(&mut stage, point, *turn),
            When::Push => taken_back += u64::from(!push(&mut stage, point, *turn, number)),
            When::Stop => stop(&mut stage, point),
            When::First | When::Start => {}
        }
    }
    let outcome = load.rest();
    // These have a world of their own, and no load: nothing was promised yet.
    for (_, point, turn) in points.iter().filter(|(when, _, _)| *when == When::First) {
        println!("soak: points: First {point} {turn}");
        first_start(point, *turn);
    }
    outcome.figures(&mut figures);
    figures.exactly("taken-back", taken_back, 0);
    figures.finish();
}

/// What is tried: when, where, and the how manyth time it is passed.
fn chosen() -> Vec<(When, &'static str, u64)> {
    let mut chosen = Vec::new();
    let hooks = Hook::ALL.iter().filter(|hook| !hook.is_optional()).count() as u64;
    if !is_long() {
        let turn = |point| if matches!(point, "link-pinned" | "program-replaced") { hooks / 2 } else { 1 };
        return SHORT.map(|(when, point)| (when, point, turn(point))).to_vec();
    }
    for (when, point) in POINTS {
        let turns = match (*point, when) {
            ("link-made" | "link-pinned" | "program-replaced", _) => hooks,
            // The registry's file, and the policy's.
            ("file-unfinished" | "file-renamed", When::Push) => 2,
            // Three workloads.
            ("operation-applied", _) => 3,
            _ => 1,
        };
        let whens: &[When] = match when {
            When::Start => &[When::First, When::Restart],
            other => &[*other],
        };
        for when in whens {
            chosen.extend((1..=turns).map(|turn| (*when, *point, turn)));
        }
    }
    chosen
}

/// A daemon that dies in its first start is followed by one that enforces.
fn first_start(point: &str, turn: u64) {
    let mut stage = Stage::set("first");
    stage.agent.arm(point, turn);
    stage.agent.spawn();
    assert_eq!(stage.agent.until_ended(), KILLED, "{point} {turn} is not passed: {}", stage.agent.told());
    assert_eq!(stage.good.connect(PROBE).errno, 0, "{point} {turn}: what is allowed works all the time");
    stage.agent.disarm();
    stage.agent.run();
    stage.check();
    let required = Hook::ALL.iter().filter(|hook| !hook.is_optional()).count();
    assert!(stage.agent.status().hooks.len() >= required, "{point} {turn}: {:?}", stage.agent.status());
}

/// A daemon that dies while it takes over leaves what it found in force.
fn restart(stage: &mut Stage, point: &str, turn: u64) {
    assert_eq!(stage.agent.terminate(), 0);
    stage.agent.arm(point, turn);
    stage.agent.spawn();
    assert_eq!(stage.agent.until_ended(), KILLED, "{point} {turn} is not passed: {}", stage.agent.told());
    stage.check();
    stage.agent.disarm();
    stage.agent.run();
    stage.check();
}

/// A daemon that dies in a push leaves the old policies in force or the new ones, and the next one never goes back. Says
/// whether that was so.
fn push(stage: &mut Stage, point: &str, turn: u64, number: usize) -> bool {
    // A new name each time, so that there are new numbers to save each time.
    let policy = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: pushed-{number}}}\nspec: {{errno: \
         EHOSTUNREACH, subject: {{matchLabels: {{app: good}}}}, egress: [{{action: Deny, ports: [{{port: 7020}}]}}, {{}}]}}\n"
    );
    assert_eq!(stage.good.connect(PROBE).errno, 0);
    stage.agent.arm(point, turn);
    let told = stage.agent.cli_with(&["policy", "apply", "-f", "-"], &policy);
    assert_eq!(stage.agent.until_ended(), KILLED, "{point} {turn} is not passed: {told:?}");
    let mut seen = BTreeMap::<i32, u64>::new();
    for _ in 0..5 {
        *seen.entry(stage.good.connect(PROBE).errno).or_default() += 1;
    }
    let (one, count) = seen.first_key_value().unwrap();
    assert!(*count == 5 && [0, EHOSTUNREACH].contains(one), "{point} {turn}: neither old nor new: {seen:?}");
    stage.agent.disarm();
    stage.agent.run();
    let after = stage.good.connect(PROBE).errno;
    assert!([0, EHOSTUNREACH].contains(&after), "{point} {turn}: {after}");
    // What was in force, or was promised, stays.
    let kept = after == EHOSTUNREACH || (*one == 0 && told.code != 0);
    println!(
        "soak: points: push {point} {turn}: code {} then {one}, after the next start {after}",
        told.code
    );
    if after == EHOSTUNREACH {
        stage.agent.cli(&["policy", "delete", &format!("pushed-{number}")]).expect_ok();
    }
    stage.check();
    kept
}

/// A daemon that dies while it ends leaves everything in force.
fn stop(stage: &mut Stage, point: &str) {
    stage.agent.arm(point, 1);
    stage.agent.signal(Signal::SIGTERM);
    assert_eq!(stage.agent.until_ended(), KILLED, "{point} is not passed");
    stage.check();
    stage.agent.disarm();
    stage.agent.run();
    stage.check();
}
