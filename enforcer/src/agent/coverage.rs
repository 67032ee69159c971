//! What this host and its configuration leave open, looked at again and again: a kernel setting can be changed any time.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::domain::SocketKind;
use crate::domain::unguarded::{Coverage, Openings, Vector};
use crate::kernel::{Kernel, lsm};

/// Settings of the kernel that let sockets send from addresses that are not the host's, and where they are read. Network
/// namespaces have their own; the agent sees those of the one it runs in.
const NONLOCAL_BIND: [(&str, &str); 2] = [
    ("net.ipv4.ip_nonlocal_bind", "/proc/sys/net/ipv4/ip_nonlocal_bind"),
    ("net.ipv6.ip_nonlocal_bind", "/proc/sys/net/ipv6/ip_nonlocal_bind"),
];

/// Watches the openings.
pub(super) struct Watch {
    openings: Openings,
    told: Option<Coverage>,
}

impl Watch {
    /// A watch that has told nothing yet.
    pub(super) fn new(config: &Config, kernel: &Kernel) -> Self {
        let absent = kernel.absent_hooks().iter().map(|(hook, reason)| (*hook, reason.clone())).collect();
        let openings = Openings {
            absent,
            unproven: None,
            socket_kinds: config.allowed_sockets.clone(),
            opened: BTreeMap::new(),
            nonlocal_bind: Vec::new(),
            attach: config.attach.clone(),
        };
        Self { openings, told: None }
    }

    /// What is open, where rules allow these kinds of sockets, if that is something else than was told last.
    pub(super) fn look(&mut self, opened: BTreeMap<SocketKind, String>) -> Option<Coverage> {
        self.openings.opened = opened;
        self.openings.unproven = lsm::calls_bpf().err();
        self.openings.nonlocal_bind =
            NONLOCAL_BIND.into_iter().filter(|(_, path)| is_on(path)).map(|(name, _)| name).collect();
        let coverage = Coverage::new(&self.openings);
        if self.told.as_ref() == Some(&coverage) {
            return None;
        }
        self.told = Some(coverage.clone());
        Some(coverage)
    }
}

/// Every way with 1 if it is open and 0 if it is closed, for the metrics.
pub(super) fn numbers(coverage: &Coverage) -> BTreeMap<&'static str, u64> {
    Vector::ALL.iter().map(|vector| (vector.name(), u64::from(coverage.leaves_open(*vector)))).collect()
}

/// A kernel without the protocol has no such file, and the way is closed.
fn is_on(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}
