//! An agent that answers from memory, for the commands to talk to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use enforcer::api::{Access, Backend, Call, FlowLog, Readiness, bind, server};
use enforcer::domain::command::{Changed, Refused, Reply, Request, Status};
use enforcer::domain::flow::FlowPage;
use tokio::sync::{mpsc, watch};

use crate::samples;

/// A running agent. Ends with the value.
pub(crate) struct Agent {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Agent {
    pub(crate) fn with(status: Status) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("enforcer.sock");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (requests, mut calls) = mpsc::channel::<Call>(4);
        runtime.spawn(async move {
            while let Some(Call { request, from: _, reply }) = calls.recv().await {
                reply.send(answer(request, &status)).ok();
            }
        });
        let flows = samples::flows();
        let log = FlowLog {
            next: watch::channel(flows.len() as u64).1,
            read: Arc::new(move |from, most| {
                let from = usize::try_from(from).unwrap();
                let flows: Vec<_> = flows[from..].iter().take(most).cloned().collect();
                FlowPage { lost: 0, next: (from + flows.len()) as u64, flows }
            }),
            missed: Arc::new(|flows| panic!("{flows} flows are lost")),
        };
        let backend = Backend {
            requests,
            flows: log,
            edges: Arc::new(|| Ok(crate::counted::edges())),
            history: Arc::new(|_| Ok(samples::history())),
            metrics: Arc::new(String::new),
            readiness: watch::channel(Readiness::default()).1,
        };
        let access = Access::of_this_process(None).unwrap();
        let guard = runtime.enter();
        let listener = bind(&socket, &access).unwrap();
        drop(guard);
        runtime.spawn(server::serve(listener, backend, access, std::future::pending()));
        Self { _folder: folder, socket, runtime: Some(runtime) }
    }

    pub(crate) fn new() -> Self {
        Self::with(samples::status())
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends the agent's tasks; its socket stays as a killed one's does.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

fn answer(request: Request, status: &Status) -> Reply {
    match request {
        Request::PolicyApply { dry_run, confirm_within, .. } => Reply::Changed(Changed {
            confirm_until: confirm_within.map(|seconds| format!("now + {seconds} s")),
            ..samples::changed(dry_run)
        }),
        Request::PolicyConfirm { .. } => Reply::Changed(samples::changed(false)),
        Request::PolicyDelete { names } => Reply::Refused(Refused {
            message: format!("there is no policy {}", names.join(", ")),
            diagnostics: vec!["one line of detail".into()],
            not_found: true,
        }),
        Request::PolicyList => Reply::Policies(samples::policies()),
        Request::QuarantineAdd(wish) if wish.seconds.is_none() => {
            Reply::Quarantine(Box::new(samples::quarantines().remove(1)))
        }
        Request::QuarantineAdd(_) | Request::QuarantineRelease { .. } => {
            Reply::Quarantine(Box::new(samples::quarantines().remove(0)))
        }
        Request::QuarantineList => Reply::Quarantines(samples::quarantines()),
        Request::PolicyObjects => Reply::PolicyObjects(Vec::new()),
        Request::Explain { from, to, protocol, port } => {
            Reply::Explained(Box::new(samples::explained(&from, &to, (protocol, port))))
        }
        Request::ExplainSocket { from, kind } => Reply::Refused(Refused {
            message: format!("asked for {from} and {}", kind.name()),
            diagnostics: Vec::new(),
            not_found: false,
        }),
        Request::IdentityList => Reply::Identities(samples::identities()),
        Request::EndpointList => Reply::Endpoints(samples::endpoints()),
        Request::Status => Reply::Status(Box::new(status.clone())),
    }
}
