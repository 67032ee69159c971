//! Pods: from the object to what a policy can tell them apart by, and where they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::saved::shared;
use super::wire::{Metadata, Notes, protocol, read};
use crate::domain::cgroup_path::ContainerId;
use crate::domain::container::MAX_CONTAINERS;
use crate::domain::labels::LabelSet;
use crate::domain::policy::diagnostic::quote;
use crate::domain::syntax::Name;
use crate::domain::workload::{NamedPort, NamedPorts, WorkloadKey};

/// What the kubelet calls the directory of a static pod by: the hash of its configuration, in the place of a UID.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Marks the object that stands in the API for a static pod. The API server lets nobody add it later, and the kubelet
/// runs nothing that has it.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Addresses that are read; a pod has one of each family.
const ADDRESSES: usize = 16;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pod {
    /// Its UID, which the API server gives.
    pub(super) uid: String,
    pub(super) key: WorkloadKey,
    /// Those who have the same share them.
    #[serde(with = "shared")]
    pub(super) labels: Arc<LabelSet>,
    /// The node that it runs on, once that is decided.
    pub(super) node: String,
    /// By what the kubelet names its directory, if not by its UID.
    pub(super) hash: Option<String>,
    /// Whether all of its containers have ended, and will not be started again.
    pub(super) finished: bool,
    /// Whether it was asked to end.
    pub(super) deleting: bool,
    /// In seconds since 1970.
    pub(super) created: i64,
    /// Its own addresses. None if it is on the node's network.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: NamedPorts,
    /// `None` for mirrors of static pods.
    pub(super) account: Option<String>,
    /// Containers that it may have, of every kind, and the id of each that was ever started. Not kept for pods of other nodes.
    #[serde(default)]
    pub(super) containers: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    service_account_name: Option<String>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    ports: Option<Vec<Port>>,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::struct_field_names, reason = "these are the API's words")]
struct Port {
    name: Option<String>,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Ip>>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<Ip>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    /// `RUNTIME://ID`
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ip {
    ip: String,
}

/// Reads a pod.
pub(super) fn pod(value: Value) -> Result<(Pod, Notes), String> {
    let Wire { mut metadata, spec, status } = read(value)?;
    let mut notes = Notes::new();
    let key = WorkloadKey {
        namespace: metadata.checked_namespace()?.to_owned(),
        name: metadata.checked_name(Name::Subdomain)?.to_owned(),
    };
    if metadata.uid.is_empty() {
        return Err("it has no UID".to_owned());
    }
    let node = spec.node_name.clone().unwrap_or_default();
    let is_mirror = metadata.annotation(MIRROR).is_some();
    let hash = hash(&metadata, &node, &mut notes)?;
    let account = match spec.service_account_name.as_deref() {
        Some(name) if Name::Subdomain.accepts(name) => Some(name.to_owned()),
        Some("") | None if is_mirror => None,
        Some("") | None => Some("default".to_owned()),
        Some(name) => return Err(format!("its service account can't be {}", quote(name))),
    };
    let pod = Pod {
        labels: Arc::new(metadata.checked_labels(&mut notes)?),
        node,
        hash,
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        deleting: metadata.deletion_timestamp.is_some(),
        created: metadata.created(),
        addresses: if spec.host_network == Some(true) { Vec::new() } else { addresses(&status, &mut notes)? },
        ports: ports(&spec),
        containers: containers(&spec, &status, &mut notes),
        account,
        key,
        uid: metadata.uid,
    };
    Ok((pod, notes))
}

/// The hash of a static pod's configuration. Whoever may create pods may write annotations, so they are believed only where
/// the API server and the kubelet leave no other way: on mirrors, which never run, that belong to the node that they name.
fn hash(metadata: &Metadata, node: &str, notes: &mut Notes) -> Result<Option<String>, String> {
    let Some(hash) = metadata.annotation(CONFIG_HASH) else { return Ok(None) };
    let Some(mirror) = metadata.annotation(MIRROR) else {
        notes.push(format!("the annotation `{CONFIG_HASH}` counts on mirrors of static pods only"));
        return Ok(None);
    };
    if hash.len() != 32 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("the annotation `{CONFIG_HASH}` can't be {}: it has 32 hex digits", quote(hash)));
    }
    let owners = metadata.owner_references.iter().flatten();
    let is_nodes = owners.into_iter().any(|owner| owner.kind == "Node" && owner.name == node);
    if mirror != hash || node.is_empty() || !is_nodes {
        return Err(format!("it says by `{CONFIG_HASH}` that it is a static pod, and belongs to no node"));
    }
    Ok(Some(hash.to_owned()))
}

fn addresses(status: &Status, notes: &mut Notes) -> Result<Vec<IpAddr>, String> {
    let texts = |one: &Option<String>, all: &Option<Vec<Ip>>| -> Vec<String> {
        let all = all.iter().flatten().map(|ip| ip.ip.clone());
        one.iter().cloned().chain(all).filter(|text| !text.is_empty()).collect()
    };
    let of_host: Vec<IpAddr> =
        texts(&status.host_ip, &status.host_ips).iter().filter_map(|text| text.parse().ok()).collect();
    let mut found: Vec<IpAddr> = Vec::new();
    let mut own = texts(&status.pod_ip, &status.pod_ips);
    own.truncate(ADDRESSES);
    own.sort_unstable();
    own.dedup();
    for text in &own {
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(format!("its address can't be {}", quote(text)));
        };
        let address = address.to_canonical();
        if of_host.contains(&address) {
            notes.push(format!("the address {address} is its node's, and tells nobody apart"));
        } else if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Err(format!("its address can't be {address}"));
        } else if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}

/// Its containers: init containers, sidecars and those that are for debugging have names of the same kind.
fn containers(spec: &Spec, status: &Status, notes: &mut Notes) -> BTreeMap<String, Option<String>> {
    let Spec { containers, init_containers, ephemeral_containers, .. } = spec;
    let all = [containers, init_containers, ephemeral_containers].into_iter().flatten().flatten();
    let mut found = BTreeMap::new();
    for container in all.filter(|container| !container.name.is_empty()) {
        if Name::Label.accepts(&container.name) {
            found.insert(container.name.clone(), None);
        } else {
            notes.push(format!("a container can't be called {}", quote(&container.name)));
        }
    }
    if found.len() > MAX_CONTAINERS {
        let count = found.len();
        notes.push(format!("of its {count} containers {MAX_CONTAINERS} are told apart, the first by name"));
    }
    let Status { container_statuses, init_container_statuses, ephemeral_container_statuses, .. } = status;
    let all = [container_statuses, init_container_statuses, ephemeral_container_statuses];
    for ContainerStatus { name, container_id } in all.into_iter().flatten().flatten() {
        let id = container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
        // One that was never started has none, and what is no id could not be found.
        if let (Some(known), Some(id)) =
            (found.get_mut(name), id.filter(|id| ContainerId::parse(id).is_some()))
        {
            *known = Some(id.to_owned());
        }
    }
    found
}

/// Its ports that have names.
fn ports(spec: &Spec) -> NamedPorts {
    // An init container is over before the others start, unless it is a sidecar.
    let is_sidecar = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let mut named = NamedPorts::new();
    for port in spec.containers.iter().flatten().chain(sidecars).flat_map(|it| it.ports.iter().flatten()) {
        let Some(name) = port.name.as_deref().filter(|name| Name::Port.accepts(name)) else { continue };
        let Some(protocol) = protocol(port.protocol.as_deref()) else { continue };
        if port.container_port > 0 {
            // The API wants a name to be unique in its container only; the first one is found.
            named.entry(name.to_owned()).or_insert(NamedPort { protocol, port: port.container_port });
        }
    }
    named
}
