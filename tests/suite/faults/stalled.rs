//! The daemon stands still, so nobody reads the event ring, and the load goes on.

use std::time::Duration;

use enforcer_tests::agent::Metrics;
use enforcer_tests::patience;
use nix::sys::signal::Signal;

use super::stage::{PROBE, Stage, whole};
use super::{Figures, sized};

const DELIVERED: &str = r#"enforcer_kernel_stats_total{stat="events_delivered"}"#;
const LOST: &str = r#"enforcer_kernel_stats_total{stat="events_lost"}"#;
const SEEN: &str = r#"enforcer_kernel_stats_total{stat="events_seen"}"#;
const LEFT_OUT: &str = r#"enforcer_kernel_stats_total{stat="events_sampled_out"}"#;
const READ: &str = "enforcer_events_read_total";
const RING: &str = r#"enforcer_lost_events_total{source="ring"}"#;

pub(super) fn stalled() {
    let mut figures = Figures::new("stalled");
    let mut stage = Stage::set("stalled");
    // The canary has events at moments of its own: between two counters that are read one after the other.
    let guarded = stage.world.relative(&stage.world.guarded());
    stage.agent.configure(&[("attach", &guarded), ("canary-interval", "none")]);
    stage.agent.run();
    stage.check();
    let before = settled(&stage);
    let seconds = sized(2, 60);
    let load = stage.load();
    stage.agent.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(seconds));
    // So many that the ring is full whatever the machine: it holds fewer events of this size.
    let extra = patience::scaled(9_000, 9_000);
    let tally = stage.bad.repeat(extra, true, PROBE);
    assert_eq!(tally.keys().collect::<Vec<_>>(), [&super::stage::EPERM], "{tally:?}");
    stage.check();
    stage.agent.signal(Signal::SIGCONT);
    let outcome = load.rest();
    let now = settled(&stage);
    let grown = |name: &str| whole(now[name] - before.get(name).copied().unwrap_or_default());
    let verdicts = |marks: &[&str]| Stage::verdicts(&now, marks) - Stage::verdicts(&before, marks);
    figures.note("stopped-s", seconds);
    outcome.figures(&mut figures);
    let dropped = r#"action="dropped""#;
    let counted = [r#"port="7011""#, r#"port="7012""#].iter().map(|port| verdicts(&[dropped, port])).sum();
    figures.exactly("refused-counted", counted, outcome.refused);
    // One more by the check above.
    figures.exactly("extra-counted", verdicts(&[dropped, r#"port="7020""#]), extra + 1);
    let forwarded = [r#"action="forwarded""#, r#"direction="egress""#, r#"port="7001""#];
    figures.exactly("allowed-counted", verdicts(&forwarded), outcome.connections);
    // Whatever was seen was delivered or counted as lost, and what was delivered was read.
    figures.exactly("read", grown(READ), grown(DELIVERED));
    figures.exactly("lost-told", grown(RING), grown(LOST));
    figures.at_least("lost", grown(LOST), 1);
    // Each refusal is an event; so is each end of an allowed flow that was new.
    let refusals = outcome.refused + extra + 1;
    figures.at_least("seen", grown(SEEN), refusals);
    figures.exactly("seen-is-told-or-lost", grown(DELIVERED) + grown(LOST) + grown(LEFT_OUT), grown(SEEN));
    figures.finish();
}

/// The metrics when everything that was delivered has been read.
fn settled(stage: &Stage) -> Metrics {
    patience::until("the events are read", patience::seconds(30), || {
        let metrics = stage.agent.metrics();
        let delivered = metrics.get(DELIVERED).copied().unwrap_or_default();
        let read = metrics.get(READ).copied().unwrap_or_default();
        (read >= delivered).then_some(metrics)
    })
}
