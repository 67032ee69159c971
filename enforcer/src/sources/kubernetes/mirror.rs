//! The cluster as it is known here: every object judged by itself, kind by kind, with what is wrong and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::watcher::{Error, Event};
use serde_json::Value;

use super::kinds::{Kind, Object};
use super::policy::{self, Policies};
use super::saved::{Saved, SavedPod, SavedPolicy};
use super::watch::{self, LONGEST};
use super::wire::Notes;
use super::world::{Name, World};
use super::{place, pod, service};
use crate::domain::cluster_policy::{ClusterPolicy, GoodPolicy, KindInfo};
use crate::domain::timestamp::Timestamp;
use crate::domain::workload::WorkloadKey;

/// Problems of objects that are told one by one.
const SHOWN: usize = 3;

/// What is known of one kind.
#[derive(Debug)]
struct Known {
    phase: Phase,
    since: Timestamp,
    names: BTreeSet<Name>,
    /// Names of the list that is being read.
    listing: Option<BTreeSet<Name>>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Restored,
    Synced,
    NotInstalled,
}

#[derive(Debug)]
struct Trouble {
    since: Timestamp,
    last: Instant,
    message: String,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) world: World,
    policies: Policies,
    /// Whether policies differ from what was told.
    pub(super) policies_changed: bool,
    kinds: BTreeMap<Kind, Known>,
    /// What is wrong with single objects.
    problems: BTreeMap<(Kind, Name), String>,
    /// Whether something is known that is not on disk.
    pub(super) unsaved: bool,
}

impl Mirror {
    /// Nothing is known yet.
    pub(super) fn new(own: String, now: Timestamp) -> Self {
        let known = || Known {
            phase: Phase::Waiting,
            since: now,
            names: BTreeSet::new(),
            listing: None,
            trouble: None,
        };
        Self {
            world: World::new(own),
            policies: Policies::new(),
            policies_changed: true,
            kinds: Kind::ALL.map(|kind| (kind, known())).into(),
            problems: BTreeMap::new(),
            unsaved: false,
        }
    }

    /// Takes what a watch says.
    pub(super) fn take(&mut self, kind: Kind, event: Event<Object>, now: Timestamp) {
        match event {
            Event::Init => self.known(kind, |known| known.listing = Some(BTreeSet::new())),
            Event::InitApply(object) => {
                let name = object.name();
                self.known(kind, |known| known.listing.get_or_insert_default().insert(name));
                self.object(kind, object);
            }
            Event::InitDone => self.listed(kind, now),
            Event::Apply(object) => {
                let name = object.name();
                self.known(kind, |known| {
                    known.trouble = None;
                    known.names.insert(name)
                });
                self.object(kind, object);
            }
            Event::Delete(object) => {
                let name = object.name();
                self.known(kind, |known| {
                    known.trouble = None;
                    known.names.remove(&name)
                });
                self.gone(kind, &name);
            }
        }
    }

    fn known<T>(&mut self, kind: Kind, change: impl FnOnce(&mut Known) -> T) {
        if let Some(known) = self.kinds.get_mut(&kind) {
            change(known);
        }
    }

    /// A list was read to its end: what is known and not on it is gone.
    fn listed(&mut self, kind: Kind, now: Timestamp) {
        let Some(known) = self.kinds.get_mut(&kind) else { return };
        let listed = known.listing.take().unwrap_or_default();
        let gone: Vec<Name> = known.names.difference(&listed).cloned().collect();
        known.names = listed;
        known.trouble = None;
        if known.phase != Phase::Synced {
            (known.phase, known.since) = (Phase::Synced, now);
        }
        for name in gone {
            self.gone(kind, &name);
        }
        self.world.tidy();
        self.unsaved = true;
    }

    /// A watch failed, and is tried again; `explain` says why.
    pub(super) fn failed(
        &mut self,
        kind: Kind,
        error: &Error,
        explain: fn(&kube::Error) -> String,
        now: Timestamp,
    ) {
        let code = watch::status(error);
        let Some(known) = self.kinds.get_mut(&kind) else { return };
        known.listing = None;
        if code == Some(410) {
            return;
        }
        // Objects are removed one by one before their definition is. Where none are known, there is nothing to lose.
        if code == Some(404) && kind.is_optional() && known.names.is_empty() {
            if known.phase != Phase::NotInstalled {
                (known.phase, known.since, known.trouble) = (Phase::NotInstalled, now, None);
            }
            return;
        }
        let (tried, cause) = watch::parts(error);
        let cause = cause.map_or_else(|| error.to_string(), explain);
        let message = format!("{tried} {} fails: {cause}", kind.plural());
        let since = known.trouble.as_ref().map_or(now, |trouble| trouble.since);
        known.trouble = Some(Trouble { since, last: Instant::now(), message });
    }

    /// A watch that failed and has not failed again for longer than it pauses works again.
    pub(super) fn settle(&mut self) {
        const QUIET: Duration = Duration::from_secs(2 * LONGEST.as_secs());
        for known in self.kinds.values_mut() {
            if known.trouble.as_ref().is_some_and(|trouble| trouble.last.elapsed() > QUIET) {
                known.trouble = None;
            }
        }
    }

    fn object(&mut self, kind: Kind, object: Object) {
        let name = object.name();
        let taken = self.read(kind, &name, object.value);
        let problem = match taken {
            Ok(notes) if notes.is_empty() => None,
            Ok(notes) => Some(notes.join("; ")),
            Err(problem) => Some(format!("{problem}; what was known of it before stays")),
        };
        match problem {
            Some(problem) => _ = self.problems.insert((kind, name), problem),
            None => _ = self.problems.remove(&(kind, name)),
        }
        self.unsaved = true;
    }

    /// Takes an object in, or says why not. One that can't be read leaves what was known before.
    fn read(&mut self, kind: Kind, name: &Name, value: Value) -> Result<Notes, String> {
        if let Some(of) = kind.policy() {
            let key = policy::key(of, name.clone());
            let policy = policy::policy(kind, &key, &value, self.policies.get(&key));
            if self.policies.get(&key).is_none_or(|before| !Arc::ptr_eq(before, &policy)) {
                self.policies.insert(key, policy);
                self.policies_changed = true;
            }
            return Ok(Notes::new());
        }
        Ok(match kind {
            Kind::Pod => {
                let (pod, notes) = pod::pod(value)?;
                self.world.pod(pod, false);
                notes
            }
            Kind::Namespace => {
                let (namespace, notes) = place::namespace(value)?;
                self.world.namespace(namespace);
                notes
            }
            Kind::Node => {
                let (node, notes) = place::node(value)?;
                self.world.node(node);
                notes
            }
            Kind::Service => {
                let (front, notes) = service::service(value)?;
                self.world.service(front);
                notes
            }
            Kind::EndpointSlice => {
                let (slice, notes) = service::slice(value)?;
                self.world.slice(name.clone(), slice);
                notes
            }
            _ => Notes::new(),
        })
    }

    fn gone(&mut self, kind: Kind, name: &Name) {
        self.problems.remove(&(kind, name.clone()));
        self.unsaved = true;
        if let Some(of) = kind.policy() {
            self.policies_changed |= self.policies.remove(&policy::key(of, name.clone())).is_some();
            return;
        }
        match kind {
            Kind::Pod => {
                let (namespace, name) = name.clone();
                self.world.pod_gone(&WorkloadKey { namespace, name });
            }
            Kind::Namespace => self.world.namespace_gone(&name.1),
            Kind::Node => self.world.node_gone(&name.1),
            Kind::Service => self.world.service_gone(name.clone()),
            Kind::EndpointSlice => self.world.slice_gone(name),
            _ => {}
        }
    }

    /// All policy objects.
    pub(super) fn policies(&self) -> Vec<Arc<ClusterPolicy>> {
        self.policies.values().cloned().collect()
    }

    /// Whether all of the cluster is known, be it from disk.
    pub(super) fn is_complete(&self) -> bool {
        self.kinds.values().all(|known| known.phase != Phase::Waiting)
    }

    /// Whether anything that is used comes from disk.
    pub(super) fn is_restored(&self) -> bool {
        self.kinds.values().any(|known| known.phase == Phase::Restored)
    }

    /// Kinds that nothing is known of.
    pub(super) fn waiting(&self) -> Vec<&'static str> {
        let waiting = self.kinds.iter().filter(|(_, known)| known.phase == Phase::Waiting);
        waiting.map(|(kind, _)| kind.plural()).collect()
    }

    /// Whether some watch fails.
    pub(super) fn is_troubled(&self) -> bool {
        self.kinds.values().any(|known| known.trouble.is_some())
    }

    /// What is wrong, one sentence each; the watches only if the server itself answers.
    pub(super) fn problems(&self, answers: bool) -> Vec<String> {
        let troubles = self.kinds.values().filter_map(|known| known.trouble.as_ref()).filter(|_| answers);
        let mut problems: Vec<String> = troubles
            .map(|trouble| {
                let since = trouble.since.whole_seconds();
                format!("{} (since {since}); what was told last stays", trouble.message)
            })
            .collect();
        let of_objects = self.problems.iter().map(|((kind, (namespace, name)), problem)| {
            let slash = if namespace.is_empty() { "" } else { "/" };
            format!("{} {namespace}{slash}{name}: {problem}", kind.label())
        });
        let mut of_objects: Vec<String> = of_objects.chain(self.world.disputes().cloned()).collect();
        let more = of_objects.len().saturating_sub(SHOWN);
        of_objects.truncate(SHOWN);
        problems.extend(of_objects);
        if more > 0 {
            problems.push(format!("{more} more objects of the cluster have problems: correct these first"));
        }
        problems
    }

    /// How each kind is.
    pub(super) fn kinds(&self, away: Option<Timestamp>) -> Vec<KindInfo> {
        let info = |(kind, known): (&Kind, &Known)| {
            let trouble = known.trouble.as_ref().map(|trouble| trouble.since);
            let (state, since) = match (known.phase, trouble.or(away)) {
                (Phase::Waiting, _) => ("waiting", known.since),
                (Phase::Restored, _) => ("restored", known.since),
                (Phase::Synced, Some(since)) => ("away", since),
                (Phase::Synced, None) => ("synced", known.since),
                (Phase::NotInstalled, _) => ("not-installed", known.since),
            };
            KindInfo {
                kind: kind.label().to_owned(),
                objects: known.names.len() as u64,
                state: state.to_owned(),
                since: since.whole_seconds(),
            }
        };
        self.kinds.iter().map(info).collect()
    }

    /// What is to be saved.
    pub(super) fn save(&self, at: Timestamp) -> Saved {
        let of_policy = |policy: &Arc<ClusterPolicy>| SavedPolicy {
            key: policy.key.clone(),
            object: policy.object.clone(),
            good: policy.good.as_ref().map(|good| (good.object.clone(), good.text.clone())),
            problems: policy.problems.clone(),
        };
        let known = self.kinds.iter().filter(|(_, known)| known.phase != Phase::Waiting);
        Saved {
            kinds: known.map(|(kind, _)| *kind).collect(),
            nodes: self.world.nodes().cloned().collect(),
            namespaces: self
                .world
                .namespaces()
                .map(|(name, labels)| (name.clone(), labels.clone()))
                .collect(),
            pods: self.world.pods().map(|(pod, seen)| SavedPod(Arc::clone(pod), seen)).collect(),
            services: self.world.services().cloned().collect(),
            slices: self.world.slices().map(|(name, slice)| (name.clone(), slice.clone())).collect(),
            policies: self.policies.values().map(of_policy).collect(),
            ..Saved::new(at)
        }
    }

    /// Uses what was saved for the kinds that nothing is known of.
    pub(super) fn restore(&mut self, saved: Saved, now: Timestamp) {
        let wanted: Vec<Kind> = saved
            .kinds
            .iter()
            .copied()
            .filter(|kind| self.kinds.get(kind).is_some_and(|known| known.phase == Phase::Waiting))
            .collect();
        // What a list has told already is newer.
        let mut names: Vec<(Kind, Name)> = Vec::new();
        let mut is_wanted = |kinds: &BTreeMap<Kind, Known>, kind: Kind, name: Name| {
            let listing = kinds.get(&kind).and_then(|known| known.listing.as_ref());
            let is_wanted = wanted.contains(&kind) && listing.is_none_or(|listing| !listing.contains(&name));
            if is_wanted {
                names.push((kind, name));
            }
            is_wanted
        };
        let of_cluster = |name: &str| (String::new(), name.to_owned());
        for node in &saved.nodes {
            if is_wanted(&self.kinds, Kind::Node, of_cluster(&node.name)) {
                self.world.node(node.clone());
            }
        }
        for namespace in saved.namespaces() {
            if is_wanted(&self.kinds, Kind::Namespace, of_cluster(&namespace.name)) {
                self.world.namespace(namespace);
            }
        }
        for SavedPod(pod, seen) in saved.pods {
            if is_wanted(&self.kinds, Kind::Pod, (pod.key.namespace.clone(), pod.key.name.clone())) {
                self.world.pod(Arc::unwrap_or_clone(pod), seen);
            }
        }
        for front in saved.services {
            let key = front.key();
            if is_wanted(&self.kinds, Kind::Service, (key.namespace, key.name)) {
                self.world.service(front);
            }
        }
        for (name, slice) in saved.slices {
            if is_wanted(&self.kinds, Kind::EndpointSlice, name.clone()) {
                self.world.slice(name, Some(slice));
            }
        }
        let mut policies = Vec::new();
        for saved in saved.policies {
            let of = Kind::ALL.into_iter().find(|kind| kind.policy() == Some(saved.key.kind));
            let name = (saved.key.namespace.clone(), saved.key.name.clone());
            if of.is_some_and(|kind| is_wanted(&self.kinds, kind, name)) {
                policies.push(saved);
            }
        }
        for saved in policies {
            self.restore_policy(saved);
        }
        for (kind, name) in names {
            self.known(kind, |known| known.names.insert(name));
        }
        for kind in wanted {
            self.known(kind, |known| (known.phase, known.since) = (Phase::Restored, now));
        }
    }

    fn restore_policy(&mut self, saved: SavedPolicy) {
        let SavedPolicy { key, object, good, mut problems } = saved;
        let good = good.and_then(|(object, text)| match policy::judge(&key, &text) {
            Ok(policy) => Some(Arc::new(GoodPolicy { policy, text, object })),
            Err(refused) => {
                problems.extend(refused);
                None
            }
        });
        let policy = ClusterPolicy { key: key.clone(), object, good, problems };
        self.policies.insert(key, Arc::new(policy));
        self.policies_changed = true;
    }
}
