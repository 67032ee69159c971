//! The API over the Unix socket.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`Status`](crate::domain::command::Status) |
//! | `GET /v1/policies`, `/v1/identities`, `/v1/endpoints` | a list |
//! | `POST /v1/policies[?dry_run=true&confirm_within=SECONDS]` with [`ApplyBody`] | [`Changed`](crate::domain::command::Changed) |
//! | `POST /v1/policies/confirm` | [`Changed`](crate::domain::command::Changed) |
//! | `DELETE /v1/policies?name=NAMESPACE/NAME&name=...` | [`Changed`](crate::domain::command::Changed) |
//! | `GET /v1/explain?from=END&to=END&port=PROTOCOL/N`, `GET /v1/explain?from=END&socket=KIND` | [`Explained`](crate::domain::answer::Explained) |
//! | `GET /v1/quarantines` | a list |
//! | `POST /v1/quarantines` with [`QuarantineBody`] | [`QuarantineInfo`](crate::domain::command::QuarantineInfo) |
//! | `DELETE /v1/quarantines?workload=NAMESPACE/NAME` | the same, as it was |
//! | `GET /v1/edges` | [`Edges`](crate::domain::edges::Edges) |
//! | `GET /v1/flows/history?since=TIME&until=TIME&...` | [`History`](crate::domain::history::History) |
//! | `GET /v1/flows?last=N&follow=true&...` | a stream of [`Flow`](crate::domain::flow::Flow), one a line |
//!
//! What is not done is answered with [`Refused`]: 400 the request makes no sense, 403 not allowed, 404 not there,
//! 405 no such method, 408 too slow, 409 not possible now, 413 too large, 422 broken documents, 503 no answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::access::{Access, Peer, Right};
use super::connection::{self, Unhurried};
use super::stream::{self, Wish};
use super::{ApplyBody, BODY_LIMIT, Backend, Call, QuarantineBody};
use crate::domain::SocketKind;
use crate::domain::command::{QuarantineWish, Refused, Reply, Request};
use crate::domain::flow_filter::FlowFilter;
use crate::domain::history::HistoryQuery;
use crate::domain::offline::parse_port;

/// A client has so long to send its request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The engine has so long to answer.
const REPLY_TIMEOUT: Duration = Duration::from_mins(1);
/// Streams of flows at once; a place less than connections, so that streams alone can't lock everyone else out.
const STREAMS: usize = 32;
/// Of these, so many are kept for those who may do everything.
const STREAMS_KEPT: usize = 8;

#[derive(Clone, Debug)]
struct Shared {
    backend: Backend,
    access: Access,
    streams: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

type Parameters = Query<Vec<(String, String)>>;
type From = Extension<Option<Peer>>;

fn user(peer: Option<Peer>) -> Option<u32> {
    peer.map(|peer| peer.uid)
}

/// Serves the API until `shutdown` ends; streams end then, running requests get a moment to finish.
pub async fn serve(
    listener: UnixListener,
    backend: Backend,
    access: Access,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    serve_peers(listener, backend, access, peer, shutdown).await
}

/// The same with the peer as `peer` sees it; a test can't be somebody else without help.
pub(super) async fn serve_peers(
    listener: UnixListener,
    backend: Backend,
    access: Access,
    peer: impl Fn(&UnixStream) -> Option<Peer>,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    // Asked once, so that a broken listener is a failed start and not an endless loop of failed accepts.
    listener.local_addr()?;
    let (close, closing) = watch::channel(false);
    let routes = routes(Shared {
        backend,
        access: access.clone(),
        streams: Arc::new(Semaphore::new(STREAMS)),
        closing,
    });
    let shutdown = async move {
        shutdown.await;
        close.send_replace(true);
    };
    let known = move |io: &UnixStream| {
        let peer = peer(io);
        (routes.clone().layer(Extension(peer)), access.right_by_user(peer) == Some(Right::Write))
    };
    connection::serve(listener, known, shutdown).await;
    Ok(())
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(async |state| ask(state, Request::Status).await))
        .route("/v1/identities", get(async |state| ask(state, Request::IdentityList).await))
        .route("/v1/endpoints", get(async |state| ask(state, Request::EndpointList).await))
        .route(
            "/v1/policies",
            get(async |state| ask(state, Request::PolicyList).await).post(apply).delete(delete),
        )
        .route("/v1/policies/confirm", post(confirm))
        .route("/v1/explain", get(explain))
        .route(
            "/v1/quarantines",
            get(async |state| ask(state, Request::QuarantineList).await).post(quarantine).delete(release),
        )
        .route("/v1/policy-objects", get(async |state| ask(state, Request::PolicyObjects).await))
        .route("/v1/flows", get(flows))
        .route("/v1/flows/history", get(history))
        .route("/v1/edges", get(edges))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "the API has no such path; see `enforcer --help`"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this path of the API does not take this method")
        })
        .layer(middleware::from_fn_with_state(shared.clone(), authorize))
        .with_state(shared)
}

/// Who is at the other end.
pub(super) fn peer(io: &UnixStream) -> Option<Peer> {
    io.peer_cred().ok().map(|peer| Peer {
        uid: peer.uid(),
        gid: peer.gid(),
        pid: peer.pid().and_then(|pid| pid.try_into().ok()),
    })
}

async fn authorize(
    State(shared): State<Shared>,
    Extension(peer): Extension<Option<Peer>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    match shared.access.right(peer) {
        Right::Write => next.run(request).await,
        Right::Read if request.method() == Method::GET => next.run(request).await,
        Right::Read => refuse(
            StatusCode::FORBIDDEN,
            "members of the socket's group may read but change nothing: run the command as root",
        ),
        Right::Nothing => refuse(
            StatusCode::FORBIDDEN,
            "only root, the agent's own user and members of the group in its setting `socket-group` are let in",
        ),
    }
}

async fn apply(
    State(shared): State<Shared>,
    Extension(peer): From,
    Query(parameters): Parameters,
    body: Body,
) -> Response {
    let mut dry_run = false;
    let mut confirm_within = None;
    for (key, value) in parameters {
        match (key.as_str(), boolean(&value), value.parse()) {
            ("dry_run", Some(value), _) => dry_run = value,
            ("confirm_within", _, Ok(seconds)) => confirm_within = Some(seconds),
            _ => return bad_parameter(&key, &value),
        }
    }
    let by = user(peer);
    let body = match read(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match serde_json::from_slice(&body) {
        Ok(ApplyBody { files }) => {
            change(shared, peer, Request::PolicyApply { files, dry_run, confirm_within, by }).await
        }
        Err(error) => {
            refuse(StatusCode::BAD_REQUEST, &format!("the body is no {{\"files\":[{{name,text}}]}}: {error}"))
        }
    }
}

async fn confirm(State(shared): State<Shared>, Extension(peer): From) -> Response {
    change(shared, peer, Request::PolicyConfirm { by: user(peer) }).await
}

async fn delete(
    State(shared): State<Shared>,
    Extension(peer): From,
    Query(parameters): Parameters,
) -> Response {
    let mut names = Vec::new();
    for (key, value) in parameters {
        if key != "name" || value.is_empty() {
            return bad_parameter(&key, &value);
        }
        names.push(value);
    }
    if names.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "no policy is named: add ?name=NAMESPACE/NAME");
    }
    change(shared, peer, Request::PolicyDelete { names }).await
}

async fn quarantine(State(shared): State<Shared>, Extension(peer): From, body: Body) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match serde_json::from_slice(&body) {
        Ok(QuarantineBody { workload, seconds, allow_from }) => {
            let wish = QuarantineWish { workload, seconds, allow_from, by: user(peer) };
            change(shared, peer, Request::QuarantineAdd(wish)).await
        }
        Err(error) => {
            let message = format!("the body is no {{\"workload\",\"seconds\",\"allow_from\":[]}}: {error}");
            refuse(StatusCode::BAD_REQUEST, &message)
        }
    }
}

async fn release(
    State(shared): State<Shared>,
    Extension(peer): From,
    Query(parameters): Parameters,
) -> Response {
    match parameters.as_slice() {
        [(key, workload)] if key == "workload" => {
            let (workload, by) = (workload.clone(), user(peer));
            change(shared, peer, Request::QuarantineRelease { workload, by }).await
        }
        _ => refuse(StatusCode::BAD_REQUEST, "one workload is to be named: add ?workload=NAMESPACE/NAME"),
    }
}

async fn explain(State(shared): State<Shared>, Query(parameters): Parameters) -> Response {
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if let Some((key, value)) =
        parameters.iter().find(|(key, _)| !["from", "to", "port", "socket"].contains(&key.as_str()))
    {
        return bad_parameter(key, value);
    }
    if let (Some(from), Some(name), None, None) = (get("from"), get("socket"), get("to"), get("port")) {
        let Some(kind) = SocketKind::from_name(name) else { return bad_parameter("socket", name) };
        return ask(State(shared), Request::ExplainSocket { from: from.to_owned(), kind }).await;
    }
    let (Some(from), Some(to), Some(port), None) = (get("from"), get("to"), get("port"), get("socket"))
    else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "a flow has three parts, a socket two: add ?from=END&to=END&port=TCP/5432, or ?from=END&socket=raw",
        );
    };
    let Some((protocol, port)) = parse_port(port) else { return bad_parameter("port", port) };
    let (from, to) = (from.to_owned(), to.to_owned());
    ask(State(shared), Request::Explain { from, to, protocol, port }).await
}

async fn flows(
    State(shared): State<Shared>,
    Extension(peer): From,
    Extension(unhurried): Extension<Unhurried>,
    Query(parameters): Parameters,
) -> Response {
    let wish = match wish(&parameters) {
        Ok(wish) => wish,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, &message),
    };
    let Some(place) = place(&shared, peer) else {
        let message =
            format!("{STREAMS} streams of flows are open already, which is all there may be; close one");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &message);
    };
    // Whoever follows reads when it likes, and is told what it lost.
    unhurried.set();
    let body = stream::body(wish, shared.backend.flows, shared.closing, place);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// A place among the streams, if there is one for this peer.
fn place(shared: &Shared, peer: Option<Peer>) -> Option<OwnedSemaphorePermit> {
    let is_reader = shared.access.right_by_user(peer) != Some(Right::Write);
    if is_reader && shared.streams.available_permits() <= STREAMS_KEPT {
        return None;
    }
    Arc::clone(&shared.streams).try_acquire_owned().ok()
}

async fn edges(State(shared): State<Shared>) -> Response {
    // Reading tens of thousands of rows takes a while, and others need this thread.
    match tokio::task::spawn_blocking(move || (shared.backend.edges)()).await {
        Ok(Ok(edges)) => Json(edges).into_response(),
        Ok(Err(message)) => refuse(StatusCode::SERVICE_UNAVAILABLE, &message),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("edges were not read: {error}")),
    }
}

async fn history(
    State(shared): State<Shared>,
    Extension(peer): From,
    Query(parameters): Parameters,
) -> Response {
    let mut query = HistoryQuery::default();
    for (key, value) in parameters {
        if let Err(message) = query.add(&key, &value) {
            return refuse(StatusCode::BAD_REQUEST, &message);
        }
    }
    // One of the places of streams: as many readers of the disk as there are of flows.
    let Some(place) = place(&shared, peer) else {
        let message =
            format!("{STREAMS} readers of flows are there already, which is all there may be; wait for one");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &message);
    };
    let answer = tokio::task::spawn_blocking(move || {
        let answer = (shared.backend.history)(&query);
        drop(place);
        answer
    });
    match answer.await {
        Ok(Ok(history)) => Json(history).into_response(),
        Ok(Err(message)) => refuse(StatusCode::CONFLICT, &message),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("the history was not read: {error}")),
    }
}

fn wish(parameters: &[(String, String)]) -> Result<Wish, String> {
    let mut wish = Wish { last: 0, follow: false, filter: FlowFilter::default() };
    for (key, value) in parameters {
        match key.as_str() {
            "last" => {
                wish.last =
                    value.parse().ok().ok_or_else(|| format!("last `{value}` is no number of flows"))?;
            }
            "follow" => {
                wish.follow = boolean(value).ok_or_else(|| format!("follow `{value}` is no boolean"))?;
            }
            key => {
                if !wish.filter.add(key, value)? {
                    return Err(format!("flows can't be filtered by `{key}`"));
                }
            }
        }
    }
    Ok(wish)
}

fn boolean(value: &str) -> Option<bool> {
    match value {
        "true" | "" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

async fn read(body: Body) -> Result<axum::body::Bytes, Response> {
    let too_large = || {
        let message = format!("the body has more than {} MiB; apply fewer files at once", BODY_LIMIT >> 20);
        refuse(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    // What announces itself as too large need not be waited for.
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(refuse(StatusCode::BAD_REQUEST, &format!("the body could not be read: {error}")))
        }
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// Asks the task that owns the state. Who asks a question does not matter to it.
async fn ask(State(shared): State<Shared>, request: Request) -> Response {
    change(shared, None, request).await
}

/// Asks it for a change, on behalf of somebody.
async fn change(shared: Shared, from: Option<Peer>, request: Request) -> Response {
    let (reply, answer) = oneshot::channel();
    let call = Call { request, from, reply };
    let asked = async {
        shared.backend.requests.send(call).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(REPLY_TIMEOUT, asked).await {
        Ok(Some(reply)) => answer_with(reply),
        Ok(None) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping"),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent is busy and did not answer in time"),
    }
}

fn answer_with(reply: Reply) -> Response {
    match reply {
        Reply::Changed(changed) => Json(changed).into_response(),
        Reply::Policies(policies) => Json(policies).into_response(),
        Reply::Identities(identities) => Json(identities).into_response(),
        Reply::Quarantine(quarantine) => Json(*quarantine).into_response(),
        Reply::Quarantines(quarantines) => Json(quarantines).into_response(),
        Reply::PolicyObjects(objects) => Json(objects).into_response(),
        Reply::Endpoints(endpoints) => Json(endpoints).into_response(),
        Reply::Explained(explained) => Json(*explained).into_response(),
        Reply::Status(status) => Json(*status).into_response(),
        Reply::Refused(refused) => {
            let status = match &refused {
                Refused { not_found: true, .. } => StatusCode::NOT_FOUND,
                Refused { diagnostics, .. } if !diagnostics.is_empty() => StatusCode::UNPROCESSABLE_ENTITY,
                Refused { .. } => StatusCode::CONFLICT,
            };
            (status, Json(refused)).into_response()
        }
    }
}

fn bad_parameter(key: &str, value: &str) -> Response {
    refuse(StatusCode::BAD_REQUEST, &format!("parameter `{key}={value}` makes no sense here"))
}

fn refuse(status: StatusCode, message: &str) -> Response {
    let refused = Refused { message: message.to_owned(), diagnostics: Vec::new(), not_found: false };
    (status, Json(refused)).into_response()
}
