//! What must hold of every set of policies: the compiled table says what the oracle reads in the text.

use std::cell::Cell;

use enforcer::domain::labels::LabelSet;
use enforcer::domain::policy::compile::{compile, compile_growing, compile_scene};
use enforcer::domain::policy::model::{
    Action, Layer, Peer, Peers, Policy, PolicyKey, PolicyMode, Ports, Rule, RuleKey, Subject,
};
use enforcer::domain::registry::Registry;
use enforcer::domain::table::PolicyTable;
use enforcer_common::id::{Generation, IdentityId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::Direction;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::generate::{address, block, question, socket_kind, world};
use crate::numbers::{self, age, identity, judgement, query, registry};
use crate::oracle::{Judgement, Question, Side, judge_in, judge_listen, judge_socket};

/// Flows per world.
const FLOWS: usize = 50;

/// How many (policies, flow) pairs to judge; CI asks for more than a developer's run.
pub(crate) fn requested() -> usize {
    match std::env::var("ENFORCER_PROPTEST_CASES") {
        Ok(text) => text.parse().expect("ENFORCER_PROPTEST_CASES is a number"),
        Err(_) => 100_000,
    }
}

fn config(cases: usize) -> Config {
    let cases = u32::try_from(cases).expect("the number of cases fits in 32 bits");
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// The answer of a table in the words of the oracle.
fn ask(table: &PolicyTable, registry: &mut Registry, question: &Question) -> Judgement {
    let verdict = table.decide(&query(registry, question));
    judgement(registry, verdict)
}

/// Who comes when the table is in force: they are taken into it where their class is known, and then it says of them what
/// the oracle reads.
#[test]
fn a_table_says_the_same_of_who_comes_later() {
    let (placed, judged) = (Cell::new(0_usize), Cell::new(0_usize));
    TestRunner::new(config(requested().div_ceil(FLOWS)))
        .run(&world(FLOWS), |world| {
            let mut registry = Registry::default();
            for side in &world.bystanders {
                identity(&mut registry, side);
            }
            let scene = numbers::scene(&mut registry, &world.setting);
            let (early, late) = world.questions.split_at(FLOWS / 2);
            for Question { subject, peer, .. } in early {
                identity(&mut registry, subject);
                identity(&mut registry, peer);
            }
            let compiled = compile_growing(&world.policies, &scene, &mut registry, Generation(1)).unwrap();
            let (mut table, last) = (compiled.table, registry.last_identity());
            for Question { subject, peer, .. } in late {
                identity(&mut registry, subject);
                identity(&mut registry, peer);
            }
            for (id, key) in registry.above(last) {
                prop_assert_eq!(table.class_of_identity(id), 0);
                if let Some(class) = compiled.classifier.classify(key) {
                    table = table.place(id, class).expect("room");
                    prop_assert_eq!(table.class_of_identity(id), class);
                    prop_assert!(table.place(id, class).is_none(), "once");
                    placed.set(placed.get() + 1);
                }
            }
            for question in &world.questions {
                let query = query(&mut registry, question);
                let known = |id: IdentityId| id <= IdentityId::UNMANAGED || table.class_of_identity(id) != 0;
                if known(query.subject) && known(query.peer) {
                    let age = |rule: &RuleKey| age(&registry, rule);
                    let expected = judge_in(&world.policies, &age, question, &world.setting);
                    prop_assert_eq!(judgement(&registry, table.decide(&query)), expected, "{:?}", question);
                    judged.set(judged.get() + 1);
                }
            }
            Ok(())
        })
        .unwrap_or_else(|failed| panic!("{failed}"));
    println!("{} identities came later, {} flows", placed.get(), judged.get());
    assert!(placed.get() * 20 > requested() / FLOWS, "few identities have a known class: {}", placed.get());
}

#[test]
fn the_table_says_what_the_oracle_reads() {
    let requested = requested();
    let judged = Cell::new(0);
    // How often each reason decided, so that a generator that stops colliding is noticed.
    let reasons = Cell::new([0_usize; 32]);
    let audited = Cell::new(0);
    TestRunner::new(config(requested.div_ceil(FLOWS)))
        .run(&world(FLOWS), |world| {
            let mut registry = registry(&world);
            let scene = numbers::scene(&mut registry, &world.setting);
            let table = compile_scene(&world.policies, &scene, &mut registry, Generation(1)).unwrap();
            for question in &world.questions {
                let expected =
                    judge_in(&world.policies, &|rule| age(&registry, rule), question, &world.setting);
                let mut counts = reasons.get();
                counts[expected.enforced.reason as usize] += 1;
                reasons.set(counts);
                audited.set(audited.get() + usize::from(expected.audited()));
                let found = ask(&table, &mut registry, question);
                prop_assert_eq!(found, expected, "{:?}", question);
                judged.set(judged.get() + 1);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{} flows judged, {} audited, by reason {:?}", judged.get(), audited.get(), reasons.get());
    assert!(judged.get() >= requested, "{} of {requested}", judged.get());
    if requested >= 10_000 {
        for reason in [
            Reason::AllowedByRule,
            Reason::AllowedByDefault,
            Reason::DeniedByRule,
            Reason::Isolated,
            Reason::Unmanaged,
            Reason::InvalidIdentity,
            Reason::MixedBackends,
        ] {
            // A world has some of them fifty times or not at all, so few of many are not by chance.
            assert!(reasons.get()[reason as usize] >= judged.get() / 10_000, "{reason:?} is hardly met");
        }
        assert!(audited.get() >= judged.get() / 1_000, "audit mode is hardly met");
    }
}

#[test]
fn the_table_says_who_may_listen_as_the_oracle_reads_it() {
    let reasons = Cell::new([0_usize; 32]);
    TestRunner::new(config(requested().div_ceil(FLOWS)))
        .run(&world(FLOWS), |world| {
            let mut registry = registry(&world);
            let scene = numbers::scene(&mut registry, &world.setting);
            let table = compile_scene(&world.policies, &scene, &mut registry, Generation(1)).unwrap();
            for Question { subject, protocol, port, .. } in &world.questions {
                let age = |rule: &RuleKey| age(&registry, rule);
                let expected =
                    judge_listen(&world.policies, &age, (subject, *protocol, *port), &world.setting);
                let mut counts = reasons.get();
                counts[expected.enforced.reason as usize] += 1;
                reasons.set(counts);
                let id = identity(&mut registry, subject);
                let found = judgement(&registry, table.decide_listen(id, *protocol, *port));
                prop_assert_eq!(found, expected, "{:?} {} {}", subject, protocol, port);
            }
            Ok(())
        })
        .unwrap();
    for reason in [
        Reason::AllowedByDefault,
        Reason::AllowedByRule,
        Reason::DeniedByRule,
        Reason::InvalidIdentity,
        Reason::Isolated,
    ] {
        assert!(reasons.get()[reason as usize] > 0, "{reason:?} is never met");
    }
}

#[test]
fn the_table_says_who_may_create_sockets_as_the_oracle_reads_it() {
    let reasons = Cell::new([0_usize; 32]);
    TestRunner::new(config(requested().div_ceil(FLOWS)))
        .run(&(world(FLOWS), vec((socket_kind(), any::<bool>()), FLOWS)), |(world, kinds)| {
            let mut registry = registry(&world);
            let scene = numbers::scene(&mut registry, &world.setting);
            let table = compile_scene(&world.policies, &scene, &mut registry, Generation(1)).unwrap();
            for (Question { subject, .. }, (kind, allowed)) in world.questions.iter().zip(kinds) {
                // A number that stands for nobody is refused, but only where there are rules about sockets at all.
                if *subject == Side::Unknown {
                    continue;
                }
                let age = |rule: &RuleKey| age(&registry, rule);
                let expected = judge_socket(&world.policies, &age, (subject, kind, allowed), &world.setting);
                let mut counts = reasons.get();
                counts[expected.enforced.reason as usize] += 1;
                reasons.set(counts);
                let id = identity(&mut registry, subject);
                let found = judgement(&registry, table.decide_socket(id, kind, allowed));
                prop_assert_eq!(found, expected, "{:?} {:?} {}", subject, kind, allowed);
            }
            Ok(())
        })
        .unwrap();
    for reason in [Reason::AllowedByDefault, Reason::AllowedByRule, Reason::DeniedByRule, Reason::SocketKind]
    {
        assert!(reasons.get()[reason as usize] > 0, "{reason:?} is never met");
    }
}

/// A policy for everyone in namespace `blue` with one rule about addresses.
fn about_addresses(name: &str, action: Action, nets: &[ipnet::IpNet]) -> Policy {
    let peers = nets.iter().map(|net| Peer::Cidr { net: *net, except: vec![] }).collect();
    let rule = Rule {
        name: None,
        action,
        peers: Peers::AnyOf(peers),
        ports: Ports::All,
        errno: None,
        expires: None,
    };
    Policy {
        key: PolicyKey::traffic("blue", name),
        mode: PolicyMode::Enforce,
        errno: Errno::Perm,
        layer: Layer::Namespaced,
        subject: Subject::default(),
        ingress: None,
        egress: Some(vec![rule]),
        listen: None,
        sockets: None,
        expires: None,
    }
}

proptest! {
    #![proptest_config(config(500))]

    /// The shape of CVE-2024-47825: a deny for a wide block was lost where a narrower one was allowed.
    #[test]
    fn a_denied_block_is_denied_whatever_is_allowed(
        denied in vec(block(), 1..6),
        allowed in vec(block(), 0..12),
        addresses in vec(address(), 20),
    ) {
        let policies = [
            about_addresses("a", Action::Allow, &allowed),
            about_addresses("b", Action::Deny, &denied),
            about_addresses("c", Action::Allow, &denied),
        ];
        let mut registry = Registry::default();
        let subject = Side::workload("blue", LabelSet::default());
        identity(&mut registry, &subject);
        let table = compile(&policies, &mut registry, Generation(1)).unwrap();
        let ends = denied.iter().flat_map(|net| [net.network(), net.broadcast(), net.addr()]);
        for address in ends.chain(addresses) {
            // By family as written; what a mapped net means is the oracle's business.
            let plain = |net: &ipnet::IpNet| net.contains(&address) && net.contains(&address.to_canonical());
            if !denied.iter().any(plain) {
                continue;
            }
            let question = Question {
                subject: subject.clone(),
                peer: Side::World,
                address,
                protocol: 6,
                port: 443,
                direction: Direction::Egress,
            };
            let found = ask(&table, &mut registry, &question);
            prop_assert_eq!(found.enforced.reason, Reason::DeniedByRule, "{}", address);
        }
    }

    #[test]
    fn the_order_of_policies_does_not_matter(
        (world, shuffled) in world(5).prop_flat_map(|world| {
            let policies = Just(world.policies.clone()).prop_shuffle();
            (Just(world), policies)
        }),
    ) {
        let mut one = registry(&world);
        let mut other = one.clone();
        let table = compile(&world.policies, &mut one, Generation(1)).unwrap();
        let again = compile(&shuffled, &mut other, Generation(1)).unwrap();
        prop_assert_eq!(table.rows() == again.rows(), true);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn growth_changes_no_number_and_no_verdict(
        before in world(20),
        after in world(20),
        strangers in vec(question(), 10),
    ) {
        let mut registry = registry(&before);
        let table = compile(&before.policies, &mut registry, Generation(1)).unwrap();
        let old = registry.clone();
        for stranger in &strangers {
            identity(&mut registry, &stranger.subject);
        }
        let grown = compile(&before.policies, &mut registry, Generation(2)).unwrap();
        for question in &before.questions {
            prop_assert_eq!(ask(&table, &mut registry, question), ask(&grown, &mut registry, question));
        }
        // Other policies come and go; the numbers stay.
        compile(&after.policies, &mut registry, Generation(3)).unwrap();
        for (key, id) in old.identities() {
            prop_assert_eq!(registry.identity(key), id);
        }
        for (key, id) in old.rules() {
            prop_assert_eq!(registry.rule(key), id);
        }
    }
}
