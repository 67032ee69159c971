//! What series call those who took part.

use std::collections::BTreeMap;

use enforcer_common::id::IdentityId;

use super::super::names::short;
use crate::domain::SeriesLabel;
use crate::domain::names::Names;

/// Names as they were asked for.
#[derive(Debug)]
pub(super) struct Naming<'a> {
    pub(super) names: &'a Names,
    labels: &'a [SeriesLabel],
    name_labels: &'a [String],
    ends: BTreeMap<u32, End>,
}

/// One end of a flow.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Whether somebody has this identity now. What is no workload is always there.
    pub(super) alive: bool,
}

impl<'a> Naming<'a> {
    /// `labels`: what series are told apart by. `name_labels`: the labels of workloads that are their names.
    pub(super) fn new(names: &'a Names, labels: &'a [SeriesLabel], name_labels: &'a [String]) -> Self {
        Self { names, labels, name_labels, ends: BTreeMap::new() }
    }

    /// Whether series are told apart by this.
    pub(super) fn has(&self, label: SeriesLabel) -> bool {
        self.labels.contains(&label)
    }

    /// The value of `port`.
    pub(super) fn port(&self, port: u16) -> String {
        if self.has(SeriesLabel::Port) { port.to_string() } else { String::new() }
    }

    /// Who has this identity.
    pub(super) fn of(&mut self, identity: u32) -> End {
        if let Some(end) = self.ends.get(&identity) {
            return end.clone();
        }
        let id = IdentityId(identity);
        let (mut namespace, mut name) = short(self.names, id, self.name_labels);
        if !self.has(SeriesLabel::Namespace) {
            namespace.clear();
        }
        // What is no workload stays: who is the world is no question of cardinality.
        if !self.has(SeriesLabel::Workload) && id.reserved_name().is_none() {
            name.clear();
        }
        let end = End { namespace, name, alive: is_alive(self.names, id) };
        self.ends.insert(identity, end.clone());
        end
    }
}

fn is_alive(names: &Names, id: IdentityId) -> bool {
    id.reserved_name().is_some()
        || names.workloads.get(&id).is_some_and(|workloads| !workloads.is_empty())
        || names.identities.get(&id).is_some_and(|key| key.service.is_some())
}
