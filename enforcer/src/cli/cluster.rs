//! Verbs that ask a cluster's API server, with the rights of whoever types them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::args::cluster::{ToCluster, Waiting, Way};
use super::args::{DocumentFormat, ObjectFormat};
use super::context::{Context, block_on, now};
use super::render::{cluster as render, diagnostic, json, policy as summary, quote, yaml};
use super::{Answer, files};
use crate::cluster::client::{Connection, connect};
use crate::cluster::policies::{Applied, Cluster, Error, Sight};
use crate::domain::cluster_policy::ObjectVersion;
use crate::domain::command::PolicyFile;
use crate::domain::fleet::{Progress, progress};
use crate::domain::policy::check::{Checked, check_at};
use crate::domain::policy::diagnostic::Source;
use crate::domain::policy::model::{PolicyKey, PolicyKind};
use crate::domain::yaml::{Reader, json::json as to_json, parse};

/// Between looks at a policy's status, where Leases may not be read.
const LOOK: Duration = Duration::from_secs(1);

/// How policies are applied.
#[derive(Debug)]
pub(super) struct How {
    pub(super) dry_run: bool,
    pub(super) force: bool,
    pub(super) waiting: Waiting,
}

/// Makes the way to a cluster.
async fn open(to: &ToCluster) -> anyhow::Result<(Cluster, Connection)> {
    let Way { context, kubeconfig, report_namespace } = &to.way;
    let connection = connect(kubeconfig.as_deref(), context.as_deref()).await?;
    Ok((Cluster::new(connection.client.clone(), report_namespace.clone()), connection))
}

/// `policy apply --cluster`. All are checked here before the first is sent.
pub(super) fn apply(
    context: &mut Context,
    to: &ToCluster,
    paths: &[PathBuf],
    how: &How,
    format: ObjectFormat,
) -> anyhow::Result<Answer> {
    let files = files::read(paths)?;
    let outcome = check_at(&files, now());
    let text = diagnostic::render(&files, &outcome.diagnostics, context.screen.talk_in_color());
    context.screen.say(&text);
    if !outcome.is_ok() {
        let problems = summary::problems(&files, &outcome.diagnostics);
        context.screen.error(&format!("{problems}; nothing was applied"));
        return Ok(Answer::No);
    }
    block_on(async {
        let (cluster, connection) = open(to).await?;
        let mut applied = Vec::new();
        for checked in &outcome.policies {
            let (key, document) = document(checked, &connection.namespace)?;
            match cluster.apply(&key, &document, (how.dry_run, how.force)).await {
                Ok(one) => applied.push(one),
                Err(error) => {
                    context.screen.data(&render::applied(&applied, how.dry_run))?;
                    let left = outcome.policies.len() - applied.len();
                    context.screen.note(&format!(
                        "{} of {} were applied",
                        applied.len(),
                        applied.len() + left
                    ));
                    return Err(error.into());
                }
            }
        }
        if format == ObjectFormat::Table {
            context.screen.data(&render::applied(&applied, how.dry_run))?;
        }
        let wanted: Vec<_> = applied.iter().map(|one| (one.key.clone(), one.object.clone())).collect();
        let until = Some(how.waiting.timeout).filter(|_| how.waiting.wait && !how.dry_run);
        let (answer, seen) = match until {
            Some(patience) => wait_for(context, &cluster, &wanted, patience).await?,
            None => (Answer::Yes, BTreeMap::new()),
        };
        if format == ObjectFormat::Json {
            context.screen.data(&json::list("policies", &render::records(&applied, &seen))?)?;
        }
        Ok(answer)
    })
}

/// The document as it is sent: with the namespace that is meant, without a status.
fn document(checked: &Checked, namespace: &str) -> anyhow::Result<(PolicyKey, Value)> {
    let file = PolicyFile { name: checked.policy.key.to_string(), text: checked.text.clone() };
    let source = Source::new(0, &file);
    let mut reader = Reader::new(&source);
    let read = parse(&mut reader).into_iter().next();
    let mut document = read.map(|read| to_json(&read.root)).context("a policy has a document")?;
    let mut key = checked.policy.key.clone();
    if let Some(fields) = document.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut)
        && key.kind.is_namespaced()
    {
        if !metadata.get("namespace").is_some_and(Value::is_string) {
            namespace.clone_into(&mut key.namespace);
        }
        metadata.insert("namespace".into(), key.namespace.clone().into());
    }
    Ok((key, document))
}

/// A policy by the name that people write: `[kind/][namespace/]name`, the kind as `policy list` writes it.
fn key(name: &str, namespace: &str) -> anyhow::Result<PolicyKey> {
    let (kind, rest) = match name.split_once('/') {
        Some((prefix, rest)) => match PolicyKind::from_prefix(prefix) {
            // A namespace may have the name of a kind.
            Some(kind) if !kind.is_namespaced() || rest.contains('/') => (kind, rest),
            _ => (PolicyKind::TrafficPolicy, name),
        },
        None => (PolicyKind::TrafficPolicy, name),
    };
    let (namespace, name) = match rest.split_once('/') {
        Some(both) if kind.is_namespaced() => both,
        None if kind.is_namespaced() => (namespace, rest),
        None => ("", rest),
        Some(_) => return Err(anyhow!("{} has no namespace; write {}/NAME", quote(name), kind.prefix())),
    };
    Ok(PolicyKey { kind, namespace: namespace.to_owned(), name: name.to_owned() })
}

/// `policy get --cluster`
pub(super) fn get(
    context: &mut Context,
    to: &ToCluster,
    name: &str,
    format: DocumentFormat,
) -> anyhow::Result<Answer> {
    let mut object = block_on(async {
        let (cluster, connection) = open(to).await?;
        Ok(cluster.get(&key(name, &connection.namespace)?).await?)
    })?;
    // Who owns which field is for programs that apply.
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let text = match format {
        DocumentFormat::Yaml => yaml::document(&object),
        DocumentFormat::Json => json::plain(&object)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}

/// `policy delete --cluster`
pub(super) fn delete(
    context: &mut Context,
    to: &ToCluster,
    names: &[String],
    format: ObjectFormat,
) -> anyhow::Result<Answer> {
    block_on(async {
        let (cluster, connection) = open(to).await?;
        let keys =
            names.iter().map(|name| key(name, &connection.namespace)).collect::<Result<Vec<_>, _>>()?;
        let mut deleted = Vec::new();
        for key in keys {
            cluster.delete(&key).await?;
            if format == ObjectFormat::Table {
                context.screen.data(&render::deleted(&key))?;
            }
            deleted.push(Applied { key, object: ObjectVersion::default(), change: "deleted" });
        }
        if format == ObjectFormat::Json {
            context.screen.data(&json::list("policies", &render::records(&deleted, &BTreeMap::new()))?)?;
        }
        Ok(Answer::Yes)
    })
}

/// `policy wait`
pub(super) fn wait(
    context: &mut Context,
    to: &ToCluster,
    names: &[String],
    patience: Duration,
    format: ObjectFormat,
) -> anyhow::Result<Answer> {
    block_on(async {
        let (cluster, connection) = open(to).await?;
        let mut wanted = Vec::new();
        for name in names {
            let key = key(name, &connection.namespace)?;
            let version = cluster.version(&key).await?;
            wanted.push((key, version));
        }
        let (answer, seen) = wait_for(context, &cluster, &wanted, patience).await?;
        let found: Vec<_> =
            wanted.into_iter().map(|(key, object)| Applied { key, object, change: "unchanged" }).collect();
        match format {
            ObjectFormat::Table => {}
            ObjectFormat::Json => {
                context.screen.data(&json::list("policies", &render::records(&found, &seen))?)?;
            }
        }
        Ok(answer)
    })
}

/// `status --cluster`
pub(super) fn status(context: &mut Context, to: &ToCluster, format: ObjectFormat) -> anyhow::Result<Answer> {
    let nodes = block_on(async { Ok(open(to).await?.0.nodes().await?) })?;
    let text = match format {
        ObjectFormat::Table => render::nodes(&nodes, now()),
        ObjectFormat::Json => json::list("nodes", &render::node_records(&nodes, now()))?,
    };
    context.screen.data(&text)?;
    if nodes.is_empty() {
        context.screen.error(&format!(
            "no node reports in the namespace {}: is the agent deployed with `kubernetes: on`, and with this \
             `report-namespace`?",
            to.way.report_namespace
        ));
    }
    let is_good = |node: &crate::domain::fleet::Node| {
        node.is_present(now()) && node.report.phase == "enforcing" && node.report.problems.is_empty()
    };
    Ok(if !nodes.is_empty() && nodes.iter().all(is_good) { Answer::Yes } else { Answer::No })
}

type Wanted = (PolicyKey, ObjectVersion);
type Seen = BTreeMap<PolicyKey, Progress>;

/// Waits until every node has every version, and says on the way how far they are.
async fn wait_for(
    context: &mut Context,
    cluster: &Cluster,
    wanted: &[Wanted],
    patience: Duration,
) -> anyhow::Result<(Answer, Seen)> {
    let until = Instant::now() + patience;
    let mut seen = Seen::new();
    let mut away = false;
    let followed = cluster.follow(Some(until), |sight| match sight {
        Sight::Away(problem) => {
            if !std::mem::replace(&mut away, true) {
                context.screen.warn(&format!("{problem}; waiting for it to come back"));
            }
            false
        }
        Sight::Nodes(nodes) => {
            if std::mem::take(&mut away) {
                context.screen.note("the API server is back");
            }
            for (key, version) in wanted {
                let new = progress(nodes.values(), version, now());
                let old = seen.get(key);
                if old != Some(&new) {
                    context.screen.say(&render::progress(key, version, old, &new));
                    seen.insert(key.clone(), new);
                }
            }
            wanted.iter().all(|(key, _)| seen.get(key).is_some_and(Progress::is_done))
        }
    });
    let done = match followed.await {
        Ok(done) => done,
        Err(error @ Error::Forbidden { .. }) => {
            context.screen.warn(&format!("{error}; without it, only the counts in the status are seen"));
            wait_by_status(context, cluster, wanted, until).await?
        }
        Err(error) => return Err(error.into()),
    };
    if done {
        return Ok((Answer::Yes, seen));
    }
    for (key, version) in wanted {
        let known = seen.get(key);
        if !known.is_some_and(Progress::is_done) {
            context.screen.error(&render::missing(key, version, known, patience));
        }
    }
    Ok((Answer::No, seen))
}

/// The same by the status that one of the nodes writes for all.
async fn wait_by_status(
    context: &mut Context,
    cluster: &Cluster,
    wanted: &[Wanted],
    until: Instant,
) -> anyhow::Result<bool> {
    let mut told = BTreeMap::new();
    loop {
        let mut done = true;
        for (key, version) in wanted {
            let status = cluster.get(key).await?["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let is_done = conditions.iter().any(|it| {
                it["type"] == "Enforcing"
                    && it["status"] == "True"
                    && it["observedGeneration"] == version.generation
            });
            let line = render::counts(key, &status);
            if told.insert(key, line.clone()).as_ref() != Some(&line) {
                context.screen.say(&line);
            }
            done &= is_done;
        }
        if done || Instant::now() >= until {
            return Ok(done);
        }
        sleep_until((Instant::now() + LOOK).min(until)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_policies() {
        for (name, expected) in [
            ("web", "shop/web"),
            ("default/web", "default/web"),
            ("networkpolicy/web", "trafficpolicy/networkpolicy/web"),
            ("networkpolicy/default/web", "networkpolicy/default/web"),
            ("clustertrafficpolicy/web", "clustertrafficpolicy/web"),
        ] {
            assert_eq!(key(name, "shop").unwrap().to_string(), expected, "{name}");
        }
        assert!(key("clustertrafficpolicy/a/b", "shop").is_err());
    }
}
