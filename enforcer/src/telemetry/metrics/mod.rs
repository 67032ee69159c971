//! Metrics in the Prometheus text exposition format, made at the moment of the scrape.
//!
//! Verdicts come from the kernel's counters, so they are exact whatever happened to events, and survive the daemon. The
//! labels are chosen for people: identities that are called the same are summed. New series are taken as long as the
//! budget lasts, and beyond it are summed in series with `policy="_overflow"`, one per action and direction, so that
//! sums stay exact; those of traffic in series with `source="_overflow"`, one per protocol and role. A series that was given out once stays: one that moved to the overflow and back would look like a
//! counter that was reset.

mod budget;
mod logs;
mod table;
mod traffic;
mod verdicts;

pub use table::{Definition, Kind, METRICS};

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowKey, Traffic, TrafficKey};
use enforcer_common::hook::Hook;
use enforcer_common::limits;
use enforcer_common::reason::Reason;
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use self::budget::Budget;
use self::table as m;
use super::{ReadCounts, audit, history};
use crate::domain::flow::protocol_name;
use crate::domain::names::Names;

/// Series of verdicts that are told apart.
pub const SERIES: usize = 10_000;
/// Sets of labels of traffic that are told apart; each is a series of up to eight metrics.
pub const TRAFFIC: usize = 2_000;

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
    /// Loaded policies.
    pub policies: u64,
    /// Entries of the enforced table.
    pub policy_entries: u64,
    /// Rows of the enforced table.
    pub policy_rows: u64,
    /// Identities with a number.
    pub identities: u64,
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

/// What the kernel says at the moment of the scrape.
#[derive(Clone, Debug, Default)]
pub struct KernelSample {
    /// All flow counters.
    pub counters: Vec<(FlowKey, u64)>,
    /// What all flows carried.
    pub traffic: Vec<(TrafficKey, Traffic)>,
    /// Counters of what the programs did besides.
    pub stats: [u64; Stat::COUNT],
    /// Attached hooks.
    pub hooks: Vec<Hook>,
}

/// Makes expositions. Remembers which series it gave out.
#[derive(Debug)]
pub struct Exporter {
    verdicts: Mutex<Budget<11>>,
    traffic: Mutex<Budget<7>>,
}

impl Default for Exporter {
    fn default() -> Self {
        Self::new(SERIES, TRAFFIC)
    }
}

impl Exporter {
    /// An exporter that tells apart so many series of verdicts, and so many sets of labels of traffic.
    pub fn new(verdicts: usize, traffic: usize) -> Self {
        Self {
            verdicts: Mutex::new(Budget::new(verdicts, verdicts::overflow)),
            traffic: Mutex::new(Budget::new(traffic, traffic::overflow)),
        }
    }

    /// The exposition. Without `kernel` (it could not be read) the agent's own numbers are told.
    pub fn render(
        &self,
        kernel: Option<&KernelSample>,
        names: &Names,
        gauges: &Gauges,
        read: ReadCounts,
        malformed: u64,
    ) -> String {
        let mut exposition = Exposition::default();
        agent(&mut exposition, gauges);
        exposition.add(m::SCRAPE_KERNEL, &[], u64::from(kernel.is_some()));
        exposition.add(m::EVENTS_READ, &[], read.read);
        exposition.add(m::LOST_EVENTS, &["malformed"], malformed + read.undecodable);
        if let Some(kernel) = kernel {
            self.kernel(&mut exposition, kernel, names);
        }
        exposition.encode()
    }

    fn kernel(&self, exposition: &mut Exposition, kernel: &KernelSample, names: &Names) {
        let verdicts = verdicts::verdicts(&kernel.counters, names);
        for (labels, count) in lock(&self.verdicts).fold(verdicts) {
            exposition.add(m::VERDICTS, &labels.each_ref().map(|label| &**label), count);
        }
        let traffic = traffic::traffic(&kernel.traffic, names);
        for (labels, amount) in lock(&self.traffic).fold(traffic) {
            traffic::write(exposition, &labels, &amount);
        }
        for (labels, count) in verdicts::drops(&kernel.counters) {
            exposition.add(m::DROPS, &labels.each_ref().map(|label| &**label), count);
        }
        for stat in Stat::ALL {
            let count = kernel.stats.get(*stat as usize).copied().unwrap_or_default();
            exposition.add(m::KERNEL_STATS, &[stat.label()], count);
            if *stat == Stat::EventsLost {
                exposition.add(m::LOST_EVENTS, &["ring"], count);
            }
        }
        for hook in Hook::ALL {
            exposition.add(m::HOOK_ATTACHED, &[hook.program()], u64::from(kernel.hooks.contains(hook)));
        }
        exposition.add(m::MAP_ENTRIES, &["counters"], kernel.counters.len() as u64);
        exposition.add(m::MAP_ENTRIES, &["traffic"], kernel.traffic.len() as u64);
    }
}

/// A budget whose holder panicked has given out some series more than were seen, which does no harm.
fn lock<const LABELS: usize>(budget: &Mutex<Budget<LABELS>>) -> MutexGuard<'_, Budget<LABELS>> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

fn agent(exposition: &mut Exposition, gauges: &Gauges) {
    exposition.add(m::BUILD_INFO, &[gauges.version], 1);
    exposition.add_value(m::START_TIME, &[], gauges.start_seconds);
    exposition.add(m::READY, &[], u64::from(gauges.ready));
    for (reason, count) in &gauges.problems {
        exposition.add(m::DEGRADED, &[reason], *count);
    }
    for (vector, open) in &gauges.unguarded {
        exposition.add(m::UNGUARDED, &[vector], *open);
    }
    exposition.add(m::GENERATION, &["enforced"], gauges.generation);
    exposition.add(m::POLICIES, &[], gauges.policies);
    exposition.add(m::POLICY_ENTRIES, &[], gauges.policy_entries);
    exposition.add(m::IDENTITIES, &[], gauges.identities);
    for (state, count) in &gauges.endpoints {
        exposition.add(m::ENDPOINTS, &[state], *count);
    }
    exposition.add(m::QUARANTINED, &[], gauges.quarantined);
    for (map, entries) in
        [("bindings", gauges.bindings), ("addresses", gauges.addresses), ("policy_rows", gauges.policy_rows)]
    {
        exposition.add(m::MAP_ENTRIES, &[map], entries);
    }
    for (map, capacity) in [
        ("bindings", limits::BINDINGS as u64),
        ("addresses", limits::ADDRESSES as u64),
        ("policy_rows", u64::from(limits::TABLE_ROWS)),
        ("counters", limits::COUNTERS as u64),
        ("traffic", limits::TRAFFIC as u64),
    ] {
        exposition.add(m::MAP_CAPACITY, &[map], capacity);
    }
    for (kind, count) in &gauges.repairs {
        exposition.add(m::REPAIRS, &[kind], *count);
    }
    for (hook, count) in &gauges.foreign {
        exposition.add(m::FOREIGN_PROGRAMS, &[hook], *count);
    }
    revocation(exposition, &gauges.revocation);
    logs::write(exposition, gauges.audit.as_ref(), gauges.history.as_ref());
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

/// Series by metric, in the order of names.
#[derive(Debug, Default)]
struct Exposition {
    families: BTreeMap<&'static str, (&'static Definition, Vec<Metric>)>,
}

impl Exposition {
    /// Prometheus knows floating-point numbers only; above 2^53 they are no longer exact.
    #[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    fn add(&mut self, definition: &'static Definition, labels: &[&str], value: u64) {
        self.add_value(definition, labels, value as f64);
    }

    fn add_value(&mut self, definition: &'static Definition, labels: &[&str], value: f64) {
        debug_assert_eq!(definition.labels.len(), labels.len(), "{}", definition.name);
        let mut metric = Metric::default();
        let pairs = definition.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        metric.set_label(pairs.collect());
        match definition.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        let family = self.families.entry(definition.name);
        family.or_insert_with(|| (definition, Vec::new())).1.push(metric);
    }

    fn encode(self) -> String {
        let families: Vec<MetricFamily> = self
            .families
            .into_values()
            .map(|(definition, metrics)| {
                let mut family = MetricFamily::default();
                family.set_name(definition.name.to_owned());
                family.set_help(definition.help.to_owned());
                family.set_field_type(match definition.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                });
                family.set_metric(metrics);
                family
            })
            .collect();
        // Families without a name or without series are what the encoder refuses, and there are none.
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| format!("# {error}\n"))
    }
}
