//! What was made records of: counters and workloads, as they were at some record. What came later is read from the
//! records themselves, so that a restart at any point neither repeats nor forgets a verdict.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{Kept, write_whole};
use super::workloads::Known;
use crate::domain::audit::chain::{self, Hash};
use crate::domain::audit::record::Record;
use crate::domain::counted::{Counted, Edge, Epoch};

const NAME: &str = "counted.json";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) counted: Counted<Edge, u64>,
    /// `None` before the first names of all.
    pub(super) workloads: Option<Known>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// What later records say comes on top.
    sequence: u64,
    epoch: Epoch,
    rows: Vec<([u32; 8], u64)>,
    workloads: Option<Known>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    state: Saved,
    hash: Hash,
}

impl State {
    /// Writes it down as it is at this record.
    pub(super) fn save(&self, directory: &Path, sequence: u64) -> io::Result<()> {
        let state = Saved {
            sequence,
            epoch: self.counted.epoch().clone(),
            rows: self.counted.rows().map(|(edge, total)| (edge.numbers(), *total)).collect(),
            workloads: self.workloads.clone(),
        };
        let hash = Hash::of(&serde_json::to_vec(&state)?);
        write_whole(&directory.join(NAME), &serde_json::to_vec(&Sealed { state, hash })?)
    }

    /// What was written down, and what the records behind it say. Without the file, or with a damaged one, all records
    /// that are kept are read.
    pub(super) fn load<'a>(directory: &Path, files: impl Iterator<Item = &'a Kept>) -> io::Result<Self> {
        let saved = read(&directory.join(NAME));
        let sequence = saved.as_ref().map_or(0, |saved| saved.sequence);
        let mut state = Self::default();
        if let Some(Saved { epoch, rows, workloads, .. }) = saved {
            let rows = rows.into_iter().filter_map(|(edge, total)| Some((Edge::from_numbers(edge)?, total)));
            state = Self { counted: Counted::new(epoch, rows), workloads };
        }
        let files: Vec<&Kept> = files.collect();
        for (at, file) in files.iter().enumerate() {
            let is_old = files.get(at + 1).is_some_and(|next| next.first <= sequence + 1);
            if !is_old {
                state.replay(&file.path, sequence)?;
            }
        }
        Ok(state)
    }

    fn replay(&mut self, path: &Path, after: u64) -> io::Result<()> {
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let line = line?;
            let is_later = chain::open(&line).is_ok_and(|opened| opened.is_whole && opened.sequence > after);
            if !is_later {
                continue;
            }
            let Ok(record) = serde_json::from_slice::<Record>(&line) else { continue };
            if let Some(verdicts) = record.enforcer.verdicts
                && let Some(edge) = Edge::from_numbers(verdicts.edge)
            {
                self.counted.enter(&Epoch { boot_id: record.host.boot.id, map: verdicts.map });
                self.counted.take(edge, verdicts.total);
            }
            if record.enforcer.kind == crate::domain::audit::Kind::Identity
                && let Some(workload) = record.enforcer.workload
            {
                let known = self.workloads.get_or_insert_default();
                match workload.identity {
                    Some(identity) => drop(known.insert(workload.name, identity)),
                    None => drop(known.remove(&workload.name)),
                }
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Option<Saved> {
    let sealed: Sealed = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let content = serde_json::to_vec(&sealed.state).ok()?;
    (Hash::of(&content) == sealed.hash).then_some(sealed.state)
}
