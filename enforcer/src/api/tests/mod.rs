//! Server and client together over a real socket, with an engine that answers from memory.

mod calls;
mod connections;
mod flows;
mod monitoring;

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::access::Peer;
use super::client::Client;
use super::{Access, Backend, Call, FlowLog, Readiness, bind, server};
use crate::domain::command::{
    Change, Changed, EndpointInfo, IdentityInfo, PolicyChange, PolicyFile, PolicyInfo, QuarantineInfo,
    QuarantineWish, Refused, Reply, Request, Status,
};
use crate::domain::conditions::PolicyStatus;
use crate::domain::flow::{Flow, FlowEndpoint, FlowIp, FlowL4, FlowPage, FlowProcess};
use crate::domain::workload::EndpointState;

fn flow(number: u16, verdict: &str) -> Flow {
    Flow {
        time: "2026-11-22T12:53:39.168000000Z".into(),
        verdict: verdict.into(),
        drop_reason_desc: "POLICY_DENIED".into(),
        ip: FlowIp { destination: "127.0.0.1".into(), version: "IPv4".into(), ..FlowIp::default() },
        l4: FlowL4 { protocol: "TCP".into(), source_port: 0, destination_port: number },
        source: FlowEndpoint { identity: 256, namespace: "default".into(), ..FlowEndpoint::default() },
        destination: FlowEndpoint::default(),
        role: "client".into(),
        traffic_direction: "INGRESS".into(),
        decided_by: None,
        errno: None,
        hook: "connect4".into(),
        generation: 1,
        socket_cookie: 1,
        process: FlowProcess::default(),
        // Long, so that a reader that sleeps fills the socket's buffers soon.
        node_name: "n".repeat(2000),
    }
}

/// Flows that are remembered at most.
const KEPT: usize = 64;

/// Flows in memory.
#[derive(Clone)]
struct Log {
    /// The number of the next one, and the last ones.
    kept: Arc<Mutex<(u64, VecDeque<Flow>)>>,
    next: watch::Sender<u64>,
    missed: Arc<AtomicU64>,
}

impl Log {
    fn new(remembered: Vec<Flow>) -> Self {
        let next = remembered.len() as u64;
        let kept = Arc::new(Mutex::new((next, remembered.into())));
        Self { kept, next: watch::Sender::new(next), missed: Arc::default() }
    }

    fn tell(&self, flow: Flow) {
        let mut kept = self.kept.lock().unwrap();
        kept.1.push_back(flow);
        if kept.1.len() > KEPT {
            kept.1.pop_front();
        }
        kept.0 += 1;
        self.next.send_replace(kept.0);
    }

    fn missed(&self) -> u64 {
        self.missed.load(Ordering::SeqCst)
    }

    fn page(&self, from: u64, most: usize) -> FlowPage {
        let kept = self.kept.lock().unwrap();
        let oldest = kept.0 - kept.1.len() as u64;
        let first = from.clamp(oldest, kept.0);
        let skipped = usize::try_from(first - oldest).unwrap();
        let flows: Vec<Flow> = kept.1.iter().skip(skipped).take(most).cloned().collect();
        FlowPage { lost: first.saturating_sub(from), next: first + flows.len() as u64, flows }
    }

    fn served(&self) -> FlowLog {
        let (read, missed) = (self.clone(), Arc::clone(&self.missed));
        FlowLog {
            next: self.next.subscribe(),
            read: Arc::new(move |from, most| read.page(from, most)),
            missed: Arc::new(move |flows| _ = missed.fetch_add(flows, Ordering::SeqCst)),
        }
    }
}

fn changed(dry_run: bool) -> Changed {
    let change = PolicyChange { name: "default/db".into(), change: Change::Created, selects: Vec::new() };
    Changed {
        generation: 7,
        dry_run,
        policies: vec![change],
        confirm_until: None,
        entries_before: 1,
        entries_after: 2,
    }
}

fn refused(message: &str, not_found: bool, diagnostics: &[&str]) -> Reply {
    let diagnostics = diagnostics.iter().map(|text| (*text).to_owned()).collect();
    Reply::Refused(Refused { message: message.into(), diagnostics, not_found })
}

fn quarantine(workload: &str) -> QuarantineInfo {
    let (namespace, name) = workload.split_once('/').unwrap();
    QuarantineInfo {
        namespace: namespace.into(),
        name: name.into(),
        since: "2026-11-22T12:53:39Z".into(),
        until: None,
        allow_from: Vec::new(),
        by: None,
        exists: true,
    }
}

fn answer(request: Request) -> Option<Reply> {
    Some(match request {
        Request::PolicyApply { files, .. } if files.iter().any(|file| file.text == "broken") => {
            refused("the documents are not valid", false, &["f.yaml:1:1: error: broken"])
        }
        Request::PolicyApply { files, .. } if files.is_empty() => {
            refused("there is nothing to apply", false, &[])
        }
        Request::PolicyApply { files, .. } if files[0].text == "die" => return None,
        Request::PolicyApply { dry_run, confirm_within, by, .. } => Reply::Changed(Changed {
            confirm_until: confirm_within.map(|seconds| format!("{seconds} {by:?}")),
            ..changed(dry_run)
        }),
        Request::PolicyConfirm { by } => {
            Reply::Changed(Changed { confirm_until: Some(format!("{by:?}")), ..changed(false) })
        }
        Request::PolicyDelete { names } if names == ["default/a b&c", "x/y"] => {
            Reply::Changed(changed(false))
        }
        Request::PolicyDelete { .. } => refused("there is no such policy", true, &[]),
        Request::PolicyList => Reply::Policies(vec![PolicyInfo {
            status: PolicyStatus::default(),
            namespace: "default".into(),
            name: "db".into(),
            kind: "TrafficPolicy".into(),
            mode: "enforce".into(),
            origin: "pushed".into(),
            rules: 1,
            expired: 0,
            expires: None,
            isolates: vec!["ingress".into()],
            selects: Vec::new(),
            text: "kind: TrafficPolicy\n".into(),
        }]),
        Request::Explain { from, to, protocol, port } => {
            refused(&format!("{from} {to} {protocol} {port}"), false, &[])
        }
        Request::ExplainSocket { from, kind } => refused(&format!("{from} {}", kind.name()), false, &[]),
        Request::IdentityList => Reply::Identities(vec![IdentityInfo {
            id: 256,
            namespace: "default".into(),
            labels: vec!["app=db".into()],
            workloads: vec!["default/db".into()],
        }]),
        Request::EndpointList => Reply::Endpoints(vec![EndpointInfo {
            namespace: "default".into(),
            name: "db".into(),
            identity: 256,
            labels: Vec::new(),
            cgroup: None,
            cgroup_id: None,
            addresses: Vec::new(),
            state: EndpointState::Remote,
            quarantined: true,
            ingress_policies: Vec::new(),
            egress_policies: Vec::new(),
            listen_policies: Vec::new(),
            socket_policies: Vec::new(),
        }]),
        Request::QuarantineAdd(QuarantineWish { workload, seconds, allow_from, by }) => {
            Reply::Quarantine(Box::new(QuarantineInfo {
                until: seconds.map(|seconds| seconds.to_string()),
                allow_from: allow_from.iter().map(ToString::to_string).collect(),
                by,
                ..quarantine(&workload)
            }))
        }
        Request::QuarantineRelease { workload, by } => {
            Reply::Quarantine(Box::new(QuarantineInfo { by, ..quarantine(&workload) }))
        }
        Request::QuarantineList => Reply::Quarantines(vec![quarantine("default/web")]),
        Request::PolicyObjects => Reply::PolicyObjects(Vec::new()),
        Request::Status => Reply::Status(Box::new(Status { state: "enforcing".into(), ..Status::default() })),
    })
}

struct World {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    log: Log,
    /// Whom everybody is taken for who connects from now on; nobody means for whom the kernel says.
    stranger: Arc<Mutex<Option<Peer>>>,
    readiness: watch::Sender<Readiness>,
    backend: Backend,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl World {
    /// A server that remembers these flows and takes everyone for `stranger`, or for whom the kernel says.
    fn with(access: Access, stranger: Option<Peer>, remembered: Vec<Flow>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("enforcer.sock");
        let (requests, mut calls) = mpsc::channel::<Call>(4);
        tokio::spawn(async move {
            while let Some(Call { request, from: _, reply }) = calls.recv().await {
                if let Some(answer) = answer(request) {
                    reply.send(answer).ok();
                }
            }
        });
        let (log, stranger) = (Log::new(remembered), Arc::new(Mutex::new(stranger)));
        let (readiness, ready) = watch::channel(Readiness { ready: false, reason: "syncing".into() });
        let backend = Backend {
            requests,
            flows: log.served(),
            edges: Arc::new(|| Err("the counters can't be read".to_owned())),
            history: Arc::new(|_| Err("no flow history is kept".to_owned())),
            metrics: Arc::new(|| "enforcer_build_info 1\n".to_owned()),
            readiness: ready,
        };
        let listener = bind(&socket, &Access { readers: None, ..access.clone() }).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { stopped.await.unwrap_or_default() };
        let someone = Arc::clone(&stranger);
        let peer = move |io: &tokio::net::UnixStream| someone.lock().unwrap().or_else(|| server::peer(io));
        let server = tokio::spawn(server::serve_peers(listener, backend.clone(), access, peer, shutdown));
        Self { _folder: folder, socket, log, stranger, readiness, backend, stop: Some(stop), server }
    }

    fn remembering(flows: Vec<Flow>) -> Self {
        Self::with(Access::of_this_process(None).unwrap(), None, flows)
    }

    fn new() -> Self {
        Self::remembering(Vec::new())
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// Bytes as they are, so that what a client would never send can be sent. The answer as it is.
    async fn raw(&self, request: Vec<u8>) -> String {
        let socket = self.socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // The server may answer and close before all was written.
            stream.write_all(&request).ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok();
            String::from_utf8_lossy(&answer).into_owned()
        })
        .await
        .unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()).await
    }
}

fn files(text: &str) -> Vec<PolicyFile> {
    vec![PolicyFile { name: "f.yaml".into(), text: text.into() }]
}
