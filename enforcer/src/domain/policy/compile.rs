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
//! entries twice.

mod addresses;
mod classes;
mod entries;
mod intervals;
mod ports;
#[cfg(test)]
mod tests;
mod wards;

use enforcer_common::abi::policy::{LISTEN, Plane};
use enforcer_common::id::{Generation, IdentityId, RuleId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Direction, Tier, Word};

use self::addresses::AddressClasses;
use self::classes::{IdentityClasses, Scope};
use self::entries::Entries;
use self::ports::PortClasses;
use self::wards::Wards;
use super::model::{Action, Entity, Peer, Peers, Policy, PolicyMode, Rule, RuleDirection, RuleKey};
use crate::domain::cluster::{NamespaceLabels, Service};
use crate::domain::registry::Registry;
use crate::domain::table::{MAX_ENTRIES, PolicyTable, Sections};
use crate::domain::timestamp::Timestamp;

pub(super) use self::addresses::is_inside;
pub use self::wards::{Guest, Guests};
pub use crate::domain::table::CompileError;

/// The class that stands for "any" in a key.
const ANY: &[u32] = &[0];
/// The class that stands for listening in the place of a peer.
const LISTENING: &[u32] = &[LISTEN];
/// "Any" of ports.
const ANY_PORT: &[u16] = &[0];

/// What a table is made from besides policies and identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// What the wall clock says: what is over by then is left out.
    pub at: Timestamp,
    /// Who may open flows to whom in quarantine.
    pub guests: Guests,
    /// Labels of namespaces.
    pub namespaces: NamespaceLabels,
    /// Services.
    pub services: Vec<Service>,
}

/// Compiles policies in an empty scene: nothing of them is over, and nobody is in quarantine with guests.
///
/// # Errors
/// As [`compile_scene`].
pub fn compile<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    registry: &mut Registry,
    generation: Generation,
) -> Result<PolicyTable, CompileError> {
    let scene = Scene::default();
    let policies: Vec<&Policy> = policies.into_iter().collect();
    compile_scene(policies, &scene, registry, generation)
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
    scene: &'a Scene,
    registry: &mut Registry,
    generation: Generation,
) -> Result<PolicyTable, CompileError> {
    let mut policies: Vec<&Policy> = policies.into_iter().collect();
    policies.sort_by(|a, b| a.key.cmp(&b.key));
    for policy in &policies {
        number(policy, registry);
    }
    policies.retain(|policy| !policy.is_over(scene.at));
    let wards = Wards::new(registry, &scene.guests);
    let identities = IdentityClasses::new(&policies, &wards, registry)?;
    // Peers and ports of policies that select nobody would split classes for nothing.
    let live: Vec<&Policy> =
        policies.iter().copied().filter(|policy| !subjects(&identities, policy).is_empty()).collect();
    let compiler = Compiler {
        addresses: AddressClasses::new(&live, wards.blocks(), identities.next_class())?,
        ports: PortClasses::new(&live)?,
        identities,
        audit: policies.iter().any(|policy| policy.mode == PolicyMode::Audit),
    };
    let mut entries = Entries::new(MAX_ENTRIES);
    compiler.unmanaged(&mut entries)?;
    compiler.wards(&wards, &mut entries)?;
    for policy in policies {
        compiler.policy(policy, scene.at, registry, &mut entries)?;
    }
    PolicyTable::build(&Sections {
        generation,
        hypothetical: compiler.audit,
        default: Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE),
        protocols: compiler.ports.into_protocols(),
        identities: compiler.identities.into_numbers(),
        entries: entries.finish()?,
        addresses: compiler.addresses.into_intervals(),
    })
}

/// Classes that a policy's subject selector matches.
fn subjects<'c, 'a>(identities: &'c IdentityClasses<'a>, policy: &'a Policy) -> &'c [u32] {
    identities
        .selected(Scope::of(&policy.subject.namespaces, &policy.key.namespace), &policy.subject.selector)
}

struct Compiler<'a> {
    identities: IdentityClasses<'a>,
    addresses: AddressClasses,
    ports: PortClasses,
    audit: bool,
}

impl<'a> Compiler<'a> {
    /// Precedence 7 for who is inside a managed tree and not known.
    fn unmanaged(&self, entries: &mut Entries) -> Result<(), CompileError> {
        let word = Word::deny(Tier::Default, Errno::Perm, Reason::Unmanaged, RuleId::NONE);
        let subjects = [self.identities.of(IdentityId::UNMANAGED)];
        for direction in Direction::ALL {
            let target = Target { planes: self.planes(PolicyMode::Enforce), direction, subjects: &subjects };
            target.add(entries, ANY, ANY_PORT, word)?;
        }
        Ok(())
    }

    fn policy(
        &self,
        policy: &'a Policy,
        at: Timestamp,
        registry: &mut Registry,
        entries: &mut Entries,
    ) -> Result<(), CompileError> {
        let subjects = subjects(&self.identities, policy);
        if subjects.is_empty() {
            return Ok(());
        }
        for (section, rules) in policy.sections() {
            let mut number = |index| registry.rule(&key(policy, section, index));
            let target = Target::of(section, self.planes(policy.mode), subjects);
            let any = if section == RuleDirection::Listen { LISTENING } else { ANY };
            // Precedence 5: being selected isolates, whether or not there are rules, and whether or not they are over.
            let isolated = Word::deny(Tier::Isolation, policy.errno, Reason::Isolated, number(None));
            target.add(entries, any, ANY_PORT, isolated)?;
            for (rule, index) in rules.iter().zip(0..) {
                if rule.is_over(at) {
                    continue;
                }
                let word = word(rule, policy.errno, number(Some(index)));
                let peers =
                    if section == RuleDirection::Listen { any.to_vec() } else { self.peers(policy, rule) };
                target.add(entries, &peers, &self.ports.of(&rule.ports), word)?;
            }
        }
        Ok(())
    }

    /// The planes that a policy of this mode has entries in.
    fn planes(&self, mode: PolicyMode) -> &'static [Plane] {
        match (mode, self.audit) {
            (PolicyMode::Enforce, false) => &[Plane::Enforced],
            (PolicyMode::Enforce, true) => &[Plane::Enforced, Plane::Hypothetical],
            (PolicyMode::Audit, _) => &[Plane::Hypothetical],
        }
    }

    /// Classes of the peers of a rule. An empty list is nobody, which only [`Peers::Everyone`] is not.
    fn peers(&self, policy: &'a Policy, rule: &'a Rule) -> Vec<u32> {
        let Peers::AnyOf(peers) = &rule.peers else { return ANY.to_vec() };
        let mut classes = Vec::new();
        for peer in peers {
            self.peer(peer, &policy.key.namespace, &mut classes);
        }
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Classes of one peer.
    fn peer(&self, peer: &'a Peer, own: &'a str, classes: &mut Vec<u32>) {
        match peer {
            Peer::Workloads { namespaces, selector, .. } => {
                let scope = Scope::of(namespaces, own);
                classes.extend_from_slice(self.identities.selected(scope, selector));
            }
            Peer::Cidr { net, except } => classes.extend_from_slice(self.addresses.of(*net, except)),
            Peer::Entity(Entity::Host) => classes.push(self.identities.of(IdentityId::HOST)),
            Peer::Entity(Entity::World) => classes.push(self.identities.of(IdentityId::WORLD)),
            Peer::Entity(Entity::Unmanaged) => classes.push(self.identities.of(IdentityId::UNMANAGED)),
            Peer::Entity(Entity::Cluster) | Peer::Pending(_) => {}
        }
    }
}

fn key(policy: &Policy, direction: RuleDirection, index: Option<u32>) -> RuleKey {
    RuleKey { policy: policy.key.clone(), direction, index }
}

/// Gives numbers to all rules of a policy, those without effect too: a rule keeps its number when its first workload
/// comes and when its time is over.
fn number(policy: &Policy, registry: &mut Registry) {
    for (section, rules) in policy.sections() {
        registry.rule(&key(policy, section, None));
        for (_, index) in rules.iter().zip(0..) {
            registry.rule(&key(policy, section, Some(index)));
        }
    }
}

/// The word of a rule.
fn word(rule: &Rule, errno: Errno, id: RuleId) -> Word {
    match rule.action {
        // Precedence 4.
        Action::Allow => Word::allow(Tier::Allow, Reason::AllowedByRule, id),
        // Precedence 3.
        Action::Deny => Word::deny(Tier::Deny, rule.errno.unwrap_or(errno), Reason::DeniedByRule, id),
        Action::Pass => Word::NONE,
    }
}

/// Where the words of one direction of one policy go.
struct Target<'a> {
    planes: &'static [Plane],
    direction: Direction,
    subjects: &'a [u32],
}

impl<'a> Target<'a> {
    /// Listening is asked for in the direction ingress, with a peer that no flow has.
    fn of(section: RuleDirection, planes: &'static [Plane], subjects: &'a [u32]) -> Self {
        let direction = match section {
            RuleDirection::Egress => Direction::Egress,
            RuleDirection::Ingress | RuleDirection::Listen => Direction::Ingress,
        };
        Self { planes, direction, subjects }
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
                for peer in peers {
                    for port in ports {
                        entries.add(*plane, ingress, (*subject, *peer, *port), word)?;
                    }
                }
            }
        }
        Ok(())
    }
}
