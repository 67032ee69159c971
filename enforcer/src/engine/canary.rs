//! What the canary has proven.

use super::phase::Area;
use super::state::State;
use crate::domain::Mode;
use crate::domain::canary::{Attempt, CanaryEvent, CanaryInfo, ERRNO, Outcome};
use crate::domain::delta::Bound;
use crate::domain::id::{CgroupId, IdentityId};
use crate::domain::timestamp::Timestamp;

/// What is known of the canary.
#[derive(Debug, Default)]
pub(super) struct Canary {
    /// Its directory.
    cgroup: Option<CgroupId>,
    pub(super) proof: Proof,
    /// The generation for which it was refused last; 0 for none.
    pub(super) proven: u64,
    last_success: Option<Timestamp>,
}

/// What came of the last attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Proof {
    /// There was none.
    #[default]
    Waiting,
    /// It was refused as it should be.
    Refused,
    /// It was not.
    Failed(String),
    /// Nothing can be said.
    Unproven(String),
}

impl Canary {
    /// The binding of its directory.
    pub(super) fn binding(&self) -> Option<(CgroupId, Bound)> {
        Some((self.cgroup?, Bound::always(IdentityId::CANARY)))
    }
}

/// The directory from which it may try: everything is in place that would refuse it there.
pub(super) fn armed(state: &State) -> Option<CgroupId> {
    let (cgroup, bound) = state.canary.binding()?;
    let is_bound = state.programmed.as_ref()?.bindings.get(&cgroup) == Some(&bound);
    let is_armed =
        is_bound && state.facts.mode == Mode::Enforce && state.hooks.is_some() && state.published.is_some();
    is_armed.then_some(cgroup)
}

/// Notes what is told of it. Only a call that was let through, or refused by somebody else, is a problem.
pub(super) fn note(state: &mut State, event: CanaryEvent) {
    let problem = match event {
        CanaryEvent::Ready(cgroup) => {
            state.dirty |= state.canary.cgroup != Some(cgroup);
            state.canary.cgroup = Some(cgroup);
            return;
        }
        CanaryEvent::Absent(message) => {
            state.canary.proof = Proof::Unproven(message);
            None
        }
        CanaryEvent::Tried(Attempt { generation, outcome, now }) => {
            state.now = now;
            match outcome {
                Outcome::Refused => {
                    state.canary.proven = generation.0;
                    state.canary.last_success = Some(now.wall);
                    state.canary.proof = Proof::Refused;
                    None
                }
                Outcome::Unproven(message) => {
                    state.canary.proof = Proof::Unproven(message);
                    None
                }
                Outcome::Failed(message) => {
                    let problem = format!(
                        "the canary was not refused under generation {generation}, so policies may not be enforced: \
                         {message}"
                    );
                    state.canary.proof = Proof::Failed(message);
                    Some(problem)
                }
            }
        }
    };
    state.set_problem(Area::Canary, "canary", problem);
}

/// For status.
pub(super) fn info(state: &State) -> CanaryInfo {
    let Canary { proof, proven, last_success, .. } = &state.canary;
    let (word, message) = match (state.facts.mode, proof) {
        (Mode::Off, _) => ("unproven", "the mode is off: nothing is judged, so nothing is tried".to_owned()),
        (Mode::Audit, _) => {
            ("unproven", "the mode is audit: nothing is refused, so nothing is tried".to_owned())
        }
        (Mode::Enforce, Proof::Waiting) => ("waiting", "nothing was tried yet".to_owned()),
        (Mode::Enforce, Proof::Refused) => {
            ("refused", format!("its calls were refused with {}", ERRNO.name()))
        }
        (Mode::Enforce, Proof::Failed(message)) => ("failed", message.clone()),
        (Mode::Enforce, Proof::Unproven(message)) => ("unproven", message.clone()),
    };
    CanaryInfo {
        state: word.to_owned(),
        message,
        generation: *proven,
        last_success: last_success.map(Timestamp::whole_seconds),
    }
}
