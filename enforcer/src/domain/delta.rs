//! The difference between the tables in the kernel and those that are wanted, as operations in a safe order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use enforcer_common::id::{CgroupId, IdentityId};
use ipnet::IpNet;

/// Who is who: the tables that change in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Identity of everything in and below a cgroup directory.
    pub bindings: BTreeMap<CgroupId, IdentityId>,
    /// Identity of addresses; the longest prefix counts.
    pub addresses: BTreeMap<IpNet, IdentityId>,
    /// The host's own addresses, loopback left out: who is reached by one is found by its socket.
    pub own: BTreeSet<IpAddr>,
}

/// One map operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds an address or changes its identity in place.
    SetAddress(IpNet, IdentityId),
    /// Removes an address.
    RemoveAddress(IpNet),
    /// Binds a directory or changes its identity in place.
    Bind(CgroupId, IdentityId),
    /// Removes a binding.
    Unbind(CgroupId),
    /// Adds an own address of the host.
    SetOwn(IpAddr),
    /// Removes an own address.
    RemoveOwn(IpAddr),
}

/// The operations that turn `have` into `want`: own addresses added, addresses set, directories bound, directories
/// unbound, addresses removed, own addresses removed.
///
/// A workload's peers know it before it may speak, and until after it may. Nothing is removed before what replaces it
/// is there, so that no address and no directory is nobody's in between when a prefix is split or a binding moves to
/// directories below: to a deny rule, nobody is not who it means.
pub fn delta(have: &Tables, want: &Tables) -> Vec<Operation> {
    let set = changed(&have.addresses, &want.addresses).map(|(net, id)| Operation::SetAddress(net, id));
    let bind = changed(&have.bindings, &want.bindings).map(|(cgroup, id)| Operation::Bind(cgroup, id));
    let unbind = missing(&have.bindings, &want.bindings).map(Operation::Unbind);
    let remove = missing(&have.addresses, &want.addresses).map(Operation::RemoveAddress);
    let own = want.own.difference(&have.own).map(|address| Operation::SetOwn(*address));
    let not_own = have.own.difference(&want.own).map(|address| Operation::RemoveOwn(*address));
    own.chain(set).chain(bind).chain(unbind).chain(remove).chain(not_own).collect()
}

/// What is wanted and is not there, or is there with another value.
fn changed<'a, K: Ord + Copy>(
    have: &'a BTreeMap<K, IdentityId>,
    want: &'a BTreeMap<K, IdentityId>,
) -> impl Iterator<Item = (K, IdentityId)> + 'a {
    want.iter().filter(|(key, id)| have.get(key) != Some(id)).map(|(key, id)| (*key, *id))
}

/// What is there and not wanted.
fn missing<'a, K: Ord + Copy>(
    have: &'a BTreeMap<K, IdentityId>,
    want: &'a BTreeMap<K, IdentityId>,
) -> impl Iterator<Item = K> + 'a {
    have.keys().filter(|key| !want.contains_key(key)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;

    fn tables() -> impl Strategy<Value = Tables> {
        let id = || (256..260_u32).prop_map(IdentityId);
        let net = (0..6_u8, 30..=32_u8).prop_map(|(host, length)| {
            let address = std::net::Ipv4Addr::new(10, 0, 0, host).into();
            IpNet::new(address, length).unwrap().trunc()
        });
        let bindings = btree_map((0..8_u64).prop_map(CgroupId), id(), 0..6);
        let own = btree_set((0..4_u8).prop_map(|host| IpAddr::from([192, 0, 2, host])), 0..4);
        (bindings, btree_map(net, id(), 0..6), own).prop_map(|(bindings, addresses, own)| Tables {
            bindings,
            addresses,
            own,
        })
    }

    fn apply(tables: &mut Tables, operation: Operation) -> bool {
        match operation {
            Operation::SetAddress(net, id) => tables.addresses.insert(net, id) != Some(id),
            Operation::RemoveAddress(net) => tables.addresses.remove(&net).is_some(),
            Operation::Bind(cgroup, id) => tables.bindings.insert(cgroup, id) != Some(id),
            Operation::Unbind(cgroup) => tables.bindings.remove(&cgroup).is_some(),
            Operation::SetOwn(address) => tables.own.insert(address),
            Operation::RemoveOwn(address) => tables.own.remove(&address),
        }
    }

    fn stage(operation: &Operation) -> u8 {
        match operation {
            Operation::SetOwn(_) => 0,
            Operation::SetAddress(..) => 1,
            Operation::Bind(..) => 2,
            Operation::Unbind(_) => 3,
            Operation::RemoveAddress(_) => 4,
            Operation::RemoveOwn(_) => 5,
        }
    }

    proptest! {
        #[test]
        fn a_delta_makes_what_is_wanted_in_order_and_with_nothing_idle(have in tables(), want in tables()) {
            let operations = delta(&have, &want);
            prop_assert!(operations.is_sorted_by_key(stage), "{:?}", operations);
            let mut now = have.clone();
            for operation in operations {
                prop_assert!(apply(&mut now, operation), "{:?} changes nothing", operation);
                // Who was known and stays known is known all the time.
                for net in have.addresses.keys().filter(|net| want.addresses.contains_key(net)) {
                    prop_assert!(now.addresses.contains_key(net));
                }
            }
            prop_assert_eq!(&now, &want);
            prop_assert_eq!(delta(&now, &want), vec![]);
        }
    }
}
