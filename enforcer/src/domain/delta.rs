//! The difference between the tables in the kernel and those that are wanted, as operations in a safe order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use enforcer_common::id::{CgroupId, IdentityId};
use ipnet::IpNet;

use super::time::BootTime;

/// A map of which a copy costs nothing: copies share what is the same in both. Who is who can be handed out after every
/// change, whatever its size.
pub type Shared<K, V> = rpds::RedBlackTreeMapSync<K, V>;

/// What a directory is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// The identity.
    pub identity: IdentityId,
    /// When `after` takes its place, by the kernel's clock alone; `None` for never.
    pub until: Option<BootTime>,
    /// The identity that counts from then on.
    pub after: IdentityId,
}

impl Bound {
    /// Bound until told otherwise.
    pub const fn always(identity: IdentityId) -> Self {
        Self { identity, until: None, after: identity }
    }
}

/// Who is who: the tables that change in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Identity of everything in and below a cgroup directory.
    pub bindings: Shared<CgroupId, Bound>,
    /// Identity of addresses; the longest prefix counts.
    pub addresses: Shared<IpNet, IdentityId>,
    /// The host's own addresses, loopback left out: who is reached by one is found by its socket.
    pub own: BTreeSet<IpAddr>,
}

impl Tables {
    /// Performs one operation.
    pub fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::SetAddress(net, id) => self.addresses.insert_mut(net, id),
            Operation::RemoveAddress(net) => _ = self.addresses.remove_mut(&net),
            Operation::Bind(cgroup, bound) => self.bindings.insert_mut(cgroup, bound),
            Operation::Unbind(cgroup) => _ = self.bindings.remove_mut(&cgroup),
            Operation::SetOwn(address) => _ = self.own.insert(address),
            Operation::RemoveOwn(address) => _ = self.own.remove(&address),
        }
    }
}

/// One map operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds an address or changes its identity in place.
    SetAddress(IpNet, IdentityId),
    /// Removes an address.
    RemoveAddress(IpNet),
    /// Binds a directory or changes its identity in place.
    Bind(CgroupId, Bound),
    /// Removes a binding.
    Unbind(CgroupId),
    /// Adds an own address of the host.
    SetOwn(IpAddr),
    /// Removes an own address.
    RemoveOwn(IpAddr),
}

/// What some places of the tables should be; nothing is said of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What directories should be bound to; `None` for nothing.
    pub bindings: BTreeMap<CgroupId, Option<Bound>>,
    /// Who addresses should stand for; `None` for nobody.
    pub addresses: BTreeMap<IpNet, Option<IdentityId>>,
    /// All own addresses.
    pub own: BTreeSet<IpAddr>,
}

/// The operations that turn `have` into what is wanted: own addresses added, addresses set, directories bound, directories
/// unbound, addresses removed, own addresses removed.
///
/// A workload's peers know it before it may speak, and until after it may. Nothing is removed before what replaces it
/// is there, so that no address and no directory is nobody's in between when a prefix is split or a binding moves to
/// directories below: to a deny rule, nobody is not who it means. For the same reason directories that were not bound come before
/// those that become somebody else's: a pod's containers are themselves before the pod is divided.
pub fn delta(have: &Tables, want: &Wanted) -> Vec<Operation> {
    let set = changed(&have.addresses, &want.addresses).map(|(net, id)| Operation::SetAddress(net, id));
    let is_new = |(cgroup, _): &(CgroupId, Bound)| !have.bindings.contains_key(cgroup);
    let (new, others): (Vec<_>, Vec<_>) = changed(&have.bindings, &want.bindings).partition(is_new);
    let bind = new.into_iter().chain(others).map(|(cgroup, bound)| Operation::Bind(cgroup, bound));
    let unbind = gone(&have.bindings, &want.bindings).map(Operation::Unbind);
    let remove = gone(&have.addresses, &want.addresses).map(Operation::RemoveAddress);
    let own = want.own.difference(&have.own).map(|address| Operation::SetOwn(*address));
    let not_own = have.own.difference(&want.own).map(|address| Operation::RemoveOwn(*address));
    own.chain(set).chain(bind).chain(unbind).chain(remove).chain(not_own).collect()
}

/// What is wanted and is not there, or is there with another value.
fn changed<'a, K: Ord + Copy, V: PartialEq + Copy>(
    have: &'a Shared<K, V>,
    want: &'a BTreeMap<K, Option<V>>,
) -> impl Iterator<Item = (K, V)> + 'a {
    let wanted = want.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    wanted.filter(|(key, value)| have.get(key) != Some(value))
}

/// What is there and should not be.
fn gone<'a, K: Ord + Copy, V>(
    have: &'a Shared<K, V>,
    want: &'a BTreeMap<K, Option<V>>,
) -> impl Iterator<Item = K> + 'a {
    let unwanted = want.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| *key);
    unwanted.filter(|key| have.contains_key(key))
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
        let bound = (id(), proptest::option::of(1..3_u64), id()).prop_map(|(identity, until, after)| Bound {
            identity,
            until: until.map(BootTime),
            after,
        });
        let bindings = btree_map((0..8_u64).prop_map(CgroupId), bound, 0..6);
        let own = btree_set((0..4_u8).prop_map(|host| IpAddr::from([192, 0, 2, host])), 0..4);
        (bindings, btree_map(net, id(), 0..6), own).prop_map(|(bindings, addresses, own)| Tables {
            bindings: bindings.into_iter().collect(),
            addresses: addresses.into_iter().collect(),
            own,
        })
    }

    /// All of them wanted, and nothing else of what is there.
    fn only(want: &Tables, have: &Tables) -> Wanted {
        let bindings = have.bindings.keys().chain(want.bindings.keys());
        let addresses = have.addresses.keys().chain(want.addresses.keys());
        Wanted {
            bindings: bindings.map(|cgroup| (*cgroup, want.bindings.get(cgroup).copied())).collect(),
            addresses: addresses.map(|net| (*net, want.addresses.get(net).copied())).collect(),
            own: want.own.clone(),
        }
    }

    /// Whether it changes anything.
    fn apply(tables: &mut Tables, operation: Operation) -> bool {
        let before = tables.clone();
        tables.apply(operation);
        *tables != before
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
            let operations = delta(&have, &only(&want, &have));
            prop_assert!(operations.is_sorted_by_key(stage), "{:?}", operations);
            let mut now = have.clone();
            let mut is_change = false;
            for operation in operations {
                prop_assert!(apply(&mut now, operation), "{:?} changes nothing", operation);
                if let Operation::Bind(cgroup, _) = operation {
                    is_change |= have.bindings.contains_key(&cgroup);
                    prop_assert!(!is_change || have.bindings.contains_key(&cgroup), "new ones come first");
                }
                // Who was known and stays known is known all the time.
                for net in have.addresses.keys().filter(|net| want.addresses.contains_key(*net)) {
                    prop_assert!(now.addresses.contains_key(net));
                }
            }
            prop_assert_eq!(&now, &want);
            prop_assert_eq!(delta(&now, &only(&want, &now)), vec![]);
            // Of what nothing is said, nothing changes.
            let own = Wanted { own: have.own.clone(), ..Wanted::default() };
            prop_assert_eq!(delta(&have, &own), vec![]);
        }
    }
}
