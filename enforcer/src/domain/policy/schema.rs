//! JSON schemas (draft 2020-12) of the kinds of policies, for editors. Limits and words are those that the check uses; what a
//! schema can't say (`endPort` not below `port`, `except` inside its block) the check says.

mod crd;
mod docs;

use enforcer_common::abi::config::SocketKind;
use serde_json::{Map, Value, json};

use super::document::version;
use super::key::PolicyKind;
use super::ports::{OWN_PROTOCOLS, PROTOCOLS};
use super::rules::{MAX_ITEMS, MAX_RULES};
use super::traffic::MAX_PRIORITY;
use crate::domain::syntax::ERRNOS;

pub use crd::crd;

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

/// An object of the project's own, whose fields say what they mean.
fn described(name: &str, mut fields: Value, required: &[&str]) -> Value {
    if let Value::Object(fields) = &mut fields {
        docs::describe(name, fields);
    }
    object(fields, required)
}

/// The same, with at least one item.
fn some(of: &str, limit: usize) -> Value {
    json!({ "type": "array", "items": { "$ref": format!("#/$defs/{of}") }, "minItems": 1, "maxItems": limit })
}

fn selector() -> Value {
    json!({ "$ref": "#/$defs/selector" })
}

fn workloads() -> Value {
    json!({ "$ref": "#/$defs/workloads" })
}

/// Conditions on labels.
fn conditions() -> Value {
    json!({
        "matchLabels": { "$ref": "#/$defs/strings" },
        "matchExpressions": or_null(json!({ "type": "array", "maxItems": MAX_ITEMS, "items": object(json!({
            "key": { "type": "string" },
            "operator": { "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
            "values": or_null(json!({ "type": "array", "items": { "type": "string" }, "maxItems": MAX_ITEMS })),
        }), &["key", "operator"]) })),
    })
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
        described(
            "subject",
            json!({
                "namespaces": { "$ref": "#/$defs/namespaces" },
                "namespaceSelector": selector(),
                "workloads": workloads(),
            }),
            &[],
        )
    } else {
        workloads()
    };
    let mut fields = json!({
        "mode": { "enum": ["enforce", "audit"], "default": "enforce" },
        "errno": { "enum": errnos, "default": "EPERM" },
        "subject": subject,
        "ingress": list("ingressRule", MAX_RULES),
        "egress": list("egressRule", MAX_RULES),
        "listen": list("listenRule", MAX_RULES),
        "sockets": some("socketsRule", MAX_RULES),
        "expiresAt": { "type": "string", "format": "date-time" },
    });
    if let (Value::Object(fields), true) = (&mut fields, is_cluster) {
        fields.insert("tier".into(), json!({ "enum": ["Admin", "Baseline"] }));
        fields.insert("priority".into(), json!({ "type": "integer", "minimum": 0, "maximum": MAX_PRIORITY }));
    }
    described("spec", fields, &["subject"])
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
        "ports": list(if peers.is_some() { "port" } else { "listenPort" }, MAX_ITEMS),
        "expiresAt": { "type": "string", "format": "date-time" },
    });
    if let (Value::Object(fields), Some(peers)) = (&mut fields, peers) {
        fields.insert(peers.into(), list("peer", MAX_ITEMS));
    }
    described("rule", fields, &[])
}

/// A rule about sockets. Only policies of the cluster allow kinds.
fn sockets_rule() -> Value {
    let errnos: Vec<_> = ERRNOS.iter().map(|(name, _)| *name).collect();
    let kinds: Vec<_> = SocketKind::ALL.iter().map(|kind| kind.name()).collect();
    let fields = json!({
        "name": { "type": "string", "maxLength": 63 },
        "action": { "enum": ["Allow", "Deny", "Pass"], "default": "Allow" },
        "errno": { "enum": errnos },
        "kinds": {
            "type": "array",
            "items": { "enum": kinds },
            "minItems": 1,
            "maxItems": kinds.len(),
            "uniqueItems": true,
        },
        "expiresAt": { "type": "string", "format": "date-time" },
    });
    described("rule", fields, &["kinds"])
}

fn network_rule(peers: &str) -> Value {
    let mut fields = Map::new();
    fields.insert(peers.into(), or_null(list("networkPeer", MAX_ITEMS)));
    fields.insert("ports".into(), or_null(list("networkPort", MAX_ITEMS)));
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
    let own_protocols: Vec<_> = OWN_PROTOCOLS.iter().map(|(name, _)| *name).collect();
    let kind = json!({ "type": "integer", "minimum": 1, "maximum": 255 });
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
    let mut with_container = conditions();
    with_container["container"] = json!({ "type": "string", "maxLength": 63 });
    json!({
        "strings": { "type": ["object", "null"], "additionalProperties": { "type": "string" } },
        "namespaces": { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MAX_ITEMS },
        "selector": described("selector", conditions(), &[]),
        "workloads": described("workloads", with_container, &[]),
        "listenPort": described("port", json!({
            "protocol": { "enum": protocols },
            "port": { "anyOf": [number, name] },
            "endPort": number,
        }), &[]),
        "port": described("port", json!({
            "protocol": { "enum": own_protocols },
            "port": { "anyOf": [number, name] },
            "endPort": number,
            "types": { "type": "array", "items": { "anyOf": [kind, { "type": "string", "maxLength": 32 }] }, "minItems": 1, "maxItems": MAX_ITEMS },
        }), &[]),
        "networkPort": object(json!({
            "protocol": or_null(json!({ "enum": protocols })),
            "port": or_null(json!({ "anyOf": [number, name] })),
            "endPort": or_null(number.clone()),
        }), &[]),
        "peer": described("peer", json!({
            "workloads": workloads(),
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
        "socketsRule": sockets_rule(),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::policy::{peers, traffic};

    fn fields(schema: &Value) -> BTreeSet<&str> {
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn schema_and_check_know_the_same_fields() {
        let definitions = definitions();
        let cluster = super::traffic(PolicyKind::ClusterTrafficPolicy);
        assert_eq!(fields(&definitions["peer"]), peers::FIELDS.into());
        assert_eq!(fields(&cluster), traffic::FIELDS.into());
        assert_eq!(
            fields(&super::traffic(PolicyKind::TrafficPolicy)),
            traffic::FIELDS[..8].iter().copied().collect()
        );
    }

    #[test]
    fn every_field_says_what_it_means() {
        let definitions = definitions();
        let cluster = super::traffic(PolicyKind::ClusterTrafficPolicy);
        let objects = [
            ("spec", &cluster),
            ("subject", &cluster["properties"]["subject"]),
            ("rule", &definitions["ingressRule"]),
            ("rule", &definitions["egressRule"]),
            ("rule", &definitions["socketsRule"]),
            ("peer", &definitions["peer"]),
            ("port", &definitions["port"]),
            ("selector", &definitions["selector"]),
            ("workloads", &definitions["workloads"]),
        ];
        let mut used = BTreeSet::new();
        for (name, object) in objects {
            for (field, schema) in object["properties"].as_object().unwrap() {
                assert!(schema.get("description").is_some(), "{name}.{field}");
                used.insert((name, field.as_str()));
            }
        }
        let told: BTreeSet<_> = docs::DOCS.iter().map(|(object, field, _)| (*object, *field)).collect();
        assert_eq!(used, told);
    }

    /// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
    fn is_structural(schema: &Value, place: &str) {
        let fields = schema.as_object().unwrap();
        let is_free = fields.contains_key("x-kubernetes-int-or-string");
        assert!(is_free || fields["type"].is_string(), "{place}: {schema}");
        for forbidden in ["$ref", "const", "oneOf", "title", "$schema"] {
            assert!(!fields.contains_key(forbidden), "{place}: {forbidden}");
        }
        assert!(
            !(fields.contains_key("properties") && fields.contains_key("additionalProperties")),
            "{place}"
        );
        for (name, inner) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
            is_structural(inner, &format!("{place}.{name}"));
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = fields.get(inner) {
                is_structural(inner, &format!("{place}[]"));
            }
        }
    }

    #[test]
    fn definitions_for_kubernetes() {
        for kind in PolicyKind::ALL {
            let Some(crd) = crd(kind) else { continue };
            let version = &crd["spec"]["versions"][0];
            let schema = &version["schema"]["openAPIV3Schema"];
            is_structural(schema, kind.label());
            let spec = &schema["properties"]["spec"];
            assert!(spec["properties"]["ingress"]["items"]["x-kubernetes-validations"].is_array());
            let peer = &spec["properties"]["ingress"]["items"]["properties"]["from"]["items"];
            let rules = peer["x-kubernetes-validations"].as_array().unwrap().len();
            assert_eq!(rules, if kind == PolicyKind::TrafficPolicy { 4 } else { 5 });
            assert_eq!(spec["properties"]["expiresAt"]["format"], "date-time");
        }
        assert!(crd(PolicyKind::NetworkPolicy).is_none());
    }
}
