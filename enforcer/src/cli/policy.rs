//! `enforcer policy`

mod nodes;
mod offline;

use std::path::PathBuf;
use std::time::Duration;

use super::args::{DocumentFormat, ObjectFormat, Output, Policy, WideFormat};
use super::context::{Context, block_on, now};
use super::files;
use super::render::{diagnostic, json, lists, policy as render, quote};
use super::{Answer, cluster};
use crate::domain::command::{Changed, PolicyFile, PolicyInfo};
use crate::domain::policy::check::check_at;
use crate::domain::policy::diagnostic::nearest;
use crate::domain::policy::model::{PolicyKey, PolicyKind};
use crate::domain::workload::DEFAULT_NAMESPACE;

pub(super) fn policy(context: &mut Context, verb: Policy) -> anyhow::Result<Answer> {
    match verb {
        Policy::Apply { files, dry_run, force_conflicts, to, waiting, output, .. } if to.is_meant() => {
            let how = cluster::How { dry_run: dry_run.is_some(), force: force_conflicts, waiting };
            cluster::apply(context, &to, &files, &how, output.format)
        }
        Policy::Apply { waiting, .. } if waiting.wait => anyhow::bail!(
            "--wait is for clusters (--cluster): without one, `policy apply` returns when the agent of this host enforces it"
        ),
        Policy::Apply { files, dry_run, confirm_within, output: Output { format }, .. } => {
            apply(context, &files, dry_run.is_some(), confirm_within, format)
        }
        Policy::Delete { names, to, output: Output { format } } if to.is_meant() => {
            cluster::delete(context, &to, &names, format)
        }
        Policy::Get { name, to, output } if to.is_meant() => cluster::get(context, &to, &name, output),
        Policy::Wait { names, timeout, to, output: Output { format } } => {
            cluster::wait(context, &to, &names, timeout, format)
        }
        Policy::Confirm(Output { format }) => confirm(context, format),
        Policy::Delete { names, output: Output { format }, .. } => delete(context, &names, format),
        Policy::Get { name, output, .. } => get(context, &name, output),
        Policy::List { output } => list(context, output),
        Policy::Validate { files } => validate(context, &files),
        Policy::Matrix(asked) => offline::matrix(context, &asked),
        Policy::Explain(asked) => offline::explain(context, &asked),
        Policy::Lint(asked) => offline::lint(context, &asked),
        Policy::Test(asked) => offline::test(context, &asked),
        Policy::Crd => offline::crd(context),
        Policy::Schema { kind } => offline::schema(context, kind.as_deref()),
    }
}

/// Checked here first: the agent would find the same, but here the text is at hand to point into.
fn apply(
    context: &mut Context,
    paths: &[PathBuf],
    dry_run: bool,
    confirm_within: Option<Duration>,
    format: ObjectFormat,
) -> anyhow::Result<Answer> {
    let files = files::read(paths)?;
    let outcome = check_at(&files, now());
    let text = diagnostic::render(&files, &outcome.diagnostics, context.screen.talk_in_color());
    context.screen.say(&text);
    if !outcome.is_ok() {
        let summary = render::problems(&files, &outcome.diagnostics);
        context.screen.error(&format!("{summary}; nothing was applied"));
        return Ok(Answer::No);
    }
    let client = context.client();
    let changed = block_on(async { Ok(client.apply(files, dry_run, confirm_within).await?) })?;
    changed_is(context, &changed, format)
}

fn confirm(context: &mut Context, format: ObjectFormat) -> anyhow::Result<Answer> {
    let client = context.client();
    let changed = block_on(async { Ok(client.confirm().await?) })?;
    changed_is(context, &changed, format)
}

fn delete(context: &mut Context, names: &[String], format: ObjectFormat) -> anyhow::Result<Answer> {
    let names: Vec<_> = names.iter().map(|name| qualified(name)).collect();
    let client = context.client();
    let changed = block_on(async { Ok(client.delete(&names).await?) })?;
    changed_is(context, &changed, format)
}

fn changed_is(context: &mut Context, changed: &Changed, format: ObjectFormat) -> anyhow::Result<Answer> {
    let text = match format {
        ObjectFormat::Table => render::changed(changed),
        ObjectFormat::Json => json::object(changed)?,
    };
    context.screen.data(&text)?;
    for warning in render::warnings(changed) {
        context.screen.warn(&warning);
    }
    Ok(Answer::Yes)
}

fn get(context: &mut Context, name: &str, format: DocumentFormat) -> anyhow::Result<Answer> {
    let client = context.client();
    let policies = block_on(async { Ok(client.policies().await?) })?;
    let wanted = qualified(name);
    let Some(policy) = policies.iter().find(|policy| full_name(policy) == wanted) else {
        let names: Vec<_> = policies.iter().map(full_name).collect();
        let help = match nearest(&wanted, names.iter().map(String::as_str)) {
            Some(name) => format!("did you mean {}?", quote(name)),
            None => "`enforcer policy list` shows what there is".to_owned(),
        };
        context.screen.error(&format!("there is no policy {}; {help}", quote(&wanted)));
        return Ok(Answer::No);
    };
    let text = match format {
        DocumentFormat::Yaml => render::document(&policy.text) + &render::status(policy),
        DocumentFormat::Json => json::object(policy)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}

fn list(context: &mut Context, format: WideFormat) -> anyhow::Result<Answer> {
    let client = context.client();
    let policies = block_on(async { Ok(client.policies().await?) })?;
    let text = match format {
        WideFormat::Table => lists::policies(&policies),
        WideFormat::Wide => lists::policies_wide(&policies, now()),
        WideFormat::Json => json::list("policies", &policies)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}

/// What is wrong is the answer here, so it goes to stdout.
fn validate(context: &mut Context, paths: &[PathBuf]) -> anyhow::Result<Answer> {
    let files: Vec<PolicyFile> = files::read(paths)?;
    let outcome = check_at(&files, now());
    let text = diagnostic::render(&files, &outcome.diagnostics, context.screen.data_in_color());
    let (summary, answer) = if outcome.is_ok() {
        (render::valid(outcome.policies.len(), files.len()), Answer::Yes)
    } else {
        (render::problems(&files, &outcome.diagnostics), Answer::No)
    };
    context.screen.data(&format!("{text}{summary}\n"))?;
    Ok(answer)
}

/// As commands name policies: `default/db`, `networkpolicy/default/db`, `clusternetworkpolicy/db`.
fn full_name(policy: &PolicyInfo) -> String {
    let kind = PolicyKind::ALL.into_iter().find(|kind| kind.label() == policy.kind).unwrap_or_default();
    PolicyKey { kind, namespace: policy.namespace.clone(), name: policy.name.clone() }.to_string()
}

fn qualified(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{DEFAULT_NAMESPACE}/{name}") }
}
