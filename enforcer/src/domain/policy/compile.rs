//! The compiler: from policies and identities to the table of one generation.
//!
//! Nothing of a policy's text is left in a table. Identities, addresses and ports that no loaded policy can tell
//! apart share a class; an entry says what holds between a subject's class and a peer's class on a class of ports.
//!
//! # Cost
//! A rule makes one entry per (subject class, peer class, port class) that it matches, so what counts is how many
//! ways the loaded policies tell things apart, not how many things there are: ten thousand workloads with the same
//! labels are one class. The worst case is many rules whose selectors overlap in different ways. Rules for everyone
//! and for all ports cost one entry per subject class. If some policy is in audit mode, the others have their
//! entries twice; for subjects that a Pass rule selects, everything beneath the admin tier is there once more.

mod addresses;
mod classes;
mod classifier;
mod containers;
mod entries;
mod intervals;
mod layers;
mod lower;
mod people;
mod ports;
mod questions;
mod services;
#[cfg(test)]
mod tests;
mod wards;

use std::collections::BTreeSet;

use enforcer_common::abi::policy::{BY_ADDRESS, LISTEN, Plane, SOCKET};
use enforcer_common::id::{Generation, IdentityId, RuleId};
use enforcer_common::reason::{CANARY_ERRNO, Errno, Reason};
use enforcer_common::verdict::{Direction, Tier, Word};

use self::addresses::AddressClasses;
use self::classes::IdentityClasses;
use self::classifier::Made;
use self::containers::{Lens, Widened};
use self::entries::Entries;
use self::layers::{Beneath, Ranks};
use self::lower::{LoweredPolicy, LoweredSection, Lowering, Part, PartPorts, Party, number};
use self::people::People;
use self::ports::PortClasses;
use self::questions::Questions;
use self::services::Services;
use self::wards::Wards;
use super::model::{Action, Policy, PolicyMode, RuleDirection};
use crate::domain::account::TrustDomain;
use crate::domain::cluster::{KnownService, NamespaceLabels};
use crate::domain::registry::Registry;
use crate::domain::table::{MAX_ENTRIES, PolicyTable, Sections};
use crate::domain::timestamp::Timestamp;

pub(super) use self::addresses::is_inside;
pub use self::classifier::Classifier;
pub use self::wards::{Guest, Guests};
pub use crate::domain::table::CompileError;

/// Identities that a table takes in after it was made, at most. They cost four bytes each.
pub const IDENTITY_SPARE: usize = 1_024;
/// The class that stands for "any" in a key.
const ANY: &[u32] = &[0];
/// The class that stands for listening in the place of a peer.
const LISTENING: &[u32] = &[LISTEN];
/// The class that stands for creating sockets in the place of a peer.
const CREATING: &[u32] = &[SOCKET];
/// "Any" of ports.
const ANY_PORT: &[u16] = &[0];
/// Who is known and of whom no entry speaks.
const DEFAULT: Word = Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE);

/// What a table is made from besides policies and identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// What the wall clock says: what is over by then is left out.
    pub at: Timestamp,
    /// Who may open flows to whom in quarantine.
    pub guests: Guests,
    /// Labels of namespaces.
    pub namespaces: NamespaceLabels,
    /// Services, by those who answer for them.
    pub services: Vec<KnownService>,
    /// The trust domain of every workload.
    pub trust_domain: TrustDomain,
}

/// A table with what it takes to find the class of an identity that it was made without.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The table.
    pub table: PolicyTable,
    /// Tells classes.
    pub classifier: Classifier,
}

/// Compiles policies in an empty scene: nothing of them is over, nobody is in quarantine with guests, namespaces have no
/// labels but their names, and there are no services.
///
/// # Errors
/// As [`compile_scene`].
pub fn compile<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    registry: &mut Registry,
    generation: Generation,
) -> Result<PolicyTable, CompileError> {
    compile_scene(policies, &Scene::default(), registry, generation)
}

/// Compiles all loaded policies against all known identities.
///
/// Gives numbers to new rules. The table depends on the set of policies, the scene, the registry and the generation, not
/// on the order in which the policies come.
///
/// # Errors
/// If a table can't hold all of it.
pub fn compile_scene<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    scene: &Scene,
    registry: &mut Registry,
    generation: Generation,
) -> Result<PolicyTable, CompileError> {
    compile_growing(policies, scene, registry, generation).map(|compiled| compiled.table)
}

/// As [`compile_scene`], for a table that is to take identities in that come later.
///
/// # Errors
/// If a table can't hold all of it.
pub fn compile_growing<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    scene: &Scene,
    registry: &mut Registry,
    generation: Generation,
) -> Result<Compiled, CompileError> {
    let mut policies: Vec<&Policy> = policies.into_iter().collect();
    policies.sort_by(|a, b| a.key.cmp(&b.key));
    for policy in &policies {
        number(policy, registry);
    }
    policies.retain(|policy| !policy.is_over(scene.at));
    table(&policies, scene, registry, generation)
}

fn table<'a>(
    policies: &[&'a Policy],
    scene: &'a Scene,
    registry: &'a Registry,
    generation: Generation,
) -> Result<Compiled, CompileError> {
    let people = People::new(registry, &scene.trust_domain);
    let wards = Wards::new(registry, &scene.guests);
    let widened = Widened::new(policies);
    let questions = Questions::new(&scene.namespaces, people.namespaces().collect());
    let mut lowering = Lowering::new(questions, &widened);
    let live: Vec<LoweredPolicy<'_>> =
        policies.iter().flat_map(|policy| lowering.policy(policy, &people, registry)).collect();
    let in_quarantine = lowering.wards(&wards);
    let services = Services::new(&scene.services, &live, &mut lowering);
    let last = registry.last_identity().max(IdentityId::CANARY);
    let mut identities = IdentityClasses::new(&people, &lowering.questions, &wards, last)?;
    let classifier = Classifier::new(Made {
        people: &people,
        trust_domain: &scene.trust_domain,
        questions: &lowering.questions,
        dormant: &lowering.dormant,
        names: &lowering.names,
        classes: identities.take_answers(),
    });
    let first_service = identities.reserve(services.classes())?;
    let mut compiler = Compiler {
        addresses: AddressClasses::new(&lowering.blocks, identities.next_class())?,
        ports: PortClasses::new(&lowering.lists)?,
        ranks: Ranks::new(&live)?,
        beneath: Beneath::default(),
        contested: containers::contested(&lowering.contested, &identities),
        quarantined: in_quarantine.iter().flat_map(|(ward, _)| identities.asked(*ward)).copied().collect(),
        identities,
        audit: policies.iter().any(|policy| policy.mode == PolicyMode::Audit),
        at: scene.at,
    };
    compiler.beneath = Beneath::new(&live, &compiler);
    let mut entries = Entries::new(MAX_ENTRIES);
    compiler.nobodies(&mut entries)?;
    compiler.wards(&in_quarantine, &mut entries)?;
    for policy in &live {
        compiler.policy(policy, &mut entries)?;
    }
    let shapes = services.shapes(&compiler, first_service);
    shapes.add(&compiler, &mut entries)?;
    for (identity, class) in shapes.classes(registry) {
        compiler.identities.set(identity, class);
    }
    let sections = Sections {
        generation,
        hypothetical: compiler.audit,
        sockets: live.iter().any(|lowered| lowered.policy.sockets.is_some()),
        default: DEFAULT,
        protocols: compiler.ports.into_protocols(),
        identities: compiler.identities.into_numbers(),
        entries: entries.finish()?,
        addresses: compiler.addresses.into_intervals(),
    };
    let table = PolicyTable::build_with_spare(&sections, IDENTITY_SPARE)?;
    Ok(Compiled { table, classifier })
}

struct Compiler {
    identities: IdentityClasses,
    addresses: AddressClasses,
    ports: PortClasses,
    ranks: Ranks,
    beneath: Beneath,
    /// Subjects for whom peers can't be widened.
    contested: BTreeSet<u32>,
    /// Subjects in quarantine.
    quarantined: BTreeSet<u32>,
    audit: bool,
    at: Timestamp,
}

impl Compiler {
    /// Precedence 7 for who is inside a managed tree and not known, and for the canary, which is refused like nobody else.
    fn nobodies(&self, entries: &mut Entries) -> Result<(), CompileError> {
        for (identity, errno, reason) in [
            (IdentityId::UNMANAGED, Errno::Perm, Reason::Unmanaged),
            (IdentityId::CANARY, CANARY_ERRNO, Reason::Canary),
        ] {
            let word = Word::deny(Tier::Default, errno, reason, RuleId::NONE);
            let subjects = [self.identities.of(identity)];
            for direction in Direction::ALL {
                let planes = self.planes(PolicyMode::Enforce);
                let target = Target { planes, beneath: None, direction, subjects: &subjects };
                target.add(entries, ANY, ANY_PORT, word)?;
            }
        }
        Ok(())
    }

    fn policy(&self, lowered: &LoweredPolicy<'_>, entries: &mut Entries) -> Result<(), CompileError> {
        let policy = lowered.policy;
        let subjects = self.identities.asked(lowered.subjects);
        for section in &lowered.sections {
            let any = match section.section {
                RuleDirection::Egress | RuleDirection::Ingress => ANY,
                RuleDirection::Listen => LISTENING,
                RuleDirection::Sockets => CREATING,
            };
            if let Some(id) = section.isolation {
                // Precedence 5: being selected isolates, whether or not there are rules, and whether or not they are over.
                let isolated = Word::deny(Tier::Isolation, policy.errno, Reason::Isolated, id);
                self.target(policy, section.section, subjects).add(entries, any, ANY_PORT, isolated)?;
            }
            self.rules(lowered, section, (subjects, any), entries)?;
        }
        Ok(())
    }

    fn rules(
        &self,
        policy: &LoweredPolicy<'_>,
        section: &LoweredSection<'_>,
        (subjects, any): (&[u32], &[u32]),
        entries: &mut Entries,
    ) -> Result<(), CompileError> {
        let LoweredPolicy { policy, lens, .. } = policy;
        for lowered in section.rules.iter().filter(|lowered| !lowered.rule.is_over(self.at)) {
            let word = self.ranks.word(policy, section.section, lowered, *lens);
            for Part { subjects: named, peers, ports, widened } in &lowered.parts {
                let subjects = named.map_or(subjects, |named| self.identities.asked(named));
                let free = self.outside_quarantine(section.section, lowered.rule.action, subjects);
                let subjects = free.as_deref().unwrap_or(subjects);
                let peers_of = peers.as_deref().unwrap_or_default();
                let peers = match peers {
                    None => any.to_vec(),
                    Some(parties) => self.parties(parties),
                };
                let ports = match ports {
                    PartPorts::All => ANY_PORT,
                    PartPorts::Listed(list) => self.ports.of(*list),
                    PartPorts::Kinds(classes) => classes,
                };
                let target = self.target(policy, section.section, subjects);
                target.add(entries, &peers, ports, word)?;
                target.mark(entries, peers_of)?;
                for (lens, parties) in widened {
                    let is_judged = |class: &&u32| *lens == Lens::Strict || !self.contested.contains(class);
                    let subjects: Vec<u32> = subjects.iter().filter(is_judged).copied().collect();
                    let target = self.target(policy, section.section, &subjects);
                    let word = self.ranks.word(policy, section.section, lowered, *lens);
                    // Who is meant anyway is meant as the rule says.
                    let mut classes = self.parties(parties);
                    classes.retain(|class| peers.binary_search(class).is_err());
                    target.add(entries, &classes, ports, word)?;
                }
            }
        }
        Ok(())
    }

    /// To whom of these a rule that allows kinds of sockets speaks: not to who is in quarantine, whom no rule gives more than
    /// the configuration does. `None` for rules of other kinds, and for all of them.
    fn outside_quarantine(
        &self,
        section: RuleDirection,
        action: Action,
        subjects: &[u32],
    ) -> Option<Vec<u32>> {
        let widens = section == RuleDirection::Sockets && action == Action::Allow;
        let is_free = |class: &&u32| !self.quarantined.contains(class);
        (widens && !self.quarantined.is_empty()).then(|| subjects.iter().filter(is_free).copied().collect())
    }

    /// Where the words of a section of a policy go.
    fn target<'a>(&'a self, policy: &Policy, section: RuleDirection, subjects: &'a [u32]) -> Target<'a> {
        // Listening and creating sockets are asked for in the direction ingress, with peers that no flow has.
        let direction = match section {
            RuleDirection::Egress => Direction::Egress,
            RuleDirection::Ingress | RuleDirection::Listen | RuleDirection::Sockets => Direction::Ingress,
        };
        let beneath = (!policy.layer.is_admin()).then_some((&self.beneath, section));
        Target { planes: self.planes(policy.mode), beneath, direction, subjects }
    }

    /// The planes that a policy of this mode has entries in.
    fn planes(&self, mode: PolicyMode) -> &'static [Plane] {
        match (mode, self.audit) {
            (PolicyMode::Enforce, false) => &[Plane::Enforced],
            (PolicyMode::Enforce, true) => &[Plane::Enforced, Plane::Hypothetical],
            (PolicyMode::Audit, _) => &[Plane::Hypothetical],
        }
    }

    /// Classes of these ends, each once. An empty list is nobody.
    fn parties(&self, parties: &[Party]) -> Vec<u32> {
        let mut classes = Vec::new();
        for party in parties {
            match party {
                Party::Asked(question) => classes.extend_from_slice(self.identities.asked(*question)),
                Party::Block(block) => classes.extend_from_slice(self.addresses.of(*block)),
                Party::Reserved(id) => classes.push(self.identities.of(*id)),
            }
        }
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

/// Where words go.
struct Target<'a> {
    planes: &'static [Plane],
    /// Where they stand beneath Pass rules too, and for which section.
    beneath: Option<(&'a Beneath, RuleDirection)>,
    direction: Direction,
    subjects: &'a [u32],
}

impl Target<'_> {
    /// Puts down that it depends on addresses who may call the subjects, if it does.
    fn mark(&self, entries: &mut Entries, peers: &[Party]) -> Result<(), CompileError> {
        let by_address = peers.iter().any(|peer| matches!(peer, Party::Block(_)));
        if self.direction == Direction::Egress || !by_address {
            return Ok(());
        }
        self.add(entries, &[BY_ADDRESS], ANY_PORT, DEFAULT)
    }

    fn add(
        &self,
        entries: &mut Entries,
        peers: &[u32],
        ports: &[u16],
        word: Word,
    ) -> Result<(), CompileError> {
        let ingress = self.direction == Direction::Ingress;
        for plane in self.planes {
            for subject in self.subjects {
                let beneath = self
                    .beneath
                    .is_some_and(|(beneath, section)| beneath.contains(*plane, section, *subject))
                    .then(|| plane.beneath());
                for plane in [Some(*plane), beneath].into_iter().flatten() {
                    for peer in peers {
                        for port in ports {
                            entries.add(plane, ingress, (*subject, *peer, *port), word)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
