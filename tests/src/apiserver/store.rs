//! The objects, and everything that happened to them: a pure value, without network or clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::kinds::{Kind, Kinds};
use super::selector::Selector;
use super::settle;
use super::status::Failure;

/// Where an object is: resource, namespace (empty for those of the whole cluster), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The resource as whose object it is kept.
    pub stored: String,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The cluster's revision by it.
    pub revision: u64,
    /// Which object.
    pub place: Place,
    /// What it was.
    pub before: Option<Arc<Value>>,
    /// What it is; what it was at last, with the revision of its end, for one that is gone.
    pub after: Arc<Value>,
    /// Whether it is gone.
    pub is_gone: bool,
}

/// What a request to write says besides the object.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// The namespace in the path.
    pub namespace: String,
    /// The name in the path; empty for a creation.
    pub name: String,
    /// `status`, or empty.
    pub subresource: String,
    /// Who writes.
    pub manager: String,
    /// Whether nothing is kept.
    pub dry_run: bool,
    /// Whether fields that the kind does not have are refused instead of dropped.
    pub strict: bool,
    /// The time, RFC 3339 in whole seconds.
    pub now: String,
}

/// Part of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects.
    pub items: Vec<Arc<Value>>,
    /// The revision at which all parts of the list are.
    pub revision: u64,
    /// Where the next part begins; empty for the last.
    pub next: String,
    /// How many objects are in the parts to come.
    pub remaining: usize,
}

#[derive(Debug)]
struct Snapshot {
    revision: u64,
    items: Vec<Arc<Value>>,
}

/// All objects of a cluster.
#[derive(Debug)]
pub struct Store {
    /// What is served.
    pub kinds: Kinds,
    revision: u64,
    /// Watches and lists can't begin before it.
    compacted: u64,
    objects: BTreeMap<Place, Arc<Value>>,
    log: VecDeque<Change>,
    snapshots: BTreeMap<u64, Snapshot>,
    /// Distinguishes the objects of this cluster from those of others.
    seed: u32,
    made: u64,
}

/// Changes that are kept for watches. A real server keeps those of some minutes.
const KEPT: usize = 100_000;

impl Store {
    /// An empty cluster: the namespaces that every cluster has.
    pub fn new(seed: u32, now: &str) -> Self {
        let mut store = Self {
            kinds: Kinds::default(),
            revision: 1,
            compacted: 0,
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            snapshots: BTreeMap::new(),
            seed,
            made: 0,
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            store.put(object, now).expect("a namespace is valid");
        }
        store
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// An object.
    pub fn get(&self, place: &Place) -> Option<Arc<Value>> {
        self.objects.get(place).cloned()
    }

    /// The objects of a resource, of one namespace or of all (empty).
    pub fn all<'a>(&'a self, stored: &'a str, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Value>> {
        let first = Place { stored: stored.to_owned(), namespace: namespace.to_owned(), name: String::new() };
        self.objects
            .range(first..)
            .take_while(move |(place, _)| {
                place.stored == stored && (namespace.is_empty() || place.namespace == namespace)
            })
            .map(|(_, object)| object)
    }

    /// One part of a list: the first, or the one that a token of the part before asks for.
    pub fn list(
        &mut self,
        kind: &Kind,
        namespace: &str,
        selector: &Selector,
        limit: usize,
        token: &str,
    ) -> Result<Page, Failure> {
        let (id, start) = if token.is_empty() {
            let matching = self.all(&kind.stored, namespace).filter(|object| selector.matches(object));
            let items: Vec<_> = matching.cloned().collect();
            if limit == 0 || items.len() <= limit {
                return Ok(Page { items, revision: self.revision, next: String::new(), remaining: 0 });
            }
            self.made += 1;
            self.snapshots.insert(self.made, Snapshot { revision: self.revision, items });
            (self.made, 0)
        } else {
            let parts = token.strip_prefix('c').and_then(|token| token.split_once('.'));
            parts
                .and_then(|(id, start)| Some((id.parse().ok()?, start.parse().ok()?)))
                .ok_or_else(|| Failure::bad_request(format!("continue key is not valid: {token:?}")))?
        };
        let snapshot = self.snapshots.get(&id).filter(|snapshot| snapshot.revision >= self.compacted);
        let Some(snapshot) = snapshot else {
            return Err(Failure::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
            ));
        };
        let end = if limit == 0 { snapshot.items.len() } else { snapshot.items.len().min(start + limit) };
        let remaining = snapshot.items.len() - end;
        let next = if remaining == 0 { String::new() } else { format!("c{id}.{end}") };
        let items = snapshot.items[start.min(end)..end].to_vec();
        Ok(Page { items, revision: snapshot.revision, next, remaining })
    }

    /// Refuses what is newer than everything, or older than what is kept.
    pub fn check_revision(&self, revision: u64) -> Result<(), Failure> {
        if revision > self.revision {
            return Err(Failure::too_large(revision, self.revision));
        }
        if revision < self.compacted {
            return Err(Failure::expired(format!(
                "too old resource version: {revision} ({})",
                self.compacted
            )));
        }
        Ok(())
    }

    /// What happened after a revision; nothing where that is no longer known.
    pub fn changes_after(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        let oldest = self.log.front().map_or(self.revision, |change| change.revision - 1);
        (revision >= oldest.min(self.revision)).then(|| {
            let start = self.log.partition_point(|change| change.revision <= revision);
            self.log.range(start..)
        })
    }

    /// Forgets what was: no watch begins before now, no list goes on.
    pub fn compact(&mut self) {
        self.compacted = self.revision;
        self.snapshots.clear();
    }

    /// An identity that no other object has had.
    pub(super) fn new_uid(&mut self) -> String {
        self.made += 1;
        let made = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            self.seed.wrapping_add(u32::try_from(made >> 32).unwrap_or(0)),
            (made >> 16) & 0xffff,
            made & 0xfff,
            self.seed & 0xfff,
            self.made
        )
    }

    /// Keeps a new version of an object, unless nothing is new in it.
    pub(super) fn commit(&mut self, place: Place, mut object: Value) -> Arc<Value> {
        let before = self.objects.get(&place).cloned();
        if let Some(before) = &before
            && **before == object
        {
            return Arc::clone(before);
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let after = Arc::new(object);
        self.objects.insert(place.clone(), Arc::clone(&after));
        self.note(Change {
            revision: self.revision,
            place,
            before,
            after: Arc::clone(&after),
            is_gone: false,
        });
        after
    }

    /// Removes an object.
    pub(super) fn forget(&mut self, place: &Place) -> Option<Arc<Value>> {
        let before = self.objects.remove(place)?;
        self.revision += 1;
        let mut last = (*before).clone();
        last["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let after = Arc::new(last);
        self.note(Change {
            revision: self.revision,
            place: place.clone(),
            before: Some(before),
            after: Arc::clone(&after),
            is_gone: true,
        });
        Some(after)
    }

    /// Where the objects are that a question is about.
    pub(super) fn places(&self, is_meant: impl Fn(&Place) -> bool) -> Vec<Place> {
        self.objects.keys().filter(|place| is_meant(place)).cloned().collect()
    }

    /// Objects whose every owner is this one.
    pub(super) fn owned_by(&self, uid: &Value) -> Vec<Place> {
        let is_owned = |object: &Value| match object["metadata"]["ownerReferences"].as_array() {
            Some(owners) => !owners.is_empty() && owners.iter().all(|owner| owner["uid"] == *uid),
            None => false,
        };
        self.objects.iter().filter(|(_, object)| is_owned(object)).map(|(place, _)| place.clone()).collect()
    }

    fn note(&mut self, change: Change) {
        if self.log.len() == KEPT {
            self.log.pop_front();
        }
        self.log.push_back(change);
    }

    /// Keeps an object as it is given, status and all, whatever was there: what a test says is so.
    pub fn put(&mut self, object: Value, now: &str) -> Result<Arc<Value>, Failure> {
        let kind = self.kinds.of(&object).cloned().ok_or_else(|| {
            Failure::bad_request(format!("no such kind: {} {}", object["apiVersion"], object["kind"]))
        })?;
        settle::put(self, &kind, object, now)
    }
}
