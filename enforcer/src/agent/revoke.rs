//! Open sockets are judged anew after every change, beside the owner: packets of a forbidden flow stop with the change
//! itself; here both ends learn it.

use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::Instant;

use super::supervise::closed;
use crate::domain::revoke::{InForce, Judged, Socket};
use crate::kernel::{Pass, Revoker};
use crate::telemetry::metrics::Gauges;

/// Time between passes for changes of addresses alone.
const LEISURE: Duration = Duration::from_secs(1);
/// Such passes take one of so many parts of a core: a node with a hundred network namespaces lists a hundred times.
const SHARE: u32 = 100;
/// The longest time between them.
const LONGEST_LEISURE: Duration = Duration::from_secs(10);

/// What is in force; `None` before the first change is complete, and where denials are not enforced.
pub(super) type Latest = Option<Arc<InForce>>;

/// Judges all sockets whenever something else is in force, until the agent ends. Changes that come while it is at it
/// are judged together, and so are those of a second if only addresses are others: in a cluster, pods elsewhere come and go
/// all the time, and hardly ever has a socket here a flow with one of them.
pub(super) async fn run(
    revoker: Revoker,
    mut latest: watch::Receiver<Latest>,
    gauges: watch::Sender<Gauges>,
    closing: watch::Receiver<bool>,
) -> Result<(), String> {
    let revoker = Arc::new(revoker);
    let mut hidden = 0;
    let mut judged: Latest = None;
    let mut rested = Instant::now();
    loop {
        // Kernel time changes who is who without a change of the agent's. That clock goes on while the host sleeps and
        // the one waited on does not, so the pass is late then; the packets are judged in time.
        let due = latest.borrow().as_ref().and_then(|in_force| in_force.changes_at(now()));
        let pause = due.map_or(Duration::MAX, |due| Duration::from_nanos(due.saturating_sub(now())));
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(pause) => {}
            () = closed(closing.clone()) => return Ok(()),
        }
        while is_elsewhere(judged.as_deref(), latest.borrow_and_update().as_deref()) {
            tokio::select! {
                () = tokio::time::sleep_until(rested) => break,
                changed = latest.changed() => if changed.is_err() { return Ok(()) },
                () = closed(closing.clone()) => return Ok(()),
            }
        }
        judged.clone_from(&latest.borrow());
        if judged.is_none() {
            continue;
        }
        let (revoker, seen) = (Arc::clone(&revoker), latest.clone());
        let pass = tokio::task::spawn_blocking(move || revoker.pass(&|sockets| judge(&seen, sockets))).await;
        match pass.map_err(|error| error.to_string()).and_then(|pass| pass.map_err(|error| error.to_string()))
        {
            Ok(pass) => {
                tell(&pass, &gauges);
                if pass.hidden > std::mem::replace(&mut hidden, pass.hidden) {
                    tracing::warn!(
                        "the network namespaces of {hidden} processes can't be told (the right to trace them is missing): open \
                         sockets in namespaces that only they are in stay after a change; their packets are judged \
                         nevertheless"
                    );
                }
                // However quickly changes come, half of the time is left to others.
                tokio::time::sleep(pass.time).await;
                rested = Instant::now() + LEISURE.max((pass.time * SHARE).min(LONGEST_LEISURE));
            }
            Err(error) => {
                tracing::warn!("open sockets could not be judged anew: {error}");
                gauges.send_modify(|gauges| gauges.revocation.failed_passes += 1);
            }
        }
    }
}

/// Whether what is in force differs from what was judged by in nothing but addresses.
fn is_elsewhere(judged: Option<&InForce>, latest: Option<&InForce>) -> bool {
    judged.zip(latest).is_some_and(|(judged, latest)| latest.has_bindings_of(judged))
}

/// By what is in force at this moment: the sockets were listed before, and what they were allowed by may be newer than
/// what this pass began for.
fn judge(latest: &watch::Receiver<Latest>, sockets: &[Socket]) -> Judged {
    let in_force = latest.borrow().clone();
    in_force.map_or_else(Judged::default, |in_force| in_force.judge(sockets, now()))
}

fn tell(pass: &Pass, gauges: &watch::Sender<Gauges>) {
    let destroyed: u64 = pass.destroyed.values().sum();
    let said = format!(
        "{} open sockets in {} network namespaces were judged anew in {} us: {destroyed} destroyed, {} undecided",
        pass.sockets,
        pass.namespaces,
        pass.time.as_micros(),
        pass.undecided,
    );
    if destroyed > 0 {
        tracing::info!("{said}");
    } else {
        tracing::debug!("{said}");
    }
    if pass.failed + pass.unvisited > 0 {
        tracing::warn!(
            "{} sockets that should have been destroyed live on, {} network namespaces were not looked through: {}; \
             their packets are judged nevertheless",
            pass.failed,
            pass.unvisited,
            pass.problems.join("; "),
        );
    }
    gauges.send_modify(|gauges| {
        let sum = &mut gauges.revocation;
        sum.passes += 1;
        sum.seconds += pass.time.as_secs_f64();
        sum.failed_sockets += pass.failed;
        sum.failed_namespaces += pass.unvisited;
        sum.hidden_processes = pass.hidden;
        sum.undecided = pass.undecided;
        for (key, count) in &pass.destroyed {
            *sum.destroyed.entry(*key).or_default() += count;
        }
    });
}

/// Nanoseconds since boot, on the clock of the kernel programs.
fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
