//! Each lint, where it is told and what the exit code is. A line that ends with `#~ CODE` promises a finding of that code on it,
//! and there is no other.

use std::process::Command;

const CLUSTER: &str = "tests/cli/offline/cluster.yaml";

/// What is found in these files: (file, line, code), and the exit code.
fn lint(files: &[&str], cluster: bool) -> (Vec<(usize, u64, String)>, i32) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
    command.env_clear().env("ENFORCER_CONFIG", "/dev/null").current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["policy", "lint", "-o", "json"]);
    for (index, text) in files.iter().enumerate() {
        let path = folder.path().join(format!("{index}.yaml"));
        std::fs::write(&path, text).unwrap();
        command.arg(path);
    }
    if cluster {
        command.args(["--cluster", CLUSTER]);
    }
    let output = command.output().unwrap();
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = found["findings"].as_array().unwrap().iter().map(|one| {
        let place = &one["location"];
        let name = place["name"].as_str().unwrap();
        let file = (0..files.len()).find(|index| name.ends_with(&format!("/{index}.yaml"))).expect(name);
        (file, place["line"].as_u64().unwrap(), one["code"].as_str().unwrap().to_owned())
    });
    (findings.collect(), output.status.code().unwrap())
}

/// What the markers promise.
fn promised(files: &[&str]) -> Vec<(usize, u64, String)> {
    let mut promised = Vec::new();
    for (file, text) in files.iter().enumerate() {
        for (line, text) in (1..).zip(text.lines()) {
            let codes = text.split_once("#~").map(|(_, codes)| codes).unwrap_or_default();
            promised.extend(codes.split_whitespace().map(|code| (file, line, code.to_owned())));
        }
    }
    promised
}

#[track_caller]
fn check(files: &[&str], cluster: bool) {
    let promised = promised(files);
    let (found, code) = lint(files, cluster);
    assert_eq!(found, promised, "{}", files.join("\n---\n"));
    assert_eq!(code, i32::from(!promised.is_empty()));
}

fn policy(spec: &str) -> String {
    named("a", spec)
}

fn named(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}"
    )
}

fn tier(name: &str, priority: u16, rules: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: ClusterTrafficPolicy\nmetadata: {{name: {name}}}\nspec:\n  tier: Admin\n  \
         priority: {priority}\n  subject: {{namespaces: ['*']}}\n  ingress:\n{rules}"
    )
}

const SOUND: &str = "  subject: {matchLabels: {app: db}}
  ingress:
  - from: [{workloads: {matchLabels: {app: web}}}]
    ports: [{port: 5432}, {port: postgres}]
  - action: Deny
    from: [{cidr: 0.0.0.0/0}]
  egress:
  - to: [{workloads: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: Exists}]}}]
    ports: [{port: http}]
  - to: [{cidr: 192.0.2.0/24}]
    ports: [{port: 9}]
  - to: [{workloads: {matchLabels: {app: cron}}}]
    ports: [{port: 9}]
";

#[test]
fn what_is_sound_is_not_told() {
    for cluster in [false, true] {
        check(&[&policy(SOUND)], cluster);
    }
}

#[test]
fn shadowed_rules() {
    // In one list, in another policy of another file, in a tier above, and within a tier.
    let one = policy(
        "  subject: {matchLabels: {app: db}}
  ingress:
  - from: [{cidr: 192.0.2.0/24}] #~ shadowed-rule
    ports: [{port: 5432}]
  - action: Deny
    from: [{cidr: 192.0.2.0/24}]
",
    );
    check(&[&one], false);
    let deny = named("deny", "  subject: {}\n  ingress: [{action: Deny, ports: [{port: 5432}]}]\n");
    let allow = policy(
        "  subject: {matchLabels: {app: db}}
  ingress:
  - from: [{cidr: 192.0.2.0/24}] #~ shadowed-rule
    ports: [{port: 5432}]
  - from: [{cidr: 192.0.2.0/24}]
    ports: [{port: 5433}]
",
    );
    check(&[&deny, &allow], false);
    check(&[&allow, &deny], false);
    let admin = tier("admin", 1, "  - action: Deny\n    ports: [{port: 5432}]\n");
    check(&[&allow, &admin], false);
    let later = tier(
        "later",
        2,
        "  - action: Pass #~ shadowed-rule
    ports: [{port: 5432}]
  - action: Deny
    ports: [{port: 5433}]
",
    );
    check(&[&admin, &later], false);
    // What is passed on is decided beneath.
    let pass = tier("pass", 1, "  - action: Pass\n    ports: [{port: 5433}]\n");
    check(&[&pass, &allow.replace(" #~ shadowed-rule", "")], false);
}

#[test]
fn unreachable_ports() {
    let ports = policy(
        "  subject: {matchLabels: {app: db}}
  ingress:
  - ports: [{port: 5433}] #~ unreachable-port
  - ports: [{port: 5432, protocol: UDP}] #~ unreachable-port
  - ports: [{port: 5000, endPort: 6000}]
  - ports: [{port: http}] #~ unreachable-port
  egress:
  - to: [{workloads: {matchLabels: {app: web}}}] #~ unreachable-port
    ports: [{port: 80}]
  - to: [{workloads: {matchLabels: {app: web}}}]
    ports: [{port: 8080}]
",
    );
    check(&[&ports], true);
    check(&[&ports.replace(" #~ unreachable-port", "")], false);
}

#[test]
fn broad_peers() {
    let broad = policy(
        "  subject: {matchLabels: {app: db}}
  ingress:
  - {} #~ broad-peer
  - from: [{cidr: '::/0'}] #~ broad-peer
    ports: [{port: 5432}]
  - from: [{workloads: {}, namespaces: ['*']}] #~ broad-peer
  - from: [{workloads: {}, namespaces: ['*']}]
    ports: [{port: 5432}]
  - ports: [{port: 5432}]
  egress:
  - to: [{entity: world}] #~ broad-peer
  - to: [{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}]
",
    );
    for cluster in [false, true] {
        check(&[&broad], cluster);
    }
}

#[test]
fn selectors_that_match_nothing() {
    let nothing = policy(
        "  subject: {matchLabels: {app: ghost}} #~ selects-nothing
  ingress: []
",
    );
    let container = named(
        "b",
        "  subject: {matchLabels: {app: db}, container: ghost} #~ selects-nothing
  ingress: []
",
    );
    let peers = named(
        "c",
        "  subject: {matchLabels: {app: db}, container: c}
  ingress:
  - from: [{workloads: {matchLabels: {app: web}}}, {workloads: {matchLabels: {app: ghost}}}] #~ selects-nothing
  - from: [{serviceAccount: ghost}] #~ selects-nothing
  - from: [{workloads: {}, namespaces: [bank]}] #~ selects-nothing
  - from: [{serviceAccount: default}]
",
    );
    check(&[&nothing, &container, &peers], true);
    let without = [nothing, container, peers].map(|text| text.replace(" #~ selects-nothing", ""));
    check(&without.each_ref().map(String::as_str), false);
    // That one excludes itself shows without a cluster.
    let never = policy(
        "  subject:
    matchLabels: {app: db} #~ never-matches
    matchExpressions: [{key: app, operator: DoesNotExist}]
  ingress: []
",
    );
    check(&[&never], false);
}

#[test]
fn what_is_invalid_is_told_and_not_looked_at_further() {
    let invalid = policy("  subject: {}\n  ingres: [{}] #~ unknown-field\n  egress: [{}]\n");
    check(&[&invalid], true);
}
