//! The policies of Kubernetes, with the meaning that its API gives them.
//!
//! Objects load unchanged: what an API server adds is accepted, a field that is `null` is one that is missing, and a
//! list that is missing or empty means what the API says it means at that place. What the API refuses is refused.

pub(super) mod cluster_network_policy;
pub(super) mod network_policy;

use super::diagnostic::Code;
use super::model::{Peer, Peers};
use super::selector::selector;
use crate::domain::labels::Selector;
use crate::domain::yaml::{Mapping, Reader};

type Hints = &'static [(&'static str, &'static str)];

/// What people write in a `NetworkPolicy` who know other policy languages.
pub(super) const NETWORK_POLICY_HINTS: Hints = &[
    ("subject", "here it is `podSelector`"),
    ("workloads", "here it is `podSelector`"),
    ("namespaces", "here it is `namespaceSelector`; select a name by `kubernetes.io/metadata.name`"),
    ("cidr", "here it is `ipBlock: {cidr: ...}`"),
    ("action", "a NetworkPolicy only allows; TrafficPolicy and ClusterNetworkPolicy have rules that deny"),
    ("to", "an ingress rule has `from`; `to` belongs to egress rules"),
    ("from", "an egress rule has `to`; `from` belongs to ingress rules"),
    ("protocols", "here it is `ports`, whose items have a `protocol`"),
];

/// What people write in a `ClusterNetworkPolicy` who know other policy languages.
pub(super) const CLUSTER_NETWORK_POLICY_HINTS: Hints = &[
    ("podSelector", "here it is `pods: {namespaceSelector: ..., podSelector: ...}`"),
    ("namespaceSelector", "here it is `namespaces`, or `pods` with both selectors"),
    ("ipBlock", "here it is `networks`: a list of CIDR blocks"),
    ("cidr", "here it is `networks`: a list of CIDR blocks"),
    ("ports", "here it is `protocols`, with `tcp: {destinationPort: {number: ...}}` in it"),
    ("portNumber", "here it is `tcp: {destinationPort: {number: ...}}`"),
    ("portRange", "here it is `tcp: {destinationPort: {range: {start: ..., end: ...}}}`"),
    ("namedPort", "here it is `destinationNamedPort`"),
    ("policyTypes", "remove it: a policy of a tier isolates nobody"),
    ("to", "an ingress rule has `from`; `to` belongs to egress rules"),
    ("from", "an egress rule has `to`; `from` belongs to ingress rules"),
];

/// The selector in a field; everything if it is missing.
fn selector_or_all(reader: &mut Reader<'_>, of: &Mapping<'_>, field: &str) -> Option<Selector> {
    let Some(node) = of.get(field) else { return Some(Selector::default()) };
    selector(reader, node, &format!("`{field}`"))
}

/// Peers of a list that is missing or empty where that means everyone.
fn everyone_if_empty(peers: Vec<Peer>) -> Peers {
    if peers.is_empty() { Peers::Everyone } else { Peers::AnyOf(peers) }
}

/// Reports that a mapping has not exactly one of its fields.
fn exactly_one(reader: &mut Reader<'_>, of: &Mapping<'_>, what: &str, fields: &str) -> bool {
    let is_item = !what.starts_with('`');
    if let [first, second, ..] = of.entries() {
        let message = format!("{what} has both `{}` and `{}`", first.key, second.key);
        let place = reader.location(&first.span);
        reader
            .error(&second.span, Code::ConflictingFields, message)
            .label("second")
            .related(place, "first")
            .help(if is_item {
                "make them two items of the list: a flow has to match one of them"
            } else {
                "write one of them"
            });
        return false;
    }
    if of.entries().is_empty() {
        let message = format!("{what} has none of {fields}");
        let help = if is_item { "write one of them, or remove the item" } else { "write one of them" };
        reader.error(&of.node.span, Code::MissingField, message).label("says nothing").help(help);
        return false;
    }
    true
}
