//! What is generated from the command line's types: completion scripts, man pages, the version.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Answer;
use super::args::Cli;
use super::context::Context;

pub(super) fn completion(context: &mut Context, shell: Shell) -> anyhow::Result<Answer> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "enforcer", &mut script);
    context.screen.data(&String::from_utf8_lossy(&script))?;
    Ok(Answer::Yes)
}

pub(super) fn man(out: &Path) -> anyhow::Result<Answer> {
    std::fs::create_dir_all(out).with_context(|| format!("make the directory {}", out.display()))?;
    clap_mangen::generate_to(Cli::command(), out)
        .with_context(|| format!("write man pages to {}", out.display()))?;
    Ok(Answer::Yes)
}

pub(super) fn version(context: &mut Context) -> anyhow::Result<Answer> {
    context.screen.data(&format!("enforcer {}\n", env!("CARGO_PKG_VERSION")))?;
    Ok(Answer::Yes)
}
