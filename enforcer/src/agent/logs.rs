//! Audit log and flow history: started, fed and ended together.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Error, audit};
use crate::api::{Call, HistoryReader};
use crate::config::{AuditMode, Config, Switch};
use crate::domain::audit::fact::Fact;
use crate::engine::{Adopted, Facts};
use crate::telemetry::audit::Audit;
use crate::telemetry::history::{self, History, query};

/// Both have so long to write what is left.
const GRACE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Logs {
    pub(super) audit: Option<Audit>,
    pub(super) history: Option<History>,
    threads: Vec<JoinHandle<()>>,
    database: PathBuf,
}

impl Logs {
    /// Starts what the configuration asks for, and records that the agent starts.
    pub(super) fn start(
        config: &Config,
        facts: &Facts,
        adopted: &Adopted,
        host: &str,
    ) -> Result<Self, Error> {
        let mut threads = Vec::new();
        let audit = audit::begin(config, facts, host).map_err(Error::Thread)?.map(|(audit, thread)| {
            threads.push(thread);
            audit
        });
        let history = if config.history == Switch::On {
            let settings = history::Settings {
                path: config.history_database(),
                age: config.history_age,
                size: config.history_size.0,
            };
            let (history, thread) = History::start(settings)
                .map_err(|error| Error::Thread(format!("start the flow history: {error}")))?;
            threads.push(thread);
            Some(history)
        } else {
            None
        };
        if let Some(audit) = &audit {
            audit.tell(Fact::Started {
                version: facts.version.clone(),
                kernel: facts.kernel.clone(),
                mode: facts.mode.name(),
                generation: adopted.generation.map(|generation| generation.0),
            });
        }
        Ok(Self { audit, history, threads, database: config.history_database() })
    }

    /// Where the API's requests go: to the owner, or to the log first.
    pub(super) fn gate(&self, config: &Config, owner: mpsc::Sender<Call>) -> mpsc::Sender<Call> {
        match (&self.audit, config.audit) {
            (Some(audit), AuditMode::FailClosed) => audit::gate(audit.clone(), owner),
            _ => owner,
        }
    }

    /// Answers questions about earlier flows.
    pub(super) fn reader(&self) -> HistoryReader {
        let database = self.history.is_some().then(|| self.database.clone());
        Arc::new(move |asked| match &database {
            Some(path) => query::query(path, asked),
            None => Err("no flow history is kept: the setting `history` is off".to_owned()),
        })
    }

    /// Records that the agent ends, and waits until all is written, or no longer.
    pub(super) async fn stop(self, ended: &Result<(), Error>) {
        if let Some(audit) = &self.audit {
            let problem = ended.as_ref().err().map(ToString::to_string).unwrap_or_default();
            audit.tell(Fact::Stopped { problem });
            audit.stop();
        }
        if let Some(history) = &self.history {
            history.stop();
        }
        let begin = Instant::now();
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if begin.elapsed() > GRACE {
                tracing::warn!("audit log or flow history still wait for their disk and are left behind");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
