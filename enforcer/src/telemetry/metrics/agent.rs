//! What the agent knows of itself, as series.

use std::collections::BTreeMap;

use enforcer_common::id::IdentityId;
use enforcer_common::limits;
use enforcer_common::reason::Reason;

use super::exposition::Exposition;
use super::histogram::Histogram;
use super::logs;
use super::table as m;
use crate::domain::flow::protocol_name;
use crate::domain::names::Names;
use crate::telemetry::{audit, history};

/// What the agent knows of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Version of the agent.
    pub version: &'static str,
    /// Wall-clock time of the start, in seconds since 1970.
    pub start_seconds: f64,
    /// Whether the agent enforces what it was told.
    pub ready: bool,
    /// Number of problems by kind, kinds without problems included.
    pub problems: BTreeMap<&'static str, u64>,
    /// Generation that is enforced, 0 if none.
    pub generation: u64,
    /// Tables that were put in force, and how long that took.
    pub published: Histogram,
    /// Tables that the kernel refused.
    pub unpublished: u64,
    /// Loaded policies.
    pub policies: u64,
    /// Entries of the enforced table.
    pub policy_entries: u64,
    /// Rows of the enforced table.
    pub policy_rows: u64,
    /// Workloads by state.
    pub endpoints: BTreeMap<&'static str, u64>,
    /// Workloads in quarantine.
    pub quarantined: u64,
    /// Bindings in the kernel.
    pub bindings: u64,
    /// Addresses in the kernel.
    pub addresses: u64,
    /// Ways past enforcer: 1 for those that are open, 0 for those that are closed.
    pub unguarded: BTreeMap<&'static str, u64>,
    /// What was put back in the kernel since the start, by kind, kinds without repairs included.
    pub repairs: BTreeMap<&'static str, u64>,
    /// Programs of other owners by hook.
    pub foreign: BTreeMap<&'static str, u64>,
    /// What became of open sockets.
    pub revocation: Revocation,
    /// How the audit log is, if there is one.
    pub audit: Option<audit::Status>,
    /// How the flow history is, if there is one.
    pub history: Option<history::Status>,
    /// Whether what sockets remember counts against a daemon's memory limit.
    pub storage_charged: bool,
    /// Attempts of the canary by what came of them.
    pub canary_attempts: BTreeMap<&'static str, u64>,
    /// When it was refused last, in seconds since 1970; 0 for never.
    pub canary_success: f64,
    /// What was told to the cluster, by what it was and what came of it; empty without a cluster.
    pub reports: BTreeMap<(&'static str, &'static str), u64>,
    /// Policies by the word for where they stand.
    pub standing: BTreeMap<&'static str, u64>,
    /// Hashes of what is wanted and of what is in force.
    pub hashes: [u64; 2],
    /// Objects of sources by kind, and whether they are as the source has them.
    pub sources: BTreeMap<(String, String), (u64, bool)>,
}

/// What became of open sockets after changes, since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revocation {
    /// Passes over all sockets.
    pub passes: u64,
    /// Time they took, in seconds.
    pub seconds: f64,
    /// Destroyed sockets by IP protocol number and the reason's code.
    pub destroyed: BTreeMap<(u8, u8), u64>,
    /// Passes that could not be made.
    pub failed_passes: u64,
    /// Network namespaces that could not be visited, or not as a whole.
    pub failed_namespaces: u64,
    /// Sockets that the kernel did not destroy.
    pub failed_sockets: u64,
    /// Processes of the last pass whose network namespaces could not be told.
    pub hidden_processes: u64,
    /// Sockets of the last pass whose ends could not be told.
    pub undecided: u64,
}

pub(super) fn write(exposition: &mut Exposition, gauges: &Gauges, names: &Names) {
    exposition.add(m::BUILD_INFO, &[gauges.version], 1);
    exposition.add_value(m::START_TIME, &[], gauges.start_seconds);
    exposition.add(m::READY, &[], u64::from(gauges.ready));
    for (reason, count) in &gauges.problems {
        exposition.add(m::DEGRADED, &[reason], *count);
    }
    for (vector, open) in &gauges.unguarded {
        exposition.add(m::UNGUARDED, &[vector], *open);
    }
    policies(exposition, gauges);
    identities(exposition, names);
    for (state, count) in &gauges.endpoints {
        exposition.add(m::ENDPOINTS, &[state], *count);
    }
    exposition.add(m::QUARANTINED, &[], gauges.quarantined);
    for (map_name, entries, capacity) in [
        ("bindings", gauges.bindings, limits::BINDINGS as u64),
        ("addresses", gauges.addresses, limits::ADDRESSES as u64),
        ("policy_rows", gauges.policy_rows, u64::from(limits::TABLE_ROWS)),
    ] {
        map(exposition, map_name, entries, capacity);
    }
    for (kind, count) in &gauges.repairs {
        exposition.add(m::REPAIRS, &[kind], *count);
    }
    for (hook, count) in &gauges.foreign {
        exposition.add(m::FOREIGN_PROGRAMS, &[hook], *count);
    }
    revocation(exposition, &gauges.revocation);
    logs::write(exposition, gauges.audit.as_ref(), gauges.history.as_ref());
    exposition.add(m::STORAGE_CHARGED, &[], u64::from(gauges.storage_charged));
    for (result, count) in &gauges.canary_attempts {
        exposition.add(m::CANARY_ATTEMPTS, &[result], *count);
    }
    exposition.add_value(m::CANARY_SUCCESS, &[], gauges.canary_success);
    for ((what, outcome), count) in &gauges.reports {
        exposition.add(m::CLUSTER_REPORTS, &[what, outcome], *count);
    }
    for (state, hash) in ["desired", "loaded"].into_iter().zip(gauges.hashes) {
        exposition.add(m::STATE_HASH, &[state], hash);
    }
    for ((source, kind), (objects, is_up)) in &gauges.sources {
        exposition.add(m::SOURCE_UP, &[source, kind], u64::from(*is_up));
        exposition.add(m::SOURCE_OBJECTS, &[source, kind], *objects);
    }
}

fn policies(exposition: &mut Exposition, gauges: &Gauges) {
    exposition.add(m::GENERATION, &["enforced"], gauges.generation);
    exposition.add(m::MAX_REVISION, &[], gauges.generation);
    exposition.add(m::CHANGES, &["success"], gauges.published.count());
    exposition.add(m::CHANGES, &["fail"], gauges.unpublished);
    exposition.add_histogram(m::PUBLISH, &[], &gauges.published);
    exposition.add(m::POLICIES, &[], gauges.policies);
    exposition.add(m::POLICY_ENTRIES, &[], gauges.policy_entries);
    for (status, count) in &gauges.standing {
        exposition.add(m::POLICY_STATUS, &[status], *count);
    }
}

fn identities(exposition: &mut Exposition, names: &Names) {
    let services = names.identities.values().filter(|key| key.service.is_some()).count() as u64;
    let workloads = names.workloads.values().filter(|workloads| !workloads.is_empty()).count() as u64;
    let gone = (names.identities.size() as u64).saturating_sub(services + workloads);
    let reserved = (0..IdentityId::FIRST_WORKLOAD.0).filter(|id| IdentityId(*id).reserved_name().is_some());
    let reserved = reserved.count() as u64;
    for (kind, count) in
        [("workload", workloads), ("gone", gone), ("service", services), ("reserved", reserved)]
    {
        exposition.add(m::IDENTITIES, &[kind], count);
    }
}

/// Entries, capacity and pressure of a kernel map.
#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more digits")]
pub(super) fn map(exposition: &mut Exposition, name: &str, entries: u64, capacity: u64) {
    exposition.add(m::MAP_ENTRIES, &[name], entries);
    exposition.add(m::MAP_CAPACITY, &[name], capacity);
    exposition.add_value(m::MAP_PRESSURE, &[name], entries as f64 / capacity as f64);
}

fn revocation(exposition: &mut Exposition, revocation: &Revocation) {
    exposition.add(m::REVOCATIONS, &[], revocation.passes);
    exposition.add_value(m::REVOCATION_SECONDS, &[], revocation.seconds);
    for (kind, count) in [
        ("pass", revocation.failed_passes),
        ("namespace", revocation.failed_namespaces),
        ("socket", revocation.failed_sockets),
    ] {
        exposition.add(m::REVOCATION_FAILURES, &[kind], count);
    }
    exposition.add(m::REVOCATION_HIDDEN, &[], revocation.hidden_processes);
    exposition.add(m::REVOCATION_UNDECIDED, &[], revocation.undecided);
    for ((protocol, reason), count) in &revocation.destroyed {
        let reason = Reason::from_code(*reason).unwrap_or(Reason::None).label();
        exposition.add(m::SOCKETS_DESTROYED, &[&protocol_name(*protocol), reason], *count);
    }
}
