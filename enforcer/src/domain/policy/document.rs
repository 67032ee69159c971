//! One policy document: which kind it is, its name, and then what its kind says. All problems are told, never just the
//! first.

use std::ops::Range;

use super::diagnostic::{Code, nearest, quote};
use super::key::PolicyKind;
use super::kubernetes::{cluster_network_policy, network_policy};
use super::model::{Policy, PolicyKey};
use super::{kubernetes, metadata, traffic};
use crate::domain::yaml::{Mapping, Node, Reader};

/// `apiVersion` of the project's own kinds.
pub const API_VERSION: &str = "enforcer.dev/v1alpha1";
/// `apiVersion` of `NetworkPolicy`.
pub const NETWORK_POLICY: &str = "networking.k8s.io/v1";
/// `apiVersion` of `ClusterNetworkPolicy`.
pub const CLUSTER_NETWORK_POLICY: &str = "policy.networking.k8s.io/v1alpha2";

/// The `apiVersion` of a kind.
pub const fn version(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::TrafficPolicy | PolicyKind::ClusterTrafficPolicy => API_VERSION,
        PolicyKind::NetworkPolicy => NETWORK_POLICY,
        PolicyKind::ClusterNetworkPolicy => CLUSTER_NETWORK_POLICY,
    }
}

/// Whether its documents mean what Kubernetes says they mean.
const fn is_kubernetes(kind: PolicyKind) -> bool {
    matches!(kind, PolicyKind::NetworkPolicy | PolicyKind::ClusterNetworkPolicy)
}

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
pub(super) fn read(reader: &mut Reader<'_>, root: &mut Node) -> Option<Read> {
    let errors = reader.errors();
    let document = reader.any_mapping(root, "a policy document")?;
    let kind = header(reader, &document)?;
    reader.set_hints(hints(kind));
    if is_kubernetes(kind) {
        root.drop_nulls();
    }
    // A status is what somebody has found of it, and says nothing: `enforcer policy get` prints one, as the API does.
    let fields = ["apiVersion", "kind", "metadata", "spec", "status"];
    let document = reader.mapping(root, "the document", &fields)?;
    let metadata = reader.required(&document, "the document", "metadata", Some("name the policy there"));
    let (key, place) = metadata.map_or((None, root.span.clone()), |node| metadata::read(reader, node, kind));
    // The name comes with the key: a policy that is read in part is no policy.
    let spec = match kind {
        PolicyKind::NetworkPolicy => network_policy::read(reader, &document),
        PolicyKind::TrafficPolicy | PolicyKind::ClusterTrafficPolicy | PolicyKind::ClusterNetworkPolicy => {
            let spec = reader.required(&document, "the document", "spec", None);
            spec.and_then(|node| match kind {
                PolicyKind::ClusterNetworkPolicy => cluster_network_policy::read(reader, node),
                kind => traffic::read(reader, node, kind),
            })
        }
    };
    let policy = match (&key, spec) {
        (Some(key), Some(spec)) if reader.errors() == errors => Some(Policy { key: key.clone(), ..spec }),
        _ => None,
    };
    Some(Read { key, place, policy })
}

fn hints(kind: PolicyKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        PolicyKind::TrafficPolicy | PolicyKind::ClusterTrafficPolicy => traffic::HINTS,
        PolicyKind::NetworkPolicy => kubernetes::NETWORK_POLICY_HINTS,
        PolicyKind::ClusterNetworkPolicy => kubernetes::CLUSTER_NETWORK_POLICY_HINTS,
    }
}

/// Checks `apiVersion` and `kind`; the kind if the rest is worth reading as one of its documents.
fn header(reader: &mut Reader<'_>, document: &Mapping<'_>) -> Option<PolicyKind> {
    const DEFAULT: PolicyKind = PolicyKind::TrafficPolicy;
    let kind = document.get("kind");
    let version = document.get("apiVersion");
    let is_ours = |text: Option<&str>| text == Some(API_VERSION);
    let version_text = version.and_then(|node| reader.text(node, "`apiVersion`"));
    let Some(kind) = kind else {
        let help = format!("write `kind: {}`", DEFAULT.label());
        reader.required(document, "the document", "kind", Some(&help));
        return is_ours(version_text).then_some(DEFAULT);
    };
    let kind_text = reader.text(kind, "`kind`")?;
    let named = |text: &str| PolicyKind::ALL.into_iter().find(|known| known.label() == text);
    let Some(known) = named(kind_text) else {
        let near = nearest(kind_text, PolicyKind::ALL.map(PolicyKind::label));
        let message = format!("unknown kind {}", quote(kind_text));
        let help = near.map_or_else(|| known_kinds(kind_text), |near| format!("did you mean `{near}`?"));
        reader.error(&kind.span, Code::UnknownKind, message).label("unknown kind").help(help);
        return near.and_then(named).filter(|near| version_text == Some(self::version(*near)));
    };
    let expected = self::version(known);
    let Some(version) = version else {
        let help = format!("write `apiVersion: {expected}`");
        reader.required(document, "the document", "apiVersion", Some(&help));
        return Some(known);
    };
    if version_text.is_some_and(|text| text != expected) {
        let message =
            format!("{} is not an apiVersion of {}", quote(version_text.unwrap_or_default()), known.label());
        let help = format!("this version knows `{expected}`");
        reader.error(&version.span, Code::UnknownVersion, message).label("unknown version").help(help);
    }
    Some(known)
}

/// What to say to a kind that is none of ours.
fn known_kinds(kind: &str) -> String {
    let known = PolicyKind::ALL.map(|kind| format!("`{}`", kind.label())).join(", ");
    let cluster = crate::domain::cluster_file::KINDS.contains(&kind);
    let more = if cluster { "; what is in the cluster goes into the file of `--cluster`" } else { "" };
    format!("policies are of the kinds {known}{more}")
}
