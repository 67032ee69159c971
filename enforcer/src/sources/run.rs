//! The life of a source: look, tell, wait.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::watch::Watcher;
use super::{Cause, Error, Found, Look};

/// The usual pause between looks when nothing seems to happen.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks and tells until nobody listens. A change of `demand` asks for everything to be read again.
pub async fn run<L: Look>(
    source: L,
    events: mpsc::Sender<L::Event>,
    demand: watch::Receiver<u64>,
) -> Result<(), Error> {
    run_with(source, events, demand, PAUSE).await
}

/// The same with another pause.
pub(super) async fn run_with<L: Look>(
    mut source: L,
    events: mpsc::Sender<L::Event>,
    mut demand: watch::Receiver<u64>,
    pause: Duration,
) -> Result<(), Error> {
    let mut watcher = Watcher::new();
    let mut cause = Cause::Demand;
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let found = source.look(&cause);
            let places = source.places();
            (source, found, places)
        });
        let (back, Found { events: found, again }, places) = looked.await?;
        source = back;
        for event in found {
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
        // What was made before a directory was watched was not reported: look again until all are.
        if watcher.watch(&places) {
            cause = Cause::Changed(places);
            continue;
        }
        cause = tokio::select! {
            changed = watcher.changed() => Cause::Changed(changed),
            changed = demand.changed() => match changed {
                Ok(()) => Cause::Demand,
                Err(_) => return Ok(()),
            },
            () = events.closed() => return Ok(()),
            () = tokio::time::sleep(again.unwrap_or(pause)) => Cause::Time,
        };
    }
}
