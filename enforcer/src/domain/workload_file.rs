//! The file of the static source: workloads by name, with their labels and their place, and what else a cluster has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use enforcer_common::limits::CGROUP_DEPTH;
use ipnet::IpNet;

use super::cluster::{Backend, NAME_LABEL, Namespace, Service, ServicePort};
use super::command::PolicyFile;
use super::labels::LabelSet;
use super::policy::diagnostic::{Code, Diagnostic, Location, Source, quote};
use super::policy::ports::{port_number, protocol};
use super::syntax::{Name, check_label_key, cidr, label_value};
use super::workload::{DEFAULT_NAMESPACE, NamedPort, NamedPorts, Workload, WorkloadKey};
use super::yaml::{self, Mapping, Node, Reader};

/// Most workloads of one file.
pub const MAX_WORKLOADS: usize = 20_000;
/// Most namespaces, and most services, of one file.
pub const MAX_OTHERS: usize = 10_000;
/// Most ports of one workload or service, and most who answer on one port.
pub const MAX_PORTS: usize = 1_000;
/// Most addresses of one workload.
pub const MAX_ADDRESSES: usize = 1_000;

/// What a workload file describes, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// The namespaces that have labels besides their names.
    pub namespaces: Vec<Namespace>,
    /// The services.
    pub services: Vec<Service>,
}

/// What a workload file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// What it describes; empty if anything is wrong, because a file is taken as a whole.
    pub described: Described,
    /// Errors and warnings in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Outcome {
    /// Whether nothing is wrong; there may be warnings.
    pub fn is_ok(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// What it describes, or everything that is wrong.
    pub fn into_result(self) -> Result<Described, Vec<Diagnostic>> {
        if self.is_ok() { Ok(self.described) } else { Err(self.diagnostics) }
    }
}

/// Reads a workload file: all problems, never just the first.
pub fn parse_workloads(file: &PolicyFile) -> Outcome {
    let source = Source::new(0, file);
    let mut reader = Reader::new(&source);
    let documents = yaml::parse(&mut reader);
    if documents.is_empty() && reader.errors() == 0 {
        let help = "write `workloads: []` if that is meant";
        reader
            .warning(&(0..0), Code::EmptyFile, "the file has no workloads")
            .label("nothing here")
            .help(help);
    }
    let mut found = Described::default();
    let mut seen = Seen::default();
    for document in &documents {
        let what = "the document";
        let fields = ["workloads", "namespaces", "services"];
        let Some(root) = reader.mapping(&document.root, what, &fields) else { continue };
        found.namespaces.extend(namespaces(&mut reader, &root));
        let services = list(&mut reader, &root, "services", MAX_OTHERS);
        found.services.extend(services.iter().filter_map(|item| service(&mut reader, item, &mut seen)));
        let Some(list) = reader.required(&root, what, "workloads", None) else { continue };
        let Some(items) = reader.list(list, "`workloads`", MAX_WORKLOADS) else { continue };
        found.workloads.extend(items.iter().filter_map(|item| workload(&mut reader, item, &mut seen)));
    }
    let diagnostics = reader.finish();
    if diagnostics.iter().any(Diagnostic::is_error) {
        found = Described::default();
    }
    Outcome { described: found, diagnostics }
}

/// The items of a list; none if it is missing.
fn list<'n>(reader: &mut Reader<'_>, of: &Mapping<'n>, field: &str, limit: usize) -> &'n [Node] {
    let node = of.get(field);
    node.and_then(|node| reader.list(node, &format!("`{field}`"), limit)).unwrap_or_default()
}

/// The `namespaces` of a file: those that have labels besides their names.
pub fn namespaces(reader: &mut Reader<'_>, root: &Mapping<'_>) -> Vec<Namespace> {
    let mut names = BTreeMap::new();
    let mut found = Vec::new();
    for item in list(reader, root, "namespaces", MAX_OTHERS) {
        let what = "a namespace";
        let Some(item) = reader.mapping(item, what, &["name", "labels"]) else { continue };
        let Some(node) = reader.required(&item, what, "name", None) else { continue };
        let name = Name::Label.read(reader, node, what);
        let labels = labels(reader, &item);
        let (Some(name), Some(labels)) = (name, labels) else { continue };
        if labels.0.get(NAME_LABEL).is_some_and(|label| label != name) {
            let message =
                format!("the namespace `{name}` can't have another name as its label `{NAME_LABEL}`");
            reader
                .error(&item.place(), Code::ReservedLabel, message)
                .label("every namespace has its own name there");
        }
        let name = name.to_owned();
        claim(reader, &mut names, &name, node, format!("the namespace `{name}` is described twice"));
        found.push(Namespace { name, labels });
    }
    found
}

fn service(reader: &mut Reader<'_>, node: &Node, seen: &mut Seen) -> Option<Service> {
    let errors = reader.errors();
    let what = "a service";
    let item = reader.mapping(node, what, &["name", "namespace", "addresses", "ports"])?;
    let key = self::key(reader, &item, what);
    if let Some((key, place)) = key.as_ref().zip(item.get("name")) {
        claim(reader, &mut seen.services, key, place, format!("the service `{key}` is defined twice"));
    }
    let mut addresses = Vec::new();
    reader.required(&item, what, "addresses", Some("list the addresses that clients call"));
    for node in list(reader, &item, "addresses", MAX_ADDRESSES) {
        let Some(address) = address(reader, node) else { continue };
        let message = format!("the address `{address}` belongs to two workloads or services");
        claim(reader, &mut seen.addresses, &IpNet::from(address), node, message);
        addresses.push(address);
    }
    reader.required(&item, what, "ports", Some("list the ports that clients call, each with its `backends`"));
    let ports = list(reader, &item, "ports", MAX_PORTS);
    let ports = ports.iter().filter_map(|item| service_port(reader, item)).collect();
    let key = key?;
    (reader.errors() == errors).then_some(Service {
        namespace: key.namespace,
        name: key.name,
        addresses,
        ports,
    })
}

fn service_port(reader: &mut Reader<'_>, node: &Node) -> Option<ServicePort> {
    let what = "a port of a service";
    let item = reader.mapping(node, what, &["protocol", "port", "backends"])?;
    let protocol = item.get("protocol").map_or(Some(TCP), |node| protocol(reader, node));
    let port = reader.required(&item, what, "port", None);
    let port = port.and_then(|node| port_number(reader, node, "`port`"))?;
    let mut backends = Vec::new();
    for node in list(reader, &item, "backends", MAX_PORTS) {
        let what = "a backend";
        let Some(item) = reader.mapping(node, what, &["address", "port"]) else { continue };
        let address = reader.required(&item, what, "address", None);
        let address = address.and_then(|node| self::address(reader, node));
        let port = item.get("port").map_or(Some(port), |node| port_number(reader, node, "`port`"));
        backends.extend(address.zip(port).map(|(address, port)| Backend { address, port }));
    }
    Some(ServicePort { protocol: protocol?, port, backends })
}

/// TCP, which is meant where no protocol is named.
const TCP: u8 = 6;

/// One address, no block.
fn address(reader: &mut Reader<'_>, node: &Node) -> Option<IpAddr> {
    let net = cidr(reader, node, "an address", true)?;
    if net.prefix_len() != net.max_prefix_len() {
        let message = format!("`{net}` is a block, not one address");
        reader.error(&node.span, Code::BadAddress, message).label("more than one address");
        return None;
    }
    Some(net.addr())
}

/// What is taken already, and where.
#[derive(Default)]
struct Seen {
    names: BTreeMap<WorkloadKey, Location>,
    cgroups: BTreeMap<String, Location>,
    addresses: BTreeMap<IpNet, Location>,
    services: BTreeMap<WorkloadKey, Location>,
}

const FIELDS: [&str; 7] = ["name", "namespace", "labels", "cgroup", "addresses", "ports", "serviceAccount"];

fn workload(reader: &mut Reader<'_>, node: &Node, seen: &mut Seen) -> Option<Workload> {
    let errors = reader.errors();
    let item = reader.mapping(node, "a workload", &FIELDS)?;
    let key = name(reader, &item);
    let labels = labels(reader, &item);
    if let Some((key, place)) = key.as_ref().zip(item.get("name")) {
        claim(reader, &mut seen.names, key, place, format!("the workload `{key}` is defined twice"));
    }
    let cgroup = item.get("cgroup").and_then(|node| Some((cgroup(reader, node)?, node)));
    if let Some((path, node)) = &cgroup {
        let message = format!("the cgroup {} belongs to two workloads", quote(path));
        claim(reader, &mut seen.cgroups, path, node, message);
    }
    let mut addresses = Vec::new();
    let list = item.get("addresses").and_then(|node| reader.list(node, "`addresses`", MAX_ADDRESSES));
    for node in list.unwrap_or_default() {
        let Some(net) = cidr(reader, node, "an address", true) else { continue };
        if net.prefix_len() == 0 {
            let message = format!("`{net}` is every address, not a workload's");
            reader.error(&node.span, Code::BadAddress, message).label("everyone");
            continue;
        }
        claim(
            reader,
            &mut seen.addresses,
            &net,
            node,
            format!("the address `{net}` belongs to two workloads"),
        );
        addresses.push(net);
    }
    if reader.errors() == errors && cgroup.is_none() && addresses.is_empty() {
        reader
            .error(&item.place(), Code::MissingField, "a workload has neither `cgroup` nor `addresses`")
            .label("where is it?")
            .help("write `cgroup: /path/below/the/cgroup/root` for a local workload, `addresses` for a remote one");
    }
    let ports = named_ports(reader, &item);
    let account = account(reader, &item);
    let (key, labels) = key.zip(labels)?;
    let cgroup = cgroup.map(|(path, _)| path);
    (reader.errors() == errors).then_some(Workload {
        key,
        labels,
        cgroup,
        addresses,
        ports,
        account: account?,
    })
}

/// The `ports` of a workload: those that have names.
pub fn named_ports(reader: &mut Reader<'_>, item: &Mapping<'_>) -> NamedPorts {
    let mut ports = NamedPorts::new();
    let mut names = BTreeMap::new();
    for node in list(reader, item, "ports", MAX_PORTS) {
        let what = "a port of a workload";
        let Some(item) = reader.mapping(node, what, &["name", "protocol", "port"]) else { continue };
        let place = reader.required(&item, what, "name", Some("a port without a name needs no mention"));
        let name = place.and_then(|node| Name::Port.read(reader, node, "the name of a port"));
        let protocol = item.get("protocol").map_or(Some(TCP), |node| protocol(reader, node));
        let port = reader.required(&item, what, "port", None);
        let port = port.and_then(|node| port_number(reader, node, "`port`"));
        let (Some(name), Some(place), Some(protocol), Some(port)) = (name, place, protocol, port) else {
            continue;
        };
        let name = name.to_owned();
        claim(reader, &mut names, &name, place, format!("two ports of a workload are named `{name}`"));
        ports.insert(name, NamedPort { protocol, port });
    }
    ports
}

/// The `serviceAccount` of a workload.
#[expect(clippy::option_option, reason = "no account, and one that could not be read")]
pub fn account(reader: &mut Reader<'_>, item: &Mapping<'_>) -> Option<Option<String>> {
    let Some(node) = item.get("serviceAccount") else { return Some(None) };
    Name::Subdomain.read(reader, node, "a service account").map(|name| Some(name.to_owned()))
}

/// The `name` and `namespace` of a workload.
pub fn name(reader: &mut Reader<'_>, item: &Mapping<'_>) -> Option<WorkloadKey> {
    key(reader, item, "a workload")
}

fn key(reader: &mut Reader<'_>, item: &Mapping<'_>, what: &str) -> Option<WorkloadKey> {
    let name = reader.required(item, what, "name", None);
    let name = name.and_then(|node| Name::Subdomain.read(reader, node, &format!("the name of {what}")));
    let namespace = match item.get("namespace") {
        Some(node) => Name::Label.read(reader, node, "a namespace"),
        None => Some(DEFAULT_NAMESPACE),
    };
    name.zip(namespace)
        .map(|(name, namespace)| WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// The `labels` of a workload; none if missing.
pub fn labels(reader: &mut Reader<'_>, item: &Mapping<'_>) -> Option<LabelSet> {
    let Some(node) = item.get("labels") else { return Some(LabelSet::default()) };
    let errors = reader.errors();
    let mut labels = LabelSet::default();
    for entry in reader.any_mapping(node, "`labels`")?.entries() {
        check_label_key(reader, &entry.key, &entry.span);
        let what = format!("the label {}", quote(&entry.key));
        if let Some(value) = label_value(reader, &entry.value, &what) {
            labels.0.insert(entry.key.clone(), value.to_owned());
        }
    }
    (reader.errors() == errors).then_some(labels)
}

fn cgroup(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    const LONGEST: usize = 4_000;
    const MOUNT: &str = "/sys/fs/cgroup";
    let text = reader.text(node, "`cgroup`")?;
    let is_plain =
        |part: &str| !part.is_empty() && !matches!(part, "." | "..") && !part.contains(char::is_control);
    let help = match text {
        _ if text.starts_with(MOUNT) => "leave the mount point out: the path starts at the cgroup v2 root",
        _ if !text.starts_with('/') => "start it with `/`: the path is relative to the cgroup v2 root",
        _ if text == "/" => "the root holds every process; name a directory below it",
        _ if text.len() > LONGEST => "it is longer than any path",
        _ if !text.split('/').skip(1).all(is_plain) => {
            "write it without `.`, `..`, double or trailing slashes, and control characters"
        }
        _ if text.split('/').skip(1).count() > CGROUP_DEPTH => {
            const { assert!(CGROUP_DEPTH == 12) };
            "it is more than 12 levels deep, where the kernel programs do not look: bind a directory further out"
        }
        _ => return Some(text.to_owned()),
    };
    let message = format!("{} can't be a workload's cgroup", quote(text));
    reader.error(&node.span, Code::BadPath, message).label("not such a path").help(help);
    None
}

/// Takes a name, directory or address, or reports who has it.
fn claim<K: Ord + Clone>(
    reader: &mut Reader<'_>,
    taken: &mut BTreeMap<K, Location>,
    key: &K,
    node: &Node,
    message: String,
) {
    if let Some(first) = taken.get(key) {
        reader.error(&node.span, Code::Duplicate, message).label("second").related(first.clone(), "first");
    } else {
        taken.insert(key.clone(), reader.location(&node.span));
    }
}
