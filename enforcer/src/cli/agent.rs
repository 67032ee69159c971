//! `enforcer run` and `enforcer uninstall`: the only commands that are the agent instead of asking it.

use anyhow::{Context as _, bail};

use super::Answer;
use super::args::Uninstall;
use super::context::{Context, block_on};
use super::settings::SettingFlags;
use crate::api::{self, client::Client};
use crate::config::{LogLevel, Value};

/// The engine's task and the API's each find a free thread, whatever the other does.
const WORKERS: usize = 2;

pub(super) fn run(context: &mut Context, flags: SettingFlags) -> anyhow::Result<Answer> {
    crate::agent::take_small_pages();
    let mut config = context.config(flags)?.config;
    config.log_level = match context.global.verbose {
        0 => config.log_level,
        1 => LogLevel::Debug,
        _ => LogLevel::Trace,
    };
    // Threads inherit what is given up here; later ones could not be reached.
    let confinement = crate::agent::confine(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.context("start the runtime")?.block_on(crate::agent::run(config, confinement))?;
    Ok(Answer::Yes)
}

pub(super) fn uninstall(context: &mut Context, uninstall: Uninstall) -> anyhow::Result<Answer> {
    let Uninstall { pins, stay } = uninstall;
    let flags = pins.map(|pins| ("pins", Value::Text(pins.display().to_string())));
    let config = context.config(SettingFlags(flags.into_iter().collect()))?.config;
    // Its open links would keep the programs attached, and it would go on as if its maps were pinned.
    let client = Client::new(&config.socket);
    match block_on(async { Ok(client.status().await) })? {
        Err(api::Error::NoAgent { .. }) => {}
        _ => bail!("an agent still answers on {}: stop it first", config.socket.display()),
    }
    let removed = crate::agent::uninstall(&config)?;
    if removed.is_empty() {
        context.screen.note(&format!("nothing is installed under {}", config.pins.display()));
    }
    for thing in removed {
        context.screen.data(&format!("removed {thing}\n"))?;
    }
    if stay {
        block_on(async { Ok(until_told().await?) })?;
    }
    Ok(Answer::Yes)
}

/// Waits for SIGTERM or SIGINT.
async fn until_told() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
