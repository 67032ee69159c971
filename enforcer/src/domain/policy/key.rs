//! Names of policies and rules.

use std::fmt;
use std::str::FromStr;

use enforcer_common::verdict::Direction;
use serde::{Deserialize, Serialize};

use crate::domain::workload::DEFAULT_NAMESPACE;

/// Kind of a policy document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `enforcer.dev`, in a namespace.
    #[default]
    TrafficPolicy,
    /// `enforcer.dev`, for the whole cluster.
    ClusterTrafficPolicy,
    /// `networking.k8s.io`, in a namespace.
    NetworkPolicy,
    /// `policy.networking.k8s.io`, for the whole cluster.
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 4] =
        [Self::TrafficPolicy, Self::ClusterTrafficPolicy, Self::NetworkPolicy, Self::ClusterNetworkPolicy];

    /// The `kind` of its documents.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TrafficPolicy => "TrafficPolicy",
            Self::ClusterTrafficPolicy => "ClusterTrafficPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// What stands before the name of a policy: the `kind` in lower case.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::TrafficPolicy => "trafficpolicy",
            Self::ClusterTrafficPolicy => "clustertrafficpolicy",
            Self::NetworkPolicy => "networkpolicy",
            Self::ClusterNetworkPolicy => "clusternetworkpolicy",
        }
    }

    /// Whether its policies have a namespace.
    pub const fn is_namespaced(self) -> bool {
        matches!(self, Self::TrafficPolicy | Self::NetworkPolicy)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The kind with this [`prefix`](Self::prefix).
    pub fn from_prefix(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.prefix() == text)
    }
}

/// Name of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyKey {
    /// Kind of its document.
    #[serde(default, skip_serializing_if = "PolicyKind::is_default")]
    pub kind: PolicyKind,
    /// Namespace, whose workloads it can select; empty where its kind has none.
    pub namespace: String,
    /// Name, unique in its kind and namespace.
    pub name: String,
}

impl PolicyKey {
    /// The name of a `TrafficPolicy`.
    pub fn traffic(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: PolicyKind::TrafficPolicy, namespace: namespace.into(), name: name.into() }
    }

    /// The name of a policy of a kind without namespaces.
    pub fn cluster(kind: PolicyKind, name: impl Into<String>) -> Self {
        Self { kind, namespace: String::new(), name: name.into() }
    }
}

/// `default/db` for a `TrafficPolicy`; `networkpolicy/default/db`, `clustertrafficpolicy/db` and so on for the others.
impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match kind {
            // A namespace may have the name of a kind.
            PolicyKind::TrafficPolicy if PolicyKind::from_prefix(namespace).is_none() => {
                write!(f, "{namespace}/{name}")
            }
            kind if kind.is_namespaced() => write!(f, "{}/{namespace}/{name}", kind.prefix()),
            kind => write!(f, "{}/{name}", kind.prefix()),
        }
    }
}

/// The reverse of its display, with `trafficpolicy/` and the namespace `default` left out at will. Never fails: whatever
/// is no name of a policy is a name that no policy has.
impl FromStr for PolicyKey {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = match text.split_once('/') {
            Some((first, rest)) => match PolicyKind::from_prefix(first) {
                Some(kind) => (kind, rest),
                None => (PolicyKind::TrafficPolicy, text),
            },
            None => (PolicyKind::TrafficPolicy, text),
        };
        let (namespace, name) = match rest.split_once('/') {
            _ if !kind.is_namespaced() => ("", rest),
            Some((namespace, name)) => (namespace, name),
            None => (DEFAULT_NAMESPACE, rest),
        };
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// What has a [`RuleId`](enforcer_common::id::RuleId).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    /// The policy.
    pub policy: PolicyKey,
    /// `egress`, `ingress`, `listen` or `sockets`.
    pub direction: RuleDirection,
    /// Position in the list of the section, from 0; `None` is the isolation itself.
    pub index: Option<u32>,
}

/// The section of a policy that a rule stands in: a [`Direction`], who may listen, or who may have which sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleDirection {
    /// See [`Direction::Egress`].
    Egress,
    /// See [`Direction::Ingress`].
    Ingress,
    /// Which ports may be listened on.
    Listen,
    /// Which kinds of sockets may be created.
    Sockets,
}

impl RuleDirection {
    /// Every section.
    pub const ALL: [Self; 4] = [Self::Egress, Self::Ingress, Self::Listen, Self::Sockets];

    /// `egress`, `ingress`, `listen` or `sockets`, as in policies.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Egress => Direction::Egress.label(),
            Self::Ingress => Direction::Ingress.label(),
            Self::Listen => "listen",
            Self::Sockets => "sockets",
        }
    }

    /// Whether a namespaced policy with this section denies what none of its rules allows. Of a kind of sockets of which no
    /// rule speaks the configuration decides.
    pub const fn isolates(self) -> bool {
        !matches!(self, Self::Sockets)
    }
}

impl From<Direction> for RuleDirection {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Egress => Self::Egress,
            Direction::Ingress => Self::Ingress,
        }
    }
}

/// `default/db ingress[0]`, or `default/db ingress (isolated)`.
impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = self.direction.label();
        match self.index {
            Some(index) => write!(f, "{} {direction}[{index}]", self.policy),
            None => write!(f, "{} {direction} (isolated)", self.policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        for (kind, namespace, shown) in [
            (PolicyKind::TrafficPolicy, "default", "default/db"),
            (PolicyKind::TrafficPolicy, "networkpolicy", "trafficpolicy/networkpolicy/db"),
            (PolicyKind::ClusterTrafficPolicy, "", "clustertrafficpolicy/db"),
            (PolicyKind::NetworkPolicy, "shop", "networkpolicy/shop/db"),
            (PolicyKind::ClusterNetworkPolicy, "", "clusternetworkpolicy/db"),
        ] {
            let key = PolicyKey { kind, namespace: namespace.into(), name: "db".into() };
            assert_eq!(key.to_string(), shown);
            assert_eq!(shown.parse(), Ok(key));
        }
        assert_eq!("db".parse(), Ok(PolicyKey::traffic("default", "db")));
        let network = PolicyKey { kind: PolicyKind::NetworkPolicy, ..PolicyKey::traffic("default", "db") };
        assert_eq!("networkpolicy/db".parse(), Ok(network));
    }

    #[test]
    fn a_saved_name_without_kind_is_a_traffic_policy() {
        let text = r#"{"namespace":"default","name":"db"}"#;
        let key: PolicyKey = serde_json::from_str(text).unwrap();
        assert_eq!(key, PolicyKey::traffic("default", "db"));
        assert_eq!(serde_json::to_string(&key).unwrap(), text);
        let other = PolicyKey { kind: PolicyKind::NetworkPolicy, ..key };
        let saved = serde_json::to_string(&other).unwrap();
        assert_eq!(serde_json::from_str::<PolicyKey>(&saved).unwrap(), other);
    }
}
