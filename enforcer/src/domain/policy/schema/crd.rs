//! Custom resource definitions of the project's own kinds, made from their schemas.
//!
//! Kubernetes wants *structural* schemas (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>):
//! no references, one type for each value, no `additionalProperties: false`. What a schema can't say, CEL rules say
//! (`x-kubernetes-validations`); the API server estimates their cost from the lengths of lists, which are therefore shorter here.

use serde_json::{Map, Value, json};

use super::{definitions, traffic};
use crate::domain::policy::key::PolicyKind;

const GROUP: &str = "enforcer.dev";
const VERSION: &str = "v1alpha1";
/// Items of a list in an object of a cluster: the square of it times the cost of a rule has to stay below the API server's
/// limit of 10 million for one rule.
const LONGEST: u64 = 250;

/// A value that no rule is about.
const FIELD: &str = "";

/// A rule of the common expression language, and what it says where it does not hold.
struct Rule {
    /// Object that it is about, as in `docs.rs`.
    object: &'static str,
    /// For policies of the whole cluster only, of namespaces only, or both.
    cluster: Option<bool>,
    holds: &'static str,
    message: &'static str,
}

const RANGE: &str =
    "!has(self.endPort) || (has(self.port) && type(self.port) == int && self.endPort >= self.port)";
const NO_RANGE: &str = "endPort needs a port that is a number and not greater";

const RULES: &[Rule] = &[
    Rule {
        object: "spec",
        cluster: None,
        holds: "has(self.ingress) || has(self.egress) || has(self.listen) || has(self.sockets)",
        message: "write at least one of ingress, egress, listen and sockets; `ingress: []` denies all flows to the subject",
    },
    Rule {
        object: "spec",
        cluster: Some(true),
        holds: "has(self.tier) == has(self.priority)",
        message: "tier and priority belong together",
    },
    Rule {
        object: "spec",
        cluster: Some(true),
        holds: "!has(self.tier) || !has(self.listen)",
        message: "a policy of a tier says nothing of listening",
    },
    Rule {
        object: "spec",
        cluster: Some(true),
        holds: "has(self.tier) || !has(self.ingress) || self.ingress.all(rule, rule.action != 'Pass')",
        message: "only rules of a tier pass a flow on",
    },
    Rule {
        object: "spec",
        cluster: Some(true),
        holds: "has(self.tier) || !has(self.egress) || self.egress.all(rule, rule.action != 'Pass')",
        message: "only rules of a tier pass a flow on",
    },
    Rule {
        object: "spec",
        cluster: Some(true),
        holds: "has(self.tier) || !has(self.sockets) || self.sockets.all(rule, rule.action != 'Pass')",
        message: "only rules of a tier pass a flow on",
    },
    Rule {
        object: "spec",
        cluster: Some(false),
        holds: "!has(self.sockets) || self.sockets.all(rule, rule.action == 'Deny')",
        message: "only a ClusterTrafficPolicy allows kinds of sockets; write `action: Deny`",
    },
    Rule {
        object: "rule",
        cluster: None,
        holds: "!has(self.errno) || self.action == 'Deny'",
        message: "only a rule that denies has an errno",
    },
    Rule {
        object: "peer",
        cluster: None,
        holds: "[has(self.workloads) || has(self.serviceAccount) || has(self.spiffe), has(self.cidr), has(self.entity)].filter(kind, kind).size() == 1",
        message: "a peer is either workloads, or a cidr, or an entity",
    },
    Rule {
        object: "peer",
        cluster: None,
        holds: "!has(self.except) || has(self.cidr)",
        message: "only a cidr can have exceptions",
    },
    Rule {
        object: "peer",
        cluster: None,
        holds: "!(has(self.namespaces) || has(self.namespaceSelector)) || has(self.workloads) || has(self.serviceAccount)",
        message: "namespaces belong to workloads; write `workloads: {}` for every workload there",
    },
    Rule {
        object: "peer",
        cluster: Some(true),
        holds: "!(has(self.workloads) || has(self.serviceAccount)) || has(self.namespaces) || has(self.namespaceSelector)",
        message: "say in which namespaces; `namespaces: [\"*\"]` for all of them",
    },
    Rule {
        object: "peer",
        cluster: None,
        holds: "!(has(self.namespaces) && has(self.namespaceSelector))",
        message: "write `namespaces` or `namespaceSelector`, not both",
    },
    Rule {
        object: "subject",
        cluster: Some(true),
        holds: "has(self.namespaces) != has(self.namespaceSelector)",
        message: "write `namespaces` or `namespaceSelector`; `namespaces: [\"*\"]` for every workload of the cluster",
    },
    Rule { object: "port", cluster: None, holds: RANGE, message: NO_RANGE },
    Rule { object: "listenPort", cluster: None, holds: RANGE, message: NO_RANGE },
    Rule {
        object: "port",
        cluster: None,
        holds: "(has(self.protocol) && self.protocol in ['ICMP', 'ICMPv6']) ? !has(self.port) : !has(self.types)",
        message: "ICMP and ICMPv6 have types, other protocols have ports",
    },
];

/// The definition of a kind; nothing for kinds that Kubernetes has itself.
pub fn crd(kind: PolicyKind) -> Option<Value> {
    let (plural, short, scope) = match kind {
        PolicyKind::TrafficPolicy => ("trafficpolicies", "tpol", "Namespaced"),
        PolicyKind::ClusterTrafficPolicy => ("clustertrafficpolicies", "ctpol", "Cluster"),
        PolicyKind::NetworkPolicy | PolicyKind::ClusterNetworkPolicy => return None,
    };
    let mut spec = traffic(kind);
    let is_cluster = kind == PolicyKind::ClusterTrafficPolicy;
    structural(&mut spec, "spec", is_cluster, &definitions());
    let schema = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
            "status": status(),
        },
    });
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{GROUP}") },
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind.label(),
                "listKind": format!("{}List", kind.label()),
                "plural": plural,
                "singular": kind.label().to_lowercase(),
                "shortNames": [short],
                "categories": ["enforcer"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": schema },
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns(is_cluster),
            }],
        },
    }))
}

fn columns(is_cluster: bool) -> Value {
    let column = |name: &str, kind: &str, path: &str| json!({ "name": name, "type": kind, "jsonPath": path });
    let condition =
        |name: &str| column(name, "string", &format!(".status.conditions[?(@.type==\"{name}\")].status"));
    let tier = [column("Tier", "string", ".spec.tier"), column("Priority", "integer", ".spec.priority")];
    let common = [
        column("Mode", "string", ".spec.mode"),
        condition("Accepted"),
        condition("Programmed"),
        condition("Enforcing"),
        column("Desired", "integer", ".status.nodesDesired"),
        column("Realized", "integer", ".status.nodesRealized"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ];
    tier.into_iter().filter(|_| is_cluster).chain(common).collect()
}

/// Conditions as Kubernetes' API conventions have them.
fn status() -> Value {
    let text = |limit: u64| json!({ "type": "string", "maxLength": limit });
    json!({
        "type": "object",
        "properties": {
            "nodesDesired": { "type": "integer", "format": "int32", "minimum": 0, "description": "Nodes that are to enforce the policy." },
            "nodesRealized": { "type": "integer", "format": "int32", "minimum": 0, "description": "Nodes that enforce it." },
            "conditions": {
                "type": "array",
                "maxItems": 8,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "description": "Accepted, Programmed and Enforcing.",
                "items": {
                    "type": "object",
                    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                    "properties": {
                        "type": text(316),
                        "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                        "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                        "lastTransitionTime": { "type": "string", "format": "date-time" },
                        "reason": text(1024),
                        "message": text(32_768),
                    },
                },
            },
        },
    })
}

/// Turns a schema, called `object` in [`RULES`], into a structural one.
fn structural(schema: &mut Value, object: &str, cluster: bool, definitions: &Value) {
    let Value::Object(fields) = schema else { return };
    if let Some(Value::String(reference)) = fields.remove("$ref") {
        let name = reference.trim_start_matches("#/$defs/");
        let description = fields.remove("description");
        let mut found = definitions.get(name).cloned().unwrap_or_default();
        structural(&mut found, if name.ends_with("Rule") { "rule" } else { name }, cluster, definitions);
        if let (Value::Object(found), Some(description)) = (&mut found, description) {
            found.insert("description".into(), description);
        }
        *schema = found;
        return;
    }
    one_type(fields);
    if fields.contains_key("properties") {
        fields.remove("additionalProperties");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        for (name, field) in properties {
            let object = if name == "subject" { "subject" } else { FIELD };
            structural(field, object, cluster, definitions);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(inner) {
            structural(inner, FIELD, cluster, definitions);
        }
    }
    // Not allowed there, because comparing all items with each other costs too much; the agent's check does it.
    fields.remove("uniqueItems");
    if fields.get("required") == Some(&json!([])) {
        fields.remove("required");
    }
    if let Some(actions) = fields.get_mut("properties").and_then(|fields| fields.get_mut("action"))
        && !cluster
    {
        // Only a tier has something beneath it, and only policies of the cluster have tiers.
        actions["enum"] = json!(["Allow", "Deny"]);
        actions["description"] = "Allow or Deny.".into();
    }
    if let Some(longest) = fields.get_mut("maxItems") {
        *longest = longest.as_u64().unwrap_or(LONGEST).min(LONGEST).into();
    }
    let rules: Vec<Value> = RULES
        .iter()
        .filter(|rule| rule.object == object && rule.cluster.is_none_or(|only| only == cluster))
        .map(|rule| json!({ "rule": rule.holds, "message": rule.message }))
        .collect();
    if !rules.is_empty() {
        fields.insert("x-kubernetes-validations".into(), rules.into());
    }
}

/// Gives a schema the one type that it must have.
fn one_type(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(choices)) = fields.remove("anyOf") {
        let (null, others): (Vec<_>, Vec<_>) =
            choices.into_iter().partition(|choice| choice.get("type") == Some(&"null".into()));
        if let [Value::Object(one)] = others.as_slice() {
            fields.extend(one.clone());
        } else {
            // A number or a name.
            fields.insert("anyOf".into(), json!([{ "type": "integer" }, { "type": "string" }]));
            fields.insert("x-kubernetes-int-or-string".into(), true.into());
        }
        if !null.is_empty() {
            // Once more, for a choice within the choice.
            one_type(fields);
            fields.insert("nullable".into(), true.into());
        }
    }
    if let Some(Value::Array(types)) = fields.get("type").cloned() {
        fields.insert("nullable".into(), true.into());
        fields.insert("type".into(), types.into_iter().find(|kind| *kind != "null").unwrap_or_default());
    }
    if fields.contains_key("enum") {
        fields.insert("type".into(), "string".into());
    }
}
