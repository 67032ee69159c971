//! The engine with a real kernel and a real disk: what it takes from an event to its last effect.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use enforcer::domain::command::PolicyFile;
use enforcer::domain::workload::{Changes, Resolved, WorkloadEvent};
use enforcer::engine::{Adopted, Done, Effect, Event, Facts, POLICIES, Remembered, State, step};
use enforcer::kernel::{self, Kernel, Scheduled, Settings};
use enforcer::store::{self, Store};

use super::site::Site;
use crate::world::World;

/// Name of the source.
const SOURCE: &str = "static";

/// What took how long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    /// From the event to the end of the last effect on the kernel, by the clock on the wall.
    pub(super) total: Duration,
    /// Of that, in the first step: taking the event in.
    pub(super) taken: Duration,
    /// In the other steps of the engine.
    pub(super) engine: Duration,
    /// Saving.
    pub(super) disk: Duration,
    /// Changing the kernel's maps.
    pub(super) kernel: Duration,
    /// Whether there was a new table.
    pub(super) publishes: bool,
}

/// An engine that enforces.
#[derive(Debug)]
pub(super) struct Live {
    state: State,
    store: Store,
    kernel: Kernel,
    settings: Settings,
    _world: World,
}

impl Live {
    /// With all workloads, namespaces and services of a site, and so many policies.
    pub(super) fn start(site: &Site, policies: usize) -> Self {
        let world = World::new("bench");
        let settings = world.settings();
        let (kernel, _) = Kernel::start(&settings).unwrap_or_else(|error| panic!("{error}"));
        let (store, _) = Store::open(&world.folder().join("state")).unwrap_or_else(|error| panic!("{error}"));
        let required = BTreeSet::from([SOURCE.to_owned(), POLICIES.to_owned()]);
        let facts = Facts { required, ..Facts::default() };
        let state = State::new(facts, Remembered::default()).expect("nothing was saved");
        let mut live = Self { state, store, kernel, settings, _world: world };
        live.perform(Event::Adopted(Adopted::default()));
        live.push(site, policies, 8_080);
        live.perform(Event::Workloads(WorkloadEvent::Snapshot {
            source: SOURCE.into(),
            workloads: site.workloads(),
            namespaces: site.described(),
            services: (0..site.service_count()).map(|number| site.service(number, None)).collect(),
        }));
        live
    }

    /// So many policies in the place of those before.
    pub(super) fn push(&mut self, site: &Site, policies: usize, port: u16) -> Took {
        let file = PolicyFile { name: "policies.yaml".into(), text: site.documents(policies, port) };
        self.perform(Event::PolicyFiles(vec![file]))
    }

    /// One more workload, and the service that it answers for, if any.
    pub(super) fn add(
        &mut self,
        workload: Resolved,
        service: Option<enforcer::domain::cluster::Service>,
    ) -> Took {
        let services = service.into_iter().collect();
        let changes = Box::new(Changes { workloads: vec![workload], services, ..Changes::default() });
        self.perform(Event::Workloads(WorkloadEvent::Changes { source: SOURCE.into(), changes }))
    }

    /// Does what the agent's owner does with an event, until nothing is left.
    fn perform(&mut self, event: Event) -> Took {
        let mut took = Took::default();
        let begin = Instant::now();
        let mut first = true;
        let mut events = VecDeque::from([event, Event::Quiet]);
        while let Some(event) = events.pop_front() {
            let is_acknowledgement = matches!(event, Event::Done(_));
            let at = Instant::now();
            let effects = step(&mut self.state, event);
            *(if std::mem::take(&mut first) { &mut took.taken } else { &mut took.engine }) += at.elapsed();
            for effect in effects {
                if let Some(done) = self.effect(effect, &mut took) {
                    took.total = begin.elapsed();
                    events.push_back(Event::Done(done));
                }
            }
            if is_acknowledgement && events.is_empty() {
                events.push_back(Event::Quiet);
            }
        }
        took
    }

    fn effect(&mut self, effect: Effect, took: &mut Took) -> Option<Done> {
        let at = Instant::now();
        match effect {
            Effect::Save(save) => {
                let enforcer::engine::Save { registry, write, remove, quarantines, confirmation } = *save;
                let changes = store::Changes { registry, write, remove, quarantines, confirmation };
                self.store.save(&changes).unwrap_or_else(|error| panic!("{error}"));
                took.disk += at.elapsed();
                Some(Done::Saved)
            }
            Effect::Publish(publication) => {
                let chain: Vec<Scheduled<'_>> = publication
                    .chain()
                    .map(|(table, until)| Scheduled { table, until: until.map(|until| until.0) })
                    .collect();
                self.kernel.publish(&chain).unwrap_or_else(|error| panic!("{error}"));
                took.kernel += at.elapsed();
                took.publishes = true;
                Some(Done::Published)
            }
            Effect::Place { publication, placed } => {
                let chain = publication.chain().map(|(table, _)| table);
                self.kernel.learn(chain, &placed).unwrap_or_else(|error| panic!("{error}"));
                took.kernel += at.elapsed();
                Some(Done::Published)
            }
            Effect::Apply(operations) => {
                for operation in &operations {
                    self.kernel.apply(operation).unwrap_or_else(|error| panic!("{operation:?}: {error}"));
                }
                took.kernel += at.elapsed();
                Some(Done::Applied(Vec::new()))
            }
            // What is measured is in the maps; nothing has to be judged by it.
            Effect::Attach => Some(Done::Attached(vec!["connect4".into()])),
            Effect::Refuse(message) => panic!("{message}"),
            _ => None,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        kernel::uninstall(&self.settings.pins).unwrap_or_else(|error| panic!("{error}"));
    }
}
