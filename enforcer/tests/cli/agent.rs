//! An agent that answers from memory, for the commands to talk to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use enforcer::api::{Access, Backend, Call, Readiness, bind, server};
use enforcer::domain::command::{Changed, Refused, Reply, Request, Status};
use enforcer::domain::flow::Flow;
use tokio::sync::{broadcast, mpsc, watch};

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
        let flows: Vec<Arc<Flow>> = samples::flows().into_iter().map(Arc::new).collect();
        let backend = Backend {
            requests,
            recent: Arc::new(move |last| flows[flows.len().saturating_sub(last)..].to_vec()),
            live: broadcast::channel(16).0,
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
        Request::IdentityList => Reply::Identities(samples::identities()),
        Request::EndpointList => Reply::Endpoints(samples::endpoints()),
        Request::Status => Reply::Status(Box::new(status.clone())),
    }
}
