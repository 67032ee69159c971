//! Expectation files: what becomes of which flow under the policies beside them. `policies/README.md` has the format.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use enforcer::domain::command::PolicyFile;
use enforcer::domain::labels::LabelSet;
use enforcer::domain::policy::diagnostic::{Code, Diagnostic, Source, quote};
use enforcer::domain::syntax::ERRNOS;
use enforcer::domain::workload::{DEFAULT_NAMESPACE, WorkloadKey};
use enforcer::domain::workload_file;
use enforcer::domain::yaml::{self, Mapping, Node, Reader, Value};
use enforcer_common::reason::{Errno, Reason};

/// What the end that is no workload is called.
const HOST: &str = "host";
/// Most workloads or flows of one file.
const MAX_ITEMS: usize = 1_000;

/// One expectation file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
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

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// One of the file's workloads.
    Workload(WorkloadKey),
    /// A process outside all workloads.
    Host,
    /// An address that belongs to no workload.
    Address(IpAddr),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(key) => key.fmt(f),
            Self::Host => f.write_str(HOST),
            Self::Address(address) => address.fmt(f),
        }
    }
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

/// Reads an expectation file; the error lists everything that is wrong with it.
pub fn load(path: &Path) -> anyhow::Result<Expectation> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&PolicyFile { name: path.display().to_string(), text })
}

/// Reads the text of an expectation file.
pub fn parse(file: &PolicyFile) -> anyhow::Result<Expectation> {
    let source = Source::new(0, file);
    let mut reader = Reader::new(&source);
    let documents = yaml::parse(&mut reader);
    if documents.len() != 1 && reader.errors() == 0 {
        reader.error(&(0..0), Code::BadExpectation, "an expectation file has exactly one document");
    }
    let expectation = documents.first().and_then(|document| expectation(&mut reader, &document.root));
    let diagnostics = reader.finish();
    match expectation {
        Some(expectation) if !diagnostics.iter().any(Diagnostic::is_error) => Ok(expectation),
        _ => {
            let lines: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
            bail!("{}", lines.join("\n"))
        }
    }
}

fn expectation(reader: &mut Reader<'_>, root: &Node) -> Option<Expectation> {
    let what = "the document";
    let root = reader.mapping(root, what, &["workloads", "flows"])?;
    let mut keys = BTreeMap::new();
    let mut workloads = Vec::new();
    let list = reader.required(&root, what, "workloads", None);
    for node in list.and_then(|list| reader.list(list, "`workloads`", MAX_ITEMS)).unwrap_or_default() {
        workloads.extend(workload(reader, node, &mut keys));
    }
    let mut flows = Vec::new();
    let list = reader.required(&root, what, "flows", None);
    for node in list.and_then(|list| reader.list(list, "`flows`", MAX_ITEMS)).unwrap_or_default() {
        flows.extend(flow(reader, node, &keys));
    }
    Some(Expectation { workloads, flows })
}

type Keys = BTreeMap<WorkloadKey, enforcer::domain::policy::diagnostic::Location>;

fn workload(reader: &mut Reader<'_>, node: &Node, keys: &mut Keys) -> Option<ExpectedWorkload> {
    let item = reader.mapping(node, "a workload", &["name", "namespace", "labels"])?;
    let key = workload_file::name(reader, &item);
    let labels = workload_file::labels(reader, &item);
    let (key, labels) = key.zip(labels)?;
    let place = item.get("name").map_or_else(|| item.place(), |name| name.span.clone());
    if key.name == HOST || key.name.parse::<IpAddr>().is_ok() {
        let message = format!("a workload can't be called {} here", quote(&key.name));
        reader.error(&place, Code::BadExpectation, message).label("means something else in a flow");
    }
    if let Some(first) = keys.get(&key) {
        let message = format!("the workload `{key}` is defined twice");
        reader.error(&place, Code::Duplicate, message).label("second").related(first.clone(), "first");
    }
    keys.insert(key.clone(), reader.location(&place));
    Some(ExpectedWorkload { key, labels })
}

fn flow(reader: &mut Reader<'_>, node: &Node, keys: &Keys) -> Option<ExpectedFlow> {
    const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];
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
        Some(node) => reader.choice(node, "`protocol`", &PROTOCOLS),
        None => Some(PROTOCOLS[0].1),
    };
    let port = reader.required(&item, what, "port", None).and_then(|node| port(reader, node));
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
    let is_local = |end: &End| !matches!(end, End::Address(_));
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
    let (namespace, name) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
    let key = WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() };
    if keys.contains_key(&key) {
        return Some(End::Workload(key));
    }
    let known: BTreeSet<_> = keys.keys().map(ToString::to_string).collect();
    let known: Vec<_> = known.into_iter().collect();
    let message = format!("no workload is called {}", quote(&key.to_string()));
    let help = format!("workloads of this file: {}; beside them `{HOST}` or an IP address", known.join(", "));
    reader.error(&node.span, Code::BadExpectation, message).label("unknown workload").help(help);
    None
}

fn port(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    let number = reader.integer(node, "`port`")?;
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        let message = format!("`port` can't be {number}");
        reader.error(&node.span, Code::BadPort, message).label("not a port").help("ports are 1-65535");
    }
    port
}

/// A rule as `RuleKey` prints it: `NAMESPACE/POLICY DIRECTION[INDEX]` or `NAMESPACE/POLICY DIRECTION (isolated)`.
fn rule(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let Value::Text(text) = &node.value else {
        reader.text(node, "`rule`");
        return None;
    };
    let is_rule = text.split_once(' ').is_some_and(|(policy, rest)| {
        let place = rest.strip_prefix("ingress").or_else(|| rest.strip_prefix("egress"));
        let index = place.and_then(|place| place.strip_prefix('[')?.strip_suffix(']'));
        policy.split('/').filter(|part| !part.is_empty()).count() == 2
            && (place == Some(" (isolated)") || index.is_some_and(|index| index.parse::<u32>().is_ok()))
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Expectation> {
        parse(&PolicyFile { name: "e".into(), text: text.into() })
    }

    #[test]
    fn the_examples_have_valid_expectations() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with(".expect.yaml") {
                let expectation = load(&path).unwrap();
                assert!(expectation.flows.len() >= 4, "{}", path.display());
                assert!(expectation.flows.iter().any(|flow| flow.live), "{}", path.display());
                count += 1;
            }
        }
        assert!(count >= 5);
    }

    #[test]
    fn defaults_and_ends() {
        let expectation = read(
            "workloads: [{name: web}, {name: db, namespace: prod}]\nflows:\n\
             - {from: web, to: prod/db, port: 1, verdict: FORWARDED}\n\
             - {from: \"2001:db8::1\", to: web, protocol: UDP, port: 2, verdict: AUDIT, reason: POLICY_DENIED}\n",
        )
        .unwrap();
        let [first, second] = &expectation.flows[..] else { panic!("{expectation:?}") };
        assert_eq!((first.from.to_string(), first.to.to_string()), ("default/web".into(), "prod/db".into()));
        assert!((first.protocol, first.live, first.line) == (6, true, 3), "{first:?}");
        assert!(matches!(second.from, End::Address(_)) && !second.live && second.protocol == 17);
    }

    #[test]
    fn everything_wrong_is_told() {
        let text = "workloads: [{name: web}, {name: web}, {name: host}]\nflows:\n\
             - {from: web, to: bd, port: 1, verdict: FORWARDED}\n\
             - {from: web, to: host, port: 0, verdict: ALLOWED}\n\
             - {from: web, to: host, port: 1, verdict: FORWARDED, errno: EPERM}\n\
             - {from: web, to: host, port: 1, verdict: DROPPED}\n\
             - {from: web, to: 192.0.2.1, port: 1, verdict: FORWARDED, live: true}\n\
             - {from: web, to: host, port: 1, verdict: AUDIT, reason: NO, rule: db, lives: no}\n";
        let error = read(text).unwrap_err().to_string();
        let told: Vec<_> = error.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        assert_eq!(
            told,
            [
                "error[duplicate]",
                "error[bad-expectation]",
                "error[bad-expectation]",
                "error[bad-port]",
                "error[unknown-value]",
                "error[bad-expectation]",
                "error[missing-field]",
                "error[missing-field]",
                "error[bad-expectation]",
                "error[unknown-value]",
                "error[bad-expectation]",
                "error[unknown-field]",
            ],
            "{error}"
        );
        assert!(read("").is_err() && read("a: 1\n---\nb: 1").is_err());
    }
}
