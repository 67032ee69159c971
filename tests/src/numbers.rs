//! Between the words of the oracle and the numbers of a table.

use std::net::IpAddr;

use enforcer::domain::policy::model::RuleKey;
use enforcer::domain::registry::{IdentityKey, Registry};
use enforcer_common::address::Address;
use enforcer_common::id::{IdentityId, RuleId};
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Query, Verdict, Word};

use crate::generate::World;
use crate::oracle::{Judgement, Outcome, Question, Side};

/// The number of a side.
pub fn identity(registry: &mut Registry, side: &Side) -> IdentityId {
    match side {
        Side::Workload { namespace, labels } => {
            registry.identity(&IdentityKey::new(namespace.clone(), labels.clone()))
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
    for (namespace, labels) in &world.bystanders {
        registry.identity(&IdentityKey::new(namespace.clone(), labels.clone()));
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

/// An address as the kernel has it.
pub fn canonical(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.into()),
        IpAddr::V6(address) => Address::v6(address.octets()),
    }
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
    registry.rules().find(|(key, _)| *key == rule).map_or(u32::MAX, |(_, id)| id.0)
}
