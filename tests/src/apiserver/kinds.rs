//! The resources that the server has: those it is built with, and those that definitions add.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::status::Failure;

/// How an object of a kind is read.
#[derive(Clone, Debug)]
pub enum Schema {
    /// By the types of the real API: fields they don't have are dropped, a wrong type is refused.
    Typed(fn(Value) -> Result<Value, String>),
    /// By the structural schema of a definition.
    Structural(Value),
}

/// One resource in one version.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a property of a resource of its own")]
pub struct Kind {
    /// API group; empty for the core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Name in paths.
    pub plural: String,
    /// Name in documents.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// What `kubectl` may call it.
    pub short: Vec<String>,
    /// Whether status is written apart.
    pub status: bool,
    /// Whether `metadata.generation` counts the changes of what is asked for.
    pub generation: bool,
    /// Whether it may be replaced without saying which version is replaced.
    pub unconditional: bool,
    /// How an object is read.
    pub schema: Schema,
    /// The resource as whose objects they are kept.
    pub stored: String,
}

impl Kind {
    /// `plural.group`, as messages name it.
    pub fn resource(&self) -> String {
        resource(&self.plural, &self.group)
    }

    /// `group/version`, or the version for the core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

fn resource(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// Reads as the type, and writes again: what the type does not have is gone.
fn typed<T: Serialize + DeserializeOwned>(object: Value) -> Result<Value, String> {
    let object: T = serde_json::from_value(object).map_err(|error| error.to_string())?;
    serde_json::to_value(object).map_err(|error| error.to_string())
}

struct Row {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    /// `n` in namespaces, `s` has a status of its own, `g` counts generations, `u` may be replaced without a version.
    flags: &'static str,
    typed: fn(Value) -> Result<Value, String>,
}

const ROWS: &[Row] = &[
    row("", "pods", "Pod", "po", "nsgu", typed::<Pod>),
    row("", "namespaces", "Namespace", "ns", "su", typed::<Namespace>),
    row("", "services", "Service", "svc", "nsu", typed::<Service>),
    row("", "nodes", "Node", "no", "su", typed::<Node>),
    row("", "configmaps", "ConfigMap", "cm", "nu", typed::<ConfigMap>),
    row("", "secrets", "Secret", "", "nu", typed::<Secret>),
    row("", "serviceaccounts", "ServiceAccount", "sa", "nu", typed::<ServiceAccount>),
    row("", "events", "Event", "ev", "nu", typed::<Event>),
    row("discovery.k8s.io", "endpointslices", "EndpointSlice", "", "ngu", typed::<EndpointSlice>),
    row("coordination.k8s.io", "leases", "Lease", "", "n", typed::<Lease>),
    row("networking.k8s.io", "networkpolicies", "NetworkPolicy", "netpol", "ngu", typed::<NetworkPolicy>),
    row(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd",
        "sg",
        typed::<CustomResourceDefinition>,
    ),
];

const fn row(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    flags: &'static str,
    typed: fn(Value) -> Result<Value, String>,
) -> Row {
    Row { group, plural, kind, short, flags, typed }
}

/// Every resource that is served.
#[derive(Clone, Debug)]
pub struct Kinds(Vec<Kind>);

impl Default for Kinds {
    fn default() -> Self {
        let mut kinds: Vec<Kind> = ROWS.iter().map(Kind::from).collect();
        // The newer face of the same objects.
        let mut events = Kind::from(&row("events.k8s.io", "events", "Event", "", "nu", |event| {
            typed::<k8s_openapi::api::events::v1::Event>(event)
        }));
        events.stored = "events".into();
        kinds.push(events);
        Self(kinds)
    }
}

impl From<&Row> for Kind {
    fn from(row: &Row) -> Self {
        let has = |flag: char| row.flags.contains(flag);
        Self {
            group: row.group.into(),
            version: "v1".into(),
            plural: row.plural.into(),
            kind: row.kind.into(),
            namespaced: has('n'),
            short: row.short.split_whitespace().map(str::to_owned).collect(),
            status: has('s'),
            generation: has('g'),
            unconditional: has('u'),
            schema: Schema::Typed(row.typed),
            stored: resource(row.plural, row.group),
        }
    }
}

impl Kinds {
    /// By the parts of a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Kind> {
        self.0.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// By what a document says it is.
    pub fn of(&self, object: &Value) -> Option<&Kind> {
        let (api_version, name) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        self.0.iter().find(|kind| kind.kind == name && kind.api_version() == api_version)
    }

    /// All that keep their objects as this resource.
    pub fn stored_as(&self, stored: &str) -> impl Iterator<Item = &Kind> {
        self.0.iter().filter(move |kind| kind.stored == stored)
    }

    /// Serves what a definition defines, instead of what it defined before.
    pub fn define(&mut self, definition: &Value) {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
        self.forget(&group, &plural);
        for version in spec["versions"].as_array().into_iter().flatten() {
            if version["served"] != json!(true) {
                continue;
            }
            let short = spec["names"]["shortNames"].as_array().into_iter().flatten().map(text).collect();
            self.0.push(Kind {
                version: text(&version["name"]),
                kind: text(&spec["names"]["kind"]),
                namespaced: spec["scope"] == "Namespaced",
                short,
                status: version["subresources"].get("status").is_some(),
                generation: true,
                unconditional: false,
                schema: Schema::Structural(version["schema"]["openAPIV3Schema"].clone()),
                stored: resource(&plural, &group),
                group: group.clone(),
                plural: plural.clone(),
            });
        }
    }

    /// Serves a resource no longer.
    pub fn forget(&mut self, group: &str, plural: &str) {
        self.0.retain(|kind| kind.group != group || kind.plural != plural);
    }

    /// What is served at a path that tells what is served; nothing for other paths.
    pub fn discovery(&self, path: &str) -> Option<Result<Value, Failure>> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let found = match parts.as_slice() {
            ["version"] => Some(json!({
                "major": "1", "minor": "36", "gitVersion": "v1.36.0-test", "gitCommit": "", "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
            })),
            ["api"] => Some(Self::core()),
            ["apis"] => Some(self.groups()),
            ["api", version] => self.resources("", version),
            ["apis", group] => self.group(group),
            ["apis", group, version] => self.resources(group, version),
            _ => return None,
        };
        Some(found.ok_or_else(Failure::no_such_path))
    }

    /// `/api`.
    pub fn core() -> Value {
        json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
    }

    /// `/apis`.
    pub fn groups(&self) -> Value {
        let mut groups: Vec<Value> = Vec::new();
        for kind in self.0.iter().filter(|kind| !kind.group.is_empty()) {
            let version = json!({ "groupVersion": kind.api_version(), "version": kind.version });
            match groups.iter_mut().find(|group| group["name"] == kind.group.as_str()) {
                Some(group) => {
                    let versions = group["versions"].as_array_mut().expect("a group has versions");
                    if !versions.contains(&version) {
                        versions.push(version);
                    }
                }
                None => groups
                    .push(json!({ "name": kind.group, "versions": [version], "preferredVersion": version })),
            }
        }
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    }

    /// `/apis/GROUP`.
    pub fn group(&self, name: &str) -> Option<Value> {
        let groups = self.groups();
        let mut group = groups["groups"].as_array()?.iter().find(|group| group["name"] == name)?.clone();
        group["kind"] = "APIGroup".into();
        group["apiVersion"] = "v1".into();
        Some(group)
    }

    /// `/api/v1` and `/apis/GROUP/VERSION`.
    pub fn resources(&self, group: &str, version: &str) -> Option<Value> {
        let mut rows = Vec::new();
        for kind in self.0.iter().filter(|kind| kind.group == group && kind.version == version) {
            rows.push(json!({
                "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
                "kind": kind.kind, "shortNames": kind.short,
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            }));
            if kind.status {
                rows.push(json!({
                    "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                    "kind": kind.kind, "verbs": ["get", "patch", "update"],
                }));
            }
        }
        let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        (!rows.is_empty()).then(|| {
            json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows })
        })
    }
}
