//! What this kernel can do. A stand-in until the kernel room is built.

use serde::{Deserialize, Serialize};

/// What this kernel can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Kernel release.
    pub kernel: String,
    /// Every feature that was tried.
    pub features: Vec<Feature>,
}

impl ProbeReport {
    /// Whether everything required is there.
    pub fn ok(&self) -> bool {
        self.features.iter().all(|feature| feature.present || !feature.required)
    }
}

/// One thing the kernel can do or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// Whether enforcer needs it.
    pub required: bool,
    /// What it is for, or why it is missing.
    pub detail: String,
}

/// What the verifier made of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// Name of the program.
    pub program: String,
    /// Instructions the verifier looked at.
    pub instructions_verified: u64,
    /// Size after the verifier's rewriting.
    pub xlated_bytes: u64,
    /// Size of the machine code.
    pub jited_bytes: u64,
    /// Time to load.
    pub load_microseconds: u64,
}

/// A failed probe.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// Tries every feature.
pub fn probe() -> ProbeReport {
    ProbeReport::default()
}

/// Loads every program and tells its cost.
pub fn programs() -> Result<Vec<ProgramCost>, Error> {
    Err(Error("this build has no kernel room yet".to_owned()))
}
