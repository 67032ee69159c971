//! What a cluster has besides workloads: namespaces with labels, and services.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use enforcer_common::address::Address;
use enforcer_common::id::IdentityId;
use serde::{Deserialize, Serialize};

use super::labels::LabelSet;

/// The label that every namespace has; its value is the namespace's name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace as a source describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: LabelSet,
}

/// Labels of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceLabels(pub BTreeMap<String, LabelSet>);

impl NamespaceLabels {
    /// The labels of one namespace. One that nobody described has its name all the same ([`NAME_LABEL`]), and no
    /// description can give it another.
    pub fn of(&self, namespace: &str) -> Cow<'_, LabelSet> {
        let known = self.0.get(namespace);
        match known {
            Some(labels) if labels.0.get(NAME_LABEL).is_some_and(|name| name == namespace) => {
                Cow::Borrowed(labels)
            }
            _ => {
                let mut labels = known.cloned().unwrap_or_default();
                labels.0.insert(NAME_LABEL.to_owned(), namespace.to_owned());
                Cow::Owned(labels)
            }
        }
    }
}

impl FromIterator<Namespace> for NamespaceLabels {
    fn from_iter<T: IntoIterator<Item = Namespace>>(namespaces: T) -> Self {
        let named = |Namespace { name, mut labels }| {
            labels.0.insert(NAME_LABEL.to_owned(), String::clone(&name));
            (name, labels)
        };
        Self(namespaces.into_iter().map(named).collect())
    }
}

/// Name of a service: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: String,
    /// Name, unique in its namespace.
    pub name: String,
}

/// A service: addresses behind which others answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name, unique in its namespace.
    pub name: String,
    /// The addresses that clients call.
    pub addresses: Vec<IpAddr>,
    /// The ports that clients call.
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// Its name.
    pub fn key(&self) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// IP protocol number.
    pub protocol: u8,
    /// The port that clients call.
    pub port: u16,
    /// Who answers.
    pub backends: Vec<Backend>,
}

/// Who answers for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// Address of the workload.
    pub address: IpAddr,
    /// The port on which it listens.
    pub port: u16,
}

/// A service with those who answer for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownService {
    /// Its own number.
    pub identity: IdentityId,
    /// The addresses that clients call.
    pub addresses: Vec<IpAddr>,
    /// Who answers, by the protocol and port that clients call.
    pub ports: BTreeMap<(u8, u16), BTreeSet<Answering>>,
}

/// Somebody who answers for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answering {
    /// Who.
    pub identity: IdentityId,
    /// With which address.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
}

impl KnownService {
    /// A service whose number is known. `who` tells who has an address.
    pub fn new(identity: IdentityId, service: &Service, who: impl Fn(IpAddr) -> IdentityId) -> Self {
        let mut ports: BTreeMap<_, BTreeSet<Answering>> = BTreeMap::new();
        for port in &service.ports {
            let answering = port.backends.iter().map(|backend| Answering {
                identity: who(backend.address),
                address: backend.address,
                port: backend.port,
            });
            ports.entry((port.protocol, port.port)).or_default().extend(answering);
        }
        Self { identity, addresses: service.addresses.clone(), ports }
    }
}

/// An address as the kernel side has it.
pub fn canonical(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.into()),
        IpAddr::V6(address) => Address::v6(address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_its_name() {
        let labels = |list: &[(&str, &str)]| {
            LabelSet(list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let list = [
            ("shop".to_owned(), labels(&[("team", "a")])),
            ("bank".to_owned(), labels(&[(NAME_LABEL, "shop")])),
            ("post".to_owned(), labels(&[(NAME_LABEL, "post")])),
        ];
        let described = list.clone().into_iter().map(|(name, labels)| Namespace { name, labels });
        for namespaces in [described.collect(), NamespaceLabels(list.into())] {
            assert_eq!(*namespaces.of("shop"), labels(&[("team", "a"), (NAME_LABEL, "shop")]));
            assert_eq!(*namespaces.of("bank"), labels(&[(NAME_LABEL, "bank")]));
            assert_eq!(*namespaces.of("post"), labels(&[(NAME_LABEL, "post")]));
            assert_eq!(*namespaces.of("unknown"), labels(&[(NAME_LABEL, "unknown")]));
        }
    }
}
