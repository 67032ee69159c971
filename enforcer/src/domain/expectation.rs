//! Expectation files: what becomes of which flow under the policies beside them. `policies/README.md` has the format.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use enforcer_common::reason::{Errno, Reason};
use ipnet::IpNet;

use super::cluster::Namespace;
use super::cluster_file::{Cluster, Pod};
use super::command::PolicyFile;
use super::container::Containers;
use super::labels::LabelSet;
use super::offline::{End, Flow, Judged};
use super::policy::diagnostic::{Code, Diagnostic, Location, Source, quote};
use super::policy::model::RuleKey;
use super::policy::ports::{OWN_PROTOCOLS, port_number};
use super::syntax::{ERRNOS, Name, cidr};
use super::workload::{DEFAULT_NAMESPACE, NamedPorts, Workload, WorkloadKey};
use super::workload_file;
use super::yaml::{self, Mapping, Node, Reader, Value};

/// What the end that is no workload is called.
const HOST: &str = "host";
/// Most workloads or flows of one file.
const MAX_ITEMS: usize = 1_000;

/// One expectation file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The namespaces that have labels.
    pub namespaces: Vec<Namespace>,
    /// The workloads that exist.
    pub workloads: Vec<ExpectedWorkload>,
    /// The flows to judge.
    pub flows: Vec<ExpectedFlow>,
}

/// A workload that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedWorkload {
    /// Its name.
    pub key: WorkloadKey,
    /// Its labels.
    pub labels: LabelSet,
    /// Its ports that have names.
    pub ports: NamedPorts,
    /// The name of its service account.
    pub account: Option<String>,
    /// Names of its containers.
    pub containers: BTreeSet<String>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// A flow and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedFlow {
    /// Who opens it.
    pub from: End,
    /// The server.
    pub to: End,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the server.
    pub port: u16,
    /// What becomes of it.
    pub verdict: ExpectedVerdict,
    /// Why, if that is compared.
    pub reason: Option<Reason>,
    /// The rule that decides, as `RuleKey` prints it, if that is compared.
    pub rule: Option<String>,
    /// What the application gets, or would get for [`ExpectedVerdict::Audit`].
    pub errno: Option<Errno>,
    /// Whether real sockets judge it too.
    pub live: bool,
    /// Line of the file, for messages.
    pub line: usize,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVerdict {
    /// Both ends allow it.
    Forwarded,
    /// One of the ends denies it.
    Dropped,
    /// It passes, and a policy in audit mode would deny it.
    Audit,
}

impl ExpectedVerdict {
    /// The word of flow records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Forwarded => "FORWARDED",
            Self::Dropped => "DROPPED",
            Self::Audit => "AUDIT",
        }
    }
}

/// Reads an expectation file, or everything that is wrong with it. Ends of flows are workloads of the file, or of a
/// cluster that is known besides.
///
/// # Errors
/// If anything is wrong.
pub fn parse(file: &PolicyFile, cluster: &Cluster) -> Result<Expectation, Vec<Diagnostic>> {
    let source = Source::new(0, file);
    let mut reader = Reader::new(&source).with_hints(workload_file::HINTS);
    let documents = yaml::parse(&mut reader);
    if documents.len() != 1 && reader.errors() == 0 {
        reader.error(&(0..0), Code::BadExpectation, "an expectation file has exactly one document");
    }
    let expectation =
        documents.first().and_then(|document| expectation(&mut reader, &document.root, cluster));
    let diagnostics = reader.finish();
    match expectation {
        Some(expectation) if !diagnostics.iter().any(Diagnostic::is_error) => Ok(expectation),
        _ => Err(diagnostics),
    }
}

fn expectation(reader: &mut Reader<'_>, root: &Node, cluster: &Cluster) -> Option<Expectation> {
    let what = "the document";
    let root = reader.mapping(root, what, &["namespaces", "workloads", "flows"])?;
    let namespaces =
        workload_file::cluster::namespaces(reader, &root, &mut workload_file::cluster::Seen::default());
    let services = cluster
        .services
        .iter()
        .map(|service| WorkloadKey { namespace: service.namespace.clone(), name: service.name.clone() })
        .collect();
    let names = cluster.pods.iter().flat_map(|pod| {
        let key = &pod.workload.key;
        let containers = pod.containers.iter().map(|name| key.container(name));
        containers.chain([key.clone()]).collect::<Vec<_>>()
    });
    let pods = names.collect();
    let mut keys = Keys { pods, services, ..Keys::default() };
    let mut workloads = Vec::new();
    let list = if cluster.pods.is_empty() {
        reader.required(&root, what, "workloads", Some("list them here, or give the cluster as a file"))
    } else {
        root.get("workloads")
    };
    for node in list.and_then(|list| reader.list(list, "`workloads`", MAX_ITEMS)).unwrap_or_default() {
        workloads.extend(workload(reader, node, &mut keys));
    }
    let mut flows = Vec::new();
    let list = reader.required(&root, what, "flows", None);
    for node in list.and_then(|list| reader.list(list, "`flows`", MAX_ITEMS)).unwrap_or_default() {
        flows.extend(flow(reader, node, &keys));
    }
    Some(Expectation { namespaces, workloads, flows })
}

/// Names that an end can have.
#[derive(Default)]
struct Keys {
    written: BTreeMap<WorkloadKey, Location>,
    pods: BTreeSet<WorkloadKey>,
    services: BTreeSet<WorkloadKey>,
}

fn workload(reader: &mut Reader<'_>, node: &Node, keys: &mut Keys) -> Option<ExpectedWorkload> {
    let fields = ["name", "namespace", "labels", "ports", "serviceAccount", "containers", "addresses"];
    let item = reader.mapping(node, "a workload", &fields)?;
    let key = workload_file::name(reader, &item);
    let labels = workload_file::labels(reader, &item);
    let ports = workload_file::cluster::named_ports(reader, &item);
    let account = workload_file::account(reader, &item);
    let list = item.get("containers").and_then(|node| reader.list(node, "`containers`", MAX_ITEMS));
    let names = list.unwrap_or_default().iter();
    let containers: BTreeSet<String> = names
        .filter_map(|node| Name::Label.read(reader, node, "the name of a container").map(str::to_owned))
        .collect();
    let list = item.get("addresses").and_then(|node| reader.list(node, "`addresses`", MAX_ITEMS));
    let nets = list.unwrap_or_default().iter().filter_map(|node| cidr(reader, node, "an address", true));
    let addresses = nets.collect();
    let (key, labels) = key.zip(labels)?;
    let place = item.get("name").map_or_else(|| item.place(), |name| name.span.clone());
    if key.name == HOST || key.name.parse::<IpAddr>().is_ok() {
        let message = format!("a workload can't be called {} here", quote(&key.name));
        reader.error(&place, Code::BadExpectation, message).label("means something else in a flow");
    }
    if let Some(first) = keys.written.get(&key) {
        let message = format!("the workload `{key}` is defined twice");
        reader.error(&place, Code::Duplicate, message).label("second").related(first.clone(), "first");
    }
    keys.written.insert(key.clone(), reader.location(&place));
    for name in &containers {
        keys.pods.insert(key.container(name));
    }
    Some(ExpectedWorkload { key, labels, ports, account, containers, addresses })
}

fn flow(reader: &mut Reader<'_>, node: &Node, keys: &Keys) -> Option<ExpectedFlow> {
    let verdicts = [ExpectedVerdict::Forwarded, ExpectedVerdict::Dropped, ExpectedVerdict::Audit]
        .map(|verdict| (verdict.label(), verdict));
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| (reason.label(), *reason)).collect();
    let fields = ["from", "to", "protocol", "port", "verdict", "reason", "rule", "errno", "live"];
    let what = "a flow";
    let errors = reader.errors();
    let item = reader.mapping(node, what, &fields)?;
    let from = reader.required(&item, what, "from", None).and_then(|node| end(reader, node, keys));
    let to = reader.required(&item, what, "to", None).and_then(|node| end(reader, node, keys));
    let protocol = match item.get("protocol") {
        Some(node) => reader.choice(node, "`protocol`", &OWN_PROTOCOLS),
        None => Some(OWN_PROTOCOLS[0].1),
    };
    let port =
        reader.required(&item, what, "port", None).and_then(|node| port_number(reader, node, "`port`"));
    let verdict = reader.required(&item, what, "verdict", None);
    let verdict = verdict.and_then(|node| reader.choice(node, "`verdict`", &verdicts));
    let reason = item.get("reason").and_then(|node| reader.choice(node, "`reason`", &reasons));
    let rule = item.get("rule").and_then(|node| rule(reader, node));
    let errno = item.get("errno").and_then(|node| reader.choice(node, "`errno`", &ERRNOS));
    let asked = item.get("live").map(|node| reader.boolean(node, "`live`"));
    let (from, to, protocol, port, verdict) = (from?, to?, protocol?, port?, verdict?);
    agree(reader, &item, verdict);
    if matches!((&from, &to), (End::Address(_), End::Address(_))) {
        reader.error(&item.place(), Code::BadExpectation, "nobody here judges a flow between two addresses");
    }
    let is_local = |end: &End| matches!(end, End::Workload(_) | End::Host);
    let can_live = is_local(&from) && is_local(&to) && matches!(protocol, 6 | 17);
    if let (Some(Some(true)), Some(entry), false) = (asked, item.entry("live"), can_live) {
        reader
            .error(&entry.span, Code::BadExpectation, "this flow can't be judged live")
            .label("needs two local ends, and TCP or UDP");
    }
    let live = asked.flatten().unwrap_or(can_live);
    let line = reader.location(&node.span).line;
    (reader.errors() == errors).then_some(ExpectedFlow {
        from,
        to,
        protocol,
        port,
        verdict,
        reason,
        rule,
        errno,
        live,
        line,
    })
}

/// Reports what a verdict needs and lacks, or has and can't have.
fn agree(reader: &mut Reader<'_>, item: &Mapping<'_>, verdict: ExpectedVerdict) {
    let (needed, refused): (&[&str], &[&str]) = match verdict {
        ExpectedVerdict::Forwarded => (&[], &["errno"]),
        ExpectedVerdict::Dropped => (&["reason", "errno"], &[]),
        ExpectedVerdict::Audit => (&["reason"], &[]),
    };
    for field in needed {
        reader.required(item, &format!("a flow with verdict {}", verdict.label()), field, None);
    }
    for entry in refused.iter().filter_map(|field| item.entry(field)) {
        let message = format!("a flow with verdict {} has no `{}`", verdict.label(), entry.key);
        reader.error(&entry.span, Code::BadExpectation, message).label("remove it");
    }
}

fn end(reader: &mut Reader<'_>, node: &Node, keys: &Keys) -> Option<End> {
    let text = reader.text(node, "an end of a flow")?;
    if text == HOST {
        return Some(End::Host);
    }
    if let Ok(address) = text.parse() {
        return Some(End::Address(address));
    }
    let (is_service, name) = text.strip_prefix("service/").map_or((false, text), |name| (true, name));
    let (namespace, name) = name.split_once('/').unwrap_or((DEFAULT_NAMESPACE, name));
    let key = WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() };
    if is_service && keys.services.contains(&key) {
        return Some(End::Service(key));
    }
    if !is_service && (keys.written.contains_key(&key) || keys.pods.contains(&key)) {
        return Some(End::Workload(key));
    }
    let known: BTreeSet<_> = keys.written.keys().map(ToString::to_string).collect();
    let known: Vec<_> = known.into_iter().collect();
    let message = format!("no workload is called {}", quote(&key.to_string()));
    let help = format!("workloads of this file: {}; beside them `{HOST}` or an IP address", known.join(", "));
    reader.error(&node.span, Code::BadExpectation, message).label("unknown workload").help(help);
    None
}

/// A rule as `RuleKey` prints it: `NAMESPACE/POLICY DIRECTION[INDEX]` or `NAMESPACE/POLICY DIRECTION (isolated)`.
fn rule(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let Value::Text(text) = &node.value else {
        reader.text(node, "`rule`");
        return None;
    };
    let is_rule = is_rule(text);
    if !is_rule {
        let message = format!("{} is not the name of a rule", quote(text));
        reader
            .error(&node.span, Code::BadExpectation, message)
            .label("not a rule")
            .help("write it like \"default/db ingress[0]\" or \"default/db ingress (isolated)\"");
        return None;
    }
    Some(text.clone())
}

/// Whether `RuleKey` would print it.
fn is_rule(text: &str) -> bool {
    let Some((policy, rest)) = text.split_once(' ') else { return false };
    let place = rest.strip_prefix("ingress").or_else(|| rest.strip_prefix("egress"));
    let index = place.and_then(|place| place.strip_prefix('[')?.strip_suffix(']'));
    let parts = policy.split('/').filter(|part| !part.is_empty()).count();
    (2..=3).contains(&parts)
        && (place == Some(" (isolated)") || index.is_some_and(|index| index.parse::<u32>().is_ok()))
}

impl Expectation {
    /// Whether labels are all that tells its workloads apart.
    pub fn is_plain(&self) -> bool {
        let is_plain = |one: &ExpectedWorkload| {
            one.ports.is_empty()
                && one.account.is_none()
                && one.containers.is_empty()
                && one.addresses.is_empty()
        };
        self.namespaces.is_empty() && self.workloads.iter().all(is_plain)
    }

    /// A cluster together with what the file says is there.
    pub fn cluster(&self, besides: &Cluster) -> Cluster {
        let mut cluster = besides.clone();
        cluster.namespaces.retain(|known| !self.namespaces.iter().any(|found| found.name == known.name));
        cluster.namespaces.extend(self.namespaces.iter().cloned());
        cluster.pods.retain(|known| !self.workloads.iter().any(|found| found.key == known.workload.key));
        cluster.pods.extend(self.workloads.iter().map(|expected| Pod {
            ports: expected.ports.values().map(|port| (port.protocol, port.port)).collect(),
            containers: expected.containers.clone(),
            workload: Workload {
                key: expected.key.clone(),
                labels: expected.labels.clone().into(),
                cgroup: None,
                addresses: expected.addresses.clone(),
                ports: expected.ports.clone(),
                account: expected.account.clone(),
                containers: Containers::Unknown,
            },
        }));
        cluster.pods.sort_by(|a, b| a.workload.key.cmp(&b.workload.key));
        cluster
    }
}

impl ExpectedFlow {
    /// The flow itself.
    pub fn flow(&self) -> Flow {
        Flow { from: self.from.clone(), to: self.to.clone(), protocol: self.protocol, port: self.port }
    }

    /// What came out otherwise than expected; `rule` tells the name of a number.
    pub fn difference(
        &self,
        judged: &Judged,
        rule: impl Fn(enforcer_common::id::RuleId) -> Option<RuleKey>,
    ) -> Option<String> {
        let found = if !judged.is_allowed() {
            ExpectedVerdict::Dropped
        } else if judged.all().any(|one| one.verdict.is_audited()) {
            ExpectedVerdict::Audit
        } else {
            ExpectedVerdict::Forwarded
        };
        let word = judged.decisive()?.verdict.reported();
        let reason = Reason::from_code(word.reason_code()).map_or("-", Reason::label);
        let name = rule(word.rule()).map_or_else(|| "-".to_owned(), |key| key.to_string());
        let errno = if word.is_deny() { word.errno().name() } else { "-" };
        let is_other = found != self.verdict
            || self.reason.is_some_and(|wanted| wanted.label() != reason)
            || self.rule.as_ref().is_some_and(|wanted| *wanted != name)
            || self.errno.is_some_and(|wanted| wanted.name() != errno);
        is_other.then(|| format!("{} {reason} {name} {errno}", found.label()))
    }
}
