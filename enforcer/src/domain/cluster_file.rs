//! Cluster files: what `kubectl get namespaces,pods,services,endpointslices,nodes -A -o yaml` prints, or the same
//! written by hand. Of these objects only what decides who may talk with whom is read; everything else in them is
//! left alone, because they are not ours.

mod objects;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::cluster::{Namespace, Service};
use super::command::PolicyFile;
use super::policy::diagnostic::{Code, Diagnostic, Location, Source, quote};
use super::workload::{Workload, WorkloadKey};
use super::yaml::{self, Node, Reader, Value};

/// Longest cluster file, in bytes. A pod with everything that an API server says of it has some 10 KB.
pub const MAX_BYTES: usize = 64 << 20;
/// Most objects of all cluster files.
pub const MAX_OBJECTS: usize = 200_000;
/// The kinds that are read.
pub const KINDS: [&str; 6] = ["Namespace", "Pod", "Service", "Endpoints", "EndpointSlice", "Node"];

/// What is in a cluster, as far as policies can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Its namespaces.
    pub namespaces: Vec<Namespace>,
    /// Its pods that are not finished.
    pub pods: Vec<Pod>,
    /// Its services that have an address of their own.
    pub services: Vec<Service>,
    /// Its nodes.
    pub nodes: Vec<ClusterNode>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// What the agent would know of it.
    pub workload: Workload,
    /// The ports that its containers declare, with a name or without: protocol number and port.
    pub ports: BTreeSet<(u8, u16)>,
    /// Names of its containers, without those that are over before it starts.
    pub containers: BTreeSet<String>,
}

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: super::labels::LabelSet,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What cluster files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The cluster; empty if anything is wrong.
    pub cluster: Cluster,
    /// Errors and warnings in the order of the files and their text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Outcome {
    /// Whether nothing is wrong; there may be warnings.
    pub fn is_ok(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads cluster files as one cluster: all problems, never just the first.
pub fn parse_cluster(files: &[PolicyFile]) -> Outcome {
    let mut found = Found::default();
    let mut diagnostics = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let source = Source::new(index, file);
        let mut reader = Reader::new(&source);
        let documents = yaml::parse_up_to(&mut reader, MAX_BYTES);
        if documents.is_empty() && reader.errors() == 0 {
            reader.warning(&(0..0), Code::EmptyFile, "the file has no object").label("nothing here");
        }
        found.left_out.clear();
        for document in documents {
            found.document(&mut reader, document.root);
        }
        found.tell_left_out(&mut reader);
        diagnostics.extend(reader.finish());
    }
    let is_ok = !diagnostics.iter().any(Diagnostic::is_error);
    let cluster = if is_ok { found.into_cluster() } else { Cluster::default() };
    Outcome { cluster, diagnostics }
}

/// What has been read so far.
#[derive(Default)]
struct Found {
    cluster: Cluster,
    services: Vec<services::Written>,
    endpoints: services::Endpoints,
    /// Where names and addresses were first seen: (kind, name) and (`address`, text).
    taken: BTreeMap<(&'static str, String), Location>,
    /// Kinds that nothing is done with, and how many of each there are in this file.
    left_out: BTreeMap<String, usize>,
    objects: usize,
}

impl Found {
    /// One document: an object, or a list of them.
    fn document(&mut self, reader: &mut Reader<'_>, mut root: Node) {
        root.drop_nulls();
        let is_list = root.field("kind").and_then(Node::as_text).is_some_and(|kind| kind.ends_with("List"));
        if !is_list {
            return self.object(reader, &root, None);
        }
        let kind = root.field("kind").and_then(Node::as_text).unwrap_or_default().to_owned();
        let Some(items) = root.field("items") else { return };
        let element = kind.strip_suffix("List").filter(|element| !element.is_empty());
        for item in reader.list(items, "`items`", MAX_OBJECTS).unwrap_or_default() {
            self.object(reader, item, element);
        }
    }

    /// `element`: its kind, if it says none itself.
    fn object(&mut self, reader: &mut Reader<'_>, root: &Node, element: Option<&str>) {
        self.objects += 1;
        if self.objects > MAX_OBJECTS {
            if self.objects == MAX_OBJECTS + 1 {
                let message = format!("the cluster has more than {MAX_OBJECTS} objects");
                reader.error(&(root.span.start..root.span.start), Code::TooLarge, message);
            }
            return;
        }
        let Some(object) = reader.any_mapping(root, "an object") else { return };
        let kind = if let (None, Some(element)) = (object.get("kind"), element) {
            element
        } else {
            let Some(kind) = reader.required(&object, "an object", "kind", None) else { return };
            let Some(kind) = reader.text(kind, "`kind`") else { return };
            kind
        };
        let version = object.get("apiVersion").and_then(Node::as_text);
        match (kind, version) {
            ("Namespace", Some("v1") | None) => self.namespace(reader, root),
            ("Pod", Some("v1") | None) => self.pod(reader, root),
            ("Node", Some("v1") | None) => self.node(reader, root),
            ("Service", Some("v1") | None) => self.services.extend(services::service(reader, root)),
            ("Endpoints", Some("v1") | None) => self.endpoints.read_endpoints(reader, root),
            ("EndpointSlice", Some("discovery.k8s.io/v1") | None) => self.endpoints.read_slice(reader, root),
            (kind, _) => *self.left_out.entry(kind.to_owned()).or_default() += 1,
        }
    }

    fn namespace(&mut self, reader: &mut Reader<'_>, root: &Node) {
        let Some(namespace) = objects::namespace(reader, root) else { return };
        if self.claim(reader, root, "namespace", namespace.name.clone()) {
            self.cluster.namespaces.push(namespace);
        }
    }

    fn pod(&mut self, reader: &mut Reader<'_>, root: &Node) {
        let Some(pod) = objects::pod(reader, root) else { return };
        let mut is_new = self.claim(reader, root, "pod", pod.workload.key.to_string());
        for address in &pod.workload.addresses {
            is_new &= self.claim(reader, root, "address", address.addr().to_string());
        }
        if is_new {
            self.cluster.pods.push(pod);
        }
    }

    fn node(&mut self, reader: &mut Reader<'_>, root: &Node) {
        let Some(node) = objects::node(reader, root) else { return };
        if self.claim(reader, root, "node", node.name.clone()) {
            self.cluster.nodes.push(node);
        }
    }

    /// Takes a name or address, or reports who has it.
    fn claim(&mut self, reader: &mut Reader<'_>, root: &Node, what: &'static str, name: String) -> bool {
        let place = objects::place(root);
        let message = match what {
            "address" => format!("the address `{name}` belongs to two pods"),
            what => format!("the {what} {} is defined twice", quote(&name)),
        };
        let key = (what, name);
        if let Some(first) = self.taken.get(&key) {
            let first = first.clone();
            reader.error(&place, Code::Duplicate, message).label("second").related(first, "first");
            return false;
        }
        self.taken.insert(key, reader.location(&place));
        true
    }

    /// Says which objects nothing is done with: once for a file, because most files have many.
    fn tell_left_out(&self, reader: &mut Reader<'_>) {
        const SHOWN: usize = 12;
        if self.left_out.is_empty() {
            return;
        }
        let mut kinds: Vec<_> = self
            .left_out
            .iter()
            .take(SHOWN)
            .map(|(kind, count)| format!("{count} {}", quote(kind)))
            .collect();
        if self.left_out.len() > SHOWN {
            kinds.push(format!("{} other kinds", self.left_out.len() - SHOWN));
        }
        let message = format!("objects that say nothing of pods and their addresses: {}", kinds.join(", "));
        reader
            .warning(&(0..0), Code::NoEffect, message)
            .label("left out")
            .help(format!("a cluster is made of {}; policies are given by `-f`", KINDS.join(", ")));
    }

    fn into_cluster(self) -> Cluster {
        let Self { mut cluster, services, endpoints, .. } = self;
        cluster.namespaces.sort();
        cluster.pods.sort_by(|a, b| a.workload.key.cmp(&b.workload.key));
        cluster.services =
            services.into_iter().map(|service| service.with_backends(&endpoints, &cluster.pods)).collect();
        cluster.services.sort();
        cluster
    }
}

impl Cluster {
    /// The pod of this name.
    pub fn pod(&self, key: &WorkloadKey) -> Option<&Pod> {
        let index = self.pods.binary_search_by(|pod| pod.workload.key.cmp(key)).ok()?;
        self.pods.get(index)
    }

    /// The service of this name.
    pub fn service(&self, key: &WorkloadKey) -> Option<&Service> {
        self.services
            .iter()
            .find(|service| (&service.namespace, &service.name) == (&key.namespace, &key.name))
    }

    /// The ports that its pods declare.
    pub fn ports(&self) -> BTreeSet<(u8, u16)> {
        self.pods.iter().flat_map(|pod| pod.ports.iter().copied()).collect()
    }
}

/// An address.
fn address(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<IpAddr> {
    let text = reader.text(node, what)?;
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!("{} is not an IP address", quote(text));
        reader.error(&node.span, Code::BadAddress, message).label("not an address");
    }
    address
}

/// The items of a list; none if it is missing.
fn items<'n>(reader: &mut Reader<'_>, node: Option<&'n Node>, what: &str) -> &'n [Node] {
    node.and_then(|node| reader.list(node, what, MAX_OBJECTS)).unwrap_or_default()
}

/// A protocol; TCP if it is missing. Others than those that are judged are left out.
fn protocol(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<u8> {
    let Some(node) = node else { return Some(6) };
    match reader.text(node, "`protocol`")? {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// A port number.
fn port(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<u16> {
    let number = reader.integer(node, what)?;
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        let message = format!("{what} can't be {number}");
        reader.error(&node.span, Code::BadPort, message).label("not a port").help("ports are 1-65535");
    }
    port
}

/// A field of a field.
fn at<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    path.iter().try_fold(node, |node, field| node.field(field))
}

/// Whether it is `true`.
fn is_true(node: Option<&Node>) -> bool {
    node.is_some_and(|node| node.value == Value::Bool(true))
}
