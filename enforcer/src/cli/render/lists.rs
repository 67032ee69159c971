//! Lists as tables.

use super::table::{table, words};
use crate::config::{Loaded, SETTINGS};
use crate::domain::command::{EndpointInfo, IdentityInfo, PolicyInfo};
use crate::domain::unguarded::Unguarded;
use crate::domain::workload::EndpointState;

/// `policy list`
pub fn policies(policies: &[PolicyInfo]) -> String {
    let rows: Vec<_> = policies
        .iter()
        .map(|policy| {
            vec![
                policy.namespace.clone(),
                policy.name.clone(),
                policy.kind.clone(),
                policy.mode.clone(),
                rules(policy),
                policy.expires.clone().unwrap_or_default(),
                words(&policy.isolates),
                words(&policy.selects),
                policy.origin.clone(),
            ]
        })
        .collect();
    let header = ["NAMESPACE", "NAME", "KIND", "MODE", "RULES", "EXPIRES", "ISOLATES", "SELECTS", "ORIGIN"];
    table(&header, &rows)
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
