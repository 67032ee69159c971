//! The verbs of `enforcer policy` that need no agent: the cluster comes from files. `explain` asks one if there are none.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::nodes;
use crate::cli::Answer;
use crate::cli::args::{Explain, Lint, Matrix, ObjectFormat, Scenery, Test};
use crate::cli::context::{Context, block_on, now};
use crate::cli::files;
use crate::cli::render::{diagnostic, json, offline as render, policy as summary, quote, yaml};
use crate::cli::settings::JudgingFlags;
use crate::domain::SocketKind;
use crate::domain::account::TrustDomain;
use crate::domain::answer::{answer, answer_socket};
use crate::domain::cluster_file::{Cluster, parse_cluster};
use crate::domain::command::PolicyFile;
use crate::domain::expectation::{self, ExpectedFlow};
use crate::domain::offline::{self, End, Flow, Offline, parse_port, port_text};
use crate::domain::policy::check::{Checked, check_at};
use crate::domain::policy::diagnostic::{Diagnostic, nearest};
use crate::domain::policy::lint;
use crate::domain::policy::model::PolicyKind;
use crate::domain::policy::schema;
use crate::domain::workload::{DEFAULT_NAMESPACE, WorkloadKey};

/// Which workloads reach which.
pub(super) fn matrix(context: &mut Context, asked: &Matrix) -> anyhow::Result<Answer> {
    let Scenery { cluster, files, judging } = &asked.scenery;
    let Some((cluster, offline)) = scenery(context, cluster, files, judging)? else {
        return Ok(Answer::No);
    };
    let mut ports = cluster.ports();
    ports.extend(&asked.ports);
    if ports.is_empty() {
        context.screen.warn("no pod of the cluster declares a port; name some with --port TCP/8080");
    }
    let matrix = offline::matrix(&offline, &ports);
    let text = match asked.output.format {
        ObjectFormat::Table => render::matrix(&matrix),
        ObjectFormat::Json => json::plain(&matrix)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}

/// What is asked about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    /// A flow to a server, with its protocol and port.
    Flow(&'a str, u8, u16),
    /// A socket that is created.
    Socket(SocketKind),
}

/// What becomes of one flow, or of one socket.
pub(super) fn explain(context: &mut Context, asked: &Explain) -> anyhow::Result<Answer> {
    let about = match (&asked.to, asked.socket_kind) {
        (_, Some(kind)) => About::Socket(kind),
        (to, None) => {
            let (to, protocol, port) = server(to.as_deref().unwrap_or_default())?;
            About::Flow(to, protocol, port)
        }
    };
    let files = asked.cluster.as_deref().unwrap_or_default();
    match (asked.files.is_empty(), files.is_empty()) {
        (false, true) => bail!("-f is for a cluster from files: name them with --cluster FILE"),
        (true, false) => bail!("--cluster FILE is judged by policies from files: name them with -f"),
        _ => {}
    }
    if files.is_empty() {
        if asked.judging != JudgingFlags::default() {
            bail!(
                "--trust-domain is for --cluster FILE: agents answer with their own, as `enforcer config show` there has it"
            );
        }
        if nodes::is_meant(asked) {
            return nodes::explain(context, asked, about);
        }
        let client = context.client();
        let found = block_on(async {
            Ok(match about {
                About::Flow(to, protocol, port) => {
                    client.explain(&asked.from, to, &port_text(protocol, port)).await?
                }
                About::Socket(kind) => client.explain_socket(&asked.from, kind).await?,
            })
        })?;
        let text = match asked.output.format {
            ObjectFormat::Table => render::explained(&found),
            ObjectFormat::Json => json::object(&found)?,
        };
        context.screen.data(&text)?;
        return Ok(Answer::Yes);
    }
    let kinds = context.config(asked.judging.0.clone())?.config.socket_kinds();
    let Some((cluster, offline)) = scenery(context, files, &asked.files, &asked.judging)? else {
        return Ok(Answer::No);
    };
    let from = end(&cluster, &asked.from)?;
    let found = match about {
        About::Flow(to, protocol, port) => {
            let flow = Flow { from, to: end(&cluster, to)?, protocol, port };
            if matches!((&flow.from, &flow.to), (End::Address(_), End::Address(_))) {
                bail!(
                    "nobody here judges a flow between two addresses; name a workload of the cluster as one end"
                );
            }
            answer(&offline, &flow)
        }
        About::Socket(kind) if matches!(from, End::Workload(_) | End::Host) => {
            answer_socket(&offline, &from, kind, kinds & kind.bit() != 0)
        }
        About::Socket(_) => {
            bail!("{} creates no sockets; name a workload of the cluster", quote(&asked.from))
        }
    };
    let text = match asked.output.format {
        ObjectFormat::Table => render::answer(&found),
        ObjectFormat::Json => json::object(&found)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}

/// What looks wrong is the answer, so it goes to stdout.
pub(super) fn lint(context: &mut Context, asked: &Lint) -> anyhow::Result<Answer> {
    let paths: Vec<PathBuf> = asked.files.iter().chain(&asked.more).cloned().collect();
    let files = files::read(&paths)?;
    let outcome = check_at(&files, now());
    let mut found = outcome.diagnostics;
    if !found.iter().any(Diagnostic::is_error) {
        let cluster = if asked.cluster.is_empty() { None } else { cluster(context, &asked.cluster)? };
        if cluster.is_none() && !asked.cluster.is_empty() {
            return Ok(Answer::No);
        }
        found.extend(lint::lint(&files, &outcome.policies, cluster.as_ref()));
        // A check tells some of it already.
        found.sort_by(|a, b| (&a.location, a.code).cmp(&(&b.location, b.code)));
        found.dedup_by(|a, b| (&a.location, a.code) == (&b.location, b.code));
    }
    let text = match asked.output.format {
        ObjectFormat::Table => {
            let text = diagnostic::render(&files, &found, context.screen.data_in_color());
            let end = if found.is_empty() {
                format!("{}, and nothing looks wrong", summary::valid(outcome.policies.len(), files.len()))
            } else {
                summary::problems(&files, &found)
            };
            format!("{text}{end}\n")
        }
        ObjectFormat::Json => json::list("findings", &found)?,
    };
    context.screen.data(&text)?;
    Ok(if found.is_empty() { Answer::Yes } else { Answer::No })
}

/// Verdicts against expectations.
pub(super) fn test(context: &mut Context, asked: &Test) -> anyhow::Result<Answer> {
    let mut cluster = Cluster::default();
    if !asked.cluster.is_empty() {
        let Some(found) = self::cluster(context, &asked.cluster)? else { return Ok(Answer::No) };
        cluster = found;
    }
    let trust_domain = trust_domain(context, &asked.judging)?;
    let (mut flows, mut differences) = (0, 0);
    let mut is_sound = true;
    for path in files::expectations(&asked.expectations)? {
        let scene = (&cluster, &trust_domain);
        let Some(found) = test_one(context, &path, &asked.files, scene)? else {
            is_sound = false;
            continue;
        };
        context.screen.data(&render::tested(&path.display().to_string(), found.0, &found.1))?;
        flows += found.0;
        differences += found.1.len();
    }
    context.screen.data(&render::tests(flows, differences))?;
    Ok(if is_sound && differences == 0 { Answer::Yes } else { Answer::No })
}

/// The number of flows of one expectation file, and what came out otherwise; nothing if it, or a policy, is invalid.
fn test_one(
    context: &mut Context,
    path: &Path,
    policies: &[PathBuf],
    (cluster, trust_domain): (&Cluster, &TrustDomain),
) -> anyhow::Result<Option<(usize, Vec<String>)>> {
    let file = files::read(&[path.to_owned()])?.pop().context("one file was named")?;
    let expectation = match expectation::parse(&file, cluster) {
        Ok(expectation) => expectation,
        Err(diagnostics) => {
            let files = [file];
            let text = diagnostic::render(&files, &diagnostics, context.screen.talk_in_color());
            context.screen.say(&text);
            return Ok(None);
        }
    };
    let beside = beside(path);
    let policies = match (policies, &beside) {
        ([], Some(beside)) => std::slice::from_ref(beside),
        ([], None) => bail!("{} is not called NAME.expect.yaml: name its policies with -f", path.display()),
        (policies, _) => policies,
    };
    let Some(checked) = checked(context, policies)? else { return Ok(None) };
    let policies = checked.into_iter().map(|checked| checked.policy).collect();
    let offline = Offline::within(policies, &expectation.cluster(cluster), now(), trust_domain.clone())?;
    let rules: std::collections::BTreeMap<_, _> =
        offline.registry().rules().map(|(key, id)| (id, key.clone())).collect();
    let difference = |flow: &ExpectedFlow| {
        let found = flow.difference(&offline.judge(&flow.flow()), |id| rules.get(&id).cloned())?;
        let port = port_text(flow.protocol, flow.port);
        Some(format!("line {}: {} -> {} {port}: {found}", flow.line, flow.from, flow.to))
    };
    let differences = expectation.flows.iter().filter_map(difference).collect();
    Ok(Some((expectation.flows.len(), differences)))
}

/// The policies of an expectation file: `NAME.yaml` for `NAME.expect.yaml`.
fn beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (base, end) = name.split_once(".expect.")?;
    Some(path.with_file_name(format!("{base}.{end}")))
}

/// Prints a JSON schema.
pub(super) fn schema(context: &mut Context, kind: Option<&str>) -> anyhow::Result<Answer> {
    context.screen.data(&json::plain(&schema::schema(kind))?)?;
    Ok(Answer::Yes)
}

/// Prints the definitions of the project's own kinds.
pub(super) fn crd(context: &mut Context) -> anyhow::Result<Answer> {
    for definition in PolicyKind::ALL.into_iter().filter_map(schema::crd) {
        context.screen.data(&yaml::document(&definition))?;
    }
    Ok(Answer::Yes)
}

/// The cluster, and the table that an agent would make of it; nothing if a file is invalid, which has been told.
fn scenery(
    context: &mut Context,
    clusters: &[PathBuf],
    policies: &[PathBuf],
    judging: &JudgingFlags,
) -> anyhow::Result<Option<(Cluster, Offline)>> {
    let trust_domain = trust_domain(context, judging)?;
    let Some(cluster) = cluster(context, clusters)? else { return Ok(None) };
    let Some(checked) = checked(context, policies)? else { return Ok(None) };
    let without = cluster.pods.iter().filter(|pod| pod.workload.addresses.is_empty()).count();
    if without > 0 {
        let pods = if without == 1 { "pod has" } else { "pods have" };
        context
            .screen
            .note(&format!("{without} {pods} no address of its own, so no block of addresses means it"));
    }
    let policies = checked.into_iter().map(|checked| checked.policy).collect();
    let offline = Offline::within(policies, &cluster, now(), trust_domain)?;
    Ok(Some((cluster, offline)))
}

/// The trust domain that an agent with this configuration would have.
fn trust_domain(context: &mut Context, judging: &JudgingFlags) -> anyhow::Result<TrustDomain> {
    Ok(context.config(judging.0.clone())?.config.trust_domain)
}

fn cluster(context: &mut Context, paths: &[PathBuf]) -> anyhow::Result<Option<Cluster>> {
    let files = files::read_clusters(paths)?;
    let outcome = parse_cluster(&files);
    told(context, &files, &outcome.diagnostics);
    Ok(outcome.is_ok().then_some(outcome.cluster))
}

fn checked(context: &mut Context, paths: &[PathBuf]) -> anyhow::Result<Option<Vec<Checked>>> {
    let files = files::read(paths)?;
    let outcome = check_at(&files, now());
    told(context, &files, &outcome.diagnostics);
    Ok(outcome.is_ok().then_some(outcome.policies))
}

/// Says what is wrong with files that are not the answer themselves.
fn told(context: &mut Context, files: &[PolicyFile], diagnostics: &[Diagnostic]) {
    let text = diagnostic::render(files, diagnostics, context.screen.talk_in_color());
    context.screen.say(&text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        context.screen.error(&format!("{}; nothing was judged", summary::problems(files, diagnostics)));
    }
}

/// `END:PORT[/PROTOCOL]`
fn server(text: &str) -> anyhow::Result<(&str, u8, u16)> {
    let usage = || {
        format!(
            "{} is no server; write it like shop/db:5432, shop/dns:53/UDP, shop/db:echo-request/ICMP or [2001:db8::1]:443",
            quote(text)
        )
    };
    let (end, port) = text.rsplit_once(':').with_context(usage)?;
    let end = end.strip_prefix('[').and_then(|end| end.strip_suffix(']')).unwrap_or(end);
    let (port, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
    let (protocol, port) = parse_port(&format!("{protocol}/{port}")).with_context(usage)?;
    Ok((end, protocol, port))
}

/// A workload or service of the cluster, the host, or an address.
fn end(cluster: &Cluster, text: &str) -> anyhow::Result<End> {
    if text == "host" {
        return Ok(End::Host);
    }
    if let Ok(address) = text.parse() {
        return Ok(End::Address(address));
    }
    let (only_service, name) = text.strip_prefix("service/").map_or((false, text), |name| (true, name));
    let (namespace, name) = name.split_once('/').unwrap_or((DEFAULT_NAMESPACE, name));
    let key = WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() };
    let has_container = |(pod, container): (&str, &str)| {
        let pod = WorkloadKey { namespace: key.namespace.clone(), name: pod.to_owned() };
        cluster.pod(&pod).is_some_and(|pod| pod.containers.contains(container))
    };
    let is_container = key.name.split_once('/').is_some_and(has_container);
    if !only_service && (is_container || cluster.pod(&key).is_some()) {
        return Ok(End::Workload(key));
    }
    if cluster.service(&key).is_some() {
        return Ok(End::Service(key));
    }
    let names: Vec<String> = cluster.pods.iter().map(|pod| pod.workload.key.to_string()).collect();
    let help = match nearest(&key.to_string(), names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean {}?", quote(name)),
        None => {
            format!("it has {} pods and {} services with an address", names.len(), cluster.services.len())
        }
    };
    bail!("the cluster has no workload and no service {}; {help}", quote(&key.to_string()))
}
