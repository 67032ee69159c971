//! Services in the index: whose addresses are whose, and who answers for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::claims::Claims;
use super::index::{Index, Touched};
use crate::domain::cluster::{KnownService, Service, ServiceKey};
use crate::domain::id::IdentityId;
use crate::domain::registry::{IdentityKey, Registry};

/// Services with those who answer for them, by their own numbers.
pub(super) type Known = Arc<BTreeMap<IdentityId, Arc<KnownService>>>;

/// All services that count.
#[derive(Debug, Default)]
pub(super) struct Services {
    placed: BTreeMap<ServiceKey, (Service, IdentityId)>,
    nets: Claims<IpNet, ServiceKey>,
    /// Services by the addresses of who answers.
    backends: Claims<IpAddr, ServiceKey>,
    pub(super) known: Known,
}

impl Services {
    /// Puts a service where it belongs now.
    pub(super) fn place(
        &mut self,
        key: &ServiceKey,
        service: Option<&Service>,
        registry: &mut Registry,
        touched: &mut Touched,
    ) {
        if let Some((old, identity)) = self.placed.remove(key) {
            for net in nets(&old) {
                self.nets.remove(&net, key);
                touched.nets.insert(net);
            }
            for backend in backends(&old) {
                self.backends.remove(&backend, key);
            }
            Arc::make_mut(&mut self.known).remove(&identity);
        }
        let Some(service) = service else { return };
        let identity = registry.identity(&IdentityKey::service(key.namespace.as_str(), key.name.as_str()));
        for net in nets(service) {
            self.nets.add(net, key.clone());
            touched.nets.insert(net);
        }
        for backend in backends(service) {
            self.backends.add(backend, key.clone());
        }
        self.placed.insert(key.clone(), (service.clone(), identity));
    }

    /// Who has an address that no workload has: a service. Between services nobody can tell, so the address is denied.
    pub(super) fn claimed(&self, net: &IpNet) -> Option<IdentityId> {
        match self.nets.of(net) {
            [] => None,
            [one] => self.placed.get(one).map(|(_, identity)| *identity),
            _ => Some(IdentityId::UNMANAGED),
        }
    }

    /// What is said of an address that is not the service's alone. Who has an address keeps it where that is a workload.
    pub(super) fn dispute(&self, net: &IpNet, is_workloads: bool) -> Option<String> {
        let claimants = self.nets.of(net);
        let (first, last) = (claimants.first()?, claimants.last()?);
        if is_workloads {
            return Some(format!(
                "address {net} of service {last} belongs to a workload, and is judged as that"
            ));
        }
        (first != last).then(|| {
            format!(
                "address {net} belongs to service {first} and to service {last} as well; it is denied everything until \
                 only one of them claims it"
            )
        })
    }

    /// Every address of a service.
    pub(super) fn nets(&self) -> impl Iterator<Item = &IpNet> {
        self.nets.places()
    }

    /// How many addresses services have.
    pub(super) fn nets_count(&self) -> usize {
        self.nets.len()
    }
}

fn nets(service: &Service) -> impl Iterator<Item = IpNet> {
    service.addresses.iter().map(|address| IpNet::from(address.to_canonical()))
}

fn backends(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.ports.iter().flat_map(|port| &port.backends).map(|backend| backend.address.to_canonical())
}

impl Index {
    /// Works out who answers, for services that changed and for those with a backend at an address that did.
    pub(super) fn know_services(&mut self, touched: &Touched, all: bool, changed: &BTreeSet<ServiceKey>) {
        let mut due: BTreeSet<&ServiceKey> = changed.iter().collect();
        if all {
            due.extend(self.services.placed.keys());
        }
        for net in &touched.nets {
            let within = self.services.backends.between(net.network(), net.broadcast());
            due.extend(within.flat_map(|(_, services)| services));
        }
        let mut known = Vec::new();
        for key in due {
            let Some((service, identity)) = self.services.placed.get(key) else { continue };
            let one = KnownService::new(*identity, service, |address| self.who_has(address));
            if self.services.known.get(identity).is_none_or(|old| **old != one) {
                known.push((*identity, Arc::new(one)));
            }
        }
        if !known.is_empty() {
            Arc::make_mut(&mut self.services.known).extend(known);
        }
    }

    /// Who has an address, as the kernel finds it.
    fn who_has(&self, address: IpAddr) -> IdentityId {
        let address = address.to_canonical();
        if self.own.contains(&address) {
            return IdentityId::HOST;
        }
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        let mut nets = lengths.iter().rev().filter_map(|length| IpNet::new(address, *length).ok());
        nets.find_map(|net| self.wanted_net(&net.trunc())).unwrap_or(IdentityId::WORLD)
    }
}
