//! JSON schemas (draft 2020-12) of the kinds of policies, for editors. Limits and words are those that the check uses; what a
//! schema can't say (`endPort` not below `port`, `except` inside its block) the check says.

use serde_json::{Map, Value, json};

use super::document::version;
use super::key::PolicyKind;
use super::ports::PROTOCOLS;
use super::rules::{MAX_ITEMS, MAX_RULES};
use super::traffic::MAX_PRIORITY;
use crate::domain::syntax::ERRNOS;

/// The schema of a kind by its name, or of any of them.
pub fn schema(kind: Option<&str>) -> Value {
    let kind = PolicyKind::ALL.into_iter().find(|known| Some(known.label()) == kind);
    let mut schema = match kind {
        Some(kind) => document(kind),
        None => json!({ "oneOf": PolicyKind::ALL.map(document) }),
    };
    if let Value::Object(fields) = &mut schema {
        fields.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        fields.insert("$defs".into(), definitions());
    }
    schema
}

fn document(kind: PolicyKind) -> Value {
    let spec = match kind {
        PolicyKind::TrafficPolicy | PolicyKind::ClusterTrafficPolicy => traffic(kind),
        PolicyKind::NetworkPolicy => network_policy(),
        PolicyKind::ClusterNetworkPolicy => cluster_network_policy(),
    };
    let required: &[&str] = match kind {
        PolicyKind::NetworkPolicy => &["apiVersion", "kind", "metadata"],
        _ => &["apiVersion", "kind", "metadata", "spec"],
    };
    let fields = json!({
        "apiVersion": { "const": version(kind) },
        "kind": { "const": kind.label() },
        "metadata": {
            "type": "object",
            "properties": {
                "name": { "type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" },
                "namespace": { "type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" },
                "labels": { "$ref": "#/$defs/strings" },
                "annotations": { "$ref": "#/$defs/strings" },
            },
            "required": ["name"],
        },
        "spec": spec,
        "status": { "type": ["object", "null"] },
    });
    json!({
        "title": kind.label(),
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": false,
    })
}

/// An object with these fields and no others.
#[expect(clippy::needless_pass_by_value, reason = "`json!` makes values")]
fn object(fields: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": fields, "required": required, "additionalProperties": false })
}

fn list(of: &str, limit: usize) -> Value {
    json!({ "type": "array", "items": { "$ref": format!("#/$defs/{of}") }, "maxItems": limit })
}

/// The same, with at least one item.
fn some(of: &str, limit: usize) -> Value {
    json!({ "type": "array", "items": { "$ref": format!("#/$defs/{of}") }, "minItems": 1, "maxItems": limit })
}

fn selector() -> Value {
    json!({ "$ref": "#/$defs/selector" })
}

/// What may be `null` where Kubernetes takes that for missing.
fn or_null(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        return json!({ "anyOf": [Value::Object(std::mem::take(fields)), { "type": "null" }] });
    }
    schema
}

fn traffic(kind: PolicyKind) -> Value {
    let errnos: Vec<_> = ERRNOS.iter().map(|(name, _)| *name).collect();
    let is_cluster = kind == PolicyKind::ClusterTrafficPolicy;
    let subject = if is_cluster {
        object(
            json!({
                "namespaces": { "$ref": "#/$defs/namespaces" },
                "namespaceSelector": selector(),
                "workloads": selector(),
            }),
            &[],
        )
    } else {
        selector()
    };
    let mut fields = json!({
        "mode": { "enum": ["enforce", "audit"], "default": "enforce" },
        "errno": { "enum": errnos, "default": "EPERM" },
        "subject": subject,
        "ingress": list("ingressRule", MAX_RULES),
        "egress": list("egressRule", MAX_RULES),
        "listen": list("listenRule", MAX_RULES),
        "expiresAt": { "type": "string", "format": "date-time" },
    });
    if let (Value::Object(fields), true) = (&mut fields, is_cluster) {
        fields.insert("tier".into(), json!({ "enum": ["Admin", "Baseline"] }));
        fields.insert("priority".into(), json!({ "type": "integer", "minimum": 0, "maximum": MAX_PRIORITY }));
    }
    object(fields, &["subject"])
}

fn network_policy() -> Value {
    or_null(object(
        json!({
            "podSelector": or_null(selector()),
            "policyTypes": or_null(json!({ "type": "array", "items": { "enum": ["Ingress", "Egress"] }, "maxItems": 2 })),
            "ingress": or_null(list("networkIngressRule", MAX_RULES)),
            "egress": or_null(list("networkEgressRule", MAX_RULES)),
        }),
        &[],
    ))
}

fn cluster_network_policy() -> Value {
    let one = |fields: Value| json!({ "type": "object", "properties": fields, "minProperties": 1, "maxProperties": 1, "additionalProperties": false });
    object(
        json!({
            "tier": { "enum": ["Admin", "Baseline"] },
            "priority": { "type": "integer", "minimum": 0, "maximum": MAX_PRIORITY },
            "subject": one(json!({ "namespaces": selector(), "pods": { "$ref": "#/$defs/pods" } })),
            "ingress": or_null(list("clusterIngressRule", 25)),
            "egress": or_null(list("clusterEgressRule", 25)),
        }),
        &["tier", "priority", "subject"],
    )
}

/// A rule of the project's own kinds.
fn rule(peers: Option<&str>) -> Value {
    let errnos: Vec<_> = ERRNOS.iter().map(|(name, _)| *name).collect();
    let mut fields = json!({
        "name": { "type": "string", "maxLength": 63 },
        "action": { "enum": ["Allow", "Deny", "Pass"], "default": "Allow" },
        "errno": { "enum": errnos },
        "ports": list("port", MAX_ITEMS),
        "expiresAt": { "type": "string", "format": "date-time" },
    });
    if let (Value::Object(fields), Some(peers)) = (&mut fields, peers) {
        fields.insert(peers.into(), list("peer", MAX_ITEMS));
    }
    object(fields, &[])
}

fn network_rule(peers: &str) -> Value {
    let mut fields = Map::new();
    fields.insert(peers.into(), or_null(list("networkPeer", MAX_ITEMS)));
    fields.insert("ports".into(), or_null(list("port", MAX_ITEMS)));
    object(Value::Object(fields), &[])
}

fn cluster_rule(peers: &str, peer: &str) -> Value {
    let mut fields = Map::new();
    fields.insert("name".into(), json!({ "type": "string", "maxLength": 100 }));
    fields.insert("action".into(), json!({ "enum": ["Accept", "Deny", "Pass"] }));
    fields.insert(peers.into(), some(peer, 25));
    fields.insert("protocols".into(), or_null(some("protocol", 25)));
    object(Value::Object(fields), &["action", peers])
}

fn definitions() -> Value {
    let protocols: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    let number = json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
    let name = json!({ "type": "string", "maxLength": 15, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" });
    let one = |fields: Value| json!({ "type": "object", "properties": fields, "minProperties": 1, "maxProperties": 1, "additionalProperties": false });
    let destination = object(
        json!({ "destinationPort": one(json!({
            "number": number,
            "range": object(json!({ "start": number, "end": number }), &["start", "end"]),
        })) }),
        &["destinationPort"],
    );
    json!({
        "strings": { "type": ["object", "null"], "additionalProperties": { "type": "string" } },
        "namespaces": { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MAX_ITEMS },
        "selector": object(json!({
            "matchLabels": { "$ref": "#/$defs/strings" },
            "matchExpressions": or_null(json!({ "type": "array", "maxItems": MAX_ITEMS, "items": object(json!({
                "key": { "type": "string" },
                "operator": { "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
                "values": or_null(json!({ "type": "array", "items": { "type": "string" }, "maxItems": MAX_ITEMS })),
            }), &["key", "operator"]) })),
        }), &[]),
        "port": object(json!({
            "protocol": or_null(json!({ "enum": protocols })),
            "port": or_null(json!({ "anyOf": [number, name] })),
            "endPort": or_null(number.clone()),
        }), &[]),
        "peer": object(json!({
            "workloads": selector(),
            "serviceAccount": { "type": "string" },
            "spiffe": { "type": "string", "pattern": "^spiffe://[^/]+/ns/[^/]+/sa/[^/]+$" },
            "namespaces": { "$ref": "#/$defs/namespaces" },
            "namespaceSelector": selector(),
            "cidr": { "type": "string" },
            "except": { "type": "array", "items": { "type": "string" }, "maxItems": MAX_ITEMS },
            "entity": { "enum": ["host", "world", "cluster", "unmanaged"] },
        }), &[]),
        "ingressRule": rule(Some("from")),
        "egressRule": rule(Some("to")),
        "listenRule": rule(None),
        "networkPeer": object(json!({
            "podSelector": or_null(selector()),
            "namespaceSelector": or_null(selector()),
            "ipBlock": or_null(object(json!({
                "cidr": { "type": "string" },
                "except": or_null(json!({ "type": "array", "items": { "type": "string" }, "maxItems": MAX_ITEMS })),
            }), &["cidr"])),
        }), &[]),
        "networkIngressRule": network_rule("from"),
        "networkEgressRule": network_rule("to"),
        "pods": object(json!({ "namespaceSelector": or_null(selector()), "podSelector": selector() }), &["podSelector"]),
        "clusterIngressPeer": one(json!({ "namespaces": selector(), "pods": { "$ref": "#/$defs/pods" } })),
        "clusterEgressPeer": one(json!({
            "namespaces": selector(),
            "pods": { "$ref": "#/$defs/pods" },
            "nodes": selector(),
            "networks": { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 25 },
            "domainNames": { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 25 },
        })),
        "clusterIngressRule": cluster_rule("from", "clusterIngressPeer"),
        "clusterEgressRule": cluster_rule("to", "clusterEgressPeer"),
        "protocol": one(json!({
            "tcp": destination,
            "udp": destination,
            "sctp": destination,
            "destinationNamedPort": name,
        })),
    })
}
