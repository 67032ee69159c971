//! Between the words of the oracle and the numbers of a table.

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use enforcer::domain::cluster::canonical;
use enforcer::domain::cluster::{Answering, KnownService, NamespaceLabels};
use enforcer::domain::policy::compile::Scene;
use enforcer::domain::policy::model::RuleKey;
use enforcer::domain::registry::{IdentityKey, Registry};
use enforcer_common::id::{IdentityId, RuleId};
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Query, Verdict, Word};

use crate::generate::World;
use crate::oracle::{Judgement, Outcome, Question, Service, Setting, Side};

/// The number of a side.
pub fn identity(registry: &mut Registry, side: &Side) -> IdentityId {
    match side {
        Side::Workload { namespace, labels, ports, account } => registry.identity(&IdentityKey {
            namespace: namespace.clone(),
            labels: labels.clone(),
            ports: ports.clone(),
            account: account.clone(),
            service: None,
        }),
        Side::Service { namespace, name } => {
            registry.identity(&IdentityKey::service(namespace.as_str(), name.as_str()))
        }
        Side::Host => IdentityId::HOST,
        Side::World => IdentityId::WORLD,
        Side::Unmanaged => IdentityId::UNMANAGED,
        Side::Unknown => IdentityId::UNKNOWN,
    }
}

/// The registry of a world before its policies come.
pub fn registry(world: &World) -> Registry {
    let mut registry = Registry::default();
    for bystander in &world.bystanders {
        identity(&mut registry, bystander);
    }
    for question in &world.questions {
        identity(&mut registry, &question.subject);
        identity(&mut registry, &question.peer);
    }
    for rule in &world.history {
        registry.rule(rule);
    }
    registry
}

/// The setting of a world as the compiler takes it. Gives numbers to services and to those who answer for them.
pub fn scene(registry: &mut Registry, setting: &Setting) -> Scene {
    let mut services = Vec::new();
    for Service { namespace, name, addresses, ports } in &setting.services {
        let side = Side::Service { namespace: namespace.clone(), name: name.clone() };
        let mut answering = BTreeMap::new();
        for (front, backends) in ports {
            let backend = |(side, address, port): &(Side, IpAddr, u16)| Answering {
                identity: identity(registry, side),
                address: *address,
                port: *port,
            };
            answering.insert(*front, backends.iter().map(backend).collect());
        }
        let identity = identity(registry, &side);
        services.push(KnownService { identity, addresses: addresses.clone(), ports: answering });
    }
    let namespaces = NamespaceLabels(setting.namespaces.clone());
    Scene { at: setting.at, namespaces, services, ..Scene::default() }
}

/// A question in numbers.
pub fn query(registry: &mut Registry, question: &Question) -> Query {
    Query {
        subject: identity(registry, &question.subject),
        peer: identity(registry, &question.peer),
        address: canonical(question.address),
        port: question.port,
        protocol: question.protocol,
        direction: question.direction,
    }
}

/// A verdict in words.
pub fn judgement(registry: &Registry, verdict: Verdict) -> Judgement {
    let judgement = Judgement {
        enforced: outcome(registry, verdict.enforced),
        hypothetical: outcome(registry, verdict.hypothetical),
    };
    assert_eq!(verdict.is_audited(), judgement.audited());
    assert_eq!(verdict.reported(), if judgement.audited() { verdict.hypothetical } else { verdict.enforced });
    judgement
}

/// One word of a verdict in words.
pub fn outcome(registry: &Registry, word: Word) -> Outcome {
    Outcome {
        deny: word.is_deny(),
        reason: Reason::from_code(word.reason_code()).expect("a word has a reason"),
        rule: rule(registry, word.rule()),
        errno: word.is_deny().then(|| word.errno()),
    }
}

/// The rule with a number.
pub fn rule(registry: &Registry, id: RuleId) -> Option<RuleKey> {
    let found = registry.rules().find(|(_, found)| *found == id).map(|(key, _)| key.clone());
    assert!(found.is_some() || id == RuleId::NONE, "rule {id} has no number");
    found
}

/// The number of a rule, by which rules that decide alike are told apart.
pub fn age(registry: &Registry, rule: &RuleKey) -> u32 {
    registry.known_rule(rule).map_or(u32::MAX, |id| id.0)
}
