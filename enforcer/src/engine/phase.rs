//! Where the agent stands, and what its problems are about.

/// Where the agent stands; see the picture in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The kernel is not ready.
    Starting,
    /// Not every required source has spoken, or the first tables are not in force. Adopted tables are.
    Syncing,
    /// What was asked for is enforced.
    Enforcing,
    /// The last good state is enforced, and something is wrong.
    Degraded,
    /// Ending.
    Draining,
}

impl Phase {
    /// The word in status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Syncing => "syncing",
            Self::Enforcing => "enforcing",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
        }
    }
}

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// A source can't be read.
    Source,
    /// A policy of the directory is not used.
    Policy,
    /// A workload is not used, or disputed.
    Workload,
    /// A managed directory does not exist.
    Managed,
    /// The tables could not be made.
    Table,
    /// The state directory could not be written.
    Store,
    /// The kernel refused a step of a change.
    Kernel,
    /// The kernel lost something that it had.
    Drift,
    /// The canary was not refused.
    Canary,
    /// A part of the agent ended.
    Part,
}

impl Area {
    /// Every area.
    pub const ALL: [Self; 10] = [
        Self::Source,
        Self::Policy,
        Self::Workload,
        Self::Managed,
        Self::Table,
        Self::Store,
        Self::Kernel,
        Self::Drift,
        Self::Canary,
        Self::Part,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Policy => "policy",
            Self::Workload => "workload",
            Self::Managed => "managed",
            Self::Table => "table",
            Self::Store => "store",
            Self::Kernel => "kernel",
            Self::Drift => "drift",
            Self::Canary => "canary",
            Self::Part => "part",
        }
    }
}
