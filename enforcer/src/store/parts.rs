//! The registry in parts: one file with everything, and one for each time that numbers were given since, so that a new
//! workload costs a small file and not all of them.
//!
//! Each part is whole or not there, as every file here, and says which numbers it follows. So one that is missing in the
//! middle is noticed, and those that a crash left behind when all were put into one are known to be in there already.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic::Batch;
use super::{Error, REGISTRY, RegistryFile, VERSION, read, write};
use crate::domain::id::{IdentityId, RuleId};
use crate::domain::registry::{Added, Registry};

/// When there are so many parts, everything is written into one file again.
pub(super) const PARTS: u32 = 256;

/// What is on disk.
#[derive(Debug)]
pub(super) struct Parts {
    /// Whether there is a file with everything.
    is_there: bool,
    count: u32,
    /// The highest numbers.
    last: (IdentityId, RuleId),
}

/// The saved form of a part.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartFile {
    version: u32,
    part: u32,
    /// The highest numbers before it: of identities and of rules.
    after: (u32, u32),
    added: Added,
}

impl Parts {
    /// Reads all of it.
    pub(super) fn open(root: &Path) -> Result<(Self, Registry), Error> {
        let whole = read(&root.join(REGISTRY), |file: &RegistryFile| file.version)?;
        let is_there = whole.is_some();
        let mut registry = whole.map(|file| file.registry).unwrap_or_default();
        let numbers = numbers(root)?;
        for (number, expected) in numbers.iter().zip(1..) {
            let path = path(root, *number);
            let corrupt = |problem: String| Error::Corrupt { path: path.clone(), problem };
            if *number != expected {
                return Err(corrupt(format!(
                    "part {expected} of the registry, which comes before it, is missing"
                )));
            }
            let Some(PartFile { part, after, added, .. }) = read(&path, |file: &PartFile| file.version)?
            else {
                return Err(corrupt("it is gone".to_owned()));
            };
            if part != *number {
                return Err(corrupt(format!("it is part {part} of the registry under another name")));
            }
            if registry.has(&added) {
                continue;
            }
            if (IdentityId(after.0), RuleId(after.1)) != registry.last() {
                return Err(corrupt("it does not follow the parts of the registry before it".to_owned()));
            }
            registry.add(added).map_err(|problem| corrupt(problem.to_string()))?;
        }
        let count = u32::try_from(numbers.len()).unwrap_or(PARTS);
        Ok((Self { is_there, count, last: registry.last() }, registry))
    }

    /// Saves what was given since.
    pub(super) fn save(&mut self, root: &Path, registry: &Registry) -> Result<(), Error> {
        if self.is_there && registry.last() == self.last {
            return Ok(());
        }
        let mut batch = Batch::new(root);
        let is_whole = !self.is_there || self.count >= PARTS;
        if is_whole {
            let file = RegistryFile { version: VERSION, registry: registry.clone() };
            write(&mut batch, &root.join(REGISTRY), &file)?;
            // The last first, so that what a failure leaves is without a gap.
            (1..=self.count).rev().for_each(|number| batch.remove(path(root, number)));
        } else {
            let part = self.count + 1;
            let (identity, rule) = self.last;
            let added = registry.since(self.last);
            let file = PartFile { version: VERSION, part, after: (identity.0, rule.0), added };
            write(&mut batch, &path(root, part), &file)?;
        }
        batch.commit()?;
        self.count = if is_whole { 0 } else { self.count + 1 };
        self.is_there = true;
        self.last = registry.last();
        Ok(())
    }
}

pub(super) fn path(root: &Path, number: u32) -> PathBuf {
    root.join(format!("registry.{number}.json"))
}

/// The numbers of the parts that are there, in order.
fn numbers(root: &Path) -> Result<Vec<u32>, Error> {
    let failed = |source| Error::Io { operation: "list", path: root.to_owned(), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("registry.")?.strip_suffix(".json"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
