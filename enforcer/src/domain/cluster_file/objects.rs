//! Namespaces, pods and nodes.

use std::collections::BTreeSet;
use std::ops::Range;

use ipnet::IpNet;

use super::{ClusterNode, Pod, address, at, is_true, items, port, protocol};
use crate::domain::cluster::Namespace;
use crate::domain::container::Containers;
use crate::domain::labels::LabelSet;
use crate::domain::syntax::Name;
use crate::domain::workload::{NamedPort, NamedPorts, Workload, WorkloadKey};
use crate::domain::workload_file;
use crate::domain::yaml::{Mapping, Node, Reader};

/// The service account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

/// Where the name of an object is.
pub(super) fn place(root: &Node) -> Range<usize> {
    at(root, &["metadata", "name"]).map_or(root.span.start..root.span.start, |name| name.span.clone())
}

/// `metadata` of an object.
pub(super) fn metadata<'n>(reader: &mut Reader<'_>, root: &'n Node, what: &str) -> Option<Mapping<'n>> {
    let object = reader.any_mapping(root, what)?;
    let metadata = reader.required(&object, what, "metadata", None)?;
    reader.any_mapping(metadata, "`metadata`")
}

pub(super) fn namespace(reader: &mut Reader<'_>, root: &Node) -> Option<Namespace> {
    let what = "a namespace";
    let metadata = metadata(reader, root, what)?;
    let name = reader.required(&metadata, what, "name", None);
    let name = name.and_then(|node| Name::Label.read(reader, node, what));
    let labels = labels(reader, &metadata);
    Some(Namespace { name: name?.to_owned(), labels: labels? })
}

/// Labels of an object that somebody else made: what enforcer would refuse in its own files is checked all the same,
/// because selectors could never match it.
pub(super) fn labels(reader: &mut Reader<'_>, metadata: &Mapping<'_>) -> Option<LabelSet> {
    workload_file::labels(reader, metadata)
}

/// A pod that is not finished. The address of a finished pod may belong to another one already.
pub(super) fn pod(reader: &mut Reader<'_>, root: &Node) -> Option<Pod> {
    let metadata = metadata(reader, root, "a pod")?;
    let key: Option<WorkloadKey> = workload_file::name(reader, &metadata);
    let labels = labels(reader, &metadata);
    if matches!(at(root, &["status", "phase"]).and_then(Node::as_text), Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = root.field("spec");
    let account =
        spec.and_then(|spec| spec.field("serviceAccountName").or_else(|| spec.field("serviceAccount")));
    let account = match account {
        Some(node) => Name::Subdomain.read(reader, node, "a service account").map(str::to_owned),
        None => Some(DEFAULT_ACCOUNT.to_owned()),
    };
    let (mut ports, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut named = NamedPorts::new();
    for (field, what) in [("containers", "`containers`"), ("initContainers", "`initContainers`")] {
        let containers = items(reader, spec.and_then(|spec| spec.field(field)), what);
        // An init container is over before the others start, unless it is a sidecar.
        let is_sidecar = |node: &&Node| node.field("restartPolicy").and_then(Node::as_text) == Some("Always");
        for container in containers.iter().filter(|node| field == "containers" || is_sidecar(node)) {
            names.extend(container.field("name").and_then(Node::as_text).map(str::to_owned));
            for item in items(reader, container.field("ports"), "`ports`") {
                container_port(reader, item, &mut ports, &mut named);
            }
        }
    }
    // The address of a pod on the node's network is the node's, and tells nobody apart.
    let on_node = is_true(spec.and_then(|spec| spec.field("hostNetwork")));
    let addresses = if on_node { Vec::new() } else { addresses(reader, root) };
    let workload = Workload {
        key: key?,
        labels: labels?.into(),
        cgroup: None,
        addresses,
        ports: named,
        account: Some(account?),
        containers: Containers::Unknown,
    };
    Some(Pod { workload, ports, containers: names })
}

fn container_port(
    reader: &mut Reader<'_>,
    item: &Node,
    ports: &mut BTreeSet<(u8, u16)>,
    named: &mut NamedPorts,
) {
    let Some(mapping) = reader.any_mapping(item, "a port of a container") else { return };
    let Some(node) = reader.required(&mapping, "a port of a container", "containerPort", None) else {
        return;
    };
    let number = port(reader, node, "`containerPort`");
    let protocol = protocol(reader, mapping.get("protocol"));
    let name = mapping.get("name").and_then(|node| Name::Port.read(reader, node, "the name of a port"));
    let (Some(port), Some(protocol)) = (number, protocol) else { return };
    ports.insert((protocol, port));
    if let Some(name) = name {
        // The API wants a name to be unique in its container only; the first one is found.
        named.entry(name.to_owned()).or_insert(NamedPort { protocol, port });
    }
}

/// All addresses of a pod, the main one first.
fn addresses(reader: &mut Reader<'_>, root: &Node) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = Vec::new();
    let main = at(root, &["status", "podIP"]);
    let all = items(reader, at(root, &["status", "podIPs"]), "`podIPs`");
    for node in main.into_iter().chain(all.iter().filter_map(|item| item.field("ip"))) {
        let Some(address) = address(reader, node, "an address of a pod") else { continue };
        let net = IpNet::from(address);
        if !found.contains(&net) {
            found.push(net);
        }
    }
    found
}

pub(super) fn node(reader: &mut Reader<'_>, root: &Node) -> Option<ClusterNode> {
    let what = "a node";
    let metadata = metadata(reader, root, what)?;
    let name = reader.required(&metadata, what, "name", None);
    let name = name.and_then(|node| Name::Subdomain.read(reader, node, what));
    let labels = labels(reader, &metadata);
    let mut addresses = Vec::new();
    for item in items(reader, at(root, &["status", "addresses"]), "`addresses`") {
        // Others are names.
        let kind = item.field("type").and_then(Node::as_text);
        let Some(node) = item.field("address").filter(|_| matches!(kind, Some("InternalIP" | "ExternalIP")))
        else {
            continue;
        };
        addresses.extend(address(reader, node, "an address of a node"));
    }
    Some(ClusterNode { name: name?.to_owned(), labels: labels?, addresses })
}
