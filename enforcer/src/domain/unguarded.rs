//! Ways past enforcer: one table for status, metrics and documentation, and which of them are open on a host.
//!
//! Nothing is left out because it is embarrassing: what no kernel closes stands here too.

use std::collections::BTreeMap;

use enforcer_common::abi::config::SocketKind;
use enforcer_common::hook::Hook;
use serde::{Deserialize, Serialize};

macro_rules! vectors {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// A way past enforcer.
        #[allow(clippy::doc_markdown, reason = "the text is for tables that people read")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Vector { $(#[doc = $text] $variant,)* }

        impl Vector {
            /// Every way, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Short name in metrics, JSON and documentation; stable.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What can be done that way.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

vectors! {
    AfPacket "af_packet" "packet sockets (AF_PACKET) send and read frames beside the IP stack; they need CAP_NET_RAW";
    AfVsock "af_vsock" "vsock sockets reach the hypervisor and, on one host, other network namespaces; they need no capability";
    AfXdp "af_xdp" "XDP sockets (AF_XDP) send and read frames beside the IP stack; they need CAP_NET_RAW";
    OtherFamilies "other_families" "every other socket family that the kernel has (TIPC, RDS, SMC, KCM, Bluetooth, CAN, ...)";
    SocketPing "socket_ping" "ICMP echo sockets: judged by address and type of message";
    SocketRaw "socket_raw" "raw IP sockets: packets are written by hand, and all that arrives can be read";
    SocketSctp "socket_sctp" "SCTP: judged packet by packet, without an errno, and with the addresses that an association adds";
    SocketUdpLite "socket_udplite" "UDP-Lite: judged packet by packet, without an errno where the socket is connected";
    SocketOther "socket_other" "protocols without a name here (DCCP, L2TP, ...): judged by address, without ports";
    NonlocalBind "nonlocal_bind" "sending from addresses that are not the host's";
    OutsideAttach "outside_attach" "processes outside the directory that enforcer is attached to";
    AfUnix "af_unix" "Unix sockets between workloads that share a network namespace (abstract names) or a file system";
    KernelReplies "kernel_replies" "what the kernel itself answers: resets, ICMP errors and echo replies, neighbour discovery";
    Privileged "privileged" "root with CAP_BPF, CAP_SYS_ADMIN or CAP_NET_ADMIN outside a user namespace: it can detach, redirect and reroute";
    CovertTiming "covert_timing" "signals between workloads in the timing of what is allowed, or in the load of the host";
}

impl Vector {
    /// Whatever kernel and configuration, these are open.
    const ALWAYS: [(Self, &'static str); 4] = [
        (Self::AfUnix, "they are local: no hook of the network sees them"),
        (Self::KernelReplies, "they are sent by sockets of the kernel, which belong to no workload"),
        (Self::Privileged, "whoever may load programs or administer the host may undo what others loaded"),
        (Self::CovertTiming, "what is allowed can't be kept from carrying more than it says"),
    ];

    /// Families that only [`Hook::SocketCreate`] sees.
    const FAMILIES: [Self; 4] = [Self::AfPacket, Self::AfVsock, Self::AfXdp, Self::OtherFamilies];

    /// What opens when workloads may create sockets of this kind; `None` for kinds that are judged completely.
    const fn of(kind: SocketKind) -> Option<Self> {
        match kind {
            SocketKind::Tcp | SocketKind::Udp | SocketKind::Mptcp => None,
            SocketKind::Ping => Some(Self::SocketPing),
            SocketKind::Raw => Some(Self::SocketRaw),
            SocketKind::Sctp => Some(Self::SocketSctp),
            SocketKind::UdpLite => Some(Self::SocketUdpLite),
            SocketKind::Other => Some(Self::SocketOther),
        }
    }
}

/// A hook that this kernel does without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentHook {
    /// Its program.
    pub hook: String,
    /// Why.
    pub reason: String,
}

/// Hooks that should be attached and are not: all of them but those that are attached or that this kernel does without.
pub fn missing_hooks(attached: &[String], absent: &[AbsentHook]) -> Vec<&'static str> {
    let programs = Hook::ALL.iter().map(|hook| hook.program());
    let is_there = |program: &&str| {
        attached.iter().any(|name| name == program) || absent.iter().any(|hook| hook.hook == *program)
    };
    programs.filter(|program| !is_there(program)).collect()
}

/// A way past enforcer that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unguarded {
    /// [`Vector::name`].
    pub vector: String,
    /// [`Vector::text`].
    pub what: String,
    /// Why it is open here.
    pub reason: String,
}

/// What the host and the configuration leave open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Hooks that this kernel does without.
    pub absent: Vec<AbsentHook>,
    /// Open ways, in the order of [`Vector::ALL`].
    pub unguarded: Vec<Unguarded>,
}

/// What decides which ways are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openings {
    /// Hooks that this kernel does without, and why.
    pub absent: Vec<(Hook, String)>,
    /// Why the hook for socket families may not be called although it is attached.
    pub unproven: Option<String>,
    /// Kinds of sockets that workloads may create.
    pub socket_kinds: Vec<SocketKind>,
    /// Other kinds that rules allow to some workloads, each with a policy that does.
    pub opened: BTreeMap<SocketKind, String>,
    /// Settings of the kernel that let sockets send from any address, by name.
    pub nonlocal_bind: Vec<&'static str>,
    /// The directory that enforcer is attached to, where it isn't the whole tree.
    pub attach: Option<String>,
}

impl Coverage {
    /// Finds the open ways.
    pub fn new(openings: &Openings) -> Self {
        let mut open: Vec<(Vector, String)> =
            Vector::ALWAYS.into_iter().map(|(vector, reason)| (vector, reason.to_owned())).collect();
        let families = openings.absent.iter().find(|(hook, _)| *hook == Hook::SocketCreate);
        let families = families
            .map(|(hook, reason)| format!("hook {} is absent: {reason}", hook.program()))
            .or_else(|| openings.unproven.clone());
        if let Some(reason) = families {
            open.extend(Vector::FAMILIES.map(|vector| (vector, reason.clone())));
        }
        open.extend(openings.socket_kinds.iter().filter_map(|kind| {
            Some((Vector::of(*kind)?, format!("the setting allowed-sockets names {}", kind.name())))
        }));
        let by_rule = openings.opened.iter().filter(|(kind, _)| !openings.socket_kinds.contains(kind));
        open.extend(by_rule.filter_map(|(kind, policy)| {
            let reason = format!("for some workloads: rules allow {}, first those of {policy}", kind.name());
            Some((Vector::of(*kind)?, reason))
        }));
        if !openings.nonlocal_bind.is_empty() {
            let reason = format!("{} is not 0", openings.nonlocal_bind.join(" and "));
            open.push((Vector::NonlocalBind, reason));
        }
        if let Some(attach) = &openings.attach {
            open.push((Vector::OutsideAttach, format!("the setting attach names {attach}")));
        }
        open.sort();
        open.dedup_by_key(|(vector, _)| *vector);
        let absent = openings.absent.iter();
        Self {
            absent: absent
                .map(|(hook, reason)| AbsentHook { hook: hook.program().to_owned(), reason: reason.clone() })
                .collect(),
            unguarded: open
                .into_iter()
                .map(|(vector, reason)| Unguarded {
                    vector: vector.name().to_owned(),
                    what: vector.text().to_owned(),
                    reason,
                })
                .collect(),
        }
    }

    /// Whether a way is open.
    pub fn leaves_open(&self, vector: Vector) -> bool {
        self.unguarded.iter().any(|open| open.vector == vector.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(openings: &Openings) -> Vec<&'static str> {
        let coverage = Coverage::new(openings);
        let names: Vec<_> = Vector::ALL
            .iter()
            .filter(|vector| coverage.leaves_open(**vector))
            .map(|vector| vector.name())
            .collect();
        // In the order of the table, each once, and with a reason.
        assert_eq!(coverage.unguarded.iter().map(|it| it.vector.as_str()).collect::<Vec<_>>(), names);
        assert!(coverage.unguarded.iter().all(|it| !it.reason.is_empty() && !it.what.is_empty()));
        names
    }

    const ALWAYS: [&str; 4] = ["af_unix", "kernel_replies", "privileged", "covert_timing"];

    #[test]
    fn what_a_rule_opens_is_told_with_its_policy() {
        let opened = [SocketKind::Tcp, SocketKind::Ping, SocketKind::Raw]
            .map(|kind| (kind, "clustertrafficpolicy/diagnosis".to_owned()));
        let openings =
            Openings { socket_kinds: vec![SocketKind::Ping], opened: opened.into(), ..Openings::default() };
        let coverage = Coverage::new(&openings);
        let reason = |vector: Vector| {
            let found = coverage.unguarded.iter().find(|open| open.vector == vector.name());
            found.map(|open| open.reason.as_str())
        };
        assert_eq!(reason(Vector::SocketPing), Some("the setting allowed-sockets names ping"));
        assert_eq!(
            reason(Vector::SocketRaw),
            Some("for some workloads: rules allow raw, first those of clustertrafficpolicy/diagnosis")
        );
        assert_eq!(coverage.unguarded.len(), ALWAYS.len() + 2);
    }

    #[test]
    fn what_no_kernel_closes_is_always_there() {
        let kinds = vec![SocketKind::Tcp, SocketKind::Udp, SocketKind::Mptcp];
        assert_eq!(open(&Openings { socket_kinds: kinds, ..Openings::default() }), ALWAYS);
    }

    #[test]
    fn each_opening_opens_its_own_ways() {
        let with = |more: &[&'static str]| [more, &ALWAYS[..]].concat();
        let families = ["af_packet", "af_vsock", "af_xdp", "other_families"];
        let absent = Openings {
            absent: vec![(Hook::SocketCreate, "no LSM".into())],
            unproven: Some("never said".into()),
            ..Openings::default()
        };
        assert_eq!(open(&absent), with(&families));
        let coverage = Coverage::new(&absent);
        assert_eq!(coverage.unguarded[0].reason, "hook socket_create is absent: no LSM");
        assert_eq!(coverage.absent, [AbsentHook { hook: "socket_create".into(), reason: "no LSM".into() }]);
        let unproven = Openings { unproven: Some("nobody knows".into()), ..Openings::default() };
        assert_eq!(open(&unproven), with(&families));
        let kinds = vec![SocketKind::Raw, SocketKind::Ping, SocketKind::Raw];
        assert_eq!(
            open(&Openings { socket_kinds: kinds, ..Openings::default() }),
            with(&["socket_ping", "socket_raw"])
        );
        let nonlocal = vec!["net.ipv6.ip_nonlocal_bind"];
        assert_eq!(
            open(&Openings { nonlocal_bind: nonlocal, ..Openings::default() }),
            with(&["nonlocal_bind"])
        );
        let attach = Openings { attach: Some("/a.slice".into()), ..Openings::default() };
        assert_eq!(open(&attach), with(&["outside_attach"]));
    }

    #[test]
    fn names_are_unique_words() {
        let mut names: Vec<_> = Vector::ALL.iter().map(|vector| vector.name()).collect();
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Vector::ALL.len());
    }
}
