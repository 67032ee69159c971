//! `cargo xtask tidy`: the rules of this house that no compiler knows.
//!
//! Every check sees every file and all findings are printed at once, each as `file:line: words`.

mod dependencies;
mod edges;
mod examples;
mod forbidden;
mod lex;
mod names;
mod paths;
mod sizes;
mod unsafety;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::shell;
use lex::Source;

/// Check allowed edges between rooms, sizes, forbidden names and paths, SAFETY comments, dependencies
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Folders with Rust code of ours.
const CRATES: [&str; 6] = ["enforcer-common", "enforcer-ebpf", "enforcer", "tests", "xtask", "fuzz"];

const CHECKS: [fn(&Source, &mut Vec<Finding>); 5] =
    [edges::check, sizes::check, names::check, forbidden::check, unsafety::check];

/// One broken rule in one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    words: String,
}

impl Finding {
    fn new(file: &str, line: usize, words: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, words: words.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.words)
    }
}

pub(crate) fn run(_: &Arguments) -> Result<ExitCode> {
    match check(&shell::root()?) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            println!("{error:#}");
            Ok(ExitCode::from(1))
        }
    }
}

/// Prints all findings; an error when there is any.
pub(crate) fn check(root: &Path) -> Result<()> {
    let sources = lex::mark_test_files(read_all(root)?);
    let mut findings = Vec::new();
    for source in &sources {
        for check in CHECKS {
            check(source, &mut findings);
        }
    }
    examples::check(root, &mut findings)?;
    dependencies::check(root, &mut findings)?;
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", sources.len());
        return Ok(());
    }
    bail!(
        "tidy: {} findings in {} files; the rules and their reasons are in xtask/src/tidy/",
        findings.len(),
        sources.len()
    )
}

fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for name in CRATES {
        walk(&root.join(name), name, &mut sources)?;
    }
    Ok(sources)
}

fn walk(folder: &Path, name: &str, sources: &mut Vec<Source>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{name}/{file}");
        if entry.file_type()?.is_dir() {
            if file != "target" && !file.starts_with('.') {
                walk(&entry.path(), &path, sources)?;
            }
        } else if Path::new(&file).extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            sources.push(Source::new(&path, &text));
        }
    }
    Ok(())
}

/// Findings of one check over one made-up file.
#[cfg(test)]
fn findings_of(check: fn(&Source, &mut Vec<Finding>), path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    check(&Source::new(path, text), &mut findings);
    findings.iter().map(ToString::to_string).collect()
}
