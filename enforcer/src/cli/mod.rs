//! The command line: one file for each noun, all printing in [`render`].
//!
//! Invariants: stdout is data, stderr is talk; exit code 0 is yes or done, 1 a negative answer, 2 wrong usage or a
//! failure; a reader that closes the pipe early is content, so that is 0. What an error says is enough to go on:
//! what failed, on what, the likely cause, the next command.

mod across;
mod agent;
pub mod args;
mod audit;
mod canary;
mod cluster;
mod config;
mod context;
mod docs;
mod endpoint;
mod files;
mod flows;
mod identity;
mod metrics;
mod observe;
mod policy;
mod preflight;
mod probe;
mod quarantine;
pub mod render;
mod settings;
mod status;
mod top;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use context::Context;
use render::Screen;

use crate::api::Error as ApiError;
use crate::cluster::policies::Error as ClusterError;

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Yes, or done.
    Yes,
    /// No. It has been told why.
    No,
}

const NEGATIVE: u8 = 1;
const FAILED: u8 = 2;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are errors to clap, which go to stdout and are none.
        Err(error) if error.print().is_ok() && error.use_stderr() => return ExitCode::from(FAILED),
        Err(_) => return ExitCode::SUCCESS,
    };
    let mut context = Context::new(Screen::standard(cli.global.color), cli.global);
    let code = match dispatch(&mut context, cli.command) {
        Ok(Answer::Yes) => 0,
        Ok(Answer::No) => NEGATIVE,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => report(&mut context.screen, &error),
    };
    ExitCode::from(code)
}

fn dispatch(context: &mut Context, command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Run(flags) => agent::run(context, flags),
        Command::Uninstall(uninstall) => agent::uninstall(context, uninstall),
        Command::Policy(verb) => policy::policy(context, verb),
        Command::Quarantine(verb) => quarantine::quarantine(context, verb),
        Command::Identity(verb) => identity::identity(context, &verb),
        Command::Endpoint(verb) => endpoint::endpoint(context, &verb),
        Command::Observe(observe) => observe::observe(context, *observe),
        Command::Top(asked) => top::top(context, &asked),
        Command::Flows(verb) => flows::flows(context, verb),
        Command::Audit(verb) => audit::audit(context, verb),
        Command::Status(asked) => status::status(context, &asked),
        Command::Metrics(verb) => metrics::metrics(context, &verb),
        Command::Preflight(output) => preflight::preflight(context, output),
        Command::Probe(probe) => probe::probe(context, &probe),
        Command::Config(verb) => config::config(context, verb),
        Command::Canary { directory } => canary::run(&directory),
        Command::Completion { shell } => docs::completion(context, shell),
        Command::Man { out } => docs::man(&out),
        Command::Version => docs::version(context),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // Only our own writes: a connection to the agent that breaks is wrapped in `ApiError`.
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells an error, and which exit code it means.
fn report(screen: &mut Screen, error: &anyhow::Error) -> u8 {
    screen.error(&sentence(error));
    if let Some(ApiError::Refused(refused)) = error.downcast_ref() {
        for diagnostic in &refused.diagnostics {
            screen.note(diagnostic);
        }
        return NEGATIVE;
    }
    match error.downcast_ref::<ClusterError>() {
        Some(error) if error.is_answer() => NEGATIVE,
        _ => FAILED,
    }
}

/// The error and its causes, as far as it doesn't quote them itself.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut text, cause| {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn causes_are_told_once() {
        let io = || io::Error::other("disk on fire");
        let error =
            anyhow::Error::from(ApiError::Bind { operation: "bind", path: "/x".into(), source: io() });
        assert_eq!(sentence(&error), "bind /x: disk on fire; choose another place with --socket");
        let error = Err::<(), _>(io()).context("write the man page").unwrap_err();
        assert_eq!(sentence(&error), "write the man page: disk on fire");
    }
}
