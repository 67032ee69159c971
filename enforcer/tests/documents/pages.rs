//! What the pages of the documentation show is what the language takes.

use std::collections::BTreeSet;
use std::fs;

use enforcer::domain::policy::diagnostic::Code;
use enforcer::domain::workload_file::parse_workloads;

use super::{check_one, file};

#[test]
fn every_whole_example_of_the_manual_is_a_policy() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md")).unwrap();
    let examples = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut kinds = BTreeSet::new();
    for text in examples.filter(|text| text.starts_with("apiVersion:")) {
        let outcome = check_one(text);
        assert!(outcome.diagnostics.is_empty(), "{text}\n{:?}", outcome.diagnostics);
        kinds.extend(outcome.policies.iter().map(|checked| checked.policy.key.kind.label()));
    }
    assert_eq!(kinds.len(), 4, "an example of each kind: {kinds:?}");
}

/// Those of the page for plain hosts are what it says they are.
#[test]
fn every_whole_example_for_hosts_is_accepted() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/host.md")).unwrap();
    let (mut policies, mut workloads) = (0, 0);
    for text in page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        if text.starts_with("apiVersion:") {
            let outcome = check_one(text);
            assert!(outcome.diagnostics.is_empty(), "{text}\n{:?}", outcome.diagnostics);
            policies += 1;
        } else if text.starts_with("workloads:") {
            let outcome = parse_workloads(&file(text));
            assert!(outcome.diagnostics.is_empty(), "{text}\n{:?}", outcome.diagnostics);
            workloads += 1;
        }
    }
    assert_eq!((policies, workloads), (3, 1));
}

#[test]
fn the_manual_lists_every_code() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md")).unwrap();
    for code in Code::ALL {
        let row = format!("| `{}` | {} |", code.slug(), code.text());
        assert!(manual.contains(&row), "docs/policy.md lacks the row\n{row}");
    }
}
