//! The kinds of objects that are watched.

use std::borrow::Cow;

use kube::Resource;
use kube::core::{DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::domain::policy::model::PolicyKind;

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    /// `v1`.
    Node,
    /// `v1`.
    Namespace,
    /// `v1`.
    Pod,
    /// `v1`.
    Service,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// `enforcer.dev/v1alpha1`.
    TrafficPolicy,
    /// `enforcer.dev/v1alpha1`.
    ClusterTrafficPolicy,
}

impl Kind {
    /// Every kind, in the order in which they are told.
    pub(super) const ALL: [Self; 9] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::TrafficPolicy,
        Self::ClusterTrafficPolicy,
    ];

    /// Group, version, `kind`, and the name of the resource.
    const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Node => ("", "v1", "Node", "nodes"),
            Self::Namespace => ("", "v1", "Namespace", "namespaces"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::ClusterNetworkPolicy => {
                ("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies")
            }
            Self::TrafficPolicy => ("enforcer.dev", "v1alpha1", "TrafficPolicy", "trafficpolicies"),
            Self::ClusterTrafficPolicy => {
                ("enforcer.dev", "v1alpha1", "ClusterTrafficPolicy", "clustertrafficpolicies")
            }
        }
    }

    /// The `kind`.
    pub(super) const fn label(self) -> &'static str {
        self.names().2
    }

    /// The name of the resource.
    pub(super) const fn plural(self) -> &'static str {
        self.names().3
    }

    /// Group and version as documents have them.
    pub(super) fn api_version(self) -> String {
        match self.names() {
            ("", version, ..) => version.to_owned(),
            (group, version, ..) => format!("{group}/{version}"),
        }
    }

    /// The kind of policy that it is.
    pub(super) const fn policy(self) -> Option<PolicyKind> {
        match self {
            Self::NetworkPolicy => Some(PolicyKind::NetworkPolicy),
            Self::ClusterNetworkPolicy => Some(PolicyKind::ClusterNetworkPolicy),
            Self::TrafficPolicy => Some(PolicyKind::TrafficPolicy),
            Self::ClusterTrafficPolicy => Some(PolicyKind::ClusterTrafficPolicy),
            _ => None,
        }
    }

    /// Whether a cluster may well have no such resource: it is defined by a CRD.
    pub(super) const fn is_optional(self) -> bool {
        matches!(self, Self::ClusterNetworkPolicy | Self::TrafficPolicy | Self::ClusterTrafficPolicy)
    }
}

/// An object of any kind, as far as the protocol of lists and watches is concerned. The rest of it is kept as it came, so
/// that one that is malformed is a problem of its own and not one of the whole list.
#[derive(Clone, Debug)]
pub(super) struct Object {
    metadata: ObjectMeta,
    /// Everything that it says.
    pub(super) value: Value,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            // Half of what an object says, and nothing that is asked for.
            metadata.remove("managedFields");
        }
        let text = |field: &str| {
            value.get("metadata").and_then(|it| it.get(field)).and_then(Value::as_str).map(str::to_owned)
        };
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, value })
    }
}

impl Object {
    /// Namespace and name; the namespace is empty where its kind has none.
    pub(super) fn name(&self) -> (String, String) {
        let ObjectMeta { name, namespace, .. } = &self.metadata;
        (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
    }
}

impl Resource for Object {
    type DynamicType = Kind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &Kind) -> Cow<'_, str> {
        kind.names().2.into()
    }

    fn group(kind: &Kind) -> Cow<'_, str> {
        kind.names().0.into()
    }

    fn version(kind: &Kind) -> Cow<'_, str> {
        kind.names().1.into()
    }

    fn plural(kind: &Kind) -> Cow<'_, str> {
        kind.names().3.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
