//! Workloads from a YAML file: names, labels, cgroup directories, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::files::{Settling, Version, read, version};
use super::watch::nearest_above;
use super::{Cause, CgroupTree, Found, Look};
use crate::domain::cluster::{Namespace, Service};
use crate::domain::workload::{Changes, Resolved, Workload, WorkloadEvent, WorkloadKey};
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

/// What was told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    workloads: Vec<Resolved>,
    namespaces: Vec<Namespace>,
    services: Vec<Service>,
}

/// Told as changes is what differs in less than one of so many places.
const MOSTLY: usize = 8;

impl Told {
    /// How to tell this to who was told that before.
    fn event(&self, before: Option<&Self>) -> WorkloadEvent {
        let source = STATIC.to_owned();
        match before.and_then(|before| self.changes(before)) {
            Some(changes) => WorkloadEvent::Changes { source, changes: Box::new(changes) },
            None => WorkloadEvent::Snapshot {
                source,
                workloads: self.workloads.clone(),
                namespaces: self.namespaces.clone(),
                services: self.services.clone(),
            },
        }
    }

    /// What differs, if that is little.
    fn changes(&self, before: &Self) -> Option<Changes> {
        let workload = |resolved: &Resolved| resolved.workload.key.clone();
        let (workloads, gone) = differ(&before.workloads, &self.workloads, workload)?;
        let namespace = |namespace: &Namespace| namespace.name.clone();
        let (namespaces, gone_namespaces) = differ(&before.namespaces, &self.namespaces, namespace)?;
        let (services, gone_services) = differ(&before.services, &self.services, Service::key)?;
        Some(Changes { workloads, gone, namespaces, gone_namespaces, services, gone_services })
    }
}

/// What is new or not as it was, and the keys of what is gone; `None` if that is much, or a key is not that of one thing.
fn differ<T: PartialEq + Clone, K: Ord>(
    before: &[T],
    now: &[T],
    key: impl Fn(&T) -> K,
) -> Option<(Vec<T>, Vec<K>)> {
    let mut rest: BTreeMap<K, &T> = before.iter().map(|one| (key(one), one)).collect();
    let is_unique = rest.len() == before.len();
    let mut seen = BTreeSet::new();
    let mut changed = Vec::new();
    for one in now {
        let key = key(one);
        if rest.remove(&key) != Some(one) {
            changed.push(one.clone());
        }
        if !seen.insert(key) {
            return None;
        }
    }
    let gone: Vec<K> = rest.into_keys().collect();
    let is_little = (changed.len() + gone.len()) * MOSTLY < now.len().max(1);
    (is_unique && (is_little || changed.len() + gone.len() == 0)).then_some((changed, gone))
}

/// The source of static workloads.
#[derive(Debug)]
pub struct StaticFile {
    path: PathBuf,
    tree: CgroupTree,
    /// Whether a file that has never been there is as good as an empty one.
    optional: bool,
    /// Whether it has ever been there.
    seen: bool,
    settling: Settling<Option<Version>>,
    /// The last good file.
    file: Option<Known>,
    problem: Option<String>,
    told: Option<Told>,
    told_problem: Option<String>,
}

impl StaticFile {
    /// The file at `path`, for directories of `tree`.
    pub fn new(path: PathBuf, tree: CgroupTree, optional: bool) -> Self {
        let settling = Settling::new();
        let (file, problem, told, told_problem) = (None, None, None, None);
        Self { path, tree, optional, seen: false, settling, file, problem, told, told_problem }
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
                None if self.optional && !self.seen => self.accept(Outcome::default()),
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
        self.seen = true;
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
        // What is as it was stays the same one, so that it is there once, however often the file is read.
        let before = self.file.take().map(|file| file.workloads).unwrap_or_default();
        let before: BTreeMap<&WorkloadKey, &Arc<Workload>> =
            before.iter().map(|workload| (&workload.key, workload)).collect();
        let keep = |workload: Workload| match before.get(&workload.key) {
            Some(known) if ***known == workload => Arc::clone(known),
            _ => Arc::new(workload),
        };
        let workloads = workloads.into_iter().map(keep).collect();
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
            let now =
                Told { workloads: resolved, namespaces: namespaces.clone(), services: services.clone() };
            let settled = self.problem.is_none() && self.told_problem.is_some();
            if settled || self.told.as_ref() != Some(&now) {
                events.push(now.event(self.told.as_ref().filter(|_| !settled)));
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
