//! Definitions of the policies that a cluster with the product has.

use enforcer::domain::policy::model::PolicyKind;
use enforcer::domain::policy::schema::crd;
use serde_json::{Value, json};

/// The product's own kinds, and `ClusterNetworkPolicy` of the network policy API with a schema that takes everything.
pub fn all() -> Vec<Value> {
    let own = PolicyKind::ALL.into_iter().filter_map(crd);
    own.chain([cluster_network_policy()]).collect()
}

fn cluster_network_policy() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "clusternetworkpolicies.policy.networking.k8s.io" },
        "spec": {
            "group": "policy.networking.k8s.io",
            "scope": "Cluster",
            "names": {
                "kind": "ClusterNetworkPolicy", "listKind": "ClusterNetworkPolicyList",
                "plural": "clusternetworkpolicies", "singular": "clusternetworkpolicy", "shortNames": ["cnp"],
            },
            "versions": [{
                "name": "v1alpha2", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                        "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    },
                } },
            }],
        },
    })
}
