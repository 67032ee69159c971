//! Where the owner's results go.

use std::sync::Arc;

use tokio::sync::watch;

use super::{canary, revoke};
use crate::api::Readiness;
use crate::domain::names::Names;
use crate::engine::Report;
use crate::telemetry::Pipeline;
use crate::telemetry::history::History;
use crate::telemetry::metrics::Gauges;

/// The results, each for who waits for it.
pub(super) struct Outputs {
    pub(super) names: watch::Sender<Arc<Names>>,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) gauges: watch::Sender<Gauges>,
    pub(super) demand: watch::Sender<u64>,
    pub(super) in_force: watch::Sender<revoke::Latest>,
    pub(super) canary: watch::Sender<canary::Target>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) history: Option<History>,
}

impl Outputs {
    /// These names are valid from now on.
    pub(super) fn names(&self, names: Arc<Names>) {
        if let Some(history) = &self.history {
            history.names(&names);
        }
        self.names.send_replace(names);
    }

    /// New numbers of the engine.
    pub(super) fn report(&self, report: &Report) {
        let target = canary::Target { generation: report.generation, armed: report.canary };
        self.canary.send_if_modified(|known| std::mem::replace(known, target) != target);
        self.gauges.send_modify(|gauges| {
            gauges.generation = report.generation;
            gauges.policies = report.policies;
            gauges.policy_entries = report.entries;
            gauges.policy_rows = report.rows;
            gauges.quarantined = report.quarantined;
            gauges.bindings = report.bindings;
            gauges.addresses = report.addresses;
            gauges.standing.clone_from(&report.standing);
            gauges.hashes = [report.sums.desired, report.sums.loaded];
            gauges.sources.clone_from(&report.sources);
            gauges.endpoints = [
                ("bound", report.bound),
                ("waiting-for-cgroup", report.waiting),
                ("remote", report.remote),
                ("no-room", report.no_room),
            ]
            .into();
            for (area, count) in &mut gauges.problems {
                *count = report.problems.get(area).copied().unwrap_or(0);
            }
        });
    }
}
