//! What the sources say of the cluster besides workloads: namespaces with labels, and services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::planning::Asked;
use super::policies::PolicySet;
use crate::domain::cluster::{
    KnownService, NAME_LABEL, Namespace, NamespaceLabels, Service, ServiceKey, canonical,
};
use crate::domain::delta::Tables;
use crate::domain::id::IdentityId;
use crate::domain::labels::LabelSet;
use crate::domain::policy::model::{Namespaces, Peer, Peers, Policy};
use crate::domain::publication::Publication;
use crate::domain::registry::{IdentityKey, Registry};

/// What a source says of the cluster besides its workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) services: Vec<Service>,
}

/// Labels of all namespaces. Where two sources describe one, the first counts, in the order of names.
pub(super) fn namespaces(clusters: &BTreeMap<String, Cluster>) -> NamespaceLabels {
    clusters.values().rev().flat_map(|cluster| cluster.namespaces.iter().rev().cloned()).collect()
}

/// The labels that some policy looks at. Others make no difference to tables, and a namespace's name is always there.
pub(super) fn looked_at(asked: &Asked, labels: &NamespaceLabels) -> NamespaceLabels {
    let before = asked.before();
    let sets = [Some(&asked.policies), before.as_ref()];
    let keys: BTreeSet<String> = sets
        .into_iter()
        .flatten()
        .flat_map(PolicySet::effective)
        .flat_map(|(loaded, _)| namespace_labels(&loaded.policy).map(str::to_owned).collect::<Vec<_>>())
        .filter(|key| key != NAME_LABEL)
        .collect();
    let mut found = NamespaceLabels::default();
    for (namespace, labels) in labels.0.iter().filter(|_| !keys.is_empty()) {
        let looked_at = labels.0.iter().filter(|(key, _)| keys.contains(*key));
        let looked_at: BTreeMap<_, _> = looked_at.map(|(key, value)| (key.clone(), value.clone())).collect();
        if !looked_at.is_empty() {
            found.0.insert(namespace.clone(), LabelSet(looked_at));
        }
    }
    found
}

/// Keys of the labels of namespaces that a policy looks at.
fn namespace_labels(policy: &Policy) -> impl Iterator<Item = &str> {
    let peers = policy.all_rules().flat_map(|(_, _, rule)| match &rule.peers {
        Peers::Everyone => [].iter(),
        Peers::AnyOf(peers) => peers.iter(),
    });
    let of_peers = peers.filter_map(|peer| match peer {
        Peer::Workloads { namespaces, .. } => Some(namespaces),
        Peer::Cidr { .. } | Peer::Entity(_) | Peer::Pending(_) => None,
    });
    of_peers
        .chain([&policy.subject.namespaces])
        .filter_map(|namespaces| match namespaces {
            Namespaces::Labelled(selector) => Some(&selector.requirements),
            Namespaces::Own | Namespaces::All | Namespaces::Named(_) => None,
        })
        .flatten()
        .map(|requirement| requirement.key.as_str())
}

/// The services that count, and what is said about those that do not: (object, sentence). Of two with the same name the
/// first counts, in the order of sources and then of the snapshot.
pub(super) fn services(clusters: &BTreeMap<String, Cluster>) -> (Vec<&Service>, Vec<(String, String)>) {
    let mut services: BTreeMap<ServiceKey, (&str, &Service)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (source, cluster) in clusters {
        for service in &cluster.services {
            let key = service.key();
            match services.get(&key) {
                None => drop(services.insert(key, (source, service))),
                Some((first, _)) => problems.push((
                    format!("service {key}"),
                    format!("service {key} of source `{source}` is not used: source `{first}` has one of that name"),
                )),
            }
        }
    }
    (services.into_values().map(|(_, service)| service).collect(), problems)
}

/// Gives the addresses of services to them. Returns the addresses that somebody else has: (object, sentence).
///
/// Who has an address keeps it where that is a workload; between services nobody can tell, so the address is denied.
pub(super) fn claim(
    services: &[&Service],
    tables: &mut Tables,
    registry: &mut Registry,
) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut claimed: BTreeMap<IpNet, &Service> = BTreeMap::new();
    for service in services {
        let key = service.key();
        let identity = registry.identity(&IdentityKey::service(key.namespace.as_str(), key.name.as_str()));
        for address in &service.addresses {
            let net = IpNet::from(address.to_canonical());
            let problem = match (claimed.get(&net), tables.addresses.get(&net)) {
                (Some(first), _) if first.key() == key => continue,
                (Some(first), _) => {
                    tables.addresses.insert(net, IdentityId::UNMANAGED);
                    format!(
                        "address {net} belongs to service {} and to service {key} as well; it is denied everything \
                         until only one of them claims it",
                        first.key()
                    )
                }
                (None, Some(_)) => {
                    format!("address {net} of service {key} belongs to a workload, and is judged as that")
                }
                (None, None) => {
                    tables.addresses.insert(net, identity);
                    claimed.insert(net, service);
                    continue;
                }
            };
            problems.push((net.to_string(), problem));
        }
    }
    problems
}

/// Services with those who answer for them. None where no policy says what may be called.
pub(super) fn known(
    asked: &Asked,
    services: &[&Service],
    tables: &Tables,
    registry: &Registry,
) -> Vec<KnownService> {
    let before = asked.before();
    let sets = [Some(&asked.policies), before.as_ref()];
    let mut policies = sets.into_iter().flatten().flat_map(PolicySet::effective);
    if services.is_empty() || !policies.any(|(loaded, _)| loaded.policy.egress.is_some()) {
        return Vec::new();
    }
    let who = Addresses::new(tables);
    let known = services.iter().filter_map(|service| {
        let key = IdentityKey::service(service.namespace.as_str(), service.name.as_str());
        Some(KnownService::new(registry.known(&key)?, service, |address| who.has(address)))
    });
    known.collect()
}

/// Who has which address, as the kernel finds it.
pub(super) struct Addresses<'a> {
    tables: &'a Tables,
    /// Prefix lengths, longest first: of IPv4, and of IPv6.
    lengths: [Vec<u8>; 2],
}

impl<'a> Addresses<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        let mut lengths = [vec![false; 33], vec![false; 129]];
        for net in tables.addresses.keys() {
            lengths[usize::from(matches!(net, IpNet::V6(_)))][usize::from(net.prefix_len())] = true;
        }
        let longest_first = |there: Vec<bool>| {
            let lengths = (0_u8..=128).zip(there).filter(|(_, there)| *there).map(|(length, _)| length);
            lengths.rev().collect()
        };
        Self { tables, lengths: lengths.map(longest_first) }
    }

    pub(super) fn has(&self, address: IpAddr) -> IdentityId {
        let address = address.to_canonical();
        if self.tables.own.contains(&address) {
            return IdentityId::HOST;
        }
        self.block(address).map_or(IdentityId::WORLD, |(_, identity)| identity)
    }

    /// The narrowest block that has an address, and who that is.
    pub(super) fn block(&self, address: IpAddr) -> Option<(IpNet, IdentityId)> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        let mut nets = lengths.iter().filter_map(|length| Some(IpNet::new(address, *length).ok()?.trunc()));
        nets.find_map(|net| Some((net, *self.tables.addresses.get(&net)?)))
    }
}

/// Whether the tables in force say of these services what they would say of those: the same services, with the same
/// classes behind the same ports.
pub(super) fn are_alike(publication: &Publication, these: &[KnownService], those: &[KnownService]) -> bool {
    if these == those {
        return true;
    }
    if these.len() != those.len() {
        return false;
    }
    let tables: Vec<_> = publication.chain().map(|(table, _)| table).collect();
    let seen = |service: &KnownService| {
        let classes = |address: &IpAddr| -> Vec<u32> {
            tables.iter().map(|table| table.class_of_address(canonical(*address))).collect()
        };
        let mut addresses: Vec<_> = service.addresses.iter().map(classes).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let ports: Vec<_> = service
            .ports
            .iter()
            .map(|(front, answering)| {
                let mut answering: Vec<_> = answering
                    .iter()
                    .map(|one| {
                        let identity: Vec<u32> =
                            tables.iter().map(|table| table.class_of_identity(one.identity)).collect();
                        (identity, classes(&one.address), one.port)
                    })
                    .collect();
                answering.sort_unstable();
                answering.dedup();
                (*front, answering)
            })
            .filter(|(_, answering)| !answering.is_empty())
            .collect();
        (service.identity, addresses, ports)
    };
    these.iter().zip(those).all(|(this, that)| this == that || seen(this) == seen(that))
}
