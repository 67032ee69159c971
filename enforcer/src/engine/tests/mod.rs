//! Tables of (state, event) -> effects, against a kernel and a disk made of maps.
//!
//! Trust the fakes for order and refusal only: they know nothing of the real kernel but that a step can fail.

mod audit;
mod cluster;
mod cluster_api;
mod conditions;
mod containers;
mod converge;
mod deltas;
mod expiry;
mod explain;
mod failures;
mod growth;
mod lifecycle;
mod quarantine;
mod requests;
mod room;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::command::{Changed, Confinement, Refused, Status};
use crate::domain::container::Containers;
use crate::domain::delta::{Bound, Operation};
use crate::domain::id::{CgroupId, Generation, IdentityId};
use crate::domain::labels::LabelSet;
use crate::domain::policy::model::PolicyKey;
use crate::domain::publication::Publication;
use crate::domain::quarantine::Quarantines;
use crate::domain::registry::{IdentityKey, Registry};
use crate::domain::table::PolicyTable;
use crate::domain::time::{BootTime, Clocks};
use crate::domain::timestamp::Timestamp;
use crate::domain::unconfirmed::Confirmation;
use crate::domain::workload::{Resolved, Workload, WorkloadKey};

/// An engine with everything around it.
pub(super) struct World {
    pub(super) state: State,
    /// What the fake kernel has.
    pub(super) kernel: Tables,
    pub(super) publication: Option<Arc<Publication>>,
    pub(super) table: Option<Arc<PolicyTable>>,
    pub(super) attached: bool,
    /// What the fake disk has.
    pub(super) registry: Registry,
    pub(super) documents: BTreeMap<PolicyKey, String>,
    pub(super) quarantines: Quarantines,
    pub(super) confirmation: Confirmation,
    /// Steps that fail from now on.
    pub(super) broken: Vec<Step>,
    /// Bindings that the kernel refuses.
    pub(super) refused: Vec<CgroupId>,
    /// Acknowledgements are kept back.
    pub(super) paused: bool,
    pub(super) acks: VecDeque<Event>,
    pub(super) replies: BTreeMap<u64, Reply>,
    pub(super) readiness: (bool, String),
    pub(super) log: Vec<String>,
    /// What was told to the audit log since the last look, in words.
    pub(super) audited: Vec<String>,
    /// How often open sockets were judged.
    pub(super) judged: u32,
    /// Effects since the last look, without logs and numbers.
    trace: Vec<String>,
    next: u64,
}

pub(super) fn facts(required: &[&str]) -> Facts {
    Facts {
        confinement: Confinement::default(),
        version: "1".into(),
        pins: "/pins".into(),
        required: required.iter().map(|&it| it.into()).collect(),
        boot_id: "this".into(),
        now: at(0),
        ..Facts::default()
    }
}

impl World {
    /// A fresh host whose sources are `static` and the policy directory.
    pub(super) fn new() -> Self {
        Self::with(State::new(facts(&["static", POLICIES]), Remembered::default()).unwrap())
    }

    pub(super) fn with(state: State) -> Self {
        Self {
            state,
            kernel: Tables::default(),
            publication: None,
            table: None,
            attached: false,
            registry: Registry::default(),
            documents: BTreeMap::new(),
            quarantines: Quarantines::new(),
            confirmation: Confirmation::Settled,
            broken: Vec::new(),
            refused: Vec::new(),
            paused: false,
            acks: VecDeque::new(),
            replies: BTreeMap::new(),
            readiness: (false, String::new()),
            log: Vec::new(),
            audited: Vec::new(),
            judged: 0,
            trace: Vec::new(),
            next: 0,
        }
    }

    /// A world that enforces: workloads `web`, `api`, `db` in cgroups 1, 2, 3, no policy.
    pub(super) fn enforcing() -> Self {
        let mut world = Self::new();
        world.batch([adopted(), workloads(&["web@1", "api@2", "db@3"]), files(&[])]);
        assert_eq!(world.state.phase(), Phase::Enforcing, "{:?}", world.state.problems);
        world.trace();
        world
    }

    /// The next agent on the same host and disk.
    pub(super) fn restart(&mut self) {
        let facts = Facts { now: self.state.now, ..facts(&["static", POLICIES]) };
        self.restart_with(facts);
    }

    /// The next agent on the same disk.
    pub(super) fn restart_with(&mut self, facts: Facts) {
        let documents = self
            .documents
            .iter()
            .map(|(key, text)| PolicyFile { name: key.to_string(), text: text.clone() })
            .collect();
        let (registry, quarantines) = (self.registry.clone(), self.quarantines.clone());
        let confirmation = self.confirmation.clone();
        self.state =
            State::new(facts, Remembered { registry, documents, quarantines, confirmation }).unwrap();
        self.broken.clear();
        self.acks.clear();
    }

    /// What the kernel would hand over now.
    pub(super) fn adopted(&self) -> Event {
        Event::Adopted(Adopted {
            generation: self.table.as_ref().map(|table| table.generation()),
            bindings: self.kernel.bindings.iter().map(|(cgroup, bound)| (*cgroup, *bound)).collect(),
            addresses: self.kernel.addresses.iter().map(|(net, id)| (*net, *id)).collect(),
            own: self.kernel.own.clone(),
            ..Adopted::default()
        })
    }

    /// Events that arrive together.
    pub(super) fn batch(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.step(event);
        }
        self.settle();
    }

    pub(super) fn step(&mut self, event: Event) {
        for effect in step(&mut self.state, event) {
            self.perform(effect);
        }
    }

    /// Acknowledges and goes on until nothing is pending.
    pub(super) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100, "the engine never rests: {:?}", self.trace);
            while let Some(ack) = self.acks.pop_front() {
                self.step(ack);
            }
            self.step(Event::Quiet);
            if self.acks.is_empty() || self.paused {
                return;
            }
        }
    }

    /// Sends a request and gives its ticket.
    pub(super) fn ask(&mut self, request: Request) -> u64 {
        self.next += 1;
        self.step(Event::Request { ticket: Ticket(self.next), request, now: self.state.now });
        self.next
    }

    /// Sends a request and gives its answer.
    pub(super) fn answer(&mut self, request: Request) -> Reply {
        let ticket = self.ask(request);
        self.settle();
        self.replies.remove(&ticket).expect("an answer")
    }

    pub(super) fn changed(&mut self, request: Request) -> Changed {
        match self.answer(request) {
            Reply::Changed(changed) => changed,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn refusal(&mut self, request: Request) -> Refused {
        match self.answer(request) {
            Reply::Refused(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn status(&mut self) -> Status {
        match self.answer(Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// The effects since the last look, in one line.
    pub(super) fn trace(&mut self) -> String {
        std::mem::take(&mut self.trace).join(" ")
    }

    /// What the kernel holds of each cgroup, in words.
    pub(super) fn bound(&self) -> BTreeMap<u64, String> {
        let name = |id: IdentityId| match self.state.registry.identity_key(id) {
            Some(key) => key.labels.to_string(),
            None => id.reserved_name().unwrap_or("?").to_owned(),
        };
        self.kernel.bindings.iter().map(|(cgroup, bound)| (cgroup.0, name(bound.identity))).collect()
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Save(save) => self.save(*save),
            Effect::Publish(publication) => {
                let table = Arc::clone(&publication.table);
                let next = "+".repeat(publication.next.len());
                self.trace.push(format!("publish({}{next})", table.generation()));
                assert!(publication.next.is_sorted_by(|(one, _), (other, _)| one < other), "{publication:?}");
                for id in self.kernel_ids() {
                    assert!(self.registry_knows(id), "{id} is bound and not saved");
                }
                if self.acknowledge(Step::Publish, Done::Published) {
                    assert!(self.table.as_ref().is_none_or(|old| old.generation() < table.generation()));
                    self.table = Some(table);
                    self.publication = Some(publication);
                }
            }
            Effect::Place { publication, placed } => {
                self.trace.push(format!("place({})", placed.len()));
                for id in placed.iter().copied().chain(self.kernel_ids()) {
                    assert!(self.registry_knows(id), "{id} is in a table and not saved");
                }
                assert!(placed.iter().all(|id| !self.kernel_ids().contains(id)), "named before it is known");
                if self.acknowledge(Step::Publish, Done::Published) {
                    assert_eq!(
                        self.table.as_ref().map(|it| it.generation()),
                        Some(publication.table.generation())
                    );
                    self.table = Some(Arc::clone(&publication.table));
                    self.publication = Some(publication);
                }
            }
            Effect::Apply(operations) => self.apply(&operations),
            Effect::Attach => {
                self.trace.push("attach".into());
                assert!(self.table.is_some(), "attached with nothing to enforce");
                self.attached |= self.acknowledge(Step::Attach, Done::Attached(vec!["connect4".into()]));
            }
            Effect::Reply { ticket, reply } => {
                if !matches!(reply, Reply::Status(_)) {
                    self.trace.push(format!("reply({})", ticket.0));
                }
                assert!(self.replies.insert(ticket.0, reply).is_none(), "answered twice");
            }
            Effect::Readiness { ready, reason } => self.readiness = (ready, reason),
            Effect::Log { message, .. } => self.log.push(message),
            Effect::Refuse(message) => self.trace.push(format!("refuse: {message}")),
            Effect::Stop => self.trace.push("stop".into()),
            Effect::Revoke { table, tables } => {
                self.judged += 1;
                assert_eq!(self.table.as_ref().map(|it| it.generation()), Some(table.generation()));
                assert_eq!(self.kernel, tables, "sockets are judged by what is in force");
            }
            Effect::Changed { ticket, generation, changes } => {
                assert_eq!(
                    self.table.as_ref().map(|it| it.generation().0),
                    Some(generation),
                    "told too early"
                );
                let who = ticket.map_or_else(|| "nobody".to_owned(), |ticket| ticket.0.to_string());
                self.audited
                    .extend(changes.iter().map(|changed| format!("{who}: {}", audit::words(changed))));
            }
            Effect::Problem { area, settled, .. } => {
                self.audited.push(format!("{area} {}", if settled { "settled" } else { "wrong" }));
            }
            Effect::PublishNames(_) | Effect::Report(_) => {}
        }
    }

    fn save(&mut self, save: Save) {
        let names = |keys: Vec<String>| keys.concat();
        let written = names(save.write.iter().map(|(key, _)| format!("+{}", key.name)).collect());
        let removed = names(save.remove.iter().map(|key| format!("-{}", key.name)).collect());
        let registry = if save.registry.is_some() { "registry" } else { "" };
        let quarantines = if save.quarantines.is_some() { "quarantines" } else { "" };
        let unconfirmed = match &save.confirmation {
            Some(Confirmation::Awaited(_)) => "unconfirmed",
            Some(Confirmation::Settled) => "settled",
            None => "",
        };
        self.trace.push(format!("save({registry}{written}{removed}{quarantines}{unconfirmed})"));
        if self.acknowledge(Step::Save, Done::Saved) {
            self.registry = save.registry.unwrap_or_else(|| self.registry.clone());
            self.documents.extend(save.write);
            self.documents.retain(|key, _| !save.remove.contains(key));
            self.quarantines = save.quarantines.unwrap_or_else(|| self.quarantines.clone());
            self.confirmation = save.confirmation.unwrap_or_else(|| self.confirmation.clone());
        }
    }

    fn apply(&mut self, operations: &[Operation]) {
        self.trace.push(format!("apply({})", operations.len()));
        let mut failures = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            let mut next = self.kernel.clone();
            next.apply(*operation);
            let touches = |cgroup| next.bindings.get(cgroup) != self.kernel.bindings.get(cgroup);
            if self.refused.iter().any(touches) {
                failures.push((at, "no room".to_owned()));
            } else {
                self.kernel = next;
            }
            // Where a removal is refused, there is no room for what comes in its place.
            let limits = if self.refused.is_empty() { self.state.facts.limits } else { Limits::default() };
            assert!(self.kernel.bindings.size() <= limits.bindings, "full on the way");
            assert!(self.kernel.addresses.size() <= limits.addresses, "full on the way");
        }
        for id in self.kernel_ids() {
            assert!(self.registry_knows(id), "{id} is in the kernel and not saved");
            let tables = self.publication.iter().flat_map(|publication| publication.chain());
            for (table, _) in tables.filter(|_| id >= IdentityId::FIRST_WORKLOAD) {
                assert_ne!(table.class_of_identity(id), 0, "{id} is in the kernel and no table knows it");
            }
        }
        self.acks.push_back(Event::Done(Done::Applied(failures)));
    }

    fn kernel_ids(&self) -> Vec<IdentityId> {
        let bound = |bound: &Bound| [bound.identity, bound.after];
        let bound = self.kernel.bindings.values().flat_map(bound);
        bound.chain(self.kernel.addresses.values().copied()).collect()
    }

    fn registry_knows(&self, id: IdentityId) -> bool {
        id < IdentityId::FIRST_WORKLOAD || self.registry.identity_key(id).is_some()
    }

    fn acknowledge(&mut self, step: Step, done: Done) -> bool {
        let works = !self.broken.contains(&step);
        let failed = Event::Failed { step, message: "no luck".into() };
        self.acks.push_back(if works { Event::Done(done) } else { failed });
        works
    }
}

pub(super) fn adopted() -> Event {
    Event::Adopted(Adopted::default())
}

/// `web@1` is workload default/web with label app=web in cgroup 1, `web@-` one that waits for its directory.
pub(super) fn workload(text: &str) -> Resolved {
    let (name, cgroup) = text.split_once('@').unwrap();
    let app = name.split('-').next().unwrap();
    Resolved {
        workload: Arc::new(Workload {
            key: WorkloadKey { namespace: "default".into(), name: name.into() },
            labels: Arc::new(LabelSet([("app".to_owned(), app.to_owned())].into())),
            cgroup: Some(format!("/test/{name}")),
            addresses: Vec::new(),
            ports: BTreeMap::new(),
            account: None,
            containers: Containers::Unknown,
        }),
        cgroup: cgroup.parse().ok().map(CgroupId),
        // `/test` is cgroup 1000.
        above: vec![CgroupId(1000)],
    }
}

pub(super) fn workloads(texts: &[&str]) -> Event {
    from_source("static", texts)
}

pub(super) fn from_source(source: &str, texts: &[&str]) -> Event {
    let workloads = texts.iter().map(|text| workload(text)).collect();
    Event::Workloads(WorkloadEvent::Snapshot {
        source: source.into(),
        workloads,
        namespaces: Vec::new(),
        services: Vec::new(),
    })
}

/// `db<api` lets api talk to db and nobody else.
pub(super) fn policy(text: &str) -> PolicyFile {
    let (name, peer) = text.split_once('<').unwrap();
    let from = if peer.is_empty() {
        "[]".to_owned()
    } else {
        format!("[{{from: [{{workloads: {{matchLabels: {{app: {peer}}}}}}}]}}]")
    };
    PolicyFile {
        name: format!("dir/{name}.yaml"),
        text: format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
             subject: {{matchLabels: {{app: {name}}}}}\n  ingress: {from}\n"
        ),
    }
}

pub(super) fn files(texts: &[&str]) -> Event {
    Event::PolicyFiles(texts.iter().map(|text| policy(text)).collect())
}

pub(super) fn push(texts: &[&str]) -> Request {
    apply(texts.iter().map(|text| policy(text)).collect())
}

pub(super) fn apply(files: Vec<PolicyFile>) -> Request {
    Request::PolicyApply { files, dry_run: false, confirm_within: None, by: None }
}

pub(super) fn delete(names: &[&str]) -> Request {
    Request::PolicyDelete { names: names.iter().map(|&name| name.into()).collect() }
}

pub(super) fn key(app: &str) -> IdentityKey {
    IdentityKey::new("default", LabelSet([("app".to_owned(), app.to_owned())].into()))
}

pub(super) fn seconds(count: u64) -> Event {
    Event::Tick(at(count))
}

/// What the clocks say so many seconds after the start: the host runs for 100 s more, and it is 1970-01-12T13:46:40Z.
pub(super) fn at(count: u64) -> Clocks {
    Clocks {
        up: Duration::from_secs(count),
        boot: BootTime((100 + count) * 1_000_000_000),
        wall: Timestamp { seconds: 1_000_000 + i64::try_from(count).unwrap(), nanos: 0 },
    }
}

pub(super) fn generation(world: &World) -> Option<Generation> {
    world.table.as_ref().map(|table| table.generation())
}
