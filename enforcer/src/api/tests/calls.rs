//! Requests, refusals, strangers and garbage.

use std::io::{Read as _, Write as _};
use std::path::Path;

use super::super::access::Peer;
use super::super::client::Client;
use super::super::{Access, Error};
use super::{World, changed, files};
use crate::domain::SocketKind;
use crate::domain::flow_filter::FlowFilter;
use crate::domain::workload::EndpointState;

#[tokio::test]
async fn every_call_arrives_and_is_answered() {
    let world = World::new();
    let client = world.client();
    assert_eq!(client.apply(files("fine"), false, None).await.unwrap(), changed(false));
    assert_eq!(client.apply(files("fine"), true, None).await.unwrap(), changed(true));
    let names = ["default/a b&c".to_owned(), "x/y".to_owned()];
    assert_eq!(client.delete(&names).await.unwrap(), changed(false), "names are escaped on the way");
    assert_eq!(client.policies().await.unwrap()[0].name, "db");
    assert_eq!(client.identities().await.unwrap()[0].id, 256);
    assert_eq!(client.endpoints().await.unwrap()[0].state, EndpointState::Remote);
    assert_eq!(client.status().await.unwrap().state, "enforcing");
}

#[tokio::test]
async fn a_quarantine_says_who_asked_for_it_by_the_kernels_word() {
    let world = World::new();
    let client = world.client();
    let own = Some(nix::unistd::geteuid().as_raw());
    let guests = ["default/api", "a=b,c=d", "192.0.2.0/24"].map(|text| text.parse().unwrap());
    let minute = Some(std::time::Duration::from_mins(1));
    let info = client.quarantine("default/web".into(), minute, guests.to_vec()).await.unwrap();
    assert_eq!((info.name.as_str(), info.until.as_deref(), info.by), ("web", Some("60"), own));
    assert_eq!(info.allow_from, ["default/api", "a=b,c=d", "192.0.2.0/24"]);
    let info = client.release("x/y&z").await.unwrap();
    assert_eq!((info.namespace.as_str(), info.name.as_str(), info.by), ("x", "y&z", own));
    assert_eq!(client.quarantines().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_flow_is_asked_for_by_its_three_parts() {
    let world = World::new();
    // What arrives comes back as a refusal.
    let Err(Error::Refused(refused)) = world.client().explain("a b&c", "[x]/y", "UDP/53").await else {
        panic!("accepted")
    };
    assert_eq!(refused.message, "a b&c [x]/y 17 53");
    let Err(Error::Refused(refused)) = world.client().explain_socket("a b", SocketKind::Raw).await else {
        panic!("accepted")
    };
    assert_eq!(refused.message, "a b raw");
    for (query, said) in [
        ("from=a&to=b", "a flow has three parts"),
        ("from=a&to=b&port=TCP/80&socket=raw", "a flow has three parts, a socket two"),
        ("from=a&socket=rawr", "parameter `socket=rawr` makes no sense here"),
        ("from=a&to=b&port=80", "parameter `port=80` makes no sense here"),
        ("from=a&to=b&port=TCP/80&more=1", "parameter `more=1` makes no sense here"),
    ] {
        let answer = world.get(&format!("/v1/explain?{query}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(said), "{answer}");
    }
}

#[tokio::test]
async fn a_push_can_be_confirmed() {
    let world = World::new();
    let client = world.client();
    let own = Some(nix::unistd::geteuid().as_raw());
    let minute = Some(std::time::Duration::from_mins(1));
    let pushed = client.apply(files("fine"), false, minute).await.unwrap();
    assert_eq!(pushed.confirm_until, Some(format!("60 {own:?}")));
    assert_eq!(client.confirm().await.unwrap().confirm_until, Some(format!("{own:?}")));
}

#[tokio::test]
async fn refusals_come_through_word_for_word() {
    let world = World::new();
    let client = world.client();
    let Err(Error::Refused(refused)) = client.apply(files("broken"), false, None).await else {
        panic!("accepted")
    };
    assert_eq!(refused.diagnostics, ["f.yaml:1:1: error: broken"]);
    let Err(Error::Refused(refused)) = client.delete(&["no/such".into()]).await else { panic!("accepted") };
    assert!(refused.not_found);
    let Err(Error::Refused(refused)) = client.apply(Vec::new(), false, None).await else {
        panic!("accepted")
    };
    assert_eq!(refused.message, "there is nothing to apply");
    let error = client.apply(files("die"), false, None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { status: 503, .. }), "{error}");
}

#[tokio::test]
async fn statuses_of_http() {
    let world = World::new();
    let post_to = |path: &str, body: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    };
    let post = |body: &str| post_to("/v1/policies", body);
    for (request, status) in [
        (post(r#"{"files":[{"name":"f","text":"broken"}]}"#), "422"),
        (post(r#"{"files":[]}"#), "409"),
        (post(r#"{"files":[],"force":true}"#), "400"),
        (post("not json"), "400"),
        (b"DELETE /v1/policies HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "400"),
        (b"DELETE /v1/policies?nam=x HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "400"),
        (b"DELETE /v1/policies?name=x HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "404"),
        (b"DELETE /v1/quarantines HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "400"),
        (b"PUT /v1/quarantines HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "405"),
        (post_to("/v1/quarantines", r#"{"workload":"a/b","allow_from":["/"]}"#), "400"),
        (post_to("/v1/quarantines", r#"{"workload":"a/b","by":0}"#), "400"),
        (post_to("/v1/policies?confirm_within=soon", r#"{"files":[]}"#), "400"),
        (b"GET /v1/policies/confirm HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "405"),
        (b"PUT /v1/policies HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "405"),
        (b"GET /v2/policies HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "404"),
        (b"GET /v1/flows?last=many HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "400"),
        (b"GET /v1/flows?colour=red HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "400"),
        (b"GET /v1/flows?port=http HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "400"),
    ] {
        let answer = world.raw(request.clone()).await;
        let request = String::from_utf8_lossy(&request).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
        assert!(answer.contains("{\"message\":"), "refusals are JSON: {answer}");
    }
}

#[tokio::test]
async fn garbage_is_survived() {
    let world = World::new();
    let mut noise = Vec::new();
    let mut state = 0x9e37_79b9_u32;
    for _ in 0..64 {
        noise.clear();
        for _ in 0..512 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.push((state >> 24) as u8);
        }
        // Blank lines before a request are allowed, so some noise would wait for more.
        noise.extend_from_slice(b"\r\n\r\n");
        let answer = world.raw(noise.clone()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for request in [
        &b"GET /v1/status HTTP/9.9\r\n\r\n"[..],
        b"\0\0\0\0\r\n\r\n",
        b"POST /v1/policies HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    ] {
        let answer = world.raw(request.to_vec()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(world.client().status().await.unwrap().state, "enforcing", "the server goes on");
}

#[tokio::test]
async fn an_oversized_body_is_refused_and_not_kept() {
    let world = World::new();
    let error = world.client().apply(files(&"x".repeat(9 << 20)), false, None).await.unwrap_err();
    // Either the sentence, or the server has closed before the client had sent all.
    assert!(matches!(error, Error::Unavailable { status: 413, .. } | Error::Broken { .. }), "{error}");
    let head = b"POST /v1/policies HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n";
    let answer = world.raw(head.to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("more than 8 MiB"), "{answer}");
}

#[tokio::test]
async fn readers_read_and_strangers_do_nothing() {
    let stranger = Peer { uid: u32::MAX - 1, gid: 77, pid: None };
    let own = Access::of_this_process(None).unwrap();
    let readers = World::with(Access { readers: Some(77), ..own.clone() }, Some(stranger), Vec::new());
    assert_eq!(readers.client().status().await.unwrap().state, "enforcing");
    assert!(readers.client().flows(1, false, &FlowFilter::default()).await.is_ok());
    for error in [
        readers.client().apply(files("fine"), true, None).await.unwrap_err(),
        readers.client().delete(&["x/y".into()]).await.unwrap_err(),
        readers.client().quarantine("x/y".into(), None, Vec::new()).await.unwrap_err(),
        readers.client().release("x/y").await.unwrap_err(),
        readers.client().confirm().await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Forbidden { .. }), "{error}");
        assert!(error.to_string().contains("may read but change nothing"), "{error}");
    }
    let closed = World::with(own, Some(stranger), Vec::new());
    assert!(matches!(closed.client().status().await, Err(Error::Forbidden { .. })));
    assert!(closed.get("/v1/nowhere").await.starts_with("HTTP/1.1 403 "), "not even which paths there are");
}

#[tokio::test]
async fn what_the_client_says_when_nobody_answers() {
    let client = Client::new("/nonexistent/enforcer.sock");
    let error = client.status().await.unwrap_err().to_string();
    assert!(error.starts_with("no agent listens on /nonexistent/enforcer.sock: start it with"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert!(matches!(Client::new(&dead).status().await, Err(Error::NoAgent { .. })));
    let odd = folder.path().join("odd.sock");
    let error = talk_to_an_impostor(&odd).await;
    assert!(matches!(error, Error::Broken { .. } | Error::Strange { .. }), "{error}");
}

async fn talk_to_an_impostor(socket: &Path) -> Error {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
    });
    Client::new(socket).status().await.unwrap_err()
}
