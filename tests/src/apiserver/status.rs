//! What the server says when it says no: `metav1.Status`, with the words and reasons of a real one.

use serde_json::{Value, json};

use super::kinds::Kind;

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// HTTP's status code.
    pub code: u16,
    /// The word that clients branch on, such as `NotFound`; empty where there is none.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// `details` of the status, or null.
    pub details: Value,
    /// Seconds after which to try again, as a header.
    pub retry_after: Option<u32>,
}

impl Failure {
    /// Any refusal.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, retry_after: None }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({ "name": name, "group": kind.group, "kind": kind.plural });
        self
    }

    /// No such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.resource())).about(kind, name)
    }

    /// No such path: what a resource that is not installed gets, as text and not as a `Status`.
    pub fn no_such_path() -> Self {
        Self::new(404, "", "404 page not found\n")
    }

    /// The name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.resource()))
            .about(kind, name)
    }

    /// Somebody else has changed the object meanwhile.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// Others own fields that an apply would change: who, and which.
    pub fn field_conflicts(kind: &Kind, name: &str, causes: &[(String, String)]) -> Self {
        let plural = if causes.len() == 1 { "" } else { "s" };
        let list: Vec<String> = causes.iter().map(|(who, field)| format!("{who}: {field}")).collect();
        let message = format!("Apply failed with {} conflict{plural}: {}", causes.len(), list.join(", "));
        let causes: Vec<Value> = causes
            .iter()
            .map(|(who, field)| json!({ "reason": "FieldManagerConflict", "message": who, "field": field }))
            .collect();
        let mut failure = Self::new(409, "Conflict", message).about(kind, name);
        failure.details["causes"] = causes.into();
        failure
    }

    /// The object breaks rules of its kind: `(field, what is wrong)`.
    pub fn invalid(kind: &Kind, name: &str, causes: &[(String, String)]) -> Self {
        let list: Vec<String> = causes.iter().map(|(field, wrong)| format!("{field}: {wrong}")).collect();
        let list = match list.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let owner =
            if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut failure =
            Self::new(422, "Invalid", format!("{owner} {name:?} is invalid: {list}")).about(kind, name);
        failure.details["kind"] = kind.kind.clone().into();
        failure.details["causes"] = causes
            .iter()
            .map(|(field, wrong)| {
                let word = wrong.split_once(':').map_or(wrong.as_str(), |(word, _)| word).replace(' ', "");
                json!({ "reason": format!("FieldValue{word}"), "message": wrong, "field": field })
            })
            .collect();
        failure
    }

    /// An option of an apply is wrong.
    pub fn options(field: &str, wrong: &str) -> Self {
        let message = format!("PatchOptions.meta.k8s.io \"\" is invalid: {field}: {wrong}");
        Self::new(422, "Invalid", message)
    }

    /// What the real server has no word for: a `Status` with code 500 and without a reason.
    pub fn unnamed(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// Whether the answer is no `Status`, but a text.
    pub fn is_text(&self) -> bool {
        self.reason.is_empty() && self.code == 404
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// A list's continuation, or a watch's beginning, that is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// What is asked for is newer than everything there is.
    pub fn too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        failure.details = json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        });
        failure.retry_after = Some(1);
        failure
    }

    /// The server does not know who asks.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// Whoever asks may not.
    pub fn forbidden(user: &str, verb: &str, kind: &Kind, sub: &str, namespace: &str, name: &str) -> Self {
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let resource = if sub.is_empty() { kind.plural.clone() } else { format!("{}/{sub}", kind.plural) };
        let message = format!(
            "{}{named} is forbidden: User {user:?} cannot {verb} resource {resource:?} in API group {:?} {place}",
            kind.resource(),
            kind.group
        );
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// As it goes over the wire.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if self.reason.is_empty()
            && let Some(fields) = body.as_object_mut()
        {
            fields.remove("reason");
        }
        if !self.details.is_null() {
            body["details"] = self.details.clone();
        }
        body
    }
}
