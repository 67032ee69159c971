//! `metadata` of policy documents: as people write it, and as an API server gives it back.

use std::ops::Range;

use super::diagnostic::{Code, quote};
use super::key::{PolicyKey, PolicyKind};
use crate::domain::syntax::Name;
use crate::domain::workload::DEFAULT_NAMESPACE;
use crate::domain::yaml::{Mapping, Node, Reader};

/// What people write.
const WRITTEN: [&str; 4] = ["name", "namespace", "labels", "annotations"];
/// What an API server adds to the objects that it keeps (`metav1.ObjectMeta`). Accepted in every document, because files
/// are made by `kubectl get -o yaml`, and without effect.
const ADDED: [&str; 11] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
    "selfLink",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// The name of a policy, and its place.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    kind: PolicyKind,
) -> (Option<PolicyKey>, Range<usize>) {
    let known: Vec<&str> = WRITTEN.into_iter().chain(ADDED).collect();
    let Some(metadata) = reader.mapping_of(node, "`metadata`", &known, &WRITTEN) else {
        return (None, node.span.clone());
    };
    let name = reader.required(&metadata, "`metadata`", "name", None);
    let place = name.map_or_else(|| metadata.place(), |name| name.span.clone());
    let name = name.and_then(|node| Name::Subdomain.read(reader, node, "the name of a policy"));
    let namespace = namespace(reader, &metadata, kind);
    for field in ["labels", "annotations"] {
        let Some(node) = metadata.get(field) else { continue };
        let Some(strings) = reader.any_mapping(node, &format!("`{field}`")) else { continue };
        for entry in strings.entries() {
            reader.text(&entry.value, &format!("{} in `{field}`", quote(&entry.key)));
        }
    }
    let key =
        name.zip(namespace).map(|(name, namespace)| PolicyKey { kind, namespace, name: name.to_owned() });
    (key, place)
}

fn namespace(reader: &mut Reader<'_>, metadata: &Mapping<'_>, kind: PolicyKind) -> Option<String> {
    let entry = metadata.entry("namespace");
    if kind.is_namespaced() {
        let Some(entry) = entry else { return Some(DEFAULT_NAMESPACE.to_owned()) };
        return Name::Label.read(reader, &entry.value, "a namespace").map(str::to_owned);
    }
    if let Some(entry) = entry {
        let message = format!("a {} is for the whole cluster and has no namespace", kind.label());
        reader
            .error(&entry.span, Code::ConflictingFields, message)
            .label("not in a namespace")
            .help("remove it; `subject` says in which namespaces the policy holds");
    }
    Some(String::new())
}
