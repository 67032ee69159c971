//! Enforcement without the daemon: the kernel room and the compiler, driven by the test itself.

use std::collections::BTreeMap;
use std::path::Path;

use enforcer::domain::command::PolicyFile;
use enforcer::domain::delta::Operation;
use enforcer::domain::policy::check::check;
use enforcer::domain::policy::compile::compile;
use enforcer::domain::policy::model::Policy;
use enforcer::domain::registry::Registry;
use enforcer::domain::table::PolicyTable;
use enforcer::kernel::{self, Events, Kernel, Settings};
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowEvent, FlowKey, Outcome};
use enforcer_common::id::{CgroupId, Generation, IdentityId, RuleId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Direction, Word};
use tokio::runtime::Runtime;

use crate::workload::Workload;
use crate::world::World;
use crate::{numbers, patience};

/// See the module. Removes its pins when dropped.
#[derive(Debug)]
pub struct Direct {
    kernel: Kernel,
    settings: Settings,
    registry: Registry,
    generation: u64,
    policies: Vec<Policy>,
    names: BTreeMap<u32, String>,
    runtime: Runtime,
    events: Option<Events>,
}

/// A row of the counters in words: `web -> api TCP 8081 egress FORWARDED`.
pub type Counts = BTreeMap<String, u64>;

impl Direct {
    /// Loads and attaches; everything is allowed until policies come.
    pub fn start(world: &World) -> Self {
        let settings = world.settings();
        let (kernel, adopted) = Kernel::start(&settings).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(adopted.generation, None, "a new world has no tables");
        let mut direct = Self {
            kernel,
            settings,
            registry: Registry::default(),
            generation: 0,
            policies: Vec::new(),
            names: [(0, "unknown"), (1, "host"), (2, "world"), (3, "unmanaged")]
                .map(|(id, name)| (id, name.to_owned()))
                .into(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            events: None,
        };
        direct.publish();
        direct.kernel.attach().unwrap_or_else(|error| panic!("{error}"));
        direct
    }

    /// The kernel room.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Numbers of identities and rules.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Binds workloads to their identities: rows first, then bindings.
    pub fn bind<'a>(&mut self, workloads: impl IntoIterator<Item = &'a Workload>) {
        let workloads: Vec<_> = workloads.into_iter().collect();
        for workload in &workloads {
            let identity = self.registry.identity(&workload.identity());
            self.names.insert(identity.0, workload.name.clone());
        }
        self.publish();
        for workload in workloads {
            let identity = self.registry.identity(&workload.identity());
            self.apply(&Operation::Bind(workload.cgroup_id(), identity));
        }
    }

    /// Binds a directory to a reserved identity.
    pub fn bind_directory(&mut self, directory: &Path, identity: IdentityId) {
        self.apply(&Operation::Bind(crate::workload::cgroup_id(directory), identity));
    }

    /// Removes the binding of a directory.
    pub fn unbind(&mut self, cgroup: CgroupId) {
        self.apply(&Operation::Unbind(cgroup));
    }

    fn apply(&mut self, operation: &Operation) {
        self.kernel.apply(operation).unwrap_or_else(|error| panic!("{operation:?}: {error}"));
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
        let generation = Generation(self.generation + 1);
        compile(&self.policies, &mut self.registry, generation).expect("a table")
    }

    fn publish(&mut self) {
        let table = self.compile();
        self.generation += 1;
        self.kernel.publish(&table).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The counters that are not zero, in words.
    pub fn counts(&self) -> Counts {
        let rows = self.kernel.counters().unwrap_or_else(|error| panic!("{error}"));
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

    /// The workload with this identity.
    pub fn name(&self, identity: u32) -> String {
        self.names.get(&identity).cloned().unwrap_or_else(|| identity.to_string())
    }

    /// The rule with this number, as denials name it; `-` for none.
    pub fn rule(&self, id: RuleId) -> String {
        numbers::rule(&self.registry, id).map_or_else(|| "-".to_owned(), |key| key.to_string())
    }

    /// One of the programs' own counters.
    pub fn stat(&self, stat: Stat) -> u64 {
        self.kernel.stats().unwrap_or_else(|error| panic!("{error}"))[stat as usize]
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

    /// The events that are there, or come very soon.
    pub fn events(&mut self) -> Vec<Told> {
        let _context = self.runtime.enter();
        if self.events.is_none() {
            self.events = Some(self.kernel.take_events().unwrap_or_else(|error| panic!("{error}")));
        }
        let events = self.events.as_mut().expect("made above");
        let mut batch = Vec::new();
        // Twice as long as the reader sleeps.
        let limit = std::time::Duration::from_millis(100);
        match self.runtime.block_on(async { tokio::time::timeout(limit, events.next(&mut batch)).await }) {
            Ok(result) => result.expect("the ring can be read"),
            Err(_) => return Vec::new(),
        }
        assert_eq!(events.malformed(), 0);
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
            hook: enforcer_common::hook::Hook::from_code(event.hook).expect("a hook").program(),
            pid: event.pid,
            subject_cgroup: event.subject_cgroup,
            peer_cgroup: event.peer_cgroup,
            caller: event.caller,
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let result = kernel::uninstall(&self.settings.pins);
        if let Err(error) = result
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}

/// An event with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who opens the flow.
    pub from: String,
    /// The server.
    pub to: String,
    /// Its port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// By which rule.
    pub rule: String,
    /// What the application got.
    pub errno: i32,
    /// What the deciding word would tell the application.
    pub would_be: Errno,
    /// Program of the hook.
    pub hook: &'static str,
    /// Who called.
    pub pid: u32,
    /// Where the subject's socket was made.
    pub subject_cgroup: u64,
    /// Where the peer's socket was made.
    pub peer_cgroup: u64,
    /// Identity of a caller who is not the socket's creator.
    pub caller: u32,
}

/// The policies of a text that has no problem.
pub fn read(text: &str) -> Vec<Policy> {
    let file = PolicyFile { name: "test".into(), text: text.into() };
    let checked = check(&[file]).into_result().unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"));
    checked.into_iter().map(|checked| checked.policy).collect()
}
