//! The verbs that need no agent: what they print, and what they answer.

use std::path::Path;
use std::process::{Command, Output};

use crate::golden::check;

const CLUSTER: &str = "tests/cli/offline/cluster.yaml";
const POLICIES: &str = "tests/cli/offline/policies.yaml";

/// Runs in the crate's own folder, so that the paths in what is printed are the same everywhere.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
    command.env_clear().env("ENFORCER_CONFIG", "/dev/null").current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32) -> (String, String) {
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let err = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

fn scenery<'a>(verb: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["policy"];
    arguments.extend(verb);
    arguments.extend(["--cluster", CLUSTER, "-f", POLICIES]);
    arguments
}

#[test]
fn matrix() {
    let (table, talk) = ends(&run(&scenery(&["matrix", "--port", "UDP/53"])), 0);
    check("matrix.txt", &table);
    assert!(talk.starts_with("warning[shadowed-rule]"), "{talk}");
    let (text, _) = ends(&run(&scenery(&["matrix", "-o", "json"])), 0);
    let matrix: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ports: Vec<_> = matrix.as_object().unwrap().keys().collect();
    assert_eq!(ports, ["TCP/5432", "TCP/8080"], "what the pods declare, and nothing else");
    assert_eq!(matrix["TCP/5432"]["shop/web"]["shop/db"], true);
    assert_eq!(matrix["TCP/5432"]["shop/cron"]["shop/db"], false);
    assert!(matrix["TCP/5432"]["shop/db"].get("shop/db").is_none(), "a pod and itself");
    assert!(matrix["TCP/5432"].get("shop/done").is_none(), "a finished pod");
}

#[test]
fn explain() {
    for (from, to, golden) in [
        ("shop/web", "shop/db:5432", "explain-allowed.txt"),
        ("shop/cron", "shop/db:5432/TCP", "explain-denied.txt"),
        ("shop/web", "shop/db:5433", "explain-miss.txt"),
        ("shop/cron", "service/shop/db:80", "explain-service.txt"),
        ("192.0.2.9", "shop/web:8080", "explain-address.txt"),
    ] {
        let (text, _) = ends(&run(&scenery(&["explain", "--from", from, "--to", to])), 0);
        check(golden, &text);
    }
    let socket = ["explain", "--from", "shop/web", "--socket-kind", "raw"];
    let (text, _) = ends(&run(&scenery(&socket)), 0);
    check("explain-socket.txt", &text);
    let flow = ["explain", "--from", "shop/web", "--to", "shop/db:5433", "-o", "json"];
    let (text, _) = ends(&run(&scenery(&flow)), 0);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["verdict"], "DROPPED");
    assert_eq!(answer["ends"][1]["precedence"], 5);
    assert_eq!(answer["ends"][1]["policy"], "networkpolicy/shop/db");
    assert_eq!(
        answer["ends"][1]["nearest_miss"],
        "networkpolicy/shop/db ingress[0] matched the peer, but allows the port `postgres`, not TCP 5433"
    );
    for (from, to, told) in [
        ("shop/wob", "shop/db:5432", "did you mean `shop/web`?"),
        ("shop/web", "shop/db", "write it like shop/db:5432"),
        ("shop/web", "shop/db:0", "write it like shop/db:5432"),
        ("192.0.2.1", "192.0.2.2:80", "nobody here judges a flow between two addresses"),
    ] {
        let (out, err) = ends(&run(&scenery(&["explain", "--from", from, "--to", to])), 2);
        assert!(out.is_empty() && err.contains(told), "{err}");
    }
}

/// What is accepted and not enforced yet is told with its place by every verb that reads the policy.
#[test]
fn what_is_pending_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.yaml");
    let text = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: out}\nspec:\n  tier: \
                Admin\n  priority: 1\n  subject: {namespaces: {}}\n  egress:\n  - action: Accept\n    to:\n    - domainNames: \
                [example.com]\n    - nodes: {}\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_string_lossy().into_owned();
    for (verb, code) in [
        (&["policy", "validate", &path][..], 0),
        (&["policy", "matrix", "--cluster", CLUSTER, "-f", &path], 0),
        (&["policy", "lint", &path], 1),
    ] {
        let (out, err) = ends(&run(verb), code);
        let told = format!("{out}{err}");
        for (line, words) in [(11, "`domainNames` is accepted, and matches nobody yet"), (12, "`nodes`")] {
            assert!(told.contains(&format!("out.yaml:{line}:")) && told.contains(words), "{verb:?}: {told}");
        }
        assert!(told.contains("[pending]"), "{verb:?}: {told}");
    }
}

/// The trust domain is the agent's setting, from where an agent has it, in every verb that judges.
#[test]
fn trust_domains() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let policy = write(
        "a.yaml",
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: db, namespace: shop}\nspec:\n  subject: \
         {matchLabels: {app: db}}\n  ingress: [{from: [{spiffe: 'spiffe://corp.example/ns/shop/sa/default'}]}]\n",
    );
    let expectation = |verdict: &str| {
        let end = if verdict == "DROPPED" { ", reason: POLICY_DENIED, errno: EPERM" } else { "" };
        let flow = format!("flows: [{{from: shop/web, to: shop/db, port: 5432, verdict: {verdict}{end}}}]\n");
        write(&format!("{verdict}.expect.yaml"), &flow)
    };
    let (denied, allowed) = (expectation("DROPPED"), expectation("FORWARDED"));
    let settings = write("enforcer.yaml", "trust-domain: corp.example\n");
    let run = |arguments: &[&str], variable: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
        command.env_clear().env("ENFORCER_CONFIG", "/dev/null").current_dir(env!("CARGO_MANIFEST_DIR"));
        command.envs(variable.map(|value| ("ENFORCER_TRUST_DOMAIN", value)));
        command.args(["policy"]).args(arguments).args(["--cluster", CLUSTER, "-f", &policy]).output().unwrap()
    };
    let flow = ["explain", "--from", "shop/web", "--to", "shop/db:5432", "-o", "json"];
    let flag = ["--trust-domain", "corp.example"];
    let from_file = ["--config", settings.as_str()];
    for (more, variable, reaches) in [
        (&[][..], None, false),
        (&flag[..], None, true),
        (&[], Some("corp.example"), true),
        (&from_file, None, true),
        (&flag, Some("other.example"), true),
        (&["--trust-domain", "cluster.local"], Some("corp.example"), false),
    ] {
        let told = format!("{more:?} {variable:?}");
        let (text, _) = ends(&run(&[&flow, more].concat(), variable), 0);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["verdict"], if reaches { "FORWARDED" } else { "DROPPED" }, "{told}");
        let (text, _) = ends(&run(&[&["matrix", "-o", "json"], more].concat(), variable), 0);
        let matrix: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(matrix["TCP/5432"]["shop/web"]["shop/db"], reaches, "{told}");
        for (file, code) in [(&allowed, i32::from(!reaches)), (&denied, i32::from(reaches))] {
            ends(&run(&[&["test", file], more].concat(), variable), code);
        }
    }
    let (_, err) = ends(&run(&[&flow[..], &["--trust-domain", "Corp"]].concat(), None), 2);
    assert!(err.contains("--trust-domain: `Corp` is no trust domain"), "{err}");
    let (_, err) = ends(&self::run(&[&["policy"], &flow[..], &flag].concat()), 2);
    assert!(err.contains("--trust-domain is for --cluster"), "{err}");
}

#[test]
fn lint() {
    let (text, _) = ends(&run(&["policy", "lint", POLICIES, "--cluster", CLUSTER]), 1);
    check("lint.txt", &text);
    let (text, _) = ends(&run(&["policy", "lint", "-f", POLICIES, "--cluster", CLUSTER, "-o", "json"]), 1);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let codes: Vec<_> = found["findings"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
    assert_eq!(
        codes,
        ["broad-peer", "shadowed-rule", "selects-nothing", "unreachable-port", "selects-nothing"]
    );
    let (text, _) = ends(&run(&["policy", "lint", "../policies/ports.yaml"]), 0);
    assert!(text.ends_with("and nothing looks wrong\n"), "{text}");
}

#[test]
fn tests() {
    let (text, _) = ends(&run(&["policy", "test", "../policies"]), 0);
    assert!(
        text.ends_with(" flows as expected\n") && text.contains("ok ../policies/ports.expect.yaml"),
        "{text}"
    );
    let (text, _) = ends(
        &run(&[
            "policy",
            "test",
            "tests/cli/offline/wrong.expect.yaml",
            "-f",
            POLICIES,
            "--cluster",
            CLUSTER,
        ]),
        1,
    );
    check("test.txt", &text);
}

#[test]
fn schemas() {
    for kind in ["TrafficPolicy", "ClusterTrafficPolicy", "NetworkPolicy", "ClusterNetworkPolicy"] {
        let (text, _) = ends(&run(&["policy", "schema", kind]), 0);
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["properties"]["kind"]["const"], kind);
    }
    let (text, _) = ends(&run(&["policy", "schema"]), 0);
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema["oneOf"].as_array().map(Vec::len), Some(4));
}

#[test]
fn what_is_invalid_is_not_judged() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_string_lossy().into_owned()
    };
    let matrix =
        |cluster: &str, policies: &str| run(&["policy", "matrix", "--cluster", cluster, "-f", policies]);
    let bad = write(
        "bad.yaml",
        b"kind: Pod\nmetadata: {name: A}\nspec: {containers: [{ports: [{containerPort: 0}]}]}\n",
    );
    let (out, err) = ends(&matrix(&bad, POLICIES), 1);
    assert!(out.is_empty() && err.contains("bad-name") && err.contains("bad-port"), "{err}");
    let policy =
        write("policy.yaml", b"kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nspec: {egres: []}\n");
    let (out, err) = ends(&matrix(CLUSTER, &policy), 1);
    assert!(out.is_empty() && err.contains("did you mean `egress`?"), "{err}");
    let binary = write("binary.yaml", &[0xff, 0xfe, 0]);
    let (_, err) = ends(&matrix(&binary, POLICIES), 2);
    assert!(err.contains("is no UTF-8 text") && err.contains("index 0"), "{err}");
    let (_, err) = ends(&matrix(CLUSTER, Path::new("/dev/zero").to_str().unwrap()), 2);
    assert!(err.contains("more than 8 MiB"), "{err}");
}

/// What is committed for Kubernetes is what this version prints.
#[test]
fn custom_resource_definitions() {
    let (found, _) = ends(&run(&["policy", "crd"]), 0);
    super::golden::check("../../../../deploy/kubernetes/crds.yaml", &found);
    assert_eq!(found.matches("kind: CustomResourceDefinition").count(), 2);
}

/// What is shipped is what an agent takes.
#[test]
fn shipped_configurations_are_valid() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let map = std::fs::read_to_string(deploy.join("kubernetes/config.yaml")).unwrap();
    let (_, settings) = map.split_once("  enforcer.yaml: |\n").unwrap();
    let settings: Vec<&str> =
        settings.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enforcer.yaml");
    std::fs::write(&file, settings.join("\n")).unwrap();
    for file in [file, deploy.join("systemd/enforcer.yaml")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
        let output = command.env_clear().args(["config", "check", "--config"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", file.display());
    }
}
