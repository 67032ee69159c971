//! What every command has at hand: the screen, the global flags, the configuration, the agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::args::Global;
use super::render::{Screen, diagnostic, quote};
use super::settings::{GLOBAL, SettingFlags};
use crate::api::client::Client;
use crate::config::{self, Config, Loaded, Sources, Value};
use crate::domain::timestamp::Timestamp;

/// What every command has at hand.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) screen: Screen,
    pub(super) global: Global,
}

impl Context {
    pub(super) fn new(screen: Screen, global: Global) -> Self {
        Self { screen, global }
    }

    /// The configuration from all its sources.
    pub(super) fn load(&self, flags: SettingFlags) -> Result<Loaded, config::Error> {
        let SettingFlags(mut flags) = flags;
        if let Some(socket) = &self.global.socket {
            flags.push((GLOBAL, Value::Text(socket.display().to_string())));
        }
        // Names that are not UTF-8 can't be ours; values that aren't get a mark that no path has, and fail by name.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .filter(|(name, _)| name.starts_with("ENFORCER_"));
        config::load(&Sources { file: self.global.config.clone(), environment: environment.collect(), flags })
    }

    /// The configuration, or an end: problems of the file are shown with their places.
    pub(super) fn config(&mut self, flags: SettingFlags) -> anyhow::Result<Loaded> {
        let loaded = self.load(flags).inspect_err(|error| {
            if let config::Error::Document { file, diagnostics } = error {
                let text =
                    diagnostic::render(std::slice::from_ref(file), diagnostics, self.screen.talk_in_color());
                self.screen.say(&text);
            }
        })?;
        for warning in &loaded.warnings {
            self.screen.warn(warning);
        }
        Ok(loaded)
    }

    /// The agent's client. A broken configuration does not keep anyone from asking a running agent.
    pub(super) fn client(&mut self) -> Client {
        let socket = match (&self.global.socket, self.load(SettingFlags::default())) {
            (Some(socket), _) => socket.clone(),
            (None, Ok(loaded)) => loaded.config.socket,
            (None, Err(error)) => {
                let socket = Config::default().socket;
                let place = socket.display();
                self.screen.warn(&format!("{error}; asking {place} (`enforcer config check` tells more)"));
                socket
            }
        };
        if self.global.verbose > 0 {
            self.screen.note(&format!("asking the agent on {}", quote(&socket.display().to_string())));
        }
        Client::new(socket)
    }
}

/// Runs a client's work: one thread is enough for one connection.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(work)
}

/// What the wall clock says.
pub(super) fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp { seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanos: now.subsec_nanos() }
}
