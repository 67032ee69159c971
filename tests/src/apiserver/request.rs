//! What a request asks for, read from its path and query.

use std::collections::BTreeMap;

use hyper::Method;

use super::kinds::{Kind, Kinds};
use super::status::Failure;
use super::store::Place;

/// Parameters of the query; one that is given twice counts as first given.
#[derive(Clone, Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// From the text behind the question mark.
    pub fn parse(text: &str) -> Self {
        let mut query = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            query.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Self(query)
    }

    /// A parameter, or nothing.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether a parameter is given as true.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    /// A number; nothing where it is left out.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error| {
                Failure::bad_request(format!("invalid value for {name}: {text:?}: {error}"))
            }),
        }
    }
}

/// A resource, or an object of it.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is asked for.
    pub kind: Kind,
    /// Where; empty for everywhere.
    pub namespace: String,
    /// Which; empty for the collection.
    pub name: String,
    /// Its subresource, or empty.
    pub sub: String,
}

impl Target {
    /// Reads `/api/v1/...` and `/apis/GROUP/VERSION/...`.
    pub fn parse(kinds: &Kinds, path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, plural, rest) = match rest {
            // A namespace's own subresources look like resources in it.
            ["namespaces", _, "status" | "finalize"] => ("", "namespaces", &rest[1..]),
            ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest),
            [plural, rest @ ..] => ("", *plural, rest),
            [] => return None,
        };
        let kind = kinds.find(group, version, plural)?.clone();
        let (name, sub) = match rest {
            [] => ("", ""),
            [name] => (*name, ""),
            [name, sub] => (*name, *sub),
            _ => return None,
        };
        let is_exec = sub == "exec" && kind.resource() == "pods";
        let is_known = sub.is_empty() || (sub == "status" && kind.status) || is_exec;
        let is_placed = kind.namespaced || namespace.is_empty();
        let is_named = !kind.namespaced || name.is_empty() || !namespace.is_empty();
        (is_known && is_placed && is_named).then(|| Self {
            namespace: namespace.into(),
            name: name.into(),
            sub: sub.into(),
            kind,
        })
    }

    /// The verb of a request, as roles name it.
    pub fn verb(&self, method: &Method, query: &Query) -> Option<&'static str> {
        let is_one = !self.name.is_empty();
        Some(match *method {
            Method::GET if is_one => "get",
            Method::GET if query.is("watch") => "watch",
            Method::GET => "list",
            Method::POST if !is_one || self.is_exec() => "create",
            Method::PUT if is_one => "update",
            Method::PATCH if is_one => "patch",
            Method::DELETE if is_one => "delete",
            Method::DELETE => "deletecollection",
            _ => return None,
        })
    }

    /// Where the object is.
    pub fn place(&self) -> Place {
        let Self { kind, namespace, name, .. } = self;
        Place { stored: kind.stored.clone(), namespace: namespace.clone(), name: name.clone() }
    }

    /// Whether a command is to be executed.
    pub fn is_exec(&self) -> bool {
        self.sub == "exec"
    }

    /// The resource with its subresource.
    pub fn resource(&self) -> String {
        if self.sub.is_empty() {
            self.kind.plural.clone()
        } else {
            format!("{}/{}", self.kind.plural, self.sub)
        }
    }
}
