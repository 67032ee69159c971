//! The client of the API: typed calls, and flows as they come.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{ApplyBody, Error, LostEvents, QuarantineBody};
use crate::domain::SocketKind;
use crate::domain::answer::Explained;
use crate::domain::cluster_policy::ClusterPolicyInfo;
use crate::domain::command::{
    Changed, EndpointInfo, IdentityInfo, PolicyFile, PolicyInfo, QuarantineInfo, Refused, Status,
};
use crate::domain::edges::Edges;
use crate::domain::flow::Flow;
use crate::domain::flow_filter::FlowFilter;
use crate::domain::history::{History, HistoryQuery};
use crate::domain::quarantine::AllowFrom;

/// Longer than the server waits for the engine, so that its own sentence arrives.
const TIMEOUT: Duration = Duration::from_secs(90);
/// A line of a stream is never longer; more is not from an agent.
const LINE_LIMIT: usize = 1 << 20;

/// A client of the agent on one socket. Every call is one connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the agent on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Adds or replaces policies, all or none; with `dry_run` only says what would change, with `confirm_within` takes
    /// them back unless [`Self::confirm`] follows.
    pub async fn apply(
        &self,
        files: Vec<PolicyFile>,
        dry_run: bool,
        confirm_within: Option<Duration>,
    ) -> Result<Changed, Error> {
        let body = serde_json::to_vec(&ApplyBody { files })
            .map_err(|error| self.broken("write the request", error))?;
        let seconds = confirm_within.map(|within| within.as_secs().to_string());
        let dry_run = dry_run.then_some(("dry_run", "true"));
        let confirm = seconds.as_deref().map(|seconds| ("confirm_within", seconds));
        let path = with_query("/v1/policies", dry_run.into_iter().chain(confirm));
        self.call(Method::POST, &path, body).await
    }

    /// Keeps what was pushed to be confirmed.
    pub async fn confirm(&self) -> Result<Changed, Error> {
        self.call(Method::POST, "/v1/policies/confirm", Vec::new()).await
    }

    /// Removes policies by `namespace/name`, all or none.
    pub async fn delete(&self, names: &[String]) -> Result<Changed, Error> {
        let path = with_query("/v1/policies", names.iter().map(|name| ("name", name.as_str())));
        self.call(Method::DELETE, &path, Vec::new()).await
    }

    /// All loaded policies.
    pub async fn policies(&self) -> Result<Vec<PolicyInfo>, Error> {
        self.call(Method::GET, "/v1/policies", Vec::new()).await
    }

    /// Puts a workload into quarantine, or changes the terms of it.
    pub async fn quarantine(
        &self,
        workload: String,
        lasts: Option<Duration>,
        allow_from: Vec<AllowFrom>,
    ) -> Result<QuarantineInfo, Error> {
        let wish = QuarantineBody { workload, seconds: lasts.map(|lasts| lasts.as_secs()), allow_from };
        let body = serde_json::to_vec(&wish).map_err(|error| self.broken("write the request", error))?;
        self.call(Method::POST, "/v1/quarantines", body).await
    }

    /// Takes a workload, `namespace/name`, out of quarantine.
    pub async fn release(&self, workload: &str) -> Result<QuarantineInfo, Error> {
        let path = with_query("/v1/quarantines", [("workload", workload)].into_iter());
        self.call(Method::DELETE, &path, Vec::new()).await
    }

    /// Where every policy object of the cluster stands.
    pub async fn policy_objects(&self) -> Result<Vec<ClusterPolicyInfo>, Error> {
        self.call(Method::GET, "/v1/policy-objects", Vec::new()).await
    }

    /// All quarantines.
    pub async fn quarantines(&self) -> Result<Vec<QuarantineInfo>, Error> {
        self.call(Method::GET, "/v1/quarantines", Vec::new()).await
    }

    /// All identities.
    pub async fn identities(&self) -> Result<Vec<IdentityInfo>, Error> {
        self.call(Method::GET, "/v1/identities", Vec::new()).await
    }

    /// All workloads.
    pub async fn endpoints(&self) -> Result<Vec<EndpointInfo>, Error> {
        self.call(Method::GET, "/v1/endpoints", Vec::new()).await
    }

    /// What becomes of a flow, and why. The ends are named as on the command line, the port as `TCP/5432`.
    pub async fn explain(&self, from: &str, to: &str, port: &str) -> Result<Explained, Error> {
        let parameters = [("from", from), ("to", to), ("port", port)];
        let path = with_query("/v1/explain", parameters.into_iter());
        self.call(Method::GET, &path, Vec::new()).await
    }

    /// Whether somebody may create a socket of a kind, and why.
    pub async fn explain_socket(&self, from: &str, kind: SocketKind) -> Result<Explained, Error> {
        let parameters = [("from", from), ("socket", kind.name())];
        let path = with_query("/v1/explain", parameters.into_iter());
        self.call(Method::GET, &path, Vec::new()).await
    }

    /// How the agent is.
    pub async fn status(&self) -> Result<Status, Error> {
        self.call(Method::GET, "/v1/status", Vec::new()).await
    }

    /// The `last` flows the agent remembers and, with `follow`, those that happen, as far as the filter matches.
    pub async fn flows(&self, last: usize, follow: bool, filter: &FlowFilter) -> Result<Flows, Error> {
        let (last, follow) = (last.to_string(), follow.to_string());
        let parameters = filter.parameters();
        let fixed = [("last", last.as_str()), ("follow", follow.as_str())];
        let all =
            fixed.into_iter().chain(parameters.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let response =
            self.in_time(self.send(Method::GET, &with_query("/v1/flows", all), Vec::new())).await?;
        Ok(Flows {
            client: self.clone(),
            body: response.into_body(),
            rest: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// Who talks with whom, counted so far.
    pub async fn edges(&self) -> Result<Edges, Error> {
        self.call(Method::GET, "/v1/edges", Vec::new()).await
    }

    /// Earlier flows.
    pub async fn history(&self, query: &HistoryQuery) -> Result<History, Error> {
        let parameters = query.parameters();
        let all = parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        self.call(Method::GET, &with_query("/v1/flows/history", all), Vec::new()).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, Error> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(|error| self.broken("read the answer", error))?;
            serde_json::from_slice(&body.to_bytes()).map_err(|error| self.strange(&error))
        };
        self.in_time(exchange).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| {
            Err(Error::Timeout { socket: self.socket.clone(), seconds: TIMEOUT.as_secs() })
        })
    }

    /// Sends one request; anything but success becomes an error.
    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken("connect", error))?;
        // Ends with the exchange; its errors arrive at the sender or the body as well.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "enforcer")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken("write the request", error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken("ask", error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    async fn refusal(&self, response: Response<Incoming>) -> Error {
        let status = response.status();
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return self.broken("read the answer", error),
        };
        let refused: Refused = match serde_json::from_slice(&body) {
            Ok(refused) => refused,
            Err(error) => return self.strange(&error),
        };
        let socket = self.socket.clone();
        match status {
            StatusCode::NOT_FOUND if !refused.not_found => self.strange(&refused.message),
            StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                Error::Refused(Box::new(refused))
            }
            StatusCode::FORBIDDEN => Error::Forbidden { socket, message: refused.message },
            status => Error::Unavailable { socket, status: status.as_u16(), message: refused.message },
        }
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NoAgent { socket },
            io::ErrorKind::PermissionDenied => Error::Permission { socket },
            _ => self.broken("connect", error),
        }
    }

    fn broken(
        &self,
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Broken { operation, socket: self.socket.clone(), source: source.into() }
    }

    fn strange(&self, what: &dyn std::fmt::Display) -> Error {
        Error::Strange { socket: self.socket.clone(), what: what.to_string() }
    }
}

fn with_query<'a>(path: &str, parameters: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{path}?{query}")
}

/// A record of a stream of flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A flow.
    Flow(Box<Flow>),
    /// So many flows were lost before the next record, because this reader was too slow.
    Lost(u64),
}

/// A stream of flows.
#[derive(Debug)]
pub struct Flows {
    client: Client,
    body: Incoming,
    rest: Vec<u8>,
    ready: VecDeque<Record>,
}

impl Flows {
    /// The next record; `None` when the agent ended the stream.
    pub async fn next(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(record));
            }
            let Some(frame) = self.body.frame().await else {
                return if self.rest.is_empty() {
                    Ok(None)
                } else {
                    Err(self.client.strange(&"a half line"))
                };
            };
            let frame = frame.map_err(|error| self.client.broken("read the stream", error))?;
            if let Ok(data) = frame.into_data() {
                self.take(&data)?;
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Error> {
        self.rest.extend_from_slice(data);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            let fits = self.rest.len() <= LINE_LIMIT;
            return if fits { Ok(()) } else { Err(self.client.strange(&"a line without an end")) };
        };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.ready.push_back(self.record(line)?);
        }
        Ok(())
    }

    fn record(&self, line: &[u8]) -> Result<Record, Error> {
        if let Ok(LostEvents { lost_events }) = serde_json::from_slice(line) {
            return Ok(Record::Lost(lost_events));
        }
        serde_json::from_slice(line).map(Record::Flow).map_err(|error| self.client.strange(&error))
    }
}
