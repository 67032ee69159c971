//! Has the canary try: after each publication, and again and again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant as Tick, sleep_until};

use super::clock;
use super::supervise::closed;
use crate::config::Config;
use crate::domain::Mode;
use crate::domain::canary::{Attempt, CanaryEvent, Outcome};
use crate::domain::id::{CgroupId, Generation};
use crate::engine::Event;
use crate::kernel;
use crate::kernel::canary::{Canary, directory};
use crate::telemetry::metrics::Gauges;

/// Shortest time between two attempts where nothing fails, however quickly policies are pushed.
const GAP: Duration = Duration::from_secs(1);

/// What would refuse it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// The generation in force.
    pub(super) generation: u64,
    /// Its directory, if everything is in place there.
    pub(super) armed: Option<CgroupId>,
}

/// The canary, and how often it tries.
pub(super) struct Watch {
    directory: PathBuf,
    canary: Canary,
    interval: Duration,
    /// Its cgroup as the engine knows it, or what it was told instead.
    told: Result<CgroupId, String>,
}

/// Makes its directory before anything else is told to the engine, so that its binding belongs to the first change.
pub(super) fn prepare(config: &Config, attach: &Path) -> (Option<Watch>, CanaryEvent) {
    let Some(interval) = config.canary_interval else {
        return (None, CanaryEvent::Absent("the setting canary-interval is none".to_owned()));
    };
    if config.mode != Mode::Enforce {
        return (None, CanaryEvent::Absent(format!("the mode is {}", config.mode.name())));
    }
    let directory = directory(attach, &config.pins);
    let canary = Canary::new(directory.clone());
    let told = canary.prepare();
    let event = event(&told);
    (Some(Watch { directory, canary, interval: interval.0, told }), event)
}

fn event(told: &Result<CgroupId, String>) -> CanaryEvent {
    match told {
        Ok(cgroup) => CanaryEvent::Ready(*cgroup),
        Err(message) => {
            tracing::warn!("whether denials are enforced is not proven: {message}");
            CanaryEvent::Absent(message.clone())
        }
    }
}

/// Tries until the agent ends.
pub(super) async fn run(
    mut watch: Watch,
    mut targets: watch::Receiver<Target>,
    (events, gauges): (mpsc::Sender<Event>, watch::Sender<Gauges>),
    closing: watch::Receiver<bool>,
    started: Instant,
) {
    let gap = GAP.min(watch.interval);
    let mut last = Tick::now();
    let mut due = last + gap;
    loop {
        tokio::select! {
            changed = targets.changed() => if changed.is_err() { return },
            () = sleep_until(due) => {}
            () = closed(closing.clone()) => return,
        }
        // Publications that come meanwhile are proven together.
        tokio::select! {
            () = sleep_until(last + gap) => {}
            () = closed(closing.clone()) => return,
        }
        let target = *targets.borrow_and_update();
        last = Tick::now();
        due = last + watch.interval;
        // A directory that was removed and made again has another id, which has to be bound first.
        let found = watch.canary.prepare();
        let told = if found != watch.told {
            watch.told = found;
            event(&watch.told)
        } else if target.armed.is_some() && target.armed == watch.told.as_ref().ok().copied() {
            let outcome = attempt(&mut watch).await;
            count(&gauges, &outcome);
            if matches!(outcome, Outcome::Failed(_)) {
                due = last + gap;
            }
            let now = clock::clocks(started.elapsed());
            CanaryEvent::Tried(Attempt { generation: Generation(target.generation), outcome, now })
        } else {
            continue;
        };
        if events.send(Event::Canary(told)).await.is_err() {
            return;
        }
    }
}

/// One attempt, on a thread that may block.
async fn attempt(watch: &mut Watch) -> Outcome {
    let next = Canary::new(watch.directory.clone());
    let mut canary = std::mem::replace(&mut watch.canary, next);
    let tried = tokio::task::spawn_blocking(move || {
        let outcome = canary.attempt();
        (canary, outcome)
    });
    match tried.await {
        Ok((canary, outcome)) => {
            watch.canary = canary;
            outcome
        }
        Err(error) => Outcome::Unproven(format!("the attempt was not finished: {error}")),
    }
}

fn count(gauges: &watch::Sender<Gauges>, outcome: &Outcome) {
    gauges.send_modify(|gauges| {
        *gauges.canary_attempts.entry(outcome.label()).or_default() += 1;
        if *outcome == Outcome::Refused {
            gauges.canary_success = clock::wall_seconds();
        }
    });
}

/// Removes what `enforcer uninstall` finds of it; what was removed.
pub(super) fn uninstall(attach: &Path, config: &Config) -> Result<Option<String>, kernel::Error> {
    let path = directory(attach, &config.pins);
    match crate::kernel::canary::remove(&path) {
        Ok(true) => Ok(Some(path.display().to_string())),
        Ok(false) => Ok(None),
        Err(source) => Err(kernel::Error::Io { operation: "remove", path, source }),
    }
}
