//! Services: a service is judged by those who answer for it.
//!
//! A client calls the address of a service, and only behind its back that becomes the address of somebody. So what its
//! policies say of each who may answer is worked out here, and put down as one word for the service and its port: allowed
//! if all of them are, denied if all of them are, and denied with a reason of its own where they differ, because nobody
//! can tell who will answer.
//!
//! Services that have the same classes behind the same ports share a class, so a new workload of a known class changes
//! nothing here.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::abi::policy::{Plane, key};
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Tier, Word};

use super::entries::Entries;
use super::lower::{LoweredPolicy, Lowering};
use super::{Compiler, DEFAULT};
use crate::domain::cluster::{KnownService, canonical};
use crate::domain::policy::model::RuleDirection;
use crate::domain::registry::Registry;
use crate::domain::table::CompileError;

/// The services of a scene.
pub(super) struct Services<'a> {
    list: &'a [KnownService],
}

/// Who may answer, in classes: by identity, by address, and on which port.
type Target = (u32, u32, u16);

/// What policies can tell of a service.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    /// Classes of its addresses.
    addresses: BTreeSet<u32>,
    /// Who may answer, by the class of the port that clients call.
    ports: BTreeMap<u16, BTreeSet<Target>>,
}

/// Classes of services.
pub(super) struct Shapes {
    all: BTreeMap<Shape, u32>,
    of_service: BTreeMap<IdentityId, u32>,
    /// Class of services that are not there any more.
    others: u32,
}

impl<'a> Services<'a> {
    /// Their ports must be told from all others where some policy says what may be called.
    pub(super) fn new(
        list: &'a [KnownService],
        live: &[LoweredPolicy<'_>],
        lowering: &mut Lowering<'_>,
    ) -> Self {
        let is_egress = |policy: &LoweredPolicy<'_>| policy.policy.section(RuleDirection::Egress).is_some();
        if !live.iter().any(is_egress) {
            return Self { list: &[] };
        }
        for (protocol, port) in list.iter().flat_map(|service| service.ports.keys()) {
            lowering.list(vec![(*protocol, *port, *port)]);
        }
        Self { list }
    }

    /// Most classes that they need.
    pub(super) fn classes(&self) -> usize {
        self.list.len() + 1
    }

    /// Their classes, from this number on.
    pub(super) fn shapes(&self, compiler: &Compiler, first: u32) -> Shapes {
        let mut shapes = BTreeMap::new();
        let mut of_service = BTreeMap::new();
        let mut next = first + 1;
        for service in self.list {
            let class = *shapes.entry(shape(service, compiler)).or_insert_with(|| {
                next += 1;
                next - 1
            });
            of_service.insert(service.identity, class);
        }
        Shapes { all: shapes, of_service, others: first }
    }
}

fn shape(service: &KnownService, compiler: &Compiler) -> Shape {
    let addresses = service.addresses.iter().map(|address| compiler.addresses.class(canonical(*address)));
    let ports = service.ports.iter().filter(|(_, answering)| !answering.is_empty());
    Shape {
        addresses: addresses.filter(|class| *class != 0).collect(),
        ports: ports
            .map(|((protocol, port), answering)| {
                let target = answering.iter().map(|one| {
                    let class = compiler.addresses.class(canonical(one.address));
                    (compiler.identities.of(one.identity), class, compiler.ports.class(*protocol, one.port))
                });
                (compiler.ports.class(*protocol, *port), target.collect())
            })
            .collect(),
    }
}

impl Shapes {
    /// The class of each service with a number.
    pub(super) fn classes(&self, registry: &Registry) -> Vec<(IdentityId, u32)> {
        let services = registry.identities().filter(|(key, _)| !key.is_workload());
        services.map(|(_, id)| (id, self.of_service.get(&id).copied().unwrap_or(self.others))).collect()
    }

    /// The words of all services, from what the entries say of everyone else.
    pub(super) fn add(&self, compiler: &Compiler, entries: &mut Entries) -> Result<(), CompileError> {
        if self.all.keys().all(|shape| shape.ports.is_empty()) {
            return Ok(());
        }
        let planes: &[Plane] =
            if compiler.audit { &[Plane::Enforced, Plane::Hypothetical] } else { &[Plane::Enforced] };
        for plane in planes {
            let mut found = Vec::new();
            let list = entries.sorted()?;
            let beneath = egress(list, plane.beneath());
            for said in egress(list, *plane).chunk_by(|a, b| subject(a.0) == subject(b.0)) {
                let Some(subject) = said.first().map(|entry| subject(entry.0)) else { continue };
                let beneath = of_subject(beneath, subject);
                self.of_subject(subject, &Said { said, beneath }, &mut found);
            }
            for (subject, service, port, word) in found {
                entries.add(*plane, false, (subject, service, port), word)?;
            }
        }
        Ok(())
    }

    /// The words of all services for one subject: (subject, service, port, word).
    fn of_subject(&self, subject: u32, said: &Said<'_>, found: &mut Vec<(u32, u32, u16, Word)>) {
        for (shape, class) in &self.all {
            for (port, targets) in &shape.ports {
                let words = targets.iter().map(|target| said.last(*target));
                let Some(word) = together(&words) else { continue };
                // Most services are as everybody else to most subjects: what is said of everyone says it already.
                if !shape.addresses.is_empty() || said.last((0, 0, *port)) != word {
                    found.push((subject, *class, *port, word.in_tier(Tier::Service)));
                }
            }
        }
    }
}

/// One word for all who may answer; nothing for nobody.
fn together(words: &(impl Iterator<Item = Word> + Clone)) -> Option<Word> {
    let strongest = |denies: bool| words.clone().filter(|word| word.is_deny() == denies).max();
    match (strongest(true), strongest(false)) {
        (Some(denied), Some(_)) => Some(denied.because(Reason::MixedBackends)),
        (denied, allowed) => denied.or(allowed),
    }
}

/// What the entries say of one subject.
struct Said<'a> {
    said: &'a [(u64, Word)],
    beneath: &'a [(u64, Word)],
}

impl Said<'_> {
    /// The word that decides of a flow to somebody.
    fn last(&self, target: Target) -> Word {
        let best = best(self.said, target);
        let best = if best.is_pass() { self::best(self.beneath, target) } else { best };
        best.max(DEFAULT)
    }
}

/// The greatest of the words for a flow, found as in the table.
fn best(said: &[(u64, Word)], (identity, address, port): Target) -> Word {
    let find = |peer: u32, port: u16| {
        let place = key(Plane::Enforced, false, 0, peer, port.into()) & PEER_AND_PORT;
        let index = said.binary_search_by_key(&place, |entry| entry.0 & PEER_AND_PORT);
        index.map_or(Word::NONE, |index| said[index].1)
    };
    let mut best = Word::NONE;
    for (peer, needed) in [(0, true), (identity, identity != 0), (address, address != 0)] {
        if needed {
            best = best.max(find(peer, 0));
            if port != 0 {
                best = best.max(find(peer, port));
            }
        }
    }
    best
}

const PEER_AND_PORT: u64 = (1 << 40) - 1;

/// Class of the subject of a key.
fn subject(key: u64) -> u32 {
    (key >> 40) as u32 & 0xf_ffff
}

/// Entries of one subject, out of those of one plane and direction.
fn of_subject(entries: &[(u64, Word)], number: u32) -> &[(u64, Word)] {
    let first = entries.partition_point(|entry| subject(entry.0) < number);
    let last = entries.partition_point(|entry| subject(entry.0) <= number);
    &entries[first..last]
}

/// Egress entries of one plane, out of all in order.
fn egress(entries: &[(u64, Word)], plane: Plane) -> &[(u64, Word)] {
    let first = key(plane, false, 0, 0, 0);
    let last = key(plane, false, u32::MAX, u32::MAX, u32::MAX);
    let from = entries.partition_point(|entry| entry.0 < first);
    let to = entries.partition_point(|entry| entry.0 <= last);
    &entries[from..to]
}
