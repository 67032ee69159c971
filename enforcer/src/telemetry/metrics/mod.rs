//! Metrics in the Prometheus text exposition format, made at the moment of the scrape.
//!
//! Verdicts come from the kernel's counters, so they are exact whatever happened to events, and survive the daemon. The
//! labels are chosen for people: identities that are called the same are summed. How many series of workloads and rules
//! there are is bounded, and those of workloads that are gone expire ([`budget`]); sums stay exact.

mod agent;
mod budget;
mod exposition;
mod histogram;
mod latency;
mod logs;
mod naming;
mod table;
mod traffic;
mod verdicts;

pub use agent::{Gauges, Revocation};
pub use histogram::Histogram;
pub use table::{Bound, Definition, Kind, LABELS, METRICS};

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowKey, Latency, Traffic, TrafficKey};
use enforcer_common::hook::Hook;
use enforcer_common::limits;

use self::budget::Budget;
use self::exposition::Exposition;
use self::naming::Naming;
use self::table as m;
use super::ReadCounts;
use crate::domain::SeriesLabel;
use crate::domain::names::Names;

/// What an operator can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Series of workloads and rules that are told apart, all metrics together.
    pub series: usize,
    /// What they are told apart by.
    pub labels: Vec<SeriesLabel>,
    /// Labels of workloads that are their names, the best first.
    pub name_labels: Vec<String>,
}

/// What the kernel says at the moment of the scrape.
#[derive(Clone, Debug, Default)]
pub struct KernelSample {
    /// All flow counters.
    pub counters: Vec<(FlowKey, u64)>,
    /// What all flows carried.
    pub traffic: Vec<(TrafficKey, Traffic)>,
    /// How long things took.
    pub latency: Vec<(TrafficKey, Latency)>,
    /// Counters of what the programs did besides.
    pub stats: [u64; Stat::COUNT],
    /// Attached hooks.
    pub hooks: Vec<Hook>,
    /// Runs of the programs and the time they took, if the kernel counts them.
    pub runs: Option<Vec<(Hook, u64, Duration)>>,
}

/// What the agent says at the moment of the scrape.
#[derive(Clone, Copy, Debug)]
pub struct AgentSample<'a> {
    /// Names for numbers.
    pub names: &'a Names,
    /// What the agent knows of itself.
    pub gauges: &'a Gauges,
    /// What became of events.
    pub read: ReadCounts,
    /// Records of the ring that were no events of this version.
    pub malformed: u64,
    /// Time since the start.
    pub now: Duration,
}

/// Makes expositions. Remembers which series it gave out.
#[derive(Debug)]
pub struct Exporter {
    options: Options,
    budgets: Mutex<Budgets>,
}

#[derive(Debug)]
struct Budgets {
    verdicts: Budget<11, u64>,
    traffic: Budget<7, Traffic>,
    rules: Budget<3, u64>,
    latency: Budget<3, Latency>,
}

impl Exporter {
    /// An exporter. Of the series, 35 % are for verdicts, 35 % for traffic, 10 % for rules and 20 % for latency.
    pub fn new(options: Options) -> Self {
        let share = |percent: usize| options.series.saturating_mul(percent) / 100;
        let budgets = Budgets {
            verdicts: Budget::new(share(35), verdicts::overflow),
            traffic: Budget::new(share(35) / traffic::SERIES, traffic::overflow),
            rules: Budget::new(share(10), verdicts::rule_overflow),
            latency: Budget::new(share(20) / latency::SERIES, latency::overflow),
        };
        Self { options, budgets: Mutex::new(budgets) }
    }

    /// The exposition. Without `kernel` (it could not be read) the agent's own numbers are told.
    pub fn render(&self, kernel: Option<&KernelSample>, agent: AgentSample<'_>) -> String {
        let AgentSample { names, gauges, read, malformed, .. } = agent;
        let mut exposition = Exposition::default();
        agent::write(&mut exposition, gauges, names);
        exposition.add(m::SCRAPE_KERNEL, &[], u64::from(kernel.is_some()));
        exposition.add(m::EVENTS_READ, &[], read.read);
        exposition.add(m::LOST_EVENTS, &["malformed"], malformed + read.undecodable);
        exposition.add(m::LOST_EVENTS, &["reader"], read.missed);
        if let Some(kernel) = kernel {
            self.flows(&mut exposition, kernel, agent);
            programs(&mut exposition, kernel);
        }
        exposition.encode()
    }

    fn flows(&self, exposition: &mut Exposition, kernel: &KernelSample, agent: AgentSample<'_>) {
        let AgentSample { names, now, .. } = agent;
        // Not before it has read everything, and not while it can't: then a workload may only seem to be gone.
        let settled = agent.gauges.ready;
        // After a panic of another holder some series more may have been given out than were seen, which does no harm.
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut naming = Naming::new(names, &self.options.labels, &self.options.name_labels);
        let sums = verdicts::verdicts(&kernel.counters, &mut naming);
        for (labels, told) in budgets.verdicts.fold(sums, now, settled) {
            exposition.add(m::VERDICTS, &labels.each_ref().map(|label| &**label), told.counted);
        }
        let sums = verdicts::rules(&kernel.counters, &naming);
        for (labels, told) in budgets.rules.fold(sums, now, settled) {
            exposition.add(m::RULE_HITS, &labels.each_ref().map(|label| &**label), told.counted);
        }
        let sums = traffic::traffic(&kernel.traffic, &mut naming);
        for (labels, told) in budgets.traffic.fold(sums, now, settled) {
            traffic::write(exposition, &labels, &told);
        }
        let sums = latency::latency(&kernel.latency, &mut naming);
        for (labels, told) in budgets.latency.fold(sums, now, settled) {
            latency::write(exposition, &labels, &told);
        }
        for (labels, count) in verdicts::flows(&kernel.counters) {
            exposition.add(m::FLOWS, &labels.each_ref().map(|label| &**label), count);
        }
        exposition.add(m::CANARY_VERDICTS, &[], verdicts::of_canary(&kernel.counters));
        for (labels, count) in verdicts::drops(&kernel.counters) {
            exposition.add(m::DROPS, &labels.each_ref().map(|label| &**label), count);
        }
        exposition.add(m::EXPIRED, &[m::VERDICTS.name], budgets.verdicts.expired());
        traffic::write_expired(exposition, &budgets.traffic.expired());
        latency::write_expired(exposition, &budgets.latency.expired());
        tell_budget(exposition, "verdicts", &budgets.verdicts, 1);
        tell_budget(exposition, "traffic", &budgets.traffic, traffic::SERIES);
        tell_budget(exposition, "rules", &budgets.rules, 1);
        tell_budget(exposition, "latency", &budgets.latency, latency::SERIES);
    }
}

/// How near a share of the budget is; each set of labels is so many series.
fn tell_budget<const LABELS: usize, A: budget::Amount>(
    exposition: &mut Exposition,
    share: &str,
    budget: &Budget<LABELS, A>,
    series: usize,
) {
    exposition.add(m::SERIES, &[share], (budget.told() * series) as u64);
    exposition.add(m::SERIES_LIMIT, &[share], (budget.limit() * series) as u64);
    exposition.add(m::SERIES_FOLDED, &[share], budget.folded() as u64);
}

fn programs(exposition: &mut Exposition, kernel: &KernelSample) {
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
    exposition.add(m::OVERHEAD_ON, &[], u64::from(kernel.runs.is_some()));
    for (hook, count, time) in kernel.runs.iter().flatten() {
        exposition.add(m::OVERHEAD_RUNS, &[hook.program()], *count);
        exposition.add_value(m::OVERHEAD_SECONDS, &[hook.program()], time.as_secs_f64());
    }
    agent::map(exposition, "counters", kernel.counters.len() as u64, limits::COUNTERS as u64);
    agent::map(exposition, "traffic", kernel.traffic.len() as u64, limits::TRAFFIC as u64);
    agent::map(exposition, "latency", kernel.latency.len() as u64, limits::LATENCY as u64);
}
