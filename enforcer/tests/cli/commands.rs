//! The binary itself: exit codes, and what goes to which stream.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use crate::agent::Agent;
use crate::golden::check;
use crate::samples;

const GOOD: &str = "apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db}
spec:
  subject: {matchLabels: {app: db}}
  ingress: []
";

fn enforcer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
    // The host's own configuration has no say here.
    command.env_clear().env("ENFORCER_CONFIG", "/dev/null").args(arguments);
    command
}

fn run(agent: &Agent, arguments: &[&str]) -> Output {
    enforcer(arguments).arg("--socket").arg(agent.socket()).output().unwrap()
}

fn with_stdin(agent: &Agent, arguments: &[&str], text: &str) -> Output {
    let mut command = enforcer(arguments);
    command.arg("--socket").arg(agent.socket());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", out(output), err(output));
}

#[test]
fn results_go_to_stdout_and_nothing_to_stderr() {
    let agent = Agent::new();
    for (arguments, golden) in [
        (&["policy", "list"][..], "policies.txt"),
        (&["policy", "list", "-o", "json"], "policies.json"),
        (&["identity", "list"], "identities.txt"),
        (&["endpoint", "list"], "endpoints.txt"),
        (&["endpoint", "list", "-o", "json"], "endpoints.json"),
        (&["quarantine", "list"], "quarantines.txt"),
        (&["quarantine", "list", "-o", "json"], "quarantines.json"),
        (&["status"], "status.txt"),
        (&["status", "-o", "json"], "status.json"),
        (&["status", "--unguarded"], "unguarded.txt"),
        (&["status", "--unguarded", "-o", "json"], "unguarded.json"),
        (&["top", "--batch", "--sort", "active", "--interval", "100ms"], "top.txt"),
        (&["flows", "history"], "history.txt"),
        (&["flows", "history", "-o", "json"], "history.json"),
        (&["observe"], "flows.compact.txt"),
        (&["observe", "-o", "table"], "flows.table.txt"),
        (&["metrics", "list"], "metrics.txt"),
        (&["metrics", "list", "-o", "json"], "metrics.json"),
        (&["observe", "-o", "dict", "--last", "1", "--print-node-name"], "flows.dict.txt"),
        (&["observe", "-o", "json", "--first", "1"], "flows.hubble.json"),
    ] {
        let output = run(&agent, arguments);
        ends(&output, 0);
        check(golden, &out(&output));
        assert_eq!(err(&output), "", "{arguments:?}");
    }
}

#[test]
fn status_answers_no_when_degraded() {
    let agent = Agent::with(samples::degraded());
    let output = run(&agent, &["status"]);
    ends(&output, 1);
    check("status.degraded.txt", &out(&output));
}

#[test]
fn observe_filters() {
    let agent = Agent::new();
    let count = |arguments: &[&str]| {
        let output = run(&agent, &[&["observe"], arguments].concat());
        ends(&output, 0);
        out(&output).lines().count()
    };
    assert_eq!(count(&["--verdict", "DROPPED"]), 6);
    assert_eq!(count(&["--protocol", "255"]), 1);
    assert_eq!(count(&["--verdict", "dropped", "--last", "1"]), 1);
    assert_eq!(count(&["--to", "default/api-2"]), 1);
    assert_eq!(count(&["--to-label", "reserved:world", "--protocol", "udp", "--port", "53"]), 1);
    assert_eq!(count(&["--since", "2100-01-01T00:00:00Z"]), 0);
    ends(&run(&agent, &["observe", "--since", "yesterday"]), 2);
    ends(&run(&agent, &["observe", "--verdict", "MAYBE"]), 2);
    ends(&run(&agent, &["observe", "--port", "80", "--not"]), 2);
    assert_eq!(count(&["--not", "--verdict", "DROPPED"]), 3);
    assert_eq!(count(&["--first", "2"]), 2);
    assert_eq!(count(&["--all"]), 9);
}

#[test]
fn following_ends_with_an_error_when_the_agent_dies() {
    let mut agent = Agent::new();
    let mut command = enforcer(&["observe", "-f", "--last", "1", "--socket"]);
    let mut child =
        command.arg(agent.socket()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("DENIED"), "{first}");
    agent.kill();
    let output = child.wait_with_output().unwrap();
    ends(&output, 2);
    assert!(err(&output).starts_with("error: "), "{}", err(&output));
}

#[test]
fn quarantine_says_what_holds_from_now_on() {
    let agent = Agent::new();
    for (arguments, told) in [
        (
            &["quarantine", "add", "web", "--for", "10m", "--allow-from", "forensics/probe"][..],
            "default/web is in quarantine until 2026-11-22T13:03:39Z; let in: forensics/probe role=probe,team=blue \
             192.0.2.0/24\n",
        ),
        (
            &["quarantine", "add", "shop/gone"],
            "shop/gone is in quarantine until it is released; nobody is let in\n",
        ),
        (
            &["quarantine", "release", "web"],
            "default/web is out of quarantine, in which it was since 2026-11-22T12:53:39Z\n",
        ),
    ] {
        let output = run(&agent, arguments);
        ends(&output, 0);
        assert_eq!(out(&output), told);
    }
    for (arguments, told) in [
        (
            &["quarantine", "add", "web", "--for", "soon"][..],
            "write a number and a unit, like 90s, 10m, 2h or 1d",
        ),
        (&["quarantine", "add", "web", "--allow-from", "192.0.2.1/24"], "write `192.0.2.0/24`"),
    ] {
        let output = run(&agent, arguments);
        ends(&output, 2);
        assert!(err(&output).contains(told), "{}", err(&output));
    }
}

#[test]
fn apply_says_what_became_of_each_policy() {
    let agent = Agent::new();
    let output = with_stdin(&agent, &["policy", "apply", "-f", "-"], GOOD);
    ends(&output, 0);
    check("changed.txt", &out(&output));
    assert!(err(&output).starts_with("warning: default/idle selects no workload now"), "{}", err(&output));
    let output = with_stdin(&agent, &["policy", "apply", "--dry-run", "-f", "-"], GOOD);
    ends(&output, 0);
    check("changed.dry-run.txt", &out(&output));
    let output = with_stdin(&agent, &["policy", "apply", "--confirm-within", "60s", "-f", "-"], GOOD);
    ends(&output, 0);
    check("changed.unconfirmed.txt", &out(&output));
    let output = run(&agent, &["policy", "confirm"]);
    ends(&output, 0);
    check("changed.txt", &out(&output));
    for wrong in [&["--confirm-within", "60"][..], &["--confirm-within", "60s", "--dry-run"]] {
        ends(&with_stdin(&agent, &[&["policy", "apply", "-f", "-"], wrong].concat(), GOOD), 2);
    }
}

#[test]
fn what_is_over_is_warned_of() {
    let agent = Agent::new();
    let over = format!("{GOOD}  expiresAt: 2001-09-09T01:46:40Z\n");
    let output = with_stdin(&agent, &["policy", "apply", "-f", "-"], &over);
    ends(&output, 0);
    assert!(err(&output).contains("warning[expired]: this policy has expired"), "{}", err(&output));
    let output = with_stdin(&agent, &["policy", "validate", "-"], &over);
    ends(&output, 0);
    assert!(out(&output).contains("<stdin>:7:14"), "{}", out(&output));
}

#[test]
fn apply_refuses_a_broken_document_with_its_place_and_sends_nothing() {
    let mut agent = Agent::new();
    agent.kill();
    let output = with_stdin(&agent, &["policy", "apply", "-f", "-"], &GOOD.replace("subject", "subjekt"));
    ends(&output, 1);
    assert_eq!(out(&output), "");
    let talk = err(&output);
    assert!(talk.contains("<stdin>:5:3"), "{talk}");
    assert!(talk.contains("did you mean `subject`?"), "{talk}");
    assert!(talk.contains("; nothing was applied"), "{talk}");
}

#[test]
fn validate_needs_no_agent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.yaml");
    std::fs::write(&path, GOOD).unwrap();
    let validate = || enforcer(&["policy", "validate"]).arg(folder.path()).output().unwrap();
    let output = validate();
    ends(&output, 0);
    assert_eq!(out(&output), "1 policy in 1 file is valid\n");
    std::fs::write(&path, GOOD.replace("kind: TrafficPolicy", "kind: TraficPolicy")).unwrap();
    let output = validate();
    ends(&output, 1);
    assert!(out(&output).contains("db.yaml:2:7"), "{}", out(&output));
    assert!(out(&output).ends_with("1 error in 1 file\n"), "{}", out(&output));
    std::fs::remove_file(&path).unwrap();
    ends(&validate(), 2);
}

#[test]
fn a_policy_that_is_not_there() {
    let agent = Agent::new();
    let output = run(&agent, &["policy", "get", "db-only-from-ap"]);
    ends(&output, 1);
    assert_eq!(
        err(&output),
        "error: there is no policy `default/db-only-from-ap`; did you mean `default/db-only-from-api`?\n"
    );
    let output = run(&agent, &["policy", "get", "db-only-from-api"]);
    ends(&output, 0);
    let document =
        "# who may ask the database\nkind: TrafficPolicy\nstatus:\n  conditions:\n  - type: Accepted\n";
    assert!(out(&output).starts_with(document), "{}", out(&output));
    let output = run(&agent, &["policy", "delete", "nobody"]);
    ends(&output, 1);
    assert_eq!(err(&output), "error: there is no policy default/nobody\nnote: one line of detail\n");
}

#[test]
fn without_an_agent_the_next_command_is_named() {
    let output = enforcer(&["status", "--socket", "/nonexistent/enforcer.sock"]).output().unwrap();
    ends(&output, 2);
    assert_eq!(
        err(&output),
        "error: no agent listens on /nonexistent/enforcer.sock: start it with `enforcer run`, or name its socket \
         with --socket\n"
    );
}

#[test]
fn the_socket_is_found_in_the_environment_and_the_file() {
    let agent = Agent::new();
    let output = enforcer(&["status"]).env("ENFORCER_SOCKET", agent.socket()).output().unwrap();
    ends(&output, 0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enforcer.yaml");
    std::fs::write(&file, format!("socket: {}\n", agent.socket().display())).unwrap();
    ends(&enforcer(&["status", "--config"]).arg(&file).output().unwrap(), 0);
}

#[test]
fn a_closed_pipe_is_fine() {
    let agent = Agent::new();
    let mut command = enforcer(&["policy", "list", "--socket"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.arg(agent.socket()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    ends(&output, 0);
    assert_eq!(err(&output), "");
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["version"], 0),
        (&["policy", "apply", "--help"], 0),
        (&["completion", "bash"], 0),
        (&["config", "default"], 0),
        (&["config", "show", "-o", "json"], 0),
        (&[], 2),
        (&["polcy"], 2),
        (&["policy", "apply"], 2),
        (&["policy", "list", "-o", "compact"], 2),
        (&["config", "show", "--mode", "loud"], 2),
    ] {
        let output = enforcer(arguments).output().unwrap();
        ends(&output, code);
        assert_eq!(out(&output).is_empty(), code == 2, "{arguments:?}");
        assert_eq!(err(&output).is_empty(), code == 0, "{arguments:?}");
    }
}

#[test]
fn uninstall_leaves_a_running_agent_alone() {
    let agent = Agent::new();
    let output = run(&agent, &["uninstall", "--pins", "/nonexistent"]);
    ends(&output, 2);
    assert!(err(&output).contains("stop it first"), "{}", err(&output));
}

#[test]
fn a_broken_configuration_is_shown_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enforcer.yaml");
    std::fs::write(&file, "stat-dir: /x\n").unwrap();
    let output = enforcer(&["config", "check", "--config"]).arg(&file).output().unwrap();
    ends(&output, 1);
    assert!(out(&output).contains("enforcer.yaml:1:1"), "{}", out(&output));
    assert!(out(&output).contains("did you mean `state-dir`?"), "{}", out(&output));
    let output = enforcer(&["run", "--config"]).arg(&file).output().unwrap();
    ends(&output, 2);
    assert!(err(&output).contains("did you mean `state-dir`?"), "{}", err(&output));
}

#[test]
fn man_pages_are_written_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let output = enforcer(&["man", "--out"]).arg(folder.path()).output().unwrap();
    ends(&output, 0);
    for page in ["enforcer.1", "enforcer-policy-apply.1", "enforcer-observe.1"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
}

#[test]
fn what_observe_has_written_it_reads() {
    let agent = Agent::new();
    let written = out(&run(&agent, &["observe", "--all", "-o", "json"]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &written).unwrap();
    let path = file.path().to_str().unwrap();
    // Without the agent: nothing is asked of it.
    let read = |arguments: &[&str]| {
        let output = enforcer(&[&["observe", "--input-file", path], arguments].concat()).output().unwrap();
        ends(&output, 0);
        out(&output)
    };
    assert_eq!(read(&["-o", "json"]), written);
    assert_eq!(read(&[]), out(&run(&agent, &["observe", "--all"])));
    let last = written.lines().last().unwrap();
    assert_eq!(read(&["-o", "json", "--last", "1"]).trim_end(), last);
    std::fs::write(file.path(), "{\"flow\": 7}\n").unwrap();
    let output = enforcer(&["observe", "--input-file", path]).output().unwrap();
    ends(&output, 2);
    assert!(err(&output).contains("line 1 is no flow"), "{}", err(&output));
}

#[test]
fn a_flow_is_explained_by_the_agent_unless_files_are_named() {
    let agent = Agent::new();
    let output = run(&agent, &["policy", "explain", "--from", "shop/web", "--to", "shop/db:80/TCP"]);
    ends(&output, 0);
    crate::golden::check("explain-agent.txt", &out(&output));
    let output = run(&agent, &["policy", "explain", "--from", "a", "--to", "b:53/UDP", "-o", "json"]);
    ends(&output, 0);
    let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!((&json["port"], &json["generation"]), (&"UDP/53".into(), &7.into()));
    assert_eq!(json["backends"][1]["verdict"], "DROPPED");
    let output = run(&agent, &["policy", "explain", "--from", "a", "--to", "b"]);
    ends(&output, 2);
    assert!(err(&output).contains("`b` is no server"), "{}", err(&output));
    for (half, why) in [
        (&["--cluster", "x"][..], "is judged by policies from files: name them with -f"),
        (&["-f", "x"], "required arguments were not provided"),
        (&["--cluster", "-f", "x"], "-f is for a cluster from files: name them with --cluster FILE"),
    ] {
        let output = run(&agent, &[&["policy", "explain", "--from", "a", "--to", "b:1"][..], half].concat());
        ends(&output, 2);
        assert!(err(&output).contains(why), "{}", err(&output));
    }
}
