//! The numbers that stand for things on both sides of the kernel boundary.
//!
//! Newtypes inside the program, bare integers inside shared structs: a value that comes out of a map can be
//! anything, so it becomes one of these only where it is read.

macro_rules! number {
    ($(#[$meta:meta])* $name:ident($ty:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $ty);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// Number of an identity: one per distinct pair of namespace and label set. Numbers below
    /// [`IdentityId::FIRST_WORKLOAD`] are reserved and mean the same on every host.
    IdentityId(u32)
}
number! {
    /// Number of a class: the identities (or addresses) that no loaded policy can tell apart. Valid within one
    /// generation only. 0 is "any" in a table key and "no class" in a look-up.
    ClassId(u32)
}
number! {
    /// Number of a rule. Stable across restarts; 0 means that no rule is named.
    RuleId(u32)
}
number! {
    /// Id of a cgroup: the inode number of its directory in the cgroup v2 file system. Never reused while the
    /// host is up (64-bit kernfs id with generation).
    CgroupId(u64)
}
number! {
    /// Number of a published set of policy tables; rises with each publication.
    Generation(u64)
}

impl IdentityId {
    /// Nothing is known of the other end.
    pub const UNKNOWN: Self = Self(0);
    /// The host: processes outside the managed trees, and the kernel.
    pub const HOST: Self = Self(1);
    /// An address that belongs to no known workload.
    pub const WORLD: Self = Self(2);
    /// A process inside a managed tree whose workload is not known (yet).
    pub const UNMANAGED: Self = Self(3);
    /// The agent's own process that tries to talk and must not: see `reason::CANARY_ERRNO`.
    pub const CANARY: Self = Self(4);
    /// The first number given to a workload's identity.
    pub const FIRST_WORKLOAD: Self = Self(256);

    /// The name of a reserved identity, as `reserved:NAME` shows it.
    pub const fn reserved_name(self) -> Option<&'static str> {
        match self {
            Self::UNKNOWN => Some("unknown"),
            Self::HOST => Some("host"),
            Self::WORLD => Some("world"),
            Self::UNMANAGED => Some("unmanaged"),
            Self::CANARY => Some("canary"),
            _ => None,
        }
    }
}

impl RuleId {
    /// No rule.
    pub const NONE: Self = Self(0);
}
