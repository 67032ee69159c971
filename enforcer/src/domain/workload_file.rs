//! The file of the static source: workloads by name, with their labels and their place; namespaces and services.

pub(super) mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use enforcer_common::limits::CGROUP_DEPTH;
use ipnet::IpNet;

use super::cluster::{Namespace, Service};
use super::command::PolicyFile;
use super::container::{Containers, MAX_CONTAINERS, with_containers};
use super::labels::LabelSet;
use super::policy::diagnostic::{Code, Diagnostic, Location, Source, quote};
use super::syntax::{Name, check_label_key, cidr, label_value};
use super::workload::{DEFAULT_NAMESPACE, Workload, WorkloadKey};
use super::yaml::{self, Mapping, Node, Reader};

/// Most workloads of one file.
pub const MAX_WORKLOADS: usize = 20_000;
/// Most addresses of one workload.
pub const MAX_ADDRESSES: usize = 1_000;

/// What a workload file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The workloads in the order of the file; empty if anything is wrong, because a file is taken as a whole.
    pub workloads: Vec<Workload>,
    /// The namespaces that it describes.
    pub namespaces: Vec<Namespace>,
    /// The services that it describes.
    pub services: Vec<Service>,
    /// Errors and warnings in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Outcome {
    /// Whether nothing is wrong; there may be warnings.
    pub fn is_ok(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The same without warnings, or everything that is wrong.
    pub fn into_result(self) -> Result<Self, Vec<Diagnostic>> {
        if self.is_ok() { Ok(Self { diagnostics: Vec::new(), ..self }) } else { Err(self.diagnostics) }
    }
}

/// Reads a workload file: all problems, never just the first.
pub fn parse_workloads(file: &PolicyFile) -> Outcome {
    let source = Source::new(0, file);
    let mut reader = Reader::new(&source).with_hints(HINTS);
    let documents = yaml::parse(&mut reader);
    if documents.is_empty() && reader.errors() == 0 {
        let help = "write `workloads: []` if that is meant";
        reader
            .warning(&(0..0), Code::EmptyFile, "the file has no workloads")
            .label("nothing here")
            .help(help);
    }
    let mut outcome = Outcome::default();
    let mut seen = Seen::default();
    for document in &documents {
        let what = "the document";
        let Some(root) = reader.mapping(&document.root, what, &["workloads", "namespaces", "services"])
        else {
            continue;
        };
        let Some(list) = reader.required(&root, what, "workloads", None) else { continue };
        let Some(items) = reader.list(list, "`workloads`", MAX_WORKLOADS) else { continue };
        outcome.workloads.extend(items.iter().flat_map(|item| workload(&mut reader, item, &mut seen)));
        outcome.namespaces.extend(cluster::namespaces(&mut reader, &root, &mut seen.cluster));
        outcome.services.extend(cluster::services(&mut reader, &root, &mut seen.cluster));
    }
    outcome.diagnostics = reader.finish();
    if outcome.is_ok() { outcome } else { Outcome { diagnostics: outcome.diagnostics, ..Outcome::default() } }
}

/// What is taken already, and where.
#[derive(Default)]
struct Seen {
    names: BTreeMap<WorkloadKey, Location>,
    cgroups: BTreeMap<String, Location>,
    addresses: BTreeMap<IpNet, Location>,
    cluster: cluster::Seen,
    labels: BTreeSet<Arc<LabelSet>>,
}

impl Seen {
    /// These labels, which are there once for all who have the same: a set takes half a kilobyte.
    fn shared(&mut self, labels: LabelSet) -> Arc<LabelSet> {
        if let Some(known) = self.labels.get(&labels) {
            return Arc::clone(known);
        }
        let labels = Arc::new(labels);
        self.labels.insert(Arc::clone(&labels));
        labels
    }
}

/// A workload, with its containers behind it.
fn workload(reader: &mut Reader<'_>, node: &Node, seen: &mut Seen) -> Vec<Workload> {
    let fields =
        ["name", "namespace", "labels", "cgroup", "containers", "addresses", "ports", "serviceAccount"];
    let errors = reader.errors();
    let Some(item) = reader.mapping(node, "a workload", &fields) else { return Vec::new() };
    let Some(workload) = whole(reader, &item, seen) else { return Vec::new() };
    let containers = containers(reader, &item, workload.cgroup.as_deref(), seen);
    if reader.errors() == errors { with_containers(workload, containers) } else { Vec::new() }
}

/// The `containers` of a workload: names, and directories below its own.
fn containers(
    reader: &mut Reader<'_>,
    item: &Mapping<'_>,
    above: Option<&str>,
    seen: &mut Seen,
) -> Vec<(String, String)> {
    let Some(node) = item.get("containers") else { return Vec::new() };
    let Some(mapping) = reader.any_mapping(node, "`containers`") else { return Vec::new() };
    let Some(above) = above else {
        reader
            .error(&node.span, Code::ConflictingFields, "a workload has `containers` without `cgroup`")
            .label("below which directory?")
            .help("containers are directories below the one of their workload: add `cgroup`");
        return Vec::new();
    };
    if mapping.entries().len() > MAX_CONTAINERS {
        let message = format!("a workload has more than {MAX_CONTAINERS} containers");
        reader.error(&node.span, Code::TooLarge, message).label("too many");
        return Vec::new();
    }
    let mut found = Vec::new();
    for entry in mapping.entries() {
        if !Name::Label.accepts(&entry.key) {
            let message = format!("a container can't be called {}", quote(&entry.key));
            reader.error(&entry.span, Code::BadName, message).label("not a valid name");
            continue;
        }
        let Some(text) = reader.text(&entry.value, "the directory of a container") else { continue };
        let path = format!("{above}/{text}");
        let Some(path) = plain_path(reader, &entry.value, (text, &path), true) else { continue };
        let message = format!("the cgroup {} belongs to two workloads", quote(&path));
        claim(reader, &mut seen.cgroups, &path, &entry.value, message);
        found.push((entry.key.clone(), path));
    }
    found
}

/// A workload without its containers.
fn whole(reader: &mut Reader<'_>, item: &Mapping<'_>, seen: &mut Seen) -> Option<Workload> {
    let errors = reader.errors();
    let key = name(reader, item);
    let labels = labels(reader, item);
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
    let ports = cluster::named_ports(reader, item);
    let account = account(reader, item);
    let (key, labels) = key.zip(labels)?;
    let labels = seen.shared(labels);
    let cgroup = cgroup.map(|(path, _)| path);
    let containers = Containers::Unknown;
    (reader.errors() == errors).then_some(Workload {
        key,
        labels,
        cgroup,
        addresses,
        ports,
        account,
        containers,
    })
}

/// What a field was called before.
pub const HINTS: &[(&str, &str)] = &[("account", "it is called `serviceAccount`, as in policies")];

/// The `serviceAccount` of a workload.
pub fn account(reader: &mut Reader<'_>, item: &Mapping<'_>) -> Option<String> {
    let account = item.get("serviceAccount")?;
    Name::Subdomain.read(reader, account, "the name of a service account").map(str::to_owned)
}

/// The `name` and `namespace` of a workload.
pub fn name(reader: &mut Reader<'_>, item: &Mapping<'_>) -> Option<WorkloadKey> {
    let name = reader.required(item, "a workload", "name", None);
    let name = name.and_then(|node| Name::Subdomain.read(reader, node, "the name of a workload"));
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
    let text = reader.text(node, "`cgroup`")?;
    plain_path(reader, node, (text, text), false)
}

/// A directory of the tree as it is written and as a whole, which is the same where it is not `below` another one.
fn plain_path(
    reader: &mut Reader<'_>,
    node: &Node,
    (written, text): (&str, &str),
    below: bool,
) -> Option<String> {
    const LONGEST: usize = 4_000;
    const MOUNT: &str = "/sys/fs/cgroup";
    let is_plain =
        |part: &str| !part.is_empty() && !matches!(part, "." | "..") && !part.contains(char::is_control);
    let help = match text {
        _ if below && (written.starts_with('/') || written.is_empty()) => {
            "write it without the directory of its workload, like `app`: it lies below that"
        }
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
    let whose = if below { "container" } else { "workload" };
    let message = format!("{} can't be a {whose}'s cgroup", quote(written));
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
