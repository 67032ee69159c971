//! `enforcer audit`: works on the files, with or without an agent.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::Answer;
use super::args::{Audit, AuditFormat, AuditRange, ObjectFormat};
use super::context::{Context, now};
use super::observe::moment;
use super::render::{Screen, audit as render};
use super::settings::SettingFlags;
use crate::domain::audit::export::ocsf;
use crate::domain::audit::record::Record;
use crate::domain::audit::verify::{Bound, Range};
use crate::telemetry::audit::read;

pub(super) fn audit(context: &mut Context, verb: Audit) -> anyhow::Result<Answer> {
    match verb {
        Audit::Verify { path, range, checkpoint, output } => {
            let (directory, range) = (directory(context, path)?, bounds(&range)?);
            let report = read::verify(&directory, checkpoint, range).with_context(|| what(&directory))?;
            let text = match output.format {
                ObjectFormat::Table => render::report(&report),
                ObjectFormat::Json => render::json(&report)?,
            };
            context.screen.data(&text)?;
            Ok(if report.findings.is_empty() { Answer::Yes } else { Answer::No })
        }
        Audit::Export { path, range, format } => {
            let (directory, range) = (directory(context, path)?, bounds(&range)?);
            print(&mut context.screen, &directory, range, |line, record| {
                Ok(match format {
                    AuditFormat::Ecs => format!("{line}\n"),
                    AuditFormat::Ocsf => format!("{}\n", ocsf(record)?),
                })
            })
        }
        Audit::List { path, range } => {
            let (directory, range) = (directory(context, path)?, bounds(&range)?);
            print(&mut context.screen, &directory, range, |_, record| Ok(render::line(record)))
        }
    }
}

fn print(
    screen: &mut Screen,
    directory: &Path,
    range: Range,
    text: impl Fn(&str, &Record) -> io::Result<String>,
) -> anyhow::Result<Answer> {
    // A closed pipe is no failure to read, and is told as it is.
    let mut broken = None;
    let read = read::records(directory, range, |line, record| {
        let text = text(line, &record)?;
        screen.data(&text).inspect_err(|error| broken = Some(error.kind()))
    });
    match broken {
        Some(kind) => Err(io::Error::from(kind).into()),
        None => read.with_context(|| what(directory)).map(|()| Answer::Yes),
    }
}

fn what(directory: &Path) -> String {
    format!("read the audit log in {}", directory.display())
}

/// The one that is named, or the agent's.
fn directory(context: &mut Context, named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let directory = match named {
        Some(path) => path,
        None => context.config(SettingFlags::default())?.config.audit_directory(),
    };
    if !directory.is_dir() {
        bail!(
            "there is no audit log in {}: name its directory, or look at the setting `audit`",
            directory.display()
        );
    }
    Ok(directory)
}

fn bounds(AuditRange { from, to }: &AuditRange) -> anyhow::Result<Range> {
    let bound = |text: &Option<String>, flag| {
        let bound = text.as_ref().map(|text| match text.parse() {
            Ok(sequence) => Ok(Bound::Sequence(sequence)),
            Err(_) => moment(flag, text, now()).map(Bound::Time),
        });
        bound.transpose()
    };
    Ok(Range { from: bound(from, "--from")?, to: bound(to, "--to")? })
}
