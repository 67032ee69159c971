//! The looks at the kernel's counters that audit log and flow history live on.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clock;
use super::supervise::closed;
use crate::domain::canary;
use crate::domain::counted::Epoch;
use crate::kernel::Counters;
use crate::telemetry::{audit, history};

/// Where the looks go.
#[derive(Clone)]
pub(super) struct Sinks {
    pub(super) audit: Option<audit::Audit>,
    pub(super) history: Option<history::History>,
    pub(super) boot_id: String,
}

impl Sinks {
    /// One look.
    fn take(&self, counters: &Counters) -> Result<(), String> {
        let at = clock::clocks(Duration::ZERO).wall;
        let epoch = |map| Epoch { boot_id: self.boot_id.clone(), map };
        let mut verdicts = counters.verdicts().map_err(|error| error.to_string())?;
        verdicts.retain(|(key, _)| !canary::is_one_of(key.subject, key.peer));
        if let Some(audit) = &self.audit {
            let (epoch, rows) = (epoch(counters.verdicts_id()), verdicts.clone());
            audit.sample(audit::Sample { at, epoch, rows });
        }
        if let Some(history) = &self.history {
            let traffic = counters.traffic().map_err(|error| error.to_string())?;
            history.sample(history::Sample {
                at,
                verdicts: (epoch(counters.verdicts_id()), verdicts),
                traffic: (epoch(counters.traffic_id()), traffic),
            });
        }
        Ok(())
    }
}

/// Looks again and again, and a last time at the end.
pub(super) fn start(
    pins: &std::path::Path,
    sinks: &Sinks,
    interval: Duration,
    closing: &watch::Receiver<bool>,
) -> JoinHandle<Result<(), String>> {
    let (pins, sinks, closing): (PathBuf, _, _) = (pins.to_owned(), sinks.clone(), closing.clone());
    tokio::spawn(async move {
        let mut counters = Counters::new(&pins).map_err(|error| error.to_string())?;
        loop {
            let over = tokio::select! {
                () = tokio::time::sleep(interval) => false,
                () = closed(closing.clone()) => true,
            };
            // Tens of thousands of rows take a while, and others need this thread.
            let sinks = sinks.clone();
            let look = tokio::task::spawn_blocking(move || (sinks.take(&counters), counters)).await;
            let (looked, back) = look.map_err(|error| error.to_string())?;
            counters = back;
            looked?;
            if over {
                return Ok(());
            }
        }
    })
}
