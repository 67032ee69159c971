//! systemd: units by their directories. No D-Bus: the directory *is* the unit's name, and it is there exactly as long as
//! something of the unit runs.
//!
//! Which units become workloads is chosen by patterns of names (`nginx.service`, `app-*.service`, `batch.slice`); none by
//! default, because units that nobody means should stay the host. A unit is a workload of the namespace `systemd` with
//! the labels `systemd.io/unit`, `systemd.io/instance` and `systemd.io/slice`.
//!
//! # Trust
//! Only units of the system's manager count, which root defines. What the managers of users make lies below a unit, and so
//! does what a unit makes itself; that belongs to the unit. The agent's own unit stays the host.

use std::collections::BTreeMap;
use std::fs;

use tokio::sync::{mpsc, watch};

use super::Error;
use super::directories::{Directories, Moved, Place};
use super::telling::{Over, Telling, Thing};
use crate::domain::runtime::name;
use crate::domain::unit::{self, matches, unit};
use crate::domain::workload::{WorkloadEvent, WorkloadKey};

/// Name of this source, and namespace of its workloads.
pub const SYSTEMD: &str = "systemd";

/// Tells the units that match one of the patterns until nobody listens.
///
/// # Errors
/// None that ends it.
pub async fn run(
    patterns: Vec<String>,
    directories: Directories,
    events: mpsc::Sender<WorkloadEvent>,
    mut demand: watch::Receiver<u64>,
) -> Result<(), Error> {
    let telling = Telling::new(SYSTEMD, directories, events);
    let mut systemd = Systemd { patterns, own: own_directory(), telling };
    systemd.telling.ready().await;
    // That nobody listens is the only end.
    let Err(Over) = systemd.follow(&mut demand).await;
    Ok(())
}

struct Systemd {
    patterns: Vec<String>,
    /// The directory of this process.
    own: Option<String>,
    telling: Telling,
}

impl Systemd {
    async fn follow(&mut self, demand: &mut watch::Receiver<u64>) -> Result<std::convert::Infallible, Over> {
        self.everything().await?;
        loop {
            tokio::select! {
                changed = demand.changed() => {
                    changed.map_err(|_closed| Over)?;
                    self.everything().await?;
                }
                moved = self.telling.moved() => match moved? {
                    Some(Moved::Came(directory)) => {
                        if let Some(thing) = self.thing(&directory.path) {
                            self.telling.upsert(&directory.path, thing).await?;
                            self.stand().await?;
                        }
                        self.telling.follow(Some(Moved::Came(directory))).await?;
                    }
                    Some(Moved::Went(path)) => {
                        self.telling.remove(&path).await?;
                        self.stand().await?;
                    }
                    Some(Moved::Rescanned) | None => self.everything().await?,
                },
            }
        }
    }

    async fn everything(&mut self) -> Result<(), Over> {
        let found = self.telling.directories().all(|path| self.thing(path).is_some());
        let things: BTreeMap<String, Thing> = found
            .into_iter()
            .filter_map(|directory| Some((directory.path.clone(), self.thing(&directory.path)?)))
            .collect();
        self.telling.replace(things).await?;
        self.telling.follow(None).await?;
        self.stand().await
    }

    async fn stand(&mut self) -> Result<(), Over> {
        let patterns = self.patterns.join(", ");
        self.telling.stand(format!("{} units match {patterns}", self.telling.len())).await
    }

    fn thing(&self, path: &str) -> Option<Thing> {
        let unit = unit(path).filter(|unit| self.patterns.iter().any(|pattern| matches(pattern, unit)))?;
        let is_own = self.own.as_deref() == Some(path);
        let key = WorkloadKey { namespace: SYSTEMD.to_owned(), name: name(unit) };
        let (labels, place) = (unit::labels(path, unit), Place::Path(path.to_owned()));
        (!is_own).then_some(Thing { key, of: None, labels, left_out: 0, place, made: 0 })
    }
}

/// The cgroup v2 directory of this process; `None` if it can't be read.
fn own_directory() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}
