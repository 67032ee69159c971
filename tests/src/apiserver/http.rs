//! The protocol: requests to the store and back.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use enforcer::domain::timestamp::Timestamp;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::access::{Access, rights};
use super::answer::Answer;
use super::exec::{self, Executed, Handler};
use super::faults::{Faults, Network};
use super::kinds::Kind;
use super::request::{Query, Target};
use super::selector::Selector;
use super::settle;
use super::status::Failure;
use super::store::{Store, Write};
use super::watch::{Watch, run};
use super::{Asked, events, remove};

/// Everything that the server's tasks share.
pub struct Shared {
    store: Mutex<Store>,
    pub(super) access: Mutex<Access>,
    pub(super) faults: Mutex<Faults>,
    pub(super) asked: Mutex<Vec<Asked>>,
    pub(super) execute: Mutex<Option<Handler>>,
    pub(super) executed: Mutex<Vec<Executed>>,
    pub(super) bookmarks: Mutex<Duration>,
    pub(super) revision: watch::Sender<u64>,
    pub(super) network: watch::Sender<Network>,
    /// Counts how often all connections were cut.
    pub(super) cut: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("asked", &lock(&self.asked).len()).finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wall-clock time as the server writes it.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanos: 0 }.whole_seconds()
}

impl Shared {
    pub(super) fn new(store: Store, access: Access) -> Self {
        let revision = watch::Sender::new(store.revision());
        Self {
            store: Mutex::new(store),
            access: Mutex::new(access),
            faults: Mutex::default(),
            asked: Mutex::default(),
            execute: Mutex::default(),
            executed: Mutex::default(),
            bookmarks: Mutex::new(Duration::from_mins(1)),
            revision,
            network: watch::Sender::new(Network::Up),
            cut: watch::Sender::new(0),
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    pub(super) fn bookmark_every(&self) -> Duration {
        *lock(&self.bookmarks)
    }

    /// Changes the store, and tells the watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let answer = change(&mut store);
        self.revision.send_replace(store.revision());
        answer
    }
}

/// How objects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whole.
    Whole,
    /// Only their metadata.
    Metadata,
}

impl Form {
    fn of(accept: &str) -> Self {
        if accept.contains("as=PartialObjectMetadata") { Self::Metadata } else { Self::Whole }
    }

    pub(super) fn shape(self, object: Value) -> Value {
        match self {
            Self::Whole => object,
            Self::Metadata => json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"],
            }),
        }
    }
}

type Done = Result<Response<Answer>, Failure>;

/// What the body of a server-side apply is.
const APPLY: &str = "application/apply-patch+yaml";

fn document(code: u16, value: &Value) -> Response<Answer> {
    let body = Answer::Whole(Some(value.to_string().into()));
    let answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json").body(body);
    answer.expect("a status and a type make an answer")
}

fn refusal(failure: &Failure) -> Response<Answer> {
    let mut answer = if failure.is_text() {
        let mut answer = Response::new(Answer::Whole(Some(failure.message.clone().into())));
        answer
            .headers_mut()
            .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"));
        answer
    } else {
        document(failure.code, &failure.body())
    };
    *answer.status_mut() = failure.code.try_into().expect("a status code");
    if let Some(seconds) = failure.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// Answers a request; late, or never, if that is asked for.
pub async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let mut network = shared.network.subscribe();
    let latency = lock(&shared.faults).latency;
    tokio::time::sleep(latency).await;
    while *network.borrow_and_update() == Network::Hanging {
        if network.changed().await.is_err() {
            break;
        }
    }
    Ok(answer(&shared, request).await.unwrap_or_else(|failure| refusal(&failure)))
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Done {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let path = parts.uri.path().to_owned();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if matches!(path.as_str(), "/healthz" | "/livez" | "/readyz") {
        return Ok(Response::new(Answer::Whole(Some("ok".into()))));
    }
    let user = lock(&shared.access).who(header(AUTHORIZATION))?;
    if let Some(found) = shared.store().kinds.discovery(&path) {
        note(shared, "get", &path, &user.name, 200);
        return found.map(|found| document(200, &found));
    }
    let target = Target::parse(&shared.store().kinds, &path).ok_or_else(Failure::no_such_path)?;
    let verb = target.verb(&parts.method, &query);
    let verb = verb.ok_or_else(|| {
        Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    })?;
    let content = header(CONTENT_TYPE).unwrap_or_default().to_owned();
    let request = Asking {
        form: Form::of(header(ACCEPT).unwrap_or_default()),
        agent: header(USER_AGENT).unwrap_or("unknown").split('/').next().unwrap_or_default().to_owned(),
        method: parts.method.clone(),
        content,
        target,
        query,
        verb,
    };
    let done = if let Some(failure) = lock(&shared.faults).meet(verb, &request.target.resource()) {
        Err(failure)
    } else {
        let is_new = request.content == APPLY && shared.store().get(&request.target.place()).is_none();
        rights(&user, verb, &request.target, is_new)
    };
    let done = match done {
        Ok(()) if request.target.is_exec() => {
            exec::connect(shared, &request.target, &parts, upgrade).map(|answer| answer.map(Answer::Whole))
        }
        Ok(()) => {
            let body =
                body.collect().await.map_err(|error| Failure::bad_request(error.to_string()))?.to_bytes();
            perform(shared, &request, &body)
        }
        Err(failure) => Err(failure),
    };
    let code = match &done {
        Ok(answer) => answer.status().as_u16(),
        Err(failure) => failure.code,
    };
    note(shared, verb, &path, &user.name, code);
    done
}

fn note(shared: &Shared, verb: &str, path: &str, user: &str, code: u16) {
    lock(&shared.asked).push(Asked { verb: verb.into(), path: path.into(), user: user.into(), code });
}

/// A request that may be performed.
struct Asking {
    target: Target,
    query: Query,
    verb: &'static str,
    method: Method,
    form: Form,
    content: String,
    agent: String,
}

impl Asking {
    fn write(&self) -> Result<Write, Failure> {
        let manager = match self.query.text("fieldManager") {
            "" => self.agent.clone(),
            manager if manager.len() > 128 => {
                return Err(Failure::options("fieldManager", "Too long: may not be more than 128 bytes"));
            }
            manager => manager.to_owned(),
        };
        let dry_run = match self.query.text("dryRun") {
            "" => false,
            "All" => true,
            other => return Err(Failure::bad_request(format!("dryRun: Unsupported value: {other:?}"))),
        };
        Ok(Write {
            namespace: self.target.namespace.clone(),
            name: self.target.name.clone(),
            subresource: self.target.sub.clone(),
            manager,
            dry_run,
            strict: self.query.text("fieldValidation") == "Strict",
            now: now(),
        })
    }

    fn object(&self, code: u16, object: &Value) -> Response<Answer> {
        document(code, &self.form.shape(events::shown_as(&self.target.kind, object)))
    }
}

fn json_body(body: &Bytes) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: {error}")))
}

fn perform(shared: &Arc<Shared>, asking: &Asking, body: &Bytes) -> Done {
    let Target { kind, namespace, name, .. } = &asking.target;
    match asking.verb {
        "get" => {
            let object =
                shared.store().get(&asking.target.place()).ok_or_else(|| Failure::not_found(kind, name))?;
            Ok(asking.object(200, &object))
        }
        "list" => list(shared, asking),
        "watch" => {
            let watch = Watch::parse(&shared.store(), kind, namespace, &asking.query, asking.form)?;
            let (sender, lines) = mpsc::channel(64);
            tokio::spawn(run(Arc::clone(shared), watch, sender));
            let mut answer = Response::new(Answer::Lines(lines));
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
            Ok(answer)
        }
        "create" | "update" => {
            let write = asking.write()?;
            if asking.content.contains("protobuf") {
                return Err(unsupported(&asking.content));
            }
            let object = json_body(body)?;
            let done = shared.change(|store| match asking.verb {
                "create" => settle::create(store, kind, &write, object),
                _ => settle::replace(store, kind, &write, object),
            });
            let (object, warnings) = done?;
            let code = if asking.method == Method::POST { 201 } else { 200 };
            Ok(warn(asking.object(code, &object), &warnings))
        }
        "patch" => patch(shared, asking, body),
        _ => delete(shared, asking, body),
    }
}

fn unsupported(content: &str) -> Failure {
    Failure::new(
        415,
        "UnsupportedMediaType",
        format!(
            "the body of the request was in an unknown format {content:?} - accepted media types include: application/json, application/merge-patch+json, application/apply-patch+yaml"
        ),
    )
}

fn warn(mut answer: Response<Answer>, warnings: &[String]) -> Response<Answer> {
    for warning in warnings {
        if let Ok(value) = format!("299 - {warning:?}").parse() {
            answer.headers_mut().append("warning", value);
        }
    }
    answer
}

fn list(shared: &Shared, asking: &Asking) -> Done {
    let Target { kind, namespace, .. } = &asking.target;
    let query = &asking.query;
    let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let token = query.text("continue");
    let version = query.number("resourceVersion")?.unwrap_or(0);
    let mut store = shared.store();
    if !token.is_empty() && version != 0 {
        return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
    }
    let is_exact = query.text("resourceVersionMatch") == "Exact";
    if version > store.revision() || (is_exact && version < store.revision()) {
        store.check_revision(version)?;
        return Err(Failure::expired(format!("revision {version} is not kept whole")));
    }
    let page = store.list(kind, namespace, &selector, limit, token)?;
    drop(store);
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|object| {
            let mut object = asking.form.shape(events::shown_as(kind, object));
            // Items of a list don't say what the list says, unless nobody has types for them.
            if matches!(kind.schema, super::kinds::Schema::Typed(_))
                && asking.form == Form::Whole
                && let Value::Object(fields) = &mut object
            {
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            object
        })
        .collect();
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if !page.next.is_empty() {
        metadata["continue"] = page.next.into();
        if selector.is_all() {
            metadata["remainingItemCount"] = page.remaining.into();
        }
    }
    let (version, name) = match asking.form {
        Form::Whole => (kind.api_version(), format!("{}List", kind.kind)),
        Form::Metadata => ("meta.k8s.io/v1".into(), "PartialObjectMetadataList".into()),
    };
    Ok(document(200, &json!({ "apiVersion": version, "kind": name, "metadata": metadata, "items": items })))
}

fn patch(shared: &Shared, asking: &Asking, body: &Bytes) -> Done {
    let kind = &asking.target.kind;
    let write = asking.write()?;
    match asking.content.as_str() {
        APPLY => {
            if asking.query.text("fieldManager").is_empty() {
                return Err(Failure::options("fieldManager", "Required value: is required for apply patch"));
            }
            let wanted = json_body(body)?;
            let force = asking.query.is("force");
            let (object, is_new) =
                shared.change(|store| settle::apply(store, kind, &write, wanted, force))?;
            Ok(asking.object(if is_new { 201 } else { 200 }, &object))
        }
        "application/merge-patch+json" => {
            let patch = json_body(body)?;
            let (object, warnings) =
                shared.change(|store| settle::merge_patch(store, kind, &write, &patch))?;
            Ok(warn(asking.object(200, &object), &warnings))
        }
        other => Err(unsupported(other)),
    }
}

fn delete(shared: &Shared, asking: &Asking, body: &Bytes) -> Done {
    let kind = &asking.target.kind;
    let options = if body.is_empty() { Value::Null } else { json_body(body)? };
    let grace = asking.query.number("gracePeriodSeconds")?;
    let write = asking.write()?;
    if asking.verb == "delete" {
        let (object, is_gone) =
            shared.change(|store| remove::delete(store, kind, &write, &options, grace))?;
        if !is_gone || kind.kind == "Pod" {
            return Ok(asking.object(200, &object));
        }
        let details = json!({ "name": write.name, "group": kind.group, "kind": kind.plural, "uid": object["metadata"]["uid"] });
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
        return Ok(document(200, &status));
    }
    let selector =
        Selector::parse(kind, asking.query.text("labelSelector"), asking.query.text("fieldSelector"))?;
    shared.change(|store| delete_all(store, kind, &write, &selector, &options, grace))?;
    Ok(document(200, &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })))
}

fn delete_all(
    store: &mut Store,
    kind: &Kind,
    write: &Write,
    selector: &Selector,
    options: &Value,
    grace: Option<u64>,
) -> Result<(), Failure> {
    let all: Vec<Arc<Value>> = store
        .all(&kind.stored, &write.namespace)
        .filter(|object| selector.matches(object))
        .cloned()
        .collect();
    for object in all {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let one = Write { namespace: text("namespace"), name: text("name"), ..write.clone() };
        remove::delete(store, kind, &one, options, grace)?;
    }
    Ok(())
}
