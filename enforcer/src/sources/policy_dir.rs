//! Policy files: configured files and directories of *.yaml and *.yml files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::{Settling, Version, read, version};
use super::watch::nearest_above;
use super::{Cause, Found, Look};
use crate::domain::command::PolicyFile;

/// How deep directories are searched.
const DEPTH: usize = 16;
/// Files of all directories together.
const FILES: usize = 10_000;
/// Expected verdicts, which stand beside example policies and are none.
const EXPECTATIONS: [&str; 2] = [".expect.yaml", ".expect.yml"];

/// What this source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyEvent {
    /// All files, in the order of paths.
    Files(Vec<PolicyFile>),
    /// They can't be read; the last ones stay.
    Problem(String),
}

/// A configured path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPath {
    /// A file, or a directory that is searched recursively.
    pub path: PathBuf,
    /// Whether it may be missing at the start. One that was there and is gone is always a problem: an unmounted
    /// volume must not open what its policies close.
    pub optional: bool,
}

/// The source of policy files.
#[derive(Debug)]
pub struct PolicyDir {
    paths: Vec<PolicyPath>,
    /// Configured paths that were there once.
    seen: BTreeSet<PathBuf>,
    /// Directories that were searched last.
    searched: BTreeSet<PathBuf>,
    settling: Settling<BTreeMap<PathBuf, Version>>,
    told: Option<PolicyEvent>,
}

impl PolicyDir {
    /// These paths.
    pub fn new(paths: Vec<PolicyPath>) -> Self {
        let (seen, searched) = (BTreeSet::new(), BTreeSet::new());
        Self { paths, seen, searched, settling: Settling::new(), told: None }
    }

    /// Finds all files with their versions.
    fn find(&mut self) -> Result<BTreeMap<PathBuf, Version>, String> {
        let mut search = Search::default();
        let mut missing = None;
        for PolicyPath { path, optional } in &self.paths {
            if path.is_dir() {
                search.directory(path, DEPTH)?;
            } else if let Some(version) = version(path)? {
                search.files.insert(path.clone(), version);
            } else if !optional || self.seen.contains(path) {
                let path = path.display();
                missing = Some(format!(
                    "{path} of the setting `policies` does not exist: make it (`mkdir -p {path}` for a directory), or \
                     name another with --policies"
                ));
                continue;
            } else {
                continue;
            }
            self.seen.insert(path.clone());
        }
        self.searched = search.directories;
        missing.map_or(Ok(search.files), Err)
    }

    fn refresh(&mut self, cause: &Cause) -> (Result<Option<Vec<PolicyFile>>, String>, Option<Duration>) {
        let found = match self.find() {
            Ok(found) => found,
            Err(problem) => return (Err(problem), None),
        };
        let paths: Vec<PathBuf> = found.keys().cloned().collect();
        let touched = matches!(cause, Cause::Changed(_));
        let (read_now, again) = self.settling.see(found, touched, *cause == Cause::Demand, Instant::now());
        if read_now {
            (paths.iter().map(|path| read(path)).collect::<Result<_, _>>().map(Some), None)
        } else {
            (Ok(None), again)
        }
    }
}

impl Look for PolicyDir {
    type Event = PolicyEvent;

    fn look(&mut self, cause: &Cause) -> Found<PolicyEvent> {
        let (files, again) = self.refresh(cause);
        let event = match files {
            Ok(files) => files.map(PolicyEvent::Files),
            Err(problem) => {
                self.settling.forget();
                Some(PolicyEvent::Problem(problem))
            }
        };
        let event = event.filter(|event| self.told.as_ref() != Some(event));
        if let Some(event) = &event {
            self.told = Some(event.clone());
        }
        Found { events: event.into_iter().collect(), again }
    }

    fn places(&self) -> BTreeSet<PathBuf> {
        let above = self.paths.iter().filter_map(|it| nearest_above(&it.path));
        self.searched.iter().cloned().chain(above).collect()
    }
}

/// A search through directories.
#[derive(Debug, Default)]
struct Search {
    files: BTreeMap<PathBuf, Version>,
    directories: BTreeSet<PathBuf>,
}

impl Search {
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), String> {
        let failed = |error: io::Error| format!("read the directory {}: {error}", path.display());
        if depth == 0 {
            return Err(format!(
                "{} is more than {DEPTH} directories deep; name the directory itself",
                path.display()
            ));
        }
        self.directories.insert(path.to_owned());
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            // Hidden ones are editors' and, with two dots, the versions behind a mounted ConfigMap.
            if name.starts_with('.') || EXPECTATIONS.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            // A link to a file is followed, one to a directory is not: it could lead round in a circle.
            if entry.file_type().map_err(failed)?.is_dir() {
                self.directory(&path, depth - 1)?;
            } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml") && !path.is_dir() {
                // One that went away since was removed; a link to nothing is the same.
                self.files.extend(version(&path)?.map(|version| (path, version)));
            }
            if self.files.len() > FILES {
                return Err(format!(
                    "there are more than {FILES} policy files; put several policies into one"
                ));
            }
        }
        Ok(())
    }
}
