//! The few settings that the kernel programs read, and the counters of what can go wrong inside them.

use crate::wire::wire;

wire! {
    /// The only entry of map `CONFIG`. Fields are read one by one, each a single word.
    pub struct Config {
        /// [`crate::abi::VERSION`] of the programs that made this map.
        pub abi: u32,
        /// A [`Mode`] code.
        pub mode: u32,
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
    pub const fn from_code(code: u32) -> Self {
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
}

impl Stat {
    /// Number of counters.
    pub const COUNT: usize = Self::ALL.len();
}
