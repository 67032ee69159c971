//! Lists as tables.

use super::status::duration;
use super::table::{table, words};
use crate::config::{Loaded, SETTINGS};
use crate::domain::command::{EndpointInfo, IdentityInfo, PolicyInfo};
use crate::domain::timestamp::Timestamp;
use crate::domain::unguarded::Unguarded;
use crate::domain::workload::EndpointState;

/// Columns of `policy list`.
const POLICIES: [&str; 10] =
    ["NAMESPACE", "NAME", "KIND", "MODE", "STATUS", "RULES", "EXPIRES", "ISOLATES", "SELECTS", "ORIGIN"];

/// `policy list`
pub fn policies(policies: &[PolicyInfo]) -> String {
    let rows: Vec<_> = policies.iter().map(policy).collect();
    table(&POLICIES, &rows)
}

/// `policy list -o wide`
pub fn policies_wide(policies: &[PolicyInfo], now: Timestamp) -> String {
    let wide = |it: &PolicyInfo| {
        let generation = Some(it.status.generation).filter(|generation| *generation > 0);
        let age = Timestamp::try_from(it.status.since.clone())
            .map(|since| now.seconds.saturating_sub(since.seconds))
            .map(|seconds| duration(u64::try_from(seconds).unwrap_or(0)));
        let more = [
            generation.map(|generation| generation.to_string()).unwrap_or_default(),
            age.unwrap_or_default(),
            it.status.pending.join("; "),
        ];
        policy(it).into_iter().chain(more).collect()
    };
    let rows: Vec<Vec<String>> = policies.iter().map(wide).collect();
    let header: Vec<&str> = POLICIES.into_iter().chain(["GENERATION", "SINCE", "PENDING"]).collect();
    table(&header, &rows)
}

fn policy(policy: &PolicyInfo) -> Vec<String> {
    vec![
        policy.namespace.clone(),
        policy.name.clone(),
        policy.kind.clone(),
        policy.mode.clone(),
        policy.status.summary.clone(),
        rules(policy),
        policy.expires.clone().unwrap_or_default(),
        words(&policy.isolates),
        words(&policy.selects),
        policy.origin.clone(),
    ]
}

/// `3`, or `3 (1 expired)`.
fn rules(policy: &PolicyInfo) -> String {
    match policy.expired {
        0 => policy.rules.to_string(),
        expired => format!("{} ({expired} expired)", policy.rules),
    }
}

/// `identity list`
pub fn identities(identities: &[IdentityInfo]) -> String {
    let rows: Vec<_> = identities
        .iter()
        .map(|identity| {
            vec![
                identity.id.to_string(),
                identity.namespace.clone(),
                words(&identity.labels),
                words(&identity.workloads),
            ]
        })
        .collect();
    table(&["ID", "NAMESPACE", "LABELS", "WORKLOADS"], &rows)
}

/// `endpoint list`
pub fn endpoints(endpoints: &[EndpointInfo]) -> String {
    let rows: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            vec![
                endpoint.namespace.clone(),
                endpoint.name.clone(),
                endpoint.identity.to_string(),
                stands(endpoint),
                words(&endpoint.labels),
                endpoint.cgroup.clone().unwrap_or_default(),
                words(&endpoint.addresses),
                words(&endpoint.ingress_policies),
                words(&endpoint.egress_policies),
            ]
        })
        .collect();
    let header =
        ["NAMESPACE", "NAME", "IDENTITY", "STATE", "LABELS", "CGROUP", "ADDRESSES", "INGRESS", "EGRESS"];
    table(&header, &rows)
}

/// `bound`, or `bound,quarantined`.
fn stands(endpoint: &EndpointInfo) -> String {
    let state = state(endpoint.state);
    if endpoint.quarantined { format!("{state},quarantined") } else { state.to_owned() }
}

/// The word is the one in JSON.
fn state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Bound => "bound",
        EndpointState::WaitingForCgroup => "waiting-for-cgroup",
        EndpointState::Remote => "remote",
        EndpointState::NoRoom => "no-room",
    }
}

/// `status --unguarded`
pub fn unguarded(unguarded: &[Unguarded]) -> String {
    let rows: Vec<_> = unguarded
        .iter()
        .map(|open| vec![open.vector.clone(), open.what.clone(), open.reason.clone()])
        .collect();
    table(&["VECTOR", "WHAT", "WHY"], &rows)
}

/// `config show`
pub fn settings(loaded: &Loaded) -> String {
    let rows: Vec<_> = SETTINGS
        .iter()
        .zip(&loaded.origins)
        .map(|(setting, origin)| {
            vec![setting.key.to_owned(), setting.value(&loaded.config).plain(), origin.to_string()]
        })
        .collect();
    table(&["SETTING", "VALUE", "ORIGIN"], &rows)
}
