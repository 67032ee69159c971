//! One policy document: from the tree to the model. All problems are told, never just the first.

use std::ops::Range;

use enforcer_common::reason::Errno;

use super::diagnostic::{Code, nearest, quote};
use super::model::{Layer, Policy, PolicyKey, PolicyMode, Subject};
use super::{rules, selector};
use crate::domain::labels::Selector;
use crate::domain::syntax::{ERRNOS, Name};
use crate::domain::workload::DEFAULT_NAMESPACE;
use crate::domain::yaml::{Mapping, Node, Reader};

/// `apiVersion` of the project's own kinds.
pub const API_VERSION: &str = "enforcer.dev/v1alpha1";
/// The kind of this version.
pub const KIND: &str = "TrafficPolicy";

/// Every kind that can be named, with its `apiVersion`. Only the first is enforced by this version; the others are
/// known so that a file of them is refused with the truth instead of a riddle.
const KINDS: [(&str, &str); 4] = [
    (KIND, API_VERSION),
    ("ClusterTrafficPolicy", API_VERSION),
    ("NetworkPolicy", "networking.k8s.io/v1"),
    ("ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2"),
];

/// What people write who know other policy languages.
pub(super) const HINTS: &[(&str, &str)] = &[
    ("podSelector", "here it is `subject` for the policy and `workloads` for a peer"),
    ("endpointSelector", "here it is `subject`"),
    ("selector", "here it is `subject`"),
    ("namespaceSelector", "here it is `namespaces`: a list of names, or [\"*\"]"),
    ("ipBlock", "here it is `cidr`, with `except` beside it"),
    ("policyTypes", "remove it: a direction is isolated when its section is present, even as `[]`"),
    ("to", "an ingress rule has `from`, a listen rule no peers; `to` belongs to egress rules"),
    ("from", "an egress rule has `to`, a listen rule no peers; `from` belongs to ingress rules"),
    ("effect", "here it is `action`"),
];

/// What a document says.
#[derive(Debug)]
pub(super) struct Read {
    /// Its name, if that much is right.
    pub(super) key: Option<PolicyKey>,
    /// Where its name is.
    pub(super) place: Range<usize>,
    /// The policy, if everything is right.
    pub(super) policy: Option<Policy>,
}

/// Reads a document. Without a `kind` that can be read nothing is known about the rest, and `None` is returned.
pub(super) fn read(reader: &mut Reader<'_>, root: &Node) -> Option<Read> {
    let errors = reader.errors();
    let document = reader.any_mapping(root, "a policy document")?;
    if !header(reader, &document) {
        return None;
    }
    reader.mapping(root, "the document", &["apiVersion", "kind", "metadata", "spec"])?;
    let metadata = reader.required(&document, "the document", "metadata", Some("name the policy there"));
    let (key, place) = metadata.map_or((None, root.span.clone()), |node| self::metadata(reader, node));
    let spec = reader.required(&document, "the document", "spec", None);
    let spec = spec.and_then(|node| self::spec(reader, node));
    let policy = match (&key, spec) {
        (Some(key), Some(spec)) if reader.errors() == errors => Some(Policy { key: key.clone(), ..spec }),
        _ => None,
    };
    Some(Read { key, place, policy })
}

/// Checks `apiVersion` and `kind`; `true` if the rest is worth reading as a policy of ours.
fn header(reader: &mut Reader<'_>, document: &Mapping<'_>) -> bool {
    let kind = document.get("kind");
    let version = document.get("apiVersion");
    let is_ours = |text: Option<&str>| text == Some(API_VERSION);
    let version_text = version.and_then(|node| reader.text(node, "`apiVersion`"));
    let Some(kind) = kind else {
        let help = format!("write `kind: {KIND}`");
        reader.required(document, "the document", "kind", Some(&help));
        return is_ours(version_text);
    };
    let Some(kind_text) = reader.text(kind, "`kind`") else { return false };
    let known = KINDS.iter().find(|(known, _)| *known == kind_text);
    let Some((_, expected)) = known else {
        let near = nearest(kind_text, KINDS.map(|(known, _)| known));
        let message = format!("unknown kind {}", quote(kind_text));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("this version knows `{KIND}` ({API_VERSION})"),
        };
        reader.error(&kind.span, Code::UnknownKind, message).label("unknown kind").help(help);
        return near == Some(KIND) && is_ours(version_text);
    };
    let Some(version) = version else {
        let help = format!("write `apiVersion: {expected}`");
        reader.required(document, "the document", "apiVersion", Some(&help));
        return kind_text == KIND;
    };
    if version_text.is_some_and(|text| text != *expected) {
        let message =
            format!("{} is not an apiVersion of {kind_text}", quote(version_text.unwrap_or_default()));
        let help = format!("this version knows `{expected}`");
        reader.error(&version.span, Code::UnknownVersion, message).label("unknown version").help(help);
        return kind_text == KIND;
    }
    if kind_text != KIND {
        let message = format!("{kind_text} ({expected}) is not supported yet by this version");
        reader
            .error(&kind.span, Code::Unsupported, message)
            .label("would not be enforced")
            .help(format!("write it as a `{KIND}` ({API_VERSION}); docs/policy.md shows the differences"));
        return false;
    }
    true
}

fn metadata(reader: &mut Reader<'_>, node: &Node) -> (Option<PolicyKey>, Range<usize>) {
    let fields = ["name", "namespace", "labels", "annotations"];
    let Some(metadata) = reader.mapping(node, "`metadata`", &fields) else {
        return (None, node.span.clone());
    };
    let name = reader.required(&metadata, "`metadata`", "name", None);
    let place = name.map_or_else(|| metadata.place(), |name| name.span.clone());
    let name = name.and_then(|node| Name::Subdomain.read(reader, node, "the name of a policy"));
    let namespace = match metadata.get("namespace") {
        Some(node) => Name::Label.read(reader, node, "a namespace"),
        None => Some(DEFAULT_NAMESPACE),
    };
    for field in ["labels", "annotations"] {
        let Some(node) = metadata.get(field) else { continue };
        let Some(strings) = reader.any_mapping(node, &format!("`{field}`")) else { continue };
        for entry in strings.entries() {
            reader.text(&entry.value, &format!("{} in `{field}`", quote(&entry.key)));
        }
    }
    let key = name.zip(namespace).map(|(name, namespace)| PolicyKey::traffic(namespace, name));
    (key, place)
}

/// The policy, still without its name.
fn spec(reader: &mut Reader<'_>, node: &Node) -> Option<Policy> {
    const FIELDS: [&str; 7] = ["mode", "errno", "subject", "ingress", "egress", "listen", "expiresAt"];
    const MODES: [(&str, PolicyMode); 2] = [("enforce", PolicyMode::Enforce), ("audit", PolicyMode::Audit)];
    let spec = reader.mapping(node, "`spec`", &FIELDS)?;
    let mode = match spec.get("mode") {
        Some(node) => reader.choice(node, "`mode`", &MODES),
        None => Some(PolicyMode::default()),
    };
    let errno = match spec.get("errno") {
        Some(node) => reader.choice(node, "`errno`", &ERRNOS),
        None => Some(Errno::default()),
    };
    let help = "write `subject: {}` if every workload of the namespace is meant";
    let subject = reader.required(&spec, "`spec`", "subject", Some(help));
    let subject: Option<Selector> = subject.and_then(|node| selector::selector(reader, node, "`subject`"));
    let ingress = spec.get("ingress").map(|node| rules::direction(reader, node, &rules::INGRESS));
    let egress = spec.get("egress").map(|node| rules::direction(reader, node, &rules::EGRESS));
    let listen = spec.get("listen").map(|node| rules::direction(reader, node, &rules::LISTEN));
    let expires = spec.get("expiresAt").map(|node| rules::expiry(reader, node, "this policy"));
    let has_typo =
        spec.entries().iter().any(|entry| nearest(&entry.key, ["ingress", "egress", "listen"]).is_some());
    if ingress.is_none() && egress.is_none() && listen.is_none() && !has_typo {
        let message = "the policy has none of `ingress`, `egress` and `listen` and would do nothing";
        reader.error(&spec.place(), Code::NoDirection, message).label("no direction in this `spec`").help(
            "write `ingress: []` to deny all flows to the subject, `egress: []` to deny all flows from it",
        );
    }
    let key = PolicyKey::default();
    Some(Policy {
        key,
        mode: mode?,
        errno: errno?,
        layer: Layer::Namespaced,
        subject: Subject::own(subject?),
        ingress: ingress.map_or(Some(None), |rules| rules.map(Some))?,
        egress: egress.map_or(Some(None), |rules| rules.map(Some))?,
        listen: listen.map_or(Some(None), |rules| rules.map(Some))?,
        expires: expires.map_or(Some(None), |expires| expires.map(Some))?,
    })
}
