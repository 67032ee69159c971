//! What can be chosen: the one table from which come the chart's values, their schema and the plain manifests' text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::yaml;
use crate::image;

/// One thing that can be chosen.
pub(super) struct Choice {
    pub(super) name: &'static str,
    doc: &'static str,
    pub(super) default: Value,
    schema: Value,
}

/// Where monitoring answers when nothing else is said. The probes ask there, so the port is no choice.
const LISTEN: &str = "127.0.0.1:9962";
/// Where it answers the whole cluster.
const LISTEN_ALL: &str = "0.0.0.0:9962";

/// Every choice, in the order of the documentation.
pub(super) fn all() -> Vec<Choice> {
    let mut all = agent();
    all.extend(node());
    all.extend(monitoring());
    all
}

fn choice(name: &'static str, doc: &'static str, default: Value, schema: Value) -> Choice {
    Choice { name, doc, default, schema }
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn switch() -> Value {
    json!({ "type": "boolean" })
}

/// What runs, and how.
fn agent() -> Vec<Choice> {
    vec![
        choice(
            "image",
            "The image. `localhost/` is never fetched: load it on each node, or push it to a registry and write its name.",
            json!(image::DEFAULT_NAME),
            text(),
        ),
        choice(
            "imagePullPolicy",
            "When it is fetched.",
            json!("IfNotPresent"),
            json!({ "enum": ["Always", "IfNotPresent", "Never"] }),
        ),
        choice(
            "imagePullSecrets",
            "Secrets of its registry.",
            json!([]),
            json!({ "type": "array", "items": { "type": "object" } }),
        ),
        choice(
            "config",
            "Settings of the agent; `enforcer config default` prints all of them.",
            // The node's /run is at /host/run. What kubelets start is found by containerd or, for other runtimes, the API alone.
            json!({
                "kubernetes": "on", "audit": "continue",
                "containerd-socket": "/host/run/containerd/containerd.sock", "docker-sockets": [],
            }),
            json!({ "type": "object", "propertyNames": { "pattern": "^[a-z][a-z-]*$" } }),
        ),
        choice(
            "metricsListen",
            "Where /metrics, /healthz and /readyz are served, without access control. 0.0.0.0:9962 for a Prometheus in the cluster; \
             then whoever reaches the node's address reads them. The probes need loopback and this port.",
            json!(LISTEN),
            json!({ "type": "string", "pattern": "^(127\\.0\\.0\\.1|0\\.0\\.0\\.0):9962$" }),
        ),
        choice(
            "privileged",
            "Everything instead of the capabilities that are needed: only where the kernel or runtime asks for more than they give.",
            json!(false),
            switch(),
        ),
    ]
}

/// Where, and with how much.
fn node() -> Vec<Choice> {
    vec![
        choice(
            "resources",
            "What is reserved, and what it may use. The kernel's maps count too.",
            json!({ "requests": { "cpu": "50m", "memory": "128Mi" }, "limits": { "memory": "512Mi" } }),
            json!({ "type": "object" }),
        ),
        choice(
            "tolerations",
            "On which tainted nodes it runs. All: a node without it enforces nothing.",
            json!([{ "operator": "Exists" }]),
            json!({ "type": "array", "items": { "type": "object" } }),
        ),
        choice(
            "nodeSelector",
            "On which nodes it runs.",
            json!({ "kubernetes.io/os": "linux" }),
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        ),
        choice(
            "priorityClassName",
            "Who goes first when a node is full.",
            json!("system-node-critical"),
            text(),
        ),
        choice(
            "maxUnavailable",
            "How many agents are replaced at a time. Nothing is open meanwhile; changes are not followed there.",
            json!("10%"),
            json!({ "type": ["integer", "string"], "pattern": "^[0-9]+%$", "minimum": 1 }),
        ),
        choice(
            "terminationGracePeriodSeconds",
            "How long an agent may take to end.",
            json!(15),
            json!({ "type": "integer", "minimum": 1 }),
        ),
    ]
}

/// Who looks at it.
fn monitoring() -> Vec<Choice> {
    vec![
        choice(
            "podMonitor",
            "Whether the Prometheus operator is told of the agents. They have to listen at 0.0.0.0:9962 then (`metricsListen`).",
            json!(false),
            switch(),
        ),
        choice("prometheusRule", "Whether it is given the alerts and recordings.", json!(false), switch()),
        choice("dashboards", "Whether Grafana's sidecar is given the dashboards.", json!(false), switch()),
    ]
}

/// Defaults by name.
pub(super) fn defaults(choices: &[Choice]) -> BTreeMap<&str, Value> {
    choices.iter().map(|choice| (choice.name, choice.default.clone())).collect()
}

/// `values.yaml`
pub(super) fn file(choices: &[Choice]) -> String {
    choices.iter().fold(String::new(), |mut text, Choice { name, doc, default, .. }| {
        let object = json!({ *name: default });
        // Writing to a string can't fail.
        writeln!(text, "# {doc}\n{}", yaml::block(&object)).ok();
        text
    })
}

/// `values.schema.json`: a word that is misspelt is an error and not ignored.
pub(super) fn schema(choices: &[Choice]) -> Value {
    let properties = choices.iter().map(|Choice { name, doc, schema, .. }| {
        let mut schema = schema.clone();
        schema["description"] = json!(doc);
        ((*name).to_owned(), schema)
    });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart enforcer",
        "type": "object",
        // Helm itself writes into `global`.
        "properties": properties.chain([("global".to_owned(), json!({ "type": "object" }))]).collect::<serde_json::Map<_, _>>(),
        "additionalProperties": false,
        // Nobody in the cluster could ask them otherwise.
        "if": { "properties": { "podMonitor": { "const": true } }, "required": ["podMonitor"] },
        "then": { "properties": { "metricsListen": { "enum": [LISTEN_ALL] } } },
    })
}
