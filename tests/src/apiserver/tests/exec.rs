//! Commands in pods, as kubectl and the client library execute them.

use kube::api::{AttachParams, AttachedProcess};
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::apiserver::{User, Way};

/// A server whose nodes run what they are asked to.
fn with_nodes() -> ApiServer {
    let server = ApiServer::start();
    server.put(pod("a", "n1"));
    server.execute(|it| {
        let mut command = std::process::Command::new(&it.command[0]);
        command.args(&it.command[1..]).env("NODE", &it.node).env("CONTAINER", &it.container);
        Way::Run(command)
    });
    server
}

async fn start(server: &ApiServer, token: &str, pod: &str, script: &str) -> kube::Result<AttachedProcess> {
    let pods: Api<Pod> = Api::default_namespaced(client(server, token));
    pods.exec(pod, ["sh", "-c", script], &AttachParams::default().stdin(true)).await
}

async fn until_ended(server: &ApiServer) -> i32 {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(code) = server.executed().first().and_then(|it| it.code) {
            return code;
        }
        assert!(tokio::time::Instant::now() < deadline, "the command does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_prints_and_ends() {
    let server = with_nodes();
    let script = "echo on $NODE in $CONTAINER; echo oh >&2; exit 3";
    let mut process = start(&server, "", "a", script).await.unwrap();
    let status = process.take_status().unwrap();
    let (mut printed, mut said) = (String::new(), String::new());
    process.stdout().unwrap().read_to_string(&mut printed).await.unwrap();
    process.stderr().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!((printed.as_str(), said.as_str()), ("on n1 in main\n", "oh\n"));
    let status = status.await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!((causes[0].reason.as_deref(), causes[0].message.as_deref()), (Some("ExitCode"), Some("3")));
    process.join().await.unwrap();
    assert_eq!(until_ended(&server).await, 3);
}

#[tokio::test]
async fn input_reaches_the_command_and_ends() {
    let server = with_nodes();
    let mut process = start(&server, "", "a", "cat; echo end").await.unwrap();
    let mut input = process.stdin().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"in\n").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut input).await.unwrap();
    let mut printed = String::new();
    process.stdout().unwrap().read_to_string(&mut printed).await.unwrap();
    assert_eq!(printed, "in\nend\n");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_input_and_nothing_else() {
    let server = with_nodes();
    let process = start(&server, "", "a", "cat; exit 7").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.executed()[0].code, None);
    drop(process);
    assert_eq!(until_ended(&server).await, 7);
}

#[tokio::test]
async fn executing_takes_two_verbs() {
    let server = with_nodes();
    let role = |verbs: &[&str]| json!({ "rules": [{ "apiGroups": [""], "resources": ["pods/exec"], "verbs": verbs }] });
    for (token, verbs, missing) in [("get", &["get"][..], "create"), ("create", &["create"], "get")] {
        server.allow(token, User::nobody("bob").with_role(&role(verbs)));
        let (code, _, message) = refused(start(&server, token, "a", "true").await.map(|_| ()));
        assert_eq!(code, 403);
        let text = format!("pods \"a\" is forbidden: User \"bob\" cannot {missing} resource \"pods/exec\"");
        assert!(message.starts_with(&text), "{message}");
    }
    server.allow("both", User::nobody("bob").with_role(&role(&["get", "create"])));
    assert!(start(&server, "both", "a", "true").await.is_ok());
}

#[tokio::test]
async fn what_can_not_be_executed_is_refused() {
    let server = with_nodes();
    let mut pending = pod("b", "");
    pending["spec"].as_object_mut().unwrap().remove("nodeName");
    server.put(pending);
    assert_eq!(refused(start(&server, "", "gone", "true").await.map(|_| ())).0, 404);
    let (code, _, message) = refused(start(&server, "", "b", "true").await.map(|_| ()));
    assert_eq!((code, message.as_str()), (400, "pod b does not have a host assigned"));
    let pods: Api<Pod> = Api::default_namespaced(client(&server, ""));
    let other = AttachParams::default().container("other");
    let (code, _, message) = refused(pods.exec("a", ["true"], &other).await.map(|_| ()));
    assert_eq!((code, message.as_str()), (400, "container other is not valid for pod a"));
    server.execute(|_| Way::Fail("dial tcp 192.0.2.7:10250: i/o timeout".into()));
    let mut process = start(&server, "", "a", "true").await.unwrap();
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!((status.code, status.reason.as_deref()), (Some(500), Some("InternalError")));
}
