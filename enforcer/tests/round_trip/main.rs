//! Every kind of policy written as a document and read again is the same policy.
//!
//! What matters most is what is not there: an empty list of peers must never come back as everyone, nor everyone as
//! nobody.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints' exception for tests does not see helper functions"
)]

mod generate;
mod write;

use std::collections::BTreeSet;

use enforcer::domain::command::PolicyFile;
use enforcer::domain::labels::Selector;
use enforcer::domain::policy::check::check;
use enforcer::domain::policy::model::{Namespaces, Peer, Peers, Policy, PolicyKind, Ports};
use generate::policy;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use write::document;

/// Reads a document that must be right.
fn read(document: &Value) -> Policy {
    let text = document.to_string();
    let outcome = check(&[PolicyFile { name: "p".into(), text: text.clone() }]);
    assert!(outcome.is_ok(), "{text}\n{:#?}", outcome.diagnostics);
    let policy = outcome.policies.first().unwrap().policy.clone();
    let again = check(&[PolicyFile { name: "p".into(), text: outcome.policies[0].text.clone() }]);
    assert_eq!(again.policies.first().map(|checked| &checked.policy), Some(&policy));
    policy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_comes_back(policy in select(&PolicyKind::ALL).prop_flat_map(policy)) {
        let written = document(&policy);
        prop_assert_eq!(&read(&written), &policy, "{}", written);
        // The same as an item of a list, and as an API server gives it back.
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": [written] });
        prop_assert_eq!(&read(&list), &policy);
    }
}

#[test]
fn null_missing_and_empty_mean_what_kubernetes_says() {
    let policy = |rule: Value| {
        let read = read(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "p" },
            "spec": { "podSelector": null, "ingress": [rule] },
        }));
        read.ingress.unwrap().remove(0)
    };
    for everyone in [json!({}), json!({ "from": null }), json!({ "from": [] })] {
        assert_eq!(policy(everyone).peers, Peers::Everyone);
    }
    for all in [json!({}), json!({ "ports": null }), json!({ "ports": [] })] {
        assert_eq!(policy(all).ports, Ports::All);
    }
    let own = policy(json!({ "from": [{ "podSelector": {}, "namespaceSelector": null }] }));
    let all = Selector { requirements: Vec::new() };
    let peer =
        |namespaces| Peers::AnyOf(vec![Peer::Workloads { namespaces, selector: all.clone(), account: None }]);
    assert_eq!(own.peers, peer(Namespaces::Own));
    let every = policy(json!({ "from": [{ "namespaceSelector": {} }] }));
    assert_eq!(every.peers, peer(Namespaces::All));
    // Neither of these is everyone, or nobody: they are refused.
    for refused in [json!([{}]), json!([{ "podSelector": null }]), json!([null])] {
        let text = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "p" },
            "spec": { "ingress": [{ "from": refused }] },
        });
        let outcome = check(&[PolicyFile { name: "p".into(), text: text.to_string() }]);
        assert!(!outcome.is_ok() && outcome.policies.is_empty(), "{text}");
    }
}

#[test]
fn policy_types_default_as_the_api_does() {
    let directions = |spec: Value| {
        let read = read(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "p" },
            "spec": spec,
        }));
        let found: BTreeSet<_> =
            read.sections().map(|(section, rules)| (section.label(), rules.len())).collect();
        found.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(directions(json!({})), [("ingress", 0)]);
    assert_eq!(directions(json!(null)), [("ingress", 0)]);
    assert_eq!(directions(json!({ "egress": [] })), [("ingress", 0)]);
    assert_eq!(directions(json!({ "egress": [{}] })), [("egress", 1), ("ingress", 0)]);
    assert_eq!(directions(json!({ "policyTypes": [], "egress": [{}] })), [("egress", 1), ("ingress", 0)]);
    assert_eq!(directions(json!({ "policyTypes": ["Egress"], "ingress": [{}] })), [("egress", 0)]);
    assert_eq!(directions(json!({ "policyTypes": ["Egress", "Ingress"] })), [("egress", 0), ("ingress", 0)]);
}

#[test]
fn what_an_api_server_adds_loads_unchanged() {
    let text = include_str!("../documents/from-api-server.yaml");
    let outcome = check(&[PolicyFile { name: "p".into(), text: text.into() }]);
    assert!(outcome.diagnostics.is_empty(), "{:#?}", outcome.diagnostics);
    let names: Vec<_> = outcome.policies.iter().map(|checked| checked.policy.key.to_string()).collect();
    assert_eq!(
        names,
        [
            "networkpolicy/shop/db",
            "clusternetworkpolicy/admin",
            "networkpolicy/default/bare",
            "networkpolicy/default/flow",
        ]
    );
    for checked in &outcome.policies {
        let again = check(&[PolicyFile { name: "p".into(), text: checked.text.clone() }]);
        assert_eq!(again.policies.len(), 1, "{}\n{:#?}", checked.text, again.diagnostics);
        assert_eq!(again.policies[0].policy, checked.policy);
    }
}
