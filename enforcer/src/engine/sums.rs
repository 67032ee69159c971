//! What is wanted and what is in force, each as one number: while they are equal the node has converged.
//!
//! Both are sums over single things, made in ways that share nothing but the way a thing is counted: the one from what
//! sources and people said, the other from what the kernel acknowledged. They are made once a second at most.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::net::IpAddr;

use ipnet::IpNet;

use super::policies::PolicySet;
use super::state::State;
use super::told::Changed;
use crate::domain::delta::Bound;
use crate::domain::id::{CgroupId, IdentityId};

/// Bits that a metric carries exactly.
const BITS: u64 = (1 << 53) - 1;

/// Both sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of what is wanted.
    pub desired: u64,
    /// Of what is in force.
    pub loaded: u64,
}

/// A sum that does not depend on the order.
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, what: &str, thing: impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        thing.hash(&mut hasher);
        self.0 = self.0.wrapping_add(hasher.finish());
    }

    fn binding(&mut self, cgroup: CgroupId, bound: Bound) {
        let Bound { identity, until, after } = bound;
        self.add("binding", (cgroup.0, identity.0, until.map(|until| until.0), after.0));
    }

    fn address(&mut self, net: IpNet, identity: IdentityId) {
        self.add("address", (net, identity.0));
    }

    fn own(&mut self, address: IpAddr) {
        self.add("own", address);
    }

    fn policies(&mut self, policies: &PolicySet) {
        for (loaded, _) in policies.effective() {
            self.add("policy", (&loaded.policy.key, &loaded.text));
        }
    }

    fn total(self) -> u64 {
        self.0 & BITS
    }
}

/// Both of this moment.
pub(super) fn sums(state: &State) -> Sums {
    Sums { desired: desired(state), loaded: loaded(state) }
}

fn desired(state: &State) -> u64 {
    let mut sum = Sum::default();
    sum.policies(&state.asked.policies);
    for (cgroup, bound) in state.index.wanted_bindings() {
        sum.binding(cgroup, bound);
    }
    for (net, identity) in state.index.wanted_addresses() {
        sum.address(net, identity);
    }
    state.own.iter().flatten().for_each(|own| sum.own(*own));
    // What was told and is not worked in yet.
    let Changed { workloads, services, namespaces } = &state.changed;
    for key in workloads {
        sum.add("pending workload", key);
    }
    for key in services {
        sum.add("pending service", key);
    }
    for name in namespaces {
        sum.add("pending namespace", name);
    }
    sum.total()
}

fn loaded(state: &State) -> u64 {
    let mut sum = Sum::default();
    if let Some(published) = &state.published {
        sum.policies(&published.asked.policies);
    }
    if let Some(programmed) = &state.programmed {
        for (cgroup, bound) in &programmed.bindings {
            sum.binding(*cgroup, *bound);
        }
        for (net, identity) in &programmed.addresses {
            sum.address(*net, *identity);
        }
        programmed.own.iter().for_each(|own| sum.own(*own));
    }
    sum.total()
}
