//! Enforcement without the daemon: the kernel room and the compiler, driven by the test itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;

use enforcer::domain::cluster_file::Cluster;
use enforcer::domain::command::PolicyFile;
use enforcer::domain::delta::{Bound, Operation};
use enforcer::domain::policy::check::check;
use enforcer::domain::policy::compile::{Scene, compile_scene};
use enforcer::domain::policy::model::Policy;
use enforcer::domain::registry::{IdentityKey, Registry};
use enforcer::domain::table::PolicyTable;
use enforcer::domain::{self, cluster::KnownService};
use enforcer::kernel::{self, Events, Kernel, Scheduled, Settings};
use enforcer_common::abi::config::{EventLimits, Mode, Stat};
use enforcer_common::abi::flow::{FlowEvent, FlowKey, Latency, Outcome, Traffic};
use enforcer_common::abi::identity::Role;
use enforcer_common::hook::Hook;
use enforcer_common::id::{CgroupId, Generation, IdentityId, RuleId};
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Direction, Word};
use ipnet::IpNet;
use tokio::runtime::Runtime;

pub use crate::told::Told;
use crate::workload::Workload;
use crate::world::World;
use crate::{numbers, patience};

/// What is used again by the next test, because the verifier takes seconds over the programs. Attached to a symbolic
/// link that leads to the present test's directory.
#[derive(Debug)]
struct Engine {
    kernel: Kernel,
    settings: Settings,
    registry: Registry,
    generation: u64,
    runtime: Runtime,
    events: Events,
    /// Owns the pins.
    _world: World,
}

static IDLE: Mutex<Vec<Engine>> = Mutex::new(Vec::new());

/// Removes what is kept for the next test.
pub fn finish() {
    for engine in IDLE.lock().expect("nobody panics here").drain(..) {
        kernel::uninstall(&engine.settings.pins).unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Engine {
    fn load() -> Self {
        let world = World::new("engine");
        let settings = Settings { attach: world.folder().join("attach"), ..world.settings() };
        let (mut kernel, adopted) = Kernel::start(&settings).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(adopted.generation, None, "a new world has no tables");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let events = {
            let _context = runtime.enter();
            kernel.take_events().unwrap_or_else(|error| panic!("{error}"))
        };
        Self {
            kernel,
            settings,
            registry: Registry::default(),
            generation: 0,
            runtime,
            events,
            _world: world,
        }
    }

    fn attach(&mut self, directory: &Path) {
        symlink(directory, &self.settings.attach).expect("a symbolic link");
        self.kernel.attach().unwrap_or_else(|error| panic!("{error}"));
    }

    fn detach(&mut self) -> std::io::Result<()> {
        for hook in Hook::ALL {
            let pin = self.settings.pins.join(format!("link_{}", hook.program()));
            // A kernel may do without some.
            if pin.exists() {
                fs::remove_file(pin)?;
            }
        }
        fs::remove_file(&self.settings.attach)
    }

    /// Passes over what an earlier test has left in the ring.
    fn discard(&mut self) {
        loop {
            let mut stale = Vec::new();
            self.drain(&mut stale);
            if stale.is_empty() {
                return;
            }
        }
    }

    /// Appends the events that are there, or come very soon.
    fn drain(&mut self, batch: &mut Vec<FlowEvent>) {
        // Twice as long as the reader sleeps.
        self.drain_within(std::time::Duration::from_millis(100), batch);
    }

    fn drain_within(&mut self, limit: std::time::Duration, batch: &mut Vec<FlowEvent>) {
        let next = async { tokio::time::timeout(limit, self.events.next(batch)).await };
        if let Ok(result) = self.runtime.block_on(next) {
            result.expect("the ring can be read");
        }
        assert_eq!(self.events.malformed(), 0);
    }
}

/// See the module. Nothing is enforced any more once it is dropped.
#[derive(Debug)]
pub struct Direct {
    /// There until dropped.
    engine: Option<Engine>,
    policies: Vec<Policy>,
    scene: Scene,
    names: BTreeMap<u32, String>,
    bound: BTreeSet<CgroupId>,
    addresses: BTreeSet<IpNet>,
    own: BTreeSet<IpAddr>,
    stats: [u64; Stat::COUNT],
}

/// A row of the counters in words: `web -> api TCP 8081 egress FORWARDED`.
pub type Counts = BTreeMap<String, u64>;

/// Rows of traffic in words: `web TCP 8081 client of api`.
pub type Carried = BTreeMap<String, Traffic>;

impl Direct {
    /// Attaches; everything is allowed until policies come.
    pub fn start(world: &World) -> Self {
        let idle = IDLE.lock().expect("nobody panics here").pop();
        let mut engine = idle.unwrap_or_else(Engine::load);
        engine.discard();
        let stats = engine.kernel.stats().unwrap_or_else(|error| panic!("{error}"));
        let reserved = [(0, "unknown"), (1, "host"), (2, "world"), (3, "unmanaged")];
        let mut direct = Self {
            engine: Some(engine),
            policies: Vec::new(),
            scene: Scene::default(),
            names: reserved.map(|(id, name)| (id, name.to_owned())).into(),
            bound: BTreeSet::new(),
            addresses: BTreeSet::new(),
            own: BTreeSet::new(),
            stats,
        };
        direct.publish();
        direct.engine().attach(&world.guarded());
        direct
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("there until dropped")
    }

    fn engine_ref(&self) -> &Engine {
        self.engine.as_ref().expect("there until dropped")
    }

    /// The kernel room.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.engine().kernel
    }

    /// The directory of its pins.
    pub fn pins(&self) -> &Path {
        &self.engine_ref().settings.pins
    }

    /// The generation that the next table has.
    pub fn next_generation(&self) -> u64 {
        self.engine_ref().generation + 1
    }

    /// Tables up to this generation were published by way of the kernel room.
    pub fn skip_generations(&mut self, last: u64) {
        self.engine().generation = last;
    }

    /// Numbers of identities and rules.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.engine().registry
    }

    /// Binds workloads to their identities: rows first, then bindings.
    pub fn bind<'a>(&mut self, workloads: impl IntoIterator<Item = &'a Workload>) {
        let workloads: Vec<_> = workloads.into_iter().collect();
        for workload in &workloads {
            let identity = self.registry().identity(&workload.identity());
            self.names.insert(identity.0, workload.name.clone());
        }
        self.publish();
        for workload in workloads {
            let identity = self.registry().identity(&workload.identity());
            self.apply(&Operation::Bind(workload.cgroup_id(), Bound::always(identity)));
        }
    }

    /// Has this cluster in the place of the one before: every pod is known by its addresses and bound by its directory,
    /// every service by its addresses, every namespace by its labels. Policies stay as they are.
    pub fn settle(&mut self, cluster: &Cluster, directory: impl Fn(&domain::workload::Workload) -> CgroupId) {
        let (mut addresses, mut bound) = (BTreeMap::new(), BTreeMap::new());
        for pod in cluster.pods.iter().map(|pod| &pod.workload) {
            let identity = self.registry().identity(&IdentityKey {
                namespace: pod.key.namespace.clone(),
                labels: (*pod.labels).clone(),
                ports: pod.ports.clone(),
                account: pod.account.clone(),
                service: None,
            });
            self.names.insert(identity.0, pod.key.to_string());
            addresses.extend(pod.addresses.iter().map(|net| (*net, identity)));
            bound.insert(directory(pod), identity);
        }
        let mut services = Vec::new();
        for service in &cluster.services {
            let identity =
                self.registry().identity(&IdentityKey::service(&*service.namespace, &*service.name));
            self.names.insert(identity.0, format!("service/{}/{}", service.namespace, service.name));
            let who = |address| addresses.get(&IpNet::from(address)).copied().unwrap_or(IdentityId::WORLD);
            services.push(KnownService::new(identity, service, who));
        }
        for service in &services {
            addresses.extend(service.addresses.iter().map(|ip| (IpNet::from(*ip), service.identity)));
        }
        let namespaces = cluster.namespaces.iter().cloned().collect();
        self.scene = Scene { namespaces, services, ..Scene::default() };
        // Rows first, then who has them; what is left of the cluster before goes last.
        self.publish();
        let gone = self.addresses.iter().filter(|net| !addresses.contains_key(net));
        let unbound = self.bound.iter().filter(|id| !bound.contains_key(id));
        let set = addresses.iter().map(|(net, identity)| Operation::SetAddress(*net, *identity));
        let bind = bound.iter().map(|(id, identity)| Operation::Bind(*id, Bound::always(*identity)));
        let remove = gone.map(|net| Operation::RemoveAddress(*net));
        let unbind = unbound.map(|id| Operation::Unbind(*id));
        let operations: Vec<_> = set.chain(bind).chain(remove).chain(unbind).collect();
        for operation in &operations {
            self.apply(operation);
        }
    }

    /// Binds a directory to a reserved identity.
    pub fn bind_directory(&mut self, directory: &Path, identity: IdentityId) {
        self.apply(&Operation::Bind(crate::workload::cgroup_id(directory), Bound::always(identity)));
    }

    /// Makes an address known as the host's own, in the namespace of this world.
    pub fn own_address(&mut self, world: &World, address: IpAddr) {
        let kernel = self.kernel();
        world.inside(|| kernel.set_own_namespace()).unwrap_or_else(|error| panic!("{error}"));
        self.apply(&Operation::SetOwn(address));
        self.own.insert(address);
    }

    /// Removes the binding of a directory.
    pub fn unbind(&mut self, cgroup: CgroupId) {
        self.apply(&Operation::Unbind(cgroup));
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Bind(cgroup, _) => _ = self.bound.insert(*cgroup),
            Operation::Unbind(cgroup) => _ = self.bound.remove(cgroup),
            Operation::SetAddress(net, _) => _ = self.addresses.insert(*net),
            Operation::RemoveAddress(net) => _ = self.addresses.remove(net),
            Operation::SetOwn(_) | Operation::RemoveOwn(_) => {}
        }
        self.kernel().apply(operation).unwrap_or_else(|error| panic!("{operation:?}: {error}"));
    }

    /// Replaces all policies by those of a text.
    pub fn policies(&mut self, text: &str) {
        self.set_policies(read(text));
    }

    /// Replaces all policies.
    pub fn set_policies(&mut self, policies: Vec<Policy>) {
        self.policies = policies;
        self.publish();
    }

    /// The table as it would be published next.
    pub fn compile(&mut self) -> PolicyTable {
        let engine = self.engine.as_mut().expect("there until dropped");
        let generation = Generation(engine.generation + 1);
        compile_scene(&self.policies, &self.scene, &mut engine.registry, generation).expect("a table")
    }

    fn publish(&mut self) {
        let table = self.compile();
        self.engine().generation += 1;
        let chain = [Scheduled::always(&table)];
        self.kernel().publish(&chain).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The counters that are not zero, in words.
    pub fn counts(&self) -> Counts {
        let rows = self.engine_ref().kernel.counters().unwrap_or_else(|error| panic!("{error}"));
        let mut counts = Counts::new();
        for (key, count) in rows {
            *counts.entry(self.row(&key)).or_default() += count;
        }
        counts
    }

    /// What was counted since `before`.
    pub fn counted_since(&self, before: &Counts) -> Counts {
        let mut now = self.counts();
        for (row, count) in before {
            *now.get_mut(row).unwrap_or_else(|| panic!("the counter {row} is gone")) -= count;
        }
        now.retain(|_, count| *count > 0);
        now
    }

    fn row(&self, key: &FlowKey) -> String {
        let direction = Direction::from_code(key.direction).expect("a direction");
        let (from, to) = match direction {
            Direction::Egress => (key.subject, key.peer),
            Direction::Ingress => (key.peer, key.subject),
        };
        let protocol = match key.protocol {
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            other => other.to_string(),
        };
        let outcome = Outcome::from_code(key.outcome).expect("an outcome");
        format!(
            "{} -> {} {protocol} {} {} {}",
            self.name(from),
            self.name(to),
            key.port,
            direction.label(),
            outcome.label()
        )
    }

    /// What flows have carried since `before`, in words: `web TCP 8081 client of api`.
    pub fn carried_since(&self, before: &Carried) -> Carried {
        let rows = self.engine_ref().kernel.traffic().unwrap_or_else(|error| panic!("{error}"));
        let mut carried = Carried::new();
        for (key, traffic) in rows {
            let protocol = if key.protocol == 6 { "TCP" } else { "UDP" };
            let role = Role::from_code(key.role.into()).label();
            let row = format!(
                "{} {protocol} {} {role} of {}",
                self.name(key.subject),
                key.port,
                self.name(key.peer)
            );
            carried.entry(row).or_insert(Traffic::NONE).add(&traffic);
        }
        for (row, traffic) in before {
            carried.get_mut(row).unwrap_or_else(|| panic!("the row {row} is gone")).subtract(traffic);
        }
        carried.retain(|_, traffic| *traffic != Traffic::NONE);
        carried
    }

    /// The workload with this identity.
    pub fn name(&self, identity: u32) -> String {
        self.names.get(&identity).cloned().unwrap_or_else(|| identity.to_string())
    }

    /// The rule with this number, as denials name it; `-` for none.
    pub fn rule(&self, id: RuleId) -> String {
        numbers::rule(&self.engine_ref().registry, id).map_or_else(|| "-".to_owned(), |key| key.to_string())
    }

    /// One of the programs' own counters, since the start.
    pub fn stat(&self, stat: Stat) -> u64 {
        let stats = self.engine_ref().kernel.stats().unwrap_or_else(|error| panic!("{error}"));
        stats[stat as usize] - self.stats[stat as usize]
    }

    /// Sets which events are told.
    pub fn limit_events(&mut self, limits: EventLimits) {
        self.engine().kernel.set_event_limits(limits).unwrap_or_else(|error| panic!("{error}"));
    }

    /// How long this took on all flows since the start, by name of the subject.
    pub fn latency(&self) -> BTreeMap<String, Latency> {
        let rows = self.engine_ref().kernel.latency().unwrap_or_else(|error| panic!("{error}"));
        let mut sums = BTreeMap::new();
        for (key, row) in rows {
            sums.entry(self.name(key.subject)).or_insert(Latency::NONE).add(&row);
        }
        sums
    }

    /// The next event that is like this; others are passed over.
    pub fn event(&mut self, what: &str, is_it: impl Fn(&Told) -> bool) -> Told {
        let mut seen = Vec::new();
        let deadline = std::time::Instant::now() + patience::seconds(5);
        while std::time::Instant::now() < deadline {
            for event in self.events() {
                if is_it(&event) {
                    return event;
                }
                seen.push(event);
            }
        }
        panic!("no event is {what}; there were {seen:#?}");
    }

    /// Makes room in the ring, as the daemon's reader does all the time.
    pub fn forget_events(&mut self) {
        loop {
            let mut batch = Vec::new();
            self.engine().drain_within(std::time::Duration::ZERO, &mut batch);
            if batch.is_empty() {
                return;
            }
        }
    }

    /// The events that are there, or come very soon.
    pub fn events(&mut self) -> Vec<Told> {
        let mut batch = Vec::new();
        self.engine().drain(&mut batch);
        batch.iter().map(|event| self.told(event)).collect()
    }

    fn told(&self, event: &FlowEvent) -> Told {
        let direction = Direction::from_code(event.direction).expect("a direction");
        let word = Word(if direction == Direction::Egress { event.egress } else { event.ingress });
        Told {
            from: self.name(event.subject),
            to: self.name(event.peer),
            port: event.port,
            protocol: event.protocol,
            outcome: Outcome::from_code(event.outcome).expect("an outcome"),
            reason: Reason::from_code(word.reason_code()).expect("a reason"),
            rule: self.rule(word.rule()),
            errno: i32::from(event.errno),
            would_be: word.errno(),
            hook: Hook::from_code(event.hook).expect("a hook").program(),
            pid: event.pid,
            subject_cgroup: event.subject_cgroup,
            peer_cgroup: event.peer_cgroup,
            caller: event.caller,
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        let unbound = self.bound.iter().try_for_each(|id| engine.kernel.apply(&Operation::Unbind(*id)));
        let not_own =
            self.own.iter().try_for_each(|address| engine.kernel.apply(&Operation::RemoveOwn(*address)));
        let forgotten =
            self.addresses.iter().try_for_each(|net| engine.kernel.apply(&Operation::RemoveAddress(*net)));
        let clean = unbound.is_ok()
            && forgotten.is_ok()
            && not_own.is_ok()
            && engine.kernel.set_mode(Mode::Enforce).is_ok()
            && engine.kernel.set_event_limits(EventLimits::default()).is_ok()
            && engine.detach().is_ok();
        if clean {
            IDLE.lock().expect("nobody panics here").push(engine);
        } else {
            // Its own world goes with it, pins and all.
            assert!(std::thread::panicking(), "the engine can't be used again");
        }
    }
}

/// The policies of a text that has no problem.
pub fn read(text: &str) -> Vec<Policy> {
    let file = PolicyFile { name: "test".into(), text: text.into() };
    let checked = check(&[file]).into_result().unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"));
    checked.into_iter().map(|checked| checked.policy).collect()
}
