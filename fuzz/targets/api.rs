//! Requests to the API: the first line is method and target, the rest is the body. They go through the real server, over
//! a real socket.
#![cfg_attr(feature = "libfuzzer", no_main)]
#![allow(clippy::panic, reason = "a panic is how a finding is told")]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use enforcer::api::{Access, Backend, Call, FlowLog, Readiness, bind, server};
use enforcer::domain::command::{Changed, Refused, Reply, Request};
use enforcer::domain::edges::Edges;
use enforcer::domain::flow::FlowPage;
use enforcer::domain::history::{History, HistoryQuery};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

struct World {
    runtime: Runtime,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(world());
}

fuzz_target!(|data: &[u8]| {
    let Some((method, target, body)) = split(data) else { return };
    let request = request(method, &target, body);
    let answer = WORLD.with_borrow(|world| {
        world.runtime.block_on(async {
            let mut stream = UnixStream::connect(&world.socket).await.expect("the server listens");
            // A server that has heard enough may close before all is sent.
            stream.write_all(&request).await.ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok();
            answer
        })
    });
    judge(&answer);
});

/// Method, target and body; anything that would be another header or request is written as `%XX` in the target.
fn split(data: &[u8]) -> Option<(&'static str, String, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let (line, body) = (&data[..end], &data[end + 1..]);
    // After a target that makes no sense, hyper takes a body that begins like HTTP/2 for that, and hangs up without a word.
    if body.trim_ascii_start().starts_with(b"PRI * HTTP/2.0") {
        return None;
    }
    let (method, target) = line.split_first()?;
    let method = ["GET", "POST", "DELETE", "PUT"][usize::from(*method) % 4];
    let mut text = String::new();
    for byte in target {
        if byte.is_ascii_graphic() {
            text.push(char::from(*byte));
        } else {
            write!(text, "%{byte:02x}").expect("a string takes everything");
        }
    }
    // A stream of flows that is followed has no end.
    if text.contains("follow") {
        return None;
    }
    Some((method, text, body))
}

fn request(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: enforcer\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn judge(answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(200) => {}
        // Not even HTTP: the library says so without a body.
        Some(400 | 414 | 431) if body.is_empty() => {}
        Some(400 | 403 | 404 | 405 | 409 | 413 | 422) => {
            let refused: Refused = serde_json::from_str(body).expect("a refusal is JSON");
            assert!(!refused.message.is_empty(), "refused without a word");
        }
        _ => panic!("not an answer of the API: {text}"),
    }
}

fn world() -> World {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("api.sock");
    let (requests, calls) = mpsc::channel(1);
    let (_readiness, readiness) = watch::channel(Readiness::default());
    let backend = Backend {
        requests,
        flows: FlowLog {
            next: watch::channel(0).1,
            read: Arc::new(|_, _| FlowPage::default()),
            missed: Arc::new(|flows| panic!("{flows} flows of none are lost")),
        },
        edges: Arc::new(|| Ok(Edges::default())),
        history: Arc::new(|query: &HistoryQuery| {
            let mut copy = HistoryQuery::default();
            query
                .parameters()
                .iter()
                .for_each(|(key, value)| copy.add(key, value).expect("it was read before"));
            assert_eq!(copy, *query);
            Ok(History::default())
        }),
        metrics: Arc::new(String::new),
        readiness,
    };
    let access = Access::of_this_process(None).expect("no group is asked for");
    runtime.block_on(async {
        let listener = bind(&socket, &access).expect("the socket");
        tokio::spawn(server::serve(listener, backend, access, std::future::pending()));
        tokio::spawn(answer(calls));
    });
    World { runtime, socket, _folder: folder }
}

/// In place of the engine: what arrives is a request that makes sense.
async fn answer(mut calls: mpsc::Receiver<Call>) {
    while let Some(Call { request, from: _, reply }) = calls.recv().await {
        let text = serde_json::to_string(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_str::<Request>(&text).expect("that can be read again"), request);
        assert!(serde_json::from_str::<Value>(&text).is_ok());
        let changed = |dry_run| {
            Reply::Changed(Changed {
                generation: 1,
                dry_run,
                policies: Vec::new(),
                entries_before: 0,
                entries_after: 0,
                confirm_until: None,
            })
        };
        let answer = match request {
            Request::PolicyApply { dry_run, .. } => changed(dry_run),
            Request::PolicyDelete { names } => {
                assert!(!names.is_empty() && names.iter().all(|name| !name.is_empty()));
                changed(false)
            }
            Request::PolicyList => Reply::Policies(Vec::new()),
            Request::IdentityList => Reply::Identities(Vec::new()),
            Request::EndpointList => Reply::Endpoints(Vec::new()),
            other => Reply::Refused(Refused {
                message: format!("{other:?} is not answered here"),
                diagnostics: Vec::new(),
                not_found: false,
            }),
        };
        reply.send(answer).ok();
    }
}
