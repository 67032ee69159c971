//! What is not closed, and what is not tried; `docs/threat-model.md` says the same in sentences.

use super::row::Row;

/// A row that leaks, which is known.
pub(super) struct Listed {
    number: u8,
    /// One way of the row; all of them if there is none.
    name: Option<&'static str>,
    /// The hook with which it does not leak, where a kernel lets it be attached.
    unless: Option<&'static str>,
    pub(super) reason: &'static str,
}

impl Listed {
    /// Whether it speaks of this row.
    pub(super) fn is_about(&self, row: &Row) -> bool {
        self.number == row.number && self.name.is_none_or(|name| name == row.name)
    }

    /// Whether it is known that this row leaks with these hooks.
    pub(super) fn covers(&self, row: &Row, has: impl Fn(&str) -> bool) -> bool {
        self.is_about(row) && !self.unless.is_some_and(has)
    }
}

const fn without_lsm(number: u8, reason: &'static str) -> Listed {
    Listed { number, name: None, unless: Some("socket_create"), reason }
}

/// See [`Listed`].
pub(super) const LISTED: &[Listed] = &[
    without_lsm(34, "AF_PACKET: no cgroup hook sees it; needs CAP_NET_RAW"),
    without_lsm(35, "AF_PACKET: no cgroup hook sees it; needs CAP_NET_RAW"),
    without_lsm(36, "AF_PACKET: no cgroup hook sees it; needs CAP_NET_RAW"),
    without_lsm(37, "AF_XDP: no cgroup hook sees it; needs CAP_NET_RAW"),
    Listed {
        number: 62,
        name: None,
        unless: None,
        reason: "AF_UNIX: abstract sockets belong to the network namespace",
    },
    without_lsm(63, "AF_VSOCK: no cgroup hook sees it"),
    without_lsm(64, "other families: no cgroup hook sees them"),
];

/// Rows of the catalogue without a probe, and why.
pub(super) const UNTRIED: &[(u8, &str)] = &[
    (21, "SCTP to any peer is refused, so nothing can list further addresses (rows 18 to 20)"),
    (
        42,
        "a source of the namespace is what the namespace may use; who sends is known by cgroup, not by address",
    ),
    (43, "devices and tunnels take CAP_NET_ADMIN in the namespace, which is as good as owning its network"),
    (
        45,
        "the kernel's own resets and ICMP errors have no socket of a workload; the sniffer passes over them",
    ),
    (57, "addresses of workloads: the source's tests"),
    (66, "redirection between sockets takes a program of somebody with CAP_BPF"),
    (67, "verdicts do not depend on what is forgotten: the tests of counters"),
    (68, "there are no rules by name yet"),
    (69, "translated addresses take netfilter rules, which not every kernel of the matrix has"),
    (70, "an address like any other that no rule names: row 8"),
    (71, "labels come from the source, never from a workload: the tests of sources"),
    (85, "a full list of programs refuses the start: the kernel's own error"),
    (86, "the tests of the life cycle kill the daemon at any time"),
    (87, "programs are replaced inside their links: the tests of the life cycle"),
    (88, "a missing pin is told by `status` and pinned again: the tests of the life cycle"),
    (89, "a full map refuses the update: the tests of policies"),
    (90, "maps are made whole before they are used"),
    (91, "tables never change: the differential tests"),
    (93, "the errno that the application sees: the tests of hooks"),
    (94, "a kernel without a hook refuses the start: the tests of bad input"),
    (95, "every program is loaded on every kernel of the matrix by this suite"),
    (96, "the tree is found from the mounts: the tests of configuration"),
];
