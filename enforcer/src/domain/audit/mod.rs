//! The audit log as values: what a record says, how records hang together, and how it is found that they no longer do.
//!
//! ```text
//!   fact --> Record (ECS names) --> seal: one line of JSON, ends with its own hash --> file
//!                                    ^ over the hash before it and every byte of the line
//!   files, checkpoint --> Verifier --> findings: changed, missing, inserted, reordered, cut
//! ```
//!
//! Nothing here reads or writes; `telemetry::audit` does.

pub mod chain;
pub mod export;
pub mod fact;
pub mod record;
pub mod verify;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// What records are about. Losses are counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Denied and audited verdicts.
    Verdict,
    /// Changes of policies, and requests for them.
    Policy,
    /// Workloads that come, change their labels and go.
    Identity,
    /// Quarantine.
    Quarantine,
    /// Start and end of the agent.
    Lifecycle,
    /// Problems, and their end.
    Degradation,
    /// What was put back in the kernel.
    Repair,
    /// The log itself: what it lost, what a crash tore, what was removed because it grew too old.
    Log,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Verdict,
        Self::Policy,
        Self::Identity,
        Self::Quarantine,
        Self::Lifecycle,
        Self::Degradation,
        Self::Repair,
        Self::Log,
    ];

    /// The label in metrics and records.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Policy => "policy",
            Self::Identity => "identity",
            Self::Quarantine => "quarantine",
            Self::Lifecycle => "lifecycle",
            Self::Degradation => "degradation",
            Self::Repair => "repair",
            Self::Log => "log",
        }
    }
}
