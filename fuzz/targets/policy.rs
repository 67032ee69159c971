//! Policy documents: checked, shown, compiled, and every verdict of the table compared with the oracle's.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use std::sync::LazyLock;

use enforcer::cli::render::diagnostic::render;
use enforcer::domain::command::PolicyFile;
use enforcer::domain::labels::LabelSet;
use enforcer::domain::policy::check::check;
use enforcer::domain::policy::compile::compile;
use enforcer::domain::policy::model::Policy;
use enforcer::domain::registry::Registry;
use enforcer_common::id::Generation;
use enforcer_common::verdict::Direction;
use enforcer_tests::numbers::{age, identity, judgement, query};
use enforcer_tests::oracle::{Question, Side, judge};

/// Every pair of sides, each about another address and port.
static QUESTIONS: LazyLock<Vec<Question>> = LazyLock::new(questions);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = [PolicyFile { name: "policy.yaml".into(), text: text.into() }];
    let outcome = check(&files);
    let shown = render(&files, &outcome.diagnostics, false);
    assert!(!shown.contains('\x1b'), "an escape sequence reaches the terminal");
    let policies: Vec<Policy> = match outcome.into_result() {
        Ok(checked) => checked.into_iter().map(|checked| checked.policy).collect(),
        Err(diagnostics) => return assert!(!diagnostics.is_empty(), "refused without a word"),
    };
    let mut registry = Registry::default();
    for question in QUESTIONS.iter() {
        identity(&mut registry, &question.subject);
    }
    let Ok(table) = compile(&policies, &mut registry, Generation(1)) else { return };
    for question in QUESTIONS.iter() {
        let expected = judge(&policies, &|rule| age(&registry, rule), question);
        let verdict = table.decide(&query(&mut registry, question));
        assert_eq!(judgement(&registry, verdict), expected, "{question:?}");
    }
});

fn questions() -> Vec<Question> {
    const ADDRESSES: [&str; 7] =
        ["127.0.0.1", "10.0.0.1", "192.0.2.7", "169.254.169.254", "::1", "2001:db8::7", "::ffff:192.0.2.7"];
    const PORTS: [(u8, u16); 6] = [(6, 443), (17, 53), (6, 5432), (6, 0), (132, 80), (6, 8080)];
    let workload = |namespace: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Side::workload(namespace, LabelSet(labels))
    };
    let sides = [
        workload("default", &[]),
        workload("default", &[("app", "web")]),
        workload("default", &[("app", "db"), ("tier", "backend")]),
        workload("other", &[("app", "api")]),
        Side::Host,
        Side::World,
        Side::Unmanaged,
    ];
    let mut all = Vec::new();
    for subject in &sides {
        for peer in &sides {
            for direction in Direction::ALL {
                let (protocol, port) = PORTS[all.len() % PORTS.len()];
                let address = ADDRESSES[all.len() % ADDRESSES.len()].parse().expect("an address");
                let (subject, peer) = (subject.clone(), peer.clone());
                all.push(Question { subject, peer, address, protocol, port, direction });
            }
        }
    }
    all
}
