//! Commands that are executed in the pods of agents.

use std::process::Command;

use enforcer::cluster::agents::{Agent, Agents, Running};

use super::*;
use crate::apiserver::{Network, Way};

fn pod(name: &str, node: &str, phase: &str) -> Value {
    let state = if phase == "Running" {
        json!({ "running": {} })
    } else {
        json!({ "waiting": { "reason": "Wait" } })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app.kubernetes.io/name": "enforcer" } },
        "spec": { "nodeName": node, "containers": [{ "name": "enforcer", "image": "none" }] },
        "status": { "phase": phase, "containerStatuses": [{
            "name": "enforcer", "image": "none", "imageID": "", "ready": true, "restartCount": 0, "state": state,
        }] },
    })
}

/// A cluster with one agent, which runs a script in place of whatever it is asked.
fn running(script: &'static str) -> (ApiServer, Agents) {
    let server = cluster();
    server.put(pod("enforcer-a", "n1", "Running"));
    server.execute(move |_| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Way::Run(command)
    });
    let agents = Agents::new(client(&server.url(), ""), NAMESPACE.to_owned());
    (server, agents)
}

async fn run(agents: &Agents) -> Running {
    let agent = agents.list().await.unwrap().remove(0);
    agents.run(&agent, &["enforcer".to_owned()]).await.unwrap()
}

#[tokio::test]
async fn one_agent_of_each_node_is_found() {
    let (server, agents) = running("true");
    // Of two pods of one node, whoever runs; those of others are nobody's business.
    server.put(pod("enforcer-b", "n2", "Pending"));
    server.put(pod("enforcer-c", "n2", "Running"));
    server.put(pod("enforcer-d", "n2", "Pending"));
    server.put(pod("enforcer-e", "n0", "Pending"));
    let mut other = pod("other", "n3", "Running");
    other["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "enforcer-uninstall" });
    server.put(other);
    let found = agents.list().await.unwrap();
    let rows: Vec<_> =
        found.iter().map(|it| (it.node.as_str(), it.pod.as_str(), it.trouble.is_none())).collect();
    assert_eq!(rows, [("n0", "enforcer-e", false), ("n1", "enforcer-a", true), ("n2", "enforcer-c", true)]);
    let error = agents.run(&found[0], &["enforcer".to_owned()]).await.unwrap_err().to_string();
    assert!(error.contains("its pod is Pending (Wait)"), "{error}");
    assert_eq!(agents.node_of(NAMESPACE, "enforcer-c").await.unwrap().as_deref(), Some("n2"));
    assert_eq!(agents.node_of(NAMESPACE, "nobody").await.unwrap(), None);
    let elsewhere = Agents::new(client(&server.url(), ""), "default".to_owned());
    let error = elsewhere.list().await.unwrap_err().to_string();
    assert!(error.contains("no agent runs in the namespace default"), "{error}");
}

#[tokio::test]
async fn lines_come_and_then_the_end() {
    let (_server, agents) = running("echo one; echo careful >&2; printf 'two\\n'; exit 1");
    let mut running = run(&agents).await;
    assert_eq!(running.line().await.unwrap().as_deref(), Some("one"));
    assert_eq!(running.line().await.unwrap().as_deref(), Some("two"));
    assert_eq!(running.line().await.unwrap(), None);
    let end = running.end().await;
    assert_eq!((end.code, end.talk.as_str()), (Ok(1), "careful"));
}

#[tokio::test]
async fn answers_are_bounded_and_whole() {
    let (_server, agents) = running("head -c 3000000 /dev/zero");
    let error = run(&agents).await.line().await.unwrap_err();
    assert!(error.contains("longer than 1048576 bytes"), "{error}");
    let (_server, agents) = running("yes | head -n 100000");
    let error = run(&agents).await.rest(1000).await.unwrap_err();
    assert!(error.contains("longer than 1000 bytes"), "{error}");
    assert_eq!(run(&agents).await.rest(200_000).await.unwrap().len(), 200_000);
    let (_server, agents) = running("printf half");
    let error = run(&agents).await.line().await.unwrap_err();
    assert!(error.contains("ends within a line"), "{error}");
}

#[tokio::test]
async fn a_slow_reader_slows_the_command() {
    let (server, agents) = running("yes | head -n 10000000; exit 5");
    let mut running = run(&agents).await;
    assert_eq!(running.line().await.unwrap().as_deref(), Some("y"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.executed()[0].code, None, "20 MB are nowhere but in the command");
    drop(running);
    until("the command to end", || server.executed()[0].code).await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_told() {
    let (server, agents) = running("echo one; cat");
    let mut running = run(&agents).await;
    assert_eq!(running.line().await.unwrap().as_deref(), Some("one"));
    server.cut();
    let broken = tokio::time::timeout(Duration::from_secs(20), running.line()).await.unwrap().unwrap_err();
    assert!(broken.contains("the connection"), "{broken}");
    assert!(running.end().await.code.is_err());
    let agent = Agent { node: "n1".into(), pod: "enforcer-a".into(), trouble: None };
    server.network(Network::Refused);
    let error = agents.run(&agent, &["enforcer".to_owned()]).await.unwrap_err().to_string();
    assert!(error.contains("nothing listens there"), "{error}");
}

#[tokio::test]
async fn what_the_node_says_is_told() {
    let (server, agents) = running("true");
    server.execute(|_| Way::Fail("container not found (\"enforcer\")".into()));
    let mut running = run(&agents).await;
    assert_eq!(running.line().await.unwrap(), None);
    let why = running.end().await.code.unwrap_err();
    assert!(why.contains("container not found"), "{why}");
}

#[tokio::test]
async fn missing_rights_are_named() {
    let (server, agents) = running("true");
    let agent = agents.list().await.unwrap().remove(0);
    let role = json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }] });
    server.allow("list", crate::apiserver::User::nobody("alice").with_role(&role));
    server.allow("none", crate::apiserver::User::nobody("alice"));
    let with = |token: &str| Agents::new(client(&server.url(), token), NAMESPACE.to_owned());
    let error = with("none").list().await.unwrap_err().to_string();
    assert!(error.contains("ask for the verb `list` on `pods` in the namespace enforcer-system"), "{error}");
    let error = with("list").run(&agent, &["enforcer".to_owned()]).await.unwrap_err().to_string();
    assert!(error.contains("ask for the verbs `get` and `create` on `pods/exec`"), "{error}");
    let error = with("list").node_of("shop", "web").await.unwrap_err().to_string();
    assert!(error.contains("ask for the verb `get` on `pods` in the namespace shop"), "{error}");
}
