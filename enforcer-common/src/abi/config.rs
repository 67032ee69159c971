//! The few settings that the kernel programs read, and the counters of what can go wrong inside them.

/// Index into the array `CONFIG`. Each setting is one 64-bit word of its own, so that it is written and read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Setting {
    /// [`crate::abi::VERSION`] of the programs that made the maps; 0 before it is written.
    Abi = 0,
    /// A [`Mode`] code.
    Mode = 1,
    /// Rises after every change of tables, bindings, addresses or settings: what a socket remembers of an older epoch
    /// is judged again.
    Epoch = 2,
    /// Nanoseconds since boot until which remembered verdicts count; 0 means not at all, `u64::MAX` for ever. Bounds
    /// what is decided by kernel time (expiring rules, quarantines).
    FreshUntil = 3,
    /// Cookie of the network namespace whose own addresses stand in `OWN_ADDRESSES`, 0 for none.
    OwnNetns = 4,
    /// Bits of [`SocketKind`] that workloads may create.
    SocketKinds = 5,
    /// Secret of the fingerprints in socket storage, see [`crate::flow_id`].
    Secret = 6,
    /// One of so many allowed flows is told as an event; 0 and 1 mean each.
    EventSample = 7,
    /// Events of allowed flows that are told of each identity that opens flows, in each [`EVENT_WINDOW`]; 0 for no limit.
    AllowedEvents = 8,
    /// The same for denied and audited flows.
    DeniedEvents = 9,
}

/// The time for which events are limited: 2^30 nanoseconds, 1.07 seconds, because a shift is cheaper than a division.
pub const EVENT_WINDOW: u32 = 30;

/// Which events are told. Counters count all that happens, whatever is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventLimits {
    /// See [`Setting::EventSample`].
    pub sample: u64,
    /// See [`Setting::AllowedEvents`].
    pub allowed: u64,
    /// See [`Setting::DeniedEvents`].
    pub denied: u64,
}

impl Setting {
    /// Number of settings.
    pub const COUNT: usize = 10;
}

macro_rules! socket_kinds {
    ($($bit:literal $variant:ident $name:literal $text:literal;)*) => {
        /// A kind of internet socket, by type and protocol. Workloads may create those that are configured; the host
        /// may create all.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum SocketKind { $(#[doc = $text] $variant = $bit,)* }

        impl SocketKind {
            /// Every kind, in the order of its bit.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in configuration and status.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The kind with this [`name`](Self::name).
            pub fn from_name(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == text)
            }

            /// One phrase for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

socket_kinds! {
    0 Tcp "tcp" "TCP streams";
    1 Udp "udp" "UDP datagrams";
    2 Mptcp "mptcp" "Multipath TCP streams";
    3 Ping "ping" "ICMP echo sockets";
    4 Raw "raw" "raw IP sockets";
    5 Sctp "sctp" "SCTP associations";
    6 UdpLite "udplite" "UDP-Lite datagrams";
    7 Other "other" "every other type or protocol (DCCP, L2TP, SMC, ...)";
}

impl SocketKind {
    /// What workloads may create unless configured otherwise.
    pub const DEFAULT: u64 = Self::Tcp.bit() | Self::Udp.bit() | Self::Mptcp.bit();

    /// The bit of this kind in [`Setting::SocketKinds`].
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// What stands for this kind in the place of a port class, in the entries of a table about sockets; never 0.
    #[inline(always)]
    pub const fn class(self) -> u16 {
        self as u16 + 1
    }

    /// The kind of a socket with this type (`SOCK_STREAM` = 1, ...) and kernel protocol number.
    #[inline(always)]
    pub const fn of(kind: u32, protocol: u32) -> Self {
        match (kind, protocol) {
            (1, 6) => Self::Tcp,
            (1, 262) => Self::Mptcp,
            (2, 17) => Self::Udp,
            (2, 136) => Self::UdpLite,
            (2, 1 | 58) => Self::Ping,
            (_, 132) => Self::Sctp,
            (3, _) => Self::Raw,
            _ => Self::Other,
        }
    }
}

/// What is done with a verdict. Applied in one place, after the verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Denied is denied.
    #[default]
    Enforce = 0,
    /// Denied is counted as audited and let through.
    Audit = 1,
    /// Nothing is judged or counted; identities are still recorded.
    Off = 2,
}

impl Mode {
    /// The mode with this code; anything unknown enforces.
    pub const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Audit,
            2 => Self::Off,
            _ => Self::Enforce,
        }
    }

    /// The name in configuration, status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::Off => "off",
        }
    }
}

macro_rules! stats {
    ($($code:literal $variant:ident $label:literal $text:literal;)*) => {
        /// Index into the per-CPU array `STATS`: what the programs did besides verdicts, and what failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Stat { $(#[doc = $text] $variant = $code,)* }

        impl Stat {
            /// Every counter, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The label in metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

stats! {
    0 EventsDelivered "events_delivered" "events written to the ring";
    1 EventsLost "events_lost" "events that did not fit into the ring";
    2 CountersFull "counters_full" "verdicts that found no free counter row";
    3 DeepCgroup "deep_cgroup" "sockets created deeper in the cgroup tree than is recorded";
    4 NoSocketStorage "no_socket_storage" "sockets whose creator could not be recorded";
    5 WrongKey "wrong_key" "map look-ups that returned another key's value and were repeated";
    6 TableFault "table_fault" "verdicts without readable policy tables";
    7 TrafficFull "traffic_full" "connections or datagrams that found no free traffic row";
    8 PacketUnread "packet_unread" "packets whose headers could not be read, and were refused";
    9 EventsSeen "events_seen" "verdicts that are worth an event: delivered, sampled out or lost";
    10 EventsSampledOut "events_sampled_out" "events that were left out by sampling or by the limit of their identity";
    11 LatencyFull "latency_full" "connections whose times found no free row";
}

impl Stat {
    /// Number of counters.
    pub const COUNT: usize = Self::ALL.len();
}
