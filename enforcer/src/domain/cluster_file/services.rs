//! Services, and who answers for them: by endpoint slices, else by endpoints, else by the service's own selector.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Pod, address, at, items, objects, port, protocol};
use crate::domain::cluster::{Backend, Service, ServicePort};
use crate::domain::workload_file;
use crate::domain::yaml::{Node, Reader, Value};

/// The label by which an endpoint slice names its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name.
type Key = (String, String);

/// A service as it is written.
pub(super) struct Written {
    key: Key,
    addresses: Vec<IpAddr>,
    /// Labels that its pods have; `None` if somebody else says who answers.
    selector: Option<BTreeMap<String, String>>,
    ports: Vec<WrittenPort>,
}

struct WrittenPort {
    name: String,
    protocol: u8,
    port: u16,
    target: Target,
}

enum Target {
    Number(u16),
    Name(String),
}

/// A service with an address of its own. Clients of a headless one call its pods, and an external name is nobody here.
pub(super) fn service(reader: &mut Reader<'_>, root: &Node) -> Option<Written> {
    let metadata = objects::metadata(reader, root, "a service")?;
    let key = workload_file::name(reader, &metadata);
    let spec = root.field("spec")?;
    let mut addresses = Vec::new();
    let one = spec.field("clusterIP").filter(|node| !matches!(node.as_text(), Some("None" | "")));
    let more = items(reader, spec.field("clusterIPs"), "`clusterIPs`");
    let more = more.iter().filter(|node| node.as_text() != Some("None"));
    let outside = items(reader, spec.field("externalIPs"), "`externalIPs`");
    let balanced = items(reader, at(root, &["status", "loadBalancer", "ingress"]), "`ingress`");
    let balanced = balanced.iter().filter_map(|item| item.field("ip"));
    for node in one.into_iter().chain(more).chain(outside).chain(balanced) {
        let found = address(reader, node, "an address of a service");
        addresses.extend(found.filter(|found| !addresses.contains(found)));
    }
    let mut ports = Vec::new();
    for item in items(reader, spec.field("ports"), "`ports`") {
        ports.extend(service_port(reader, item));
    }
    let selector = spec.field("selector").and_then(|node| {
        let mapping = reader.any_mapping(node, "`selector`")?;
        let labels: BTreeMap<_, _> = mapping
            .entries()
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), reader.text(&entry.value, "a label")?.to_owned())))
            .collect();
        // No condition selects no pod here: endpoints are managed by somebody else.
        (!labels.is_empty()).then_some(labels)
    });
    let key = key?;
    (!addresses.is_empty()).then_some(Written { key: (key.namespace, key.name), addresses, selector, ports })
}

fn service_port(reader: &mut Reader<'_>, item: &Node) -> Option<WrittenPort> {
    let what = "a port of a service";
    let mapping = reader.any_mapping(item, what)?;
    let number = reader.required(&mapping, what, "port", None)?;
    let port = port(reader, number, "`port`");
    let protocol = protocol(reader, mapping.get("protocol"));
    let name = port_name(reader, item);
    let port = port?;
    let target = match mapping.get("targetPort") {
        Some(Node { value: Value::Text(name), .. }) => Target::Name(name.clone()),
        Some(node) => Target::Number(super::port(reader, node, "`targetPort`")?),
        None => Target::Number(port),
    };
    Some(WrittenPort { name, protocol: protocol?, port, target })
}

/// The name of a port of a service or of its endpoints; empty if it has none.
fn port_name(reader: &mut Reader<'_>, item: &Node) -> String {
    item.field("name").and_then(|node| reader.text(node, "the name of a port")).unwrap_or_default().to_owned()
}

/// Who answers for which service: port name and protocol, then the backends.
#[derive(Default)]
pub(super) struct Endpoints {
    slices: BTreeMap<Key, Answers>,
    endpoints: BTreeMap<Key, Answers>,
}

type Answers = BTreeMap<(String, u8), BTreeSet<Backend>>;

impl Endpoints {
    /// An `EndpointSlice`.
    pub(super) fn read_slice(&mut self, reader: &mut Reader<'_>, root: &Node) {
        let Some(metadata) = objects::metadata(reader, root, "an endpoint slice") else { return };
        let Some(key) = workload_file::name(reader, &metadata) else { return };
        let label = metadata.get("labels").and_then(|labels| labels.field(SERVICE_LABEL));
        let Some(service) = label.and_then(Node::as_text) else { return };
        let answers = self.slices.entry((key.namespace, service.to_owned())).or_default();
        let mut ready = Vec::new();
        for endpoint in items(reader, root.field("endpoints"), "`endpoints`") {
            // Unknown means ready (discovery/v1 EndpointConditions).
            if at(endpoint, &["conditions", "ready"]).is_some_and(|node| node.value == Value::Bool(false)) {
                continue;
            }
            for node in items(reader, endpoint.field("addresses"), "`addresses`") {
                ready.extend(address(reader, node, "an address of an endpoint"));
            }
        }
        let ports = items(reader, root.field("ports"), "`ports`");
        answer(reader, ports, &ready, answers);
    }

    /// An `Endpoints` object.
    pub(super) fn read_endpoints(&mut self, reader: &mut Reader<'_>, root: &Node) {
        let Some(metadata) = objects::metadata(reader, root, "endpoints") else { return };
        let Some(key) = workload_file::name(reader, &metadata) else { return };
        let answers = self.endpoints.entry((key.namespace, key.name)).or_default();
        for subset in items(reader, root.field("subsets"), "`subsets`") {
            let mut ready = Vec::new();
            for node in items(reader, subset.field("addresses"), "`addresses`") {
                let Some(node) = node.field("ip") else { continue };
                ready.extend(address(reader, node, "an address of an endpoint"));
            }
            let ports = items(reader, subset.field("ports"), "`ports`");
            answer(reader, ports, &ready, answers);
        }
    }

    fn of(&self, service: &Key) -> Option<&Answers> {
        self.slices.get(service).or_else(|| self.endpoints.get(service))
    }
}

fn answer(reader: &mut Reader<'_>, ports: &[Node], ready: &[IpAddr], answers: &mut Answers) {
    for item in ports {
        let Some(number) = item.field("port") else { continue };
        let number = port(reader, number, "`port`");
        let protocol = protocol(reader, item.field("protocol"));
        let name = port_name(reader, item);
        let (Some(port), Some(protocol)) = (number, protocol) else { continue };
        let backends = answers.entry((name, protocol)).or_default();
        backends.extend(ready.iter().map(|address| Backend { address: *address, port }));
    }
}

impl Written {
    /// The service with who answers for it.
    pub(super) fn with_backends(self, endpoints: &Endpoints, pods: &[Pod]) -> Service {
        let answers = endpoints.of(&self.key);
        let ports = self.ports.iter().map(|port| {
            let backends = match (answers, &self.selector) {
                (Some(answers), _) => {
                    let found = answers.get(&(port.name.clone(), port.protocol));
                    found.map(|found| found.iter().copied().collect()).unwrap_or_default()
                }
                (None, Some(selector)) => selected(pods, &self.key.0, selector, port),
                (None, None) => Vec::new(),
            };
            ServicePort { protocol: port.protocol, port: port.port, backends }
        });
        let ports = ports.collect();
        let (namespace, name) = self.key;
        Service { namespace, name, addresses: self.addresses, ports }
    }
}

/// The pods with these labels, each with the port that is meant there.
fn selected(
    pods: &[Pod],
    namespace: &str,
    selector: &BTreeMap<String, String>,
    port: &WrittenPort,
) -> Vec<Backend> {
    let is_meant = |pod: &&Pod| {
        let labels = &pod.workload.labels.0;
        pod.workload.key.namespace == namespace
            && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let mut backends = Vec::new();
    for pod in pods.iter().filter(is_meant) {
        let number = match &port.target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => {
                let named = pod.workload.ports.get(name).filter(|named| named.protocol == port.protocol);
                named.map(|named| named.port)
            }
        };
        let (Some(address), Some(port)) = (pod.workload.addresses.first(), number) else { continue };
        backends.push(Backend { address: address.addr(), port });
    }
    backends.sort_unstable();
    backends
}
