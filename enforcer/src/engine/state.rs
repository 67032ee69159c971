//! What the engine knows. Changed by [`step`](super::step) only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use std::time::Duration;

use super::audit::Audited;
use super::canary::Canary;
use super::change::InFlight;
use super::cluster;
use super::cluster::Looks;
use super::conditions::Book;
use super::confirm::Unconfirmed;
use super::event::{Effect, Facts, Level, Remembered, Report, Ticket};
use super::index::Index;
use super::keys::Keys;
use super::objects::Objects;
use super::phase::{Area, Phase};
use super::planning::Asked;
use super::policies::{Documents, parse};
use super::schedule::{Schedule, taken_back};
use super::services::Known;
use super::sums::Sums;
use super::told::{Changed, Sources};
use crate::domain::account::TrustDomain;
use crate::domain::cluster::NamespaceLabels;
use crate::domain::cluster_policy::SourceInfo;
use crate::domain::command::{PolicyFile, Request};
use crate::domain::delta::Tables;
use crate::domain::id::{CgroupId, Generation, IdentityId, RuleId};
use crate::domain::names::Names;
use crate::domain::policy::compile::{Classifier, Guests};
use crate::domain::policy::model::PolicyKey;
use crate::domain::publication::Publication;
use crate::domain::quarantine::Quarantines;
use crate::domain::registry::Registry;
use crate::domain::time::Clocks;
use crate::domain::timestamp::Timestamp;
use crate::domain::unconfirmed::{Confirmation, UnconfirmedPush};
use crate::domain::unguarded::Coverage;

/// Why the engine can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What an earlier agent saved as a good policy is refused now.
    #[error(
        "the saved policies are not valid ({first}, {count} in all): correct or remove that file and start again"
    )]
    SavedPolicies {
        /// The first problem, with its place.
        first: String,
        /// How many there are.
        count: usize,
    },
}

/// What a table was made from: it is made again when one of these differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    /// Counts changes of the policy set.
    pub(super) revision: u64,
    /// The highest identity number; numbers are never taken back.
    pub(super) last: IdentityId,
    /// Who may open flows to whom in quarantine.
    pub(super) guests: Guests,
    /// Labels of namespaces, as far as policies look at them.
    pub(super) namespaces: Arc<NamespaceLabels>,
    /// Services, if policies say what may be called.
    pub(super) services: Known,
    pub(super) schedule: Schedule,
    /// As the agent was told at its start.
    pub(super) trust_domain: TrustDomain,
}

impl Inputs {
    /// Whether tables made from the others say the same, but for identities that are new and for services.
    fn are_as(&self, others: &Self) -> bool {
        let Self { revision, last: _, guests, namespaces, services: _, schedule, trust_domain: _ } = others;
        (self.revision, &self.guests, &self.namespaces) == (*revision, guests, namespaces)
            && self.schedule.is_as(schedule)
    }
}

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Pushed documents.
    pub(super) documents: BTreeMap<PolicyKey, String>,
    /// `None` if that is not known.
    pub(super) quarantines: Option<Quarantines>,
    /// `None` if that is not known.
    pub(super) confirmation: Option<Confirmation>,
}

impl Stored {
    /// What has to be on disk for what is asked for.
    pub(super) fn of(asked: &Asked) -> Self {
        let pushed = &asked.policies.pushed;
        let confirmation = match &asked.unconfirmed {
            None => Confirmation::Settled,
            Some(push) => Confirmation::Awaited(UnconfirmedPush {
                since: push.since,
                until: push.until.clone(),
                by: push.by,
                documents: texts(pushed),
            }),
        };
        // What was there before has to be found by whoever does not know of the push.
        let confirmed = asked.unconfirmed.as_ref().map_or(pushed, |push| &push.before);
        Self {
            documents: texts(confirmed),
            quarantines: Some(asked.quarantines.clone()),
            confirmation: Some(confirmation),
        }
    }
}

/// The tables that the kernel enforces, or is to.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// What was asked for, but for quarantines.
    pub(super) asked: Arc<Asked>,
    pub(super) publication: Arc<Publication>,
    /// Tells classes in each of the tables, in their order.
    pub(super) classifiers: Arc<[Classifier]>,
    pub(super) inputs: Inputs,
    /// Whether they can be made to know somebody who is new. If the kernel refuses it once, other tables are made.
    pub(super) grows: bool,
}

impl Published {
    /// What these tables become for other inputs if no other tables are needed for them: themselves, or themselves with
    /// the identities that are new, which are given.
    pub(super) fn grown(&self, inputs: &Inputs, registry: &Registry) -> Option<(Self, Vec<IdentityId>)> {
        let is_new = self.inputs.last != inputs.last;
        if !self.inputs.are_as(inputs) || (is_new && !self.grows) {
            return None;
        }
        let mut publication = Arc::clone(&self.publication);
        let mut placed = Vec::new();
        for (identity, key) in registry.above(self.inputs.last) {
            let classes: Option<Vec<u32>> =
                self.classifiers.iter().map(|classifier| classifier.classify(key)).collect();
            publication = Arc::new(publication.place(identity, classes?)?);
            placed.push(identity);
        }
        // By their classes, which those who are new have by now.
        if !cluster::are_alike(&publication, &self.inputs.services, &inputs.services) {
            return None;
        }
        let schedule = self.inputs.schedule.clone();
        let inputs = Inputs { schedule, ..inputs.clone() };
        let classifiers = Arc::clone(&self.classifiers);
        let asked = Arc::clone(&self.asked);
        Some((Self { asked, publication, classifiers, inputs, grows: true }, placed))
    }
}

/// A change that was asked for and waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
}

/// When a failed change is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) at: Duration,
    pub(super) attempt: u32,
}

/// The state of the engine.
#[derive(Debug)]
pub struct State {
    pub(super) facts: Facts,
    pub(super) now: Clocks,
    pub(super) draining: bool,
    /// Required sources that have not given a snapshot yet.
    pub(super) missing: BTreeSet<String>,
    pub(super) sources: Sources,
    /// What the sources have told since a change was planned last.
    pub(super) changed: Changed,
    /// What follows from what was told until then.
    pub(super) index: Index,
    /// Labels of all namespaces that the sources know.
    pub(super) namespaces: NamespaceLabels,
    /// Counts their changes.
    pub(super) namespaces_version: u64,
    pub(super) looks: Option<Looks>,
    /// The labels that count.
    pub(super) keys: Keys,
    /// Those that count for this.
    pub(super) keys_of: Option<(Arc<Asked>, Keys)>,
    pub(super) managed: BTreeMap<String, Option<CgroupId>>,
    /// The host's own addresses; `None` before they were told.
    pub(super) own: Option<BTreeSet<IpAddr>>,
    /// The last files of the directories, as they were read.
    pub(super) files: Option<Vec<PolicyFile>>,
    /// The policy objects of the cluster, those that are refused included.
    pub(super) objects: Objects,
    /// How sources are that say so, by name.
    pub(super) infos: BTreeMap<String, SourceInfo>,
    pub(super) asked: Arc<Asked>,
    pub(super) audited: Audited,
    pub(super) revision: u64,
    pub(super) registry: Registry,
    /// The highest numbers in the registry on disk.
    pub(super) saved: (IdentityId, RuleId),
    pub(super) stored: Stored,
    /// What was asked for when the rest of the disk was compared with it last, and was the same.
    pub(super) settled: Option<Arc<Asked>>,
    /// What the kernel's bindings and addresses are; `None` before the kernel is ready.
    pub(super) programmed: Option<Tables>,
    /// The highest generation that the kernel may have seen.
    pub(super) generation: Generation,
    pub(super) adopted: Option<Generation>,
    pub(super) published: Option<Published>,
    pub(super) hooks: Option<Vec<String>>,
    /// What the host and the configuration leave open.
    pub(super) coverage: Coverage,
    /// What is worth knowing of the kernel.
    pub(super) notices: Vec<String>,
    /// How sources stand that say so.
    pub(super) standings: BTreeMap<String, String>,
    pub(super) names: Arc<Names>,
    pub(super) queue: VecDeque<Waiting>,
    pub(super) in_flight: Option<InFlight>,
    /// What is over and was told to be.
    pub(super) over: BTreeSet<(String, Timestamp)>,
    /// What is to be said of the last push, if it was taken back.
    pub(super) rolled_back: Option<String>,
    /// Something changed since the last plan was made.
    pub(super) dirty: bool,
    pub(super) retry: Option<Retry>,
    /// Steps that took effect since open sockets were last judged.
    pub(super) unjudged: u32,
    pub(super) problems: BTreeMap<(Area, String), String>,
    /// Where policies stand.
    pub(super) conditions: Book,
    pub(super) canary: Canary,
    /// Of what is wanted and what is in force, and whether they may be others by now.
    pub(super) sums: (Sums, bool),
    /// Something happened that the numbers for the metrics may show.
    pub(super) touched: bool,
    told: Told,
}

/// What was said last, so that only differences are said.
#[derive(Debug, Default)]
struct Told {
    problems: BTreeMap<(Area, String), String>,
    readiness: Option<(bool, String)>,
    report: Option<Report>,
    phase: Option<Phase>,
}

/// What an unconfirmed push consists of.
fn files_of(push: &UnconfirmedPush) -> Vec<PolicyFile> {
    let name = |key| format!("the unconfirmed push of {}: {key}", push.since.whole_seconds());
    push.documents.iter().map(|(key, text)| PolicyFile { name: name(key), text: text.clone() }).collect()
}

impl State {
    /// The state of an agent that starts, from what an earlier one saved.
    ///
    /// # Errors
    /// If a saved policy is not valid any more.
    pub fn new(facts: Facts, remembered: Remembered) -> Result<Self, Error> {
        let Remembered { registry, documents, quarantines, confirmation } = remembered;
        let before = documents_of(&documents)?;
        let stored = Stored {
            documents: texts(&before),
            quarantines: Some(quarantines.clone()),
            confirmation: Some(confirmation.clone()),
        };
        let mut asked = Asked { quarantines: adopted(quarantines, &facts), ..Asked::default() };
        let mut rolled_back = None;
        asked.policies.pushed = match confirmation {
            Confirmation::Settled => before,
            Confirmation::Awaited(push)
                if push.until.boot_id == facts.boot_id && push.until.boot > facts.now.boot =>
            {
                let pushed = documents_of(&files_of(&push))?;
                asked.unconfirmed =
                    Some(Unconfirmed { since: push.since, until: push.until, by: push.by, before });
                pushed
            }
            // The kernel has gone back already, or with the last run of the host.
            Confirmation::Awaited(push) => {
                rolled_back = Some(taken_back(push.since, push.until.wall));
                before
            }
        };
        let mut state = Self {
            missing: facts.required.clone(),
            now: facts.now,
            facts,
            draining: false,
            sources: Sources::new(),
            changed: Changed::default(),
            index: Index::default(),
            namespaces: NamespaceLabels::default(),
            namespaces_version: 0,
            looks: None,
            keys: Keys::default(),
            keys_of: None,
            managed: BTreeMap::new(),
            own: None,
            files: None,
            objects: Objects::new(),
            infos: BTreeMap::new(),
            stored,
            audited: Audited::new(&asked.policies, &asked.quarantines),
            asked: Arc::new(asked),
            settled: None,
            over: BTreeSet::new(),
            rolled_back,
            revision: 1,
            saved: registry.last(),
            registry,
            programmed: None,
            generation: Generation(0),
            adopted: None,
            published: None,
            hooks: None,
            coverage: Coverage::default(),
            notices: Vec::new(),
            standings: BTreeMap::new(),
            names: Arc::default(),
            queue: VecDeque::new(),
            in_flight: None,
            dirty: true,
            retry: None,
            unjudged: 0,
            problems: BTreeMap::new(),
            conditions: Book::default(),
            canary: Canary::default(),
            sums: (Sums::default(), true),
            touched: true,
            told: Told::default(),
        };
        // What is known from the start, so that names are complete before the first table.
        let asked = Arc::clone(&state.asked);
        super::views::bring_names(&mut state, &asked);
        Ok(state)
    }

    /// Where the agent stands. Derived, never stored, so that it can't disagree with its reasons.
    pub fn phase(&self) -> Phase {
        if self.draining {
            Phase::Draining
        } else if self.programmed.is_none() {
            Phase::Starting
        } else if self.hooks.is_none() || self.published.is_none() {
            Phase::Syncing
        } else if self.problems.is_empty() {
            Phase::Enforcing
        } else {
            Phase::Degraded
        }
    }

    /// Whether tables can be made: the kernel is ready and every required source has spoken.
    pub(super) fn synced(&self) -> bool {
        self.programmed.is_some() && self.missing.is_empty()
    }

    /// The generation in force, 0 if none.
    pub(super) fn enforced(&self) -> u64 {
        let adopted = self.adopted.unwrap_or_default();
        self.published.as_ref().map_or(adopted, |published| published.publication.table.generation()).0
    }

    /// Replaces all problems of an area by these.
    pub(super) fn set_problems(&mut self, area: Area, problems: impl IntoIterator<Item = (String, String)>) {
        self.problems.retain(|(of, _), _| *of != area);
        self.problems.extend(problems.into_iter().map(|(object, message)| ((area, object), message)));
    }

    /// Sets or clears one problem.
    pub(super) fn set_problem(&mut self, area: Area, object: &str, problem: Option<String>) {
        let key = (area, object.to_owned());
        match problem {
            Some(message) => drop(self.problems.insert(key, message)),
            None => drop(self.problems.remove(&key)),
        }
    }

    /// One line for `/readyz`.
    fn reason(&self) -> String {
        let phase = self.phase();
        let mut parts = vec![phase.label().to_owned()];
        if matches!(phase, Phase::Starting | Phase::Syncing) && !self.missing.is_empty() {
            let missing: Vec<&str> = self.missing.iter().map(String::as_str).collect();
            parts.push(format!("waiting for the first word of {}", missing.join(", ")));
        }
        if phase == Phase::Syncing && self.adopted.is_some() && self.published.is_none() {
            parts.push(format!("generation {} of the last run is enforced meanwhile", self.enforced()));
        }
        let mut problems = self.problems.values();
        if let Some(first) = problems.next() {
            parts.push(match problems.count() {
                0 => first.clone(),
                more => format!("{first} (and {more} more: `enforcer status` lists them)"),
            });
        }
        parts.join("; ")
    }

    /// Says what differs from what was said last: phase, problems and readiness.
    pub(super) fn announce(&mut self, effects: &mut Vec<Effect>) {
        let log = |level, message| Effect::Log { level, message };
        let problem = |area: Area, message: &String, settled| Effect::Problem {
            area: area.label(),
            message: message.clone(),
            settled,
        };
        if self.told.problems != self.problems {
            for (key, message) in &self.problems {
                if self.told.problems.get(key) != Some(message) {
                    effects.push(log(Level::Warn, message.clone()));
                    effects.push(problem(key.0, message, false));
                }
            }
            for (key, message) in &self.told.problems {
                if !self.problems.contains_key(key) {
                    effects.push(log(Level::Info, format!("settled: {message}")));
                    effects.push(problem(key.0, message, true));
                }
            }
            self.told.problems.clone_from(&self.problems);
        }
        let phase = self.phase();
        if self.told.phase != Some(phase) {
            self.told.phase = Some(phase);
            effects.push(log(Level::Info, format!("the agent is {}", phase.label())));
        }
        let readiness = (matches!(phase, Phase::Enforcing | Phase::Degraded), self.reason());
        if self.told.readiness.as_ref() != Some(&readiness) {
            self.told.readiness = Some(readiness.clone());
            // Whoever waits for it finds the numbers that belong to it.
            self.report(effects);
            effects.push(Effect::Readiness { ready: readiness.0, reason: readiness.1 });
        }
    }

    /// Sends new numbers for the metrics if they differ.
    pub(super) fn report(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        let report = super::views::report(self);
        if self.told.report.as_ref() != Some(&report) {
            self.told.report = Some(report.clone());
            effects.push(Effect::Report(report));
        }
    }
}

/// Saved quarantines. Of another run of the host only the wall clock is left; then they are written anew.
fn adopted(mut quarantines: Quarantines, facts: &Facts) -> Quarantines {
    let offset = facts.now.offset();
    for until in quarantines.values_mut().filter_map(|quarantine| quarantine.until.as_mut()) {
        *until = until.adopted(&facts.boot_id, offset);
    }
    quarantines
}

/// The policies of saved documents.
fn documents_of(files: &[PolicyFile]) -> Result<Documents, Error> {
    parse(files).map_err(|problems| Error::SavedPolicies {
        count: problems.len(),
        first: problems.into_iter().next().unwrap_or_default(),
    })
}

/// The documents as they are on disk.
pub(super) fn texts(documents: &Documents) -> BTreeMap<PolicyKey, String> {
    documents.iter().map(|(key, loaded)| (key.clone(), loaded.text.clone())).collect()
}
