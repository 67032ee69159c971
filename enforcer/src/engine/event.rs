//! What can happen to the agent, and what the engine can ask for. Both lists are closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::room::Limits;
use super::sums::Sums;
use crate::domain::Mode;
use crate::domain::account::TrustDomain;
use crate::domain::audit::fact::Changed;
use crate::domain::canary::CanaryEvent;
use crate::domain::cluster_policy::{ClusterPolicy, SourceInfo};
use crate::domain::command::{Confinement, PolicyFile, Reply, Request};
use crate::domain::delta::{Bound, Operation, Tables};
use crate::domain::id::{CgroupId, Generation, IdentityId, RuleId};
use crate::domain::names::Names;
use crate::domain::policy::model::PolicyKey;
use crate::domain::publication::Publication;
use crate::domain::quarantine::Quarantines;
use crate::domain::registry::Registry;
use crate::domain::table::PolicyTable;
use crate::domain::time::Clocks;
use crate::domain::unconfirmed::Confirmation;
use crate::domain::unguarded::Coverage;
use crate::domain::workload::WorkloadEvent;

/// Connects a request with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the engine is told once, before the first event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Version of the agent.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Mount point of the cgroup v2 tree.
    pub cgroup_root: String,
    /// Directory of the pins.
    pub pins: String,
    /// What is done with a denial.
    pub mode: Mode,
    /// What the agent has given up.
    pub confinement: Confinement,
    /// The trust domain of every workload.
    pub trust_domain: TrustDomain,
    /// Bits of the kinds of sockets that workloads may create where no policy says otherwise.
    pub socket_kinds: u64,
    /// Names this run of the host.
    pub boot_id: String,
    /// What the clocks said at the start.
    pub now: Clocks,
    /// How much the kernel's maps hold.
    pub limits: Limits,
    /// Keys of labels that count for identities, whether a policy names them or not.
    pub labels: BTreeSet<String>,
    /// Sources without whose first snapshot nothing is published: `static`, `kubernetes`, [`POLICIES`],
    /// [`POLICY_OBJECTS`], [`MANAGED`].
    pub required: BTreeSet<String>,
}

/// What an earlier agent saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Numbers.
    pub registry: Registry,
    /// Pushed policies.
    pub documents: Vec<PolicyFile>,
    /// Workloads in quarantine.
    pub quarantines: Quarantines,
    /// Whether a push was not confirmed.
    pub confirmation: Confirmation,
}

/// Name of the source of policy files.
pub const POLICIES: &str = "policies";
/// Name of the source of policy objects.
pub const POLICY_OBJECTS: &str = "the cluster's policies";
/// Name of the source of managed directories.
pub const MANAGED: &str = "managed";

/// Name of the source of own addresses.
pub const OWN: &str = "own addresses";

/// What an earlier agent left in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Generation of the tables that are enforced; `None` if there are none.
    pub generation: Option<Generation>,
    /// Bindings.
    pub bindings: BTreeMap<CgroupId, Bound>,
    /// Addresses.
    pub addresses: BTreeMap<IpNet, IdentityId>,
    /// Own addresses of the host.
    pub own: BTreeSet<IpAddr>,
    /// Identities that counters are kept for.
    pub counted: BTreeSet<IdentityId>,
    /// Rules that counters are kept for.
    pub counted_rules: BTreeSet<RuleId>,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The kernel is ready; this is what it has.
    Adopted(Adopted),
    /// A source of workloads speaks.
    Workloads(WorkloadEvent),
    /// Every managed directory, with its id if it exists.
    Managed(BTreeMap<String, Option<CgroupId>>),
    /// All own addresses of the host.
    OwnAddresses(BTreeSet<IpAddr>),
    /// All policy files of the configured directories.
    PolicyFiles(Vec<PolicyFile>),
    /// All policy objects of the cluster.
    PolicyObjects(Vec<Arc<ClusterPolicy>>),
    /// How a source is.
    Source(SourceInfo),
    /// The source of policies, of managed directories or of own addresses can't be read; its last snapshot stays.
    SourceProblem {
        /// [`POLICIES`], [`MANAGED`] or [`OWN`].
        source: &'static str,
        /// One sentence.
        message: String,
    },
    /// Somebody asks.
    Request {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The question.
        request: Request,
        /// What the clocks say.
        now: Clocks,
    },
    /// Nobody waits for this answer any more; a change that has not begun is forgotten, because its sender was told
    /// that it failed.
    Gone(Ticket),
    /// An effect that is acknowledged was performed.
    Done(Done),
    /// An effect that is acknowledged could not be performed, and left everything as it was.
    Failed {
        /// Which.
        step: Step,
        /// One sentence.
        message: String,
    },
    /// What is wrong with the kernel side now; empty when all is well.
    KernelProblems(Vec<String>),
    /// What kernel and configuration leave open, now.
    Coverage(Coverage),
    /// What else was seen at the kernel.
    KernelSeen {
        /// What is no fault and worth knowing, one sentence each.
        notices: Vec<String>,
        /// Names of the hooks that are attached now.
        hooks: Vec<String>,
    },
    /// What is told of the canary.
    Canary(CanaryEvent),
    /// A part of the agent ended or works again.
    Part {
        /// Its name.
        name: &'static str,
        /// One sentence, or `None` when it works again.
        problem: Option<String>,
    },
    /// Time passes.
    Tick(Clocks),
    /// Nothing else is pending: whatever the events since the last `Quiet` ask for is done now, at once.
    Quiet,
    /// The agent was asked to end.
    Shutdown,
}

/// An effect that was performed.
#[derive(Clone, Debug)]
pub enum Done {
    /// [`Effect::Save`].
    Saved,
    /// [`Effect::Publish`] or [`Effect::Place`].
    Published,
    /// [`Effect::Apply`]; the operations that could not be applied, by position, with one sentence each.
    Applied(Vec<(usize, String)>),
    /// [`Effect::Attach`]; names of the attached hooks.
    Attached(Vec<String>),
}

/// The steps of a change, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Numbers and pushed documents reach the disk before the kernel sees them.
    Save,
    /// The tables, which know every identity that is bound afterwards.
    Publish,
    /// Bindings and addresses.
    Apply,
    /// The hooks, once per run.
    Attach,
}

/// What is written to the state directory in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Save {
    /// The registry, if it changed.
    pub registry: Option<Registry>,
    /// Pushed documents to write.
    pub write: Vec<(PolicyKey, String)>,
    /// Pushed documents to remove.
    pub remove: Vec<PolicyKey>,
    /// All quarantines, if they changed.
    pub quarantines: Option<Quarantines>,
    /// What waits to be confirmed, if that changed. Together with the documents: all of it or nothing is found after a
    /// crash.
    pub confirmation: Option<Confirmation>,
}

/// How urgent a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Something is not as it should be.
    Warn,
}

/// Numbers for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Generation that is enforced, 0 if none.
    pub generation: u64,
    /// Loaded policies.
    pub policies: u64,
    /// Entries of the enforced table.
    pub entries: u64,
    /// Rows (64 bytes each) of the enforced table.
    pub rows: u64,
    /// Identities with a number.
    pub identities: u64,
    /// Workloads whose directory is bound.
    pub bound: u64,
    /// Workloads that wait for their directory.
    pub waiting: u64,
    /// Workloads known by address only.
    pub remote: u64,
    /// Workloads in quarantine, those included that are not there now.
    pub quarantined: u64,
    /// Workloads for which the kernel has no room.
    pub no_room: u64,
    /// Bindings in the kernel.
    pub bindings: u64,
    /// Addresses in the kernel.
    pub addresses: u64,
    /// The canary's directory, if everything is in place that refuses it there, so that it may try.
    pub canary: Option<CgroupId>,
    /// Policies by the word for where they stand, words without policies included.
    pub standing: BTreeMap<&'static str, u64>,
    /// Of what is wanted and what is in force: equal once the node has converged.
    pub sums: Sums,
    /// Sources and their kinds: how many objects there are, and whether what is told of them is as the source has it now.
    pub sources: BTreeMap<(String, String), (u64, bool)>,
    /// Number of problems by [`Area::label`](super::Area::label).
    pub problems: BTreeMap<&'static str, u64>,
}

/// What the engine can ask for. `Save`, `Publish`, `Place`, `Apply` and `Attach` are acknowledged with [`Event::Done`] or
/// [`Event::Failed`], and there is never more than one of them without its acknowledgement; the others just happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write to the state directory.
    Save(Box<Save>),
    /// Switch the kernel to this table and its successors.
    Publish(Arc<Publication>),
    /// Have the tables in force know identities that are new. It is acknowledged as `Publish` is.
    Place {
        /// The tables in force with them.
        publication: Arc<Publication>,
        /// The identities.
        placed: Vec<IdentityId>,
    },
    /// Change bindings and addresses, in this order; one that fails does not keep the others from being tried.
    Apply(Vec<Operation>),
    /// Attach the programs, or replace those that an earlier agent attached.
    Attach,
    /// A change took effect: destroy open sockets whose flows these tables no longer allow.
    Revoke {
        /// The table in force.
        table: Arc<PolicyTable>,
        /// Bindings and addresses in force.
        tables: Tables,
    },
    /// Answer a request.
    Reply {
        /// Whose.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// These names are valid from now on. Comes before the kernel uses a new number.
    PublishNames(Arc<Names>),
    /// Whether the agent enforces what it was told, and in words how it is.
    Readiness {
        /// Answer of `/readyz`.
        ready: bool,
        /// One line.
        reason: String,
    },
    /// This is in force and was not before.
    Changed {
        /// Whose request it was, if anybody's.
        ticket: Option<Ticket>,
        /// The generation that enforces it.
        generation: u64,
        /// What.
        changes: Vec<Changed>,
    },
    /// Something is wrong, or is no longer.
    Problem {
        /// [`Area::label`](super::Area::label).
        area: &'static str,
        /// One sentence.
        message: String,
        /// Whether it is over.
        settled: bool,
    },
    /// New numbers for the metrics.
    Report(Report),
    /// A line for the log.
    Log {
        /// Urgency.
        level: Level,
        /// One sentence.
        message: String,
    },
    /// End with this message: going on would enforce something else than was asked for.
    Refuse(String),
    /// Everything that was begun is finished: end.
    Stop,
}
