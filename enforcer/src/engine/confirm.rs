//! Pushes that are taken back unless they are confirmed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::planning::Asked;
use super::policies::{Documents, PolicySet, Touched, refused};
use super::state::State;
use crate::domain::command::{Change, Refused, UnconfirmedInfo};
use crate::domain::time::Deadline;
use crate::domain::timestamp::Timestamp;

/// Longest time that a push can wait for its confirmation.
const LONGEST: Duration = Duration::from_hours(24);

/// A push that is in force and not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unconfirmed {
    pub(super) since: Timestamp,
    pub(super) until: Deadline,
    pub(super) by: Option<u32>,
    /// What was pushed before it.
    pub(super) before: Documents,
}

impl Asked {
    /// The policies that come back if the push is not confirmed.
    pub(super) fn before(&self) -> Option<PolicySet> {
        let push = self.unconfirmed.as_ref()?;
        Some(PolicySet { pushed: push.before.clone(), ..self.policies.clone() })
    }
}

/// What a push becomes that has to be confirmed within so many seconds.
pub(super) fn unconfirmed(state: &State, seconds: u64, by: Option<u32>) -> Result<Unconfirmed, Refused> {
    let within = Duration::from_secs(seconds);
    if !(Duration::from_secs(1)..=LONGEST).contains(&within) {
        return Err(refused(
            "a push can wait from a second to a day for its confirmation; nothing was changed",
        ));
    }
    let until = state.now.after(within, &state.facts.boot_id);
    let before = state.asked.policies.pushed.clone();
    Ok(Unconfirmed { since: state.now.wall, until, by, before })
}

/// Refuses a change of the policies while an earlier one is not confirmed: there is one state to go back to.
pub(super) fn refuse_second(state: &State) -> Result<(), Refused> {
    let Some(push) = &state.asked.unconfirmed else { return Ok(()) };
    let left = seconds_left(state, push);
    Err(refused(format!(
        "a push waits for its confirmation and is taken back in {left} s; nothing was changed: run `enforcer policy \
         confirm`, or wait until it is taken back, and push again"
    )))
}

/// What is asked for once the push is confirmed, and what it had changed.
pub(super) fn confirmed(state: &State) -> Result<(Asked, Touched), Refused> {
    let Some(push) = &state.asked.unconfirmed else {
        let message = match &state.rolled_back {
            Some(rolled_back) => format!("nothing waits for a confirmation: {rolled_back}; push again"),
            None => "nothing waits for a confirmation; nothing was changed".to_owned(),
        };
        return Err(refused(message));
    };
    let touched = changed(&push.before, &state.asked.policies.pushed);
    Ok((Asked { unconfirmed: None, ..(*state.asked).clone() }, touched))
}

fn changed(before: &Documents, now: &Documents) -> Touched {
    let keys: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let (change, loaded) = match (before.get(key), now.get(key)) {
                (None, Some(loaded)) => (Change::Created, loaded),
                (Some(loaded), None) => (Change::Deleted, loaded),
                (Some(old), Some(loaded)) if old.text != loaded.text => (Change::Configured, loaded),
                _ => return None,
            };
            Some((key.clone(), (change, Arc::clone(loaded))))
        })
        .collect()
}

/// For status.
pub(super) fn info(state: &State) -> Option<UnconfirmedInfo> {
    let push = state.asked.unconfirmed.as_ref()?;
    Some(UnconfirmedInfo {
        since: push.since.whole_seconds(),
        until: push.until.wall.whole_seconds(),
        seconds_left: seconds_left(state, push),
        by: push.by,
    })
}

fn seconds_left(state: &State, push: &Unconfirmed) -> u64 {
    push.until.boot.0.saturating_sub(state.now.boot.0).div_ceil(1_000_000_000)
}
