//! What is known of the cluster, and what follows from it for this node: pods at their directories and addresses, services
//! with who answers, namespaces. Pure: objects go in, differences come out.
//!
//! # What must stay true
//! * What is told is a function of the objects and of the directories, not of the order in which they came.
//! * An address stands for one pod: of those that have not finished, for one that is not ending before one that is, then for
//!   the newer one. The address of a node is nobody's.
//! * A directory is bound to the pod for whose UID it was made, as long as it is there: also when the pod's object is gone and
//!   its processes are not.
//! * A pod of this node whose directory was there and is gone has no processes. It is told again when the directory is back;
//!   until then its address may be somebody else's.
//! * A container is told while its directory is there, in that of its pod. The names of all that a pod may have come with the
//!   pod, before any of them has a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::known::{Find, Known, name_of, names_of_ended, resolved};
use super::place::Node;
use super::pod::Pod;
use super::service::{Front, Slice};
use crate::domain::cgroup_path::PodUid;
use crate::domain::cluster::{Namespace, Service, ServiceKey};
use crate::domain::labels::LabelSet;
use crate::domain::workload::{Changes, Resolved, WorkloadEvent, WorkloadKey};

/// Namespace and name of an object.
pub(super) type Name = (String, String);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct World {
    /// The name of this node.
    own: String,
    pods: BTreeMap<WorkloadKey, Known>,
    /// Pods whose objects are gone and whose directories are not, by the name of the directory.
    ended: BTreeMap<String, Known>,
    /// Pods of this node by the name of their directory.
    local: BTreeMap<String, WorkloadKey>,
    /// Pods by address, finished ones included.
    claims: BTreeMap<IpAddr, BTreeSet<WorkloadKey>>,
    nodes: BTreeMap<String, Node>,
    namespaces: BTreeMap<String, LabelSet>,
    services: BTreeMap<ServiceKey, Front>,
    slices: BTreeMap<Name, Slice>,
    /// Slices by service.
    of_service: BTreeMap<Name, BTreeSet<Name>>,
    labels: BTreeSet<Arc<LabelSet>>,
    due: Due,
    told: Told,
    /// Addresses that two living pods say they have.
    disputes: BTreeMap<IpAddr, String>,
}

/// Whose word may have changed.
#[derive(Debug, Default)]
struct Due {
    pods: BTreeSet<WorkloadKey>,
    namespaces: BTreeSet<String>,
    services: BTreeSet<ServiceKey>,
}

/// What was told.
#[derive(Debug, Default)]
struct Told {
    workloads: BTreeMap<WorkloadKey, Resolved>,
    namespaces: BTreeMap<String, LabelSet>,
    services: BTreeMap<ServiceKey, Service>,
}

impl World {
    /// An empty cluster, seen from this node.
    pub(super) fn new(own: String) -> Self {
        Self { own, ..Self::default() }
    }

    /// Takes a pod in, or what has become of it.
    pub(super) fn pod(&mut self, mut pod: Pod, seen: bool) {
        pod.labels = self.shared(pod.labels);
        let key = pod.key.clone();
        let before = self.forget_pod(&key);
        let seen = seen || before.as_ref().is_some_and(|before| before.seen && before.pod.uid == pod.uid);
        if let Some(before) = before.filter(|before| before.pod.uid != pod.uid) {
            self.end(before);
        }
        if self.is_local(&pod) {
            self.local.insert(name_of(&pod).to_owned(), key.clone());
            self.ended.remove(name_of(&pod));
        }
        self.touch_ended(&key);
        for address in &pod.addresses {
            self.claims.entry(*address).or_default().insert(key.clone());
        }
        self.touch_addresses(&pod.addresses);
        if !self.is_local(&pod) {
            pod.containers.clear();
        }
        let names = || Arc::new(pod.containers.keys().cloned().collect());
        let names = (!pod.containers.is_empty()).then(names);
        let known = Known { pod: Arc::new(pod), seen, directory: None, names, containers: Vec::new() };
        self.pods.insert(key.clone(), known);
        self.due.pods.insert(key);
    }

    /// A pod's object is gone.
    pub(super) fn pod_gone(&mut self, key: &WorkloadKey) {
        if let Some(known) = self.forget_pod(key) {
            self.end(known);
        }
        self.touch_ended(key);
        self.due.pods.insert(key.clone());
    }

    /// Pods that had this name may have it again, or not any more.
    fn touch_ended(&mut self, key: &WorkloadKey) {
        let of = self.ended.values().filter(|known| known.pod.key == *key);
        self.due.pods.extend(of.flat_map(names_of_ended));
    }

    fn forget_pod(&mut self, key: &WorkloadKey) -> Option<Known> {
        let known = self.pods.remove(key)?;
        self.touch_addresses(&known.pod.addresses);
        for address in &known.pod.addresses {
            let Some(claims) = self.claims.get_mut(address) else { continue };
            claims.remove(key);
            if claims.is_empty() {
                self.claims.remove(address);
                self.disputes.remove(address);
            }
        }
        self.local.remove(name_of(&known.pod));
        Some(known)
    }

    /// Keeps a pod that has no object any more for as long as its directory is there.
    fn end(&mut self, known: Known) {
        if self.is_local(&known.pod) && known.seen && !known.pod.finished {
            self.due.pods.extend(names_of_ended(&known));
            self.ended.insert(name_of(&known.pod).to_owned(), known);
        }
    }

    /// Whoever says it has one of these addresses may have it now, or not any more.
    fn touch_addresses(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            self.due.pods.extend(self.claims.get(address).into_iter().flatten().cloned());
        }
    }

    pub(super) fn node(&mut self, node: Node) {
        let before = self.nodes.get(&node.name).map(|before| before.addresses.clone()).unwrap_or_default();
        self.touch_addresses(&before);
        self.touch_addresses(&node.addresses);
        self.nodes.insert(node.name.clone(), node);
    }

    pub(super) fn node_gone(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.touch_addresses(&node.addresses);
        }
    }

    pub(super) fn namespace(&mut self, Namespace { name, labels }: Namespace) {
        self.due.namespaces.insert(name.clone());
        self.namespaces.insert(name, labels);
    }

    pub(super) fn namespace_gone(&mut self, name: &str) {
        self.namespaces.remove(name);
        self.due.namespaces.insert(name.to_owned());
    }

    pub(super) fn service(&mut self, front: Front) {
        self.due.services.insert(front.key());
        self.services.insert(front.key(), front);
    }

    pub(super) fn service_gone(&mut self, (namespace, name): Name) {
        let key = ServiceKey { namespace, name };
        self.services.remove(&key);
        self.due.services.insert(key);
    }

    /// Takes an endpoint slice in; `None` for one that says nothing.
    pub(super) fn slice(&mut self, name: Name, slice: Option<Slice>) {
        self.slice_gone(&name);
        let Some(slice) = slice else { return };
        let (namespace, service) = slice.service.clone();
        self.of_service.entry(slice.service.clone()).or_default().insert(name.clone());
        self.due.services.insert(ServiceKey { namespace, name: service });
        self.slices.insert(name, slice);
    }

    pub(super) fn slice_gone(&mut self, name: &Name) {
        let Some(Slice { service, .. }) = self.slices.remove(name) else { return };
        if let Some(slices) = self.of_service.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.of_service.remove(&service);
            }
        }
        let (namespace, name) = service;
        self.due.services.insert(ServiceKey { namespace, name });
    }

    /// The directory of a pod, or one in it, came or went.
    pub(super) fn directory_moved(&mut self, uid: PodUid) {
        let is_it = |name: &String| PodUid::parse(name) == Some(uid);
        let living = self.local.iter().filter(|(name, _)| is_it(name)).map(|(_, key)| key.clone());
        self.due.pods.extend(living);
        let ended = self.ended.iter().filter(|(name, _)| is_it(name));
        self.due.pods.extend(ended.flat_map(|(_, known)| names_of_ended(known)));
    }

    /// Many directories came or went: whatever depends on one has to be looked at.
    pub(super) fn directories_moved(&mut self) {
        self.due.pods.extend(self.local.values().cloned());
        self.due.pods.extend(self.ended.values().flat_map(names_of_ended));
    }

    fn is_local(&self, pod: &Pod) -> bool {
        !self.own.is_empty() && pod.node == self.own
    }

    /// These labels, which are there once for all who have the same.
    fn shared(&mut self, labels: Arc<LabelSet>) -> Arc<LabelSet> {
        if let Some(known) = self.labels.get(&labels) {
            return Arc::clone(known);
        }
        self.labels.insert(Arc::clone(&labels));
        labels
    }

    /// Forgets sets of labels that nobody has any more.
    pub(super) fn tidy(&mut self) {
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
    }

    /// What is different since this was asked last.
    pub(super) fn changes(&mut self, find: &impl Find) -> Changes {
        let mut changes = Changes::default();
        self.look(find);
        let due = std::mem::take(&mut self.due);
        for key in due.pods {
            let wanted = self.wanted(&key);
            let told = &mut self.told.workloads;
            let mut gone: BTreeSet<WorkloadKey> =
                told.range(key.containers()).map(|(container, _)| container.clone()).collect();
            gone.insert(key);
            for wanted in wanted {
                let key = &wanted.workload.key;
                gone.remove(key);
                if told.get(key) != Some(&wanted) {
                    told.insert(key.clone(), wanted.clone());
                    changes.workloads.push(wanted);
                }
            }
            changes.gone.extend(gone.into_iter().filter(|key| told.remove(key).is_some()));
        }
        for name in due.namespaces {
            match self.namespaces.get(&name) {
                Some(labels) if self.told.namespaces.get(&name) == Some(labels) => {}
                Some(labels) => {
                    self.told.namespaces.insert(name.clone(), labels.clone());
                    changes.namespaces.push(Namespace { name, labels: labels.clone() });
                }
                None => changes.gone_namespaces.extend(self.told.namespaces.remove(&name).map(|_| name)),
            }
        }
        for key in due.services {
            match self.wanted_service(&key) {
                Some(service) if self.told.services.get(&key) == Some(&service) => {}
                Some(service) => {
                    self.told.services.insert(key, service.clone());
                    changes.services.push(service);
                }
                None => changes.gone_services.extend(self.told.services.remove(&key).map(|_| key)),
            }
        }
        changes
    }

    /// All there is, as it was told.
    pub(super) fn snapshot(&self, source: &str) -> WorkloadEvent {
        let named =
            |(name, labels): (&String, &LabelSet)| Namespace { name: name.clone(), labels: labels.clone() };
        WorkloadEvent::Snapshot {
            source: source.to_owned(),
            workloads: self.told.workloads.values().cloned().collect(),
            namespaces: self.told.namespaces.iter().map(named).collect(),
            services: self.told.services.values().cloned().collect(),
        }
    }

    fn wanted_service(&self, key: &ServiceKey) -> Option<Service> {
        let front = self.services.get(key)?;
        let of = self.of_service.get(&(key.namespace.clone(), key.name.clone()));
        front.with_backends(of.into_iter().flatten().filter_map(|name| self.slices.get(name)))
    }

    /// Looks for the directories of pods that may have another one now.
    fn look(&mut self, find: &impl Find) {
        // Whoever asks first after a directory went finds it gone, be it before the news of that.
        let mut over = Vec::new();
        self.ended.retain(|_, known| {
            known.look(find);
            let is_there = known.directory.is_some();
            if !is_there {
                over.extend(names_of_ended(known));
            }
            is_there
        });
        self.due.pods.extend(over);
        let mut looked: BTreeSet<WorkloadKey> = BTreeSet::new();
        while let Some(key) = self.due.pods.pop_first() {
            if looked.contains(&key) {
                continue;
            }
            let own = self.own.as_str();
            if let Some(known) = self.pods.get_mut(&key) {
                let is_local = !own.is_empty() && known.pod.node == own;
                let was_there = known.directory.is_some();
                if is_local {
                    known.look(find);
                }
                if was_there != known.directory.is_some() {
                    // Who has the same address is looked at as well.
                    let pod = Arc::clone(&known.pod);
                    self.touch_addresses(&pod.addresses);
                }
            }
            looked.insert(key);
        }
        self.due.pods = looked;
    }

    /// What is to be told under this name: a pod, and its containers behind it.
    fn wanted(&mut self, key: &WorkloadKey) -> Vec<Resolved> {
        if !self.pods.contains_key(key) {
            return self.wanted_ended(key);
        }
        let addresses = self.addresses(key);
        let Some(known) = self.pods.get(key) else { return Vec::new() };
        let is_local = self.is_local(&known.pod);
        let is_somewhere = is_local || !addresses.is_empty();
        if known.pod.finished || self.is_over(known) || !is_somewhere {
            return Vec::new();
        }
        resolved(key.clone(), known, addresses, is_local)
    }

    /// Whether it is a pod of this node without processes.
    fn is_over(&self, known: &Known) -> bool {
        self.is_local(&known.pod) && known.seen && known.directory.is_none()
    }

    /// A pod without an object has its name until another pod has it.
    fn wanted_ended(&self, key: &WorkloadKey) -> Vec<Resolved> {
        let mut taken: BTreeSet<&WorkloadKey> = BTreeSet::new();
        for known in self.ended.values() {
            let [name, other] = names_of_ended(known);
            let is_free = !self.pods.contains_key(&name) && taken.insert(&known.pod.key);
            if *key == if is_free { name } else { other } {
                return resolved(key.clone(), known, Vec::new(), true);
            }
        }
        Vec::new()
    }

    /// The addresses of a pod that are its own and nobody else's.
    fn addresses(&mut self, key: &WorkloadKey) -> Vec<IpNet> {
        let Some(known) = self.pods.get(key) else { return Vec::new() };
        let claimed = known.pod.addresses.clone();
        let mut addresses = Vec::new();
        for address in claimed {
            let (winner, dispute) = self.winner(address);
            if winner.as_ref() == Some(key) {
                addresses.push(address.into());
            }
            match dispute {
                Some(dispute) => _ = self.disputes.insert(address, dispute),
                None => _ = self.disputes.remove(&address),
            }
        }
        addresses
    }

    /// Whose an address is, and what is to be said of that.
    fn winner(&self, address: IpAddr) -> (Option<WorkloadKey>, Option<String>) {
        let claims = self.claims.get(&address).into_iter().flatten().filter_map(|key| self.pods.get(key));
        let mut living: Vec<&Known> =
            claims.filter(|known| !known.pod.finished && !self.is_over(known)).collect();
        living.sort_by_key(|known| {
            let pod = &known.pod;
            (pod.deleting, std::cmp::Reverse(pod.created), &pod.key)
        });
        if let Some(node) = self.nodes.values().find(|node| node.addresses.contains(&address)) {
            let said = living.first().map(|known| {
                let (pod, node) = (&known.pod.key, &node.name);
                format!("pod {pod} says it has {address}, which is an address of node {node}: it is not used")
            });
            return (None, said);
        }
        let said = match living.as_slice() {
            [first, second, ..] if !first.pod.deleting && !second.pod.deleting => {
                let (first, second) = (&first.pod.key, &second.pod.key);
                Some(format!(
                    "{address} is the address of pod {first} and of pod {second}; it stands for {first}, the newer one"
                ))
            }
            _ => None,
        };
        (living.first().map(|known| known.pod.key.clone()), said)
    }

    /// What is told of addresses that several say they have.
    pub(super) fn disputes(&self) -> impl Iterator<Item = &String> {
        self.disputes.values()
    }

    /// Whether there is a node of this node's name.
    pub(super) fn knows_itself(&self) -> bool {
        self.nodes.contains_key(&self.own)
    }

    /// The name of this node.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// Pods, with whether their directories were ever seen.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&Arc<Pod>, bool)> {
        self.pods.values().map(|known| (&known.pod, known.seen))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&String, &LabelSet)> {
        self.namespaces.iter()
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Front> {
        self.services.values()
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = (&Name, &Slice)> {
        self.slices.iter()
    }
}
