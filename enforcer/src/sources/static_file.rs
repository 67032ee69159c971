//! Workloads from a YAML file: names, labels, cgroup directories, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::files::{Settling, Version, read, version};
use super::watch::nearest_above;
use super::{Cause, CgroupTree, Found, Look};
use crate::domain::cluster::{Namespace, Service};
use crate::domain::workload::{Resolved, Workload, WorkloadEvent};
use crate::domain::workload_file::{Outcome, parse_workloads};

/// Name of this source.
pub const STATIC: &str = "static";

/// What a file describes.
#[derive(Debug)]
struct Known {
    workloads: Vec<Arc<Workload>>,
    namespaces: Vec<Namespace>,
    services: Vec<Service>,
}

/// The source of static workloads.
#[derive(Debug)]
pub struct StaticFile {
    path: PathBuf,
    tree: CgroupTree,
    /// Whether a file that has never been there is as good as an empty one.
    optional: bool,
    settling: Settling<Option<Version>>,
    /// The last good file.
    file: Option<Known>,
    problem: Option<String>,
    told: Option<(Vec<Resolved>, Vec<Namespace>, Vec<Service>)>,
    told_problem: Option<String>,
}

impl StaticFile {
    /// The file at `path`, for directories of `tree`.
    pub fn new(path: PathBuf, tree: CgroupTree, optional: bool) -> Self {
        let settling = Settling::new();
        Self { path, tree, optional, settling, file: None, problem: None, told: None, told_problem: None }
    }

    /// Reads the file if it changed.
    fn refresh(&mut self, cause: &Cause) -> Option<std::time::Duration> {
        let found = match version(&self.path) {
            Ok(found) => found,
            Err(problem) => {
                self.unreadable(problem);
                return None;
            }
        };
        let touched =
            matches!(cause, Cause::Changed(places) if self.home().is_some_and(|it| places.contains(&it)));
        let (read_now, again) = self.settling.see(found, touched, *cause == Cause::Demand, Instant::now());
        if read_now {
            match found {
                Some(_) => self.take(),
                None if self.optional && self.file.is_none() => self.accept(Outcome::default()),
                None => {
                    let path = self.path.display();
                    self.problem = Some(format!(
                        "the file of workloads {path} does not exist: make it, `workloads: []` is enough, or name \
                         another with --workloads"
                    ));
                }
            }
        }
        again
    }

    fn unreadable(&mut self, problem: String) {
        self.problem = Some(problem);
        self.settling.forget();
    }

    fn take(&mut self) {
        let file = match read(&self.path) {
            Ok(file) => file,
            Err(problem) => return self.unreadable(problem),
        };
        match parse_workloads(&file).into_result() {
            Ok(file) => self.accept(file),
            Err(diagnostics) => {
                let kept =
                    if self.file.is_some() { "the last good one stays in use" } else { "it is not used" };
                let first = diagnostics.first().map(ToString::to_string).unwrap_or_default();
                let count = diagnostics.len();
                self.problem =
                    Some(format!("the file of workloads has {count} problems and {kept}: {first}"));
            }
        }
    }

    fn accept(&mut self, file: Outcome) {
        let Outcome { workloads, namespaces, services, .. } = file;
        let workloads = workloads.into_iter().map(Arc::new).collect();
        self.file = Some(Known { workloads, namespaces, services });
        self.problem = None;
    }

    /// The directory in which the file is, or would be.
    fn home(&self) -> Option<PathBuf> {
        nearest_above(&self.path)
    }

    fn directories(&self) -> impl Iterator<Item = &str> {
        self.file.iter().flat_map(|file| &file.workloads).filter_map(|workload| workload.cgroup.as_deref())
    }
}

impl Look for StaticFile {
    type Event = WorkloadEvent;

    fn look(&mut self, cause: &Cause) -> Found<WorkloadEvent> {
        let again = self.refresh(cause);
        let mut events = Vec::new();
        if let Some(Known { workloads, namespaces, services }) = &self.file {
            // Workloads lie side by side: the directories above them are looked at once.
            let mut known = BTreeMap::new();
            let mut resolve = |workload: &Arc<Workload>| Resolved {
                cgroup: workload.cgroup.as_deref().and_then(|directory| self.tree.resolve(directory)),
                above: workload
                    .cgroup
                    .as_deref()
                    .map_or_else(Vec::new, |directory| self.tree.above(directory, &mut known)),
                workload: Arc::clone(workload),
            };
            let resolved: Vec<Resolved> = workloads.iter().map(&mut resolve).collect();
            let now = (resolved, namespaces.clone(), services.clone());
            let settled = self.problem.is_none() && self.told_problem.is_some();
            if settled || self.told.as_ref() != Some(&now) {
                events.push(WorkloadEvent::Snapshot {
                    source: STATIC.to_owned(),
                    workloads: now.0.clone(),
                    namespaces: now.1.clone(),
                    services: now.2.clone(),
                });
                self.told = Some(now);
                self.told_problem = None;
            }
        }
        // A snapshot says that all is well, so what is not is said again behind it.
        if self.problem != self.told_problem {
            self.told_problem.clone_from(&self.problem);
            let problem = self.problem.clone();
            events
                .extend(problem.map(|message| WorkloadEvent::Problem { source: STATIC.to_owned(), message }));
        }
        Found { events, again }
    }

    fn places(&self) -> BTreeSet<PathBuf> {
        let mut places = self.tree.places(self.directories());
        places.extend(self.home());
        places
    }
}
