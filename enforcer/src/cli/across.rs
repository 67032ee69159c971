//! Questions to the agents of a cluster's nodes: whom to ask, what to ask, and who did not answer.
//!
//! Every node is asked by the command that somebody would type there, for JSON. A node that does not answer is told with its
//! reason and counted: exit code 1 if some did not answer, 2 if none did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Answer;
use super::args::cluster::Way;
use super::context::Context;
use super::render::{Screen, cluster as render, quote};
use crate::cluster::agents::{Agent, Agents, End, Error, Running};
use crate::cluster::client::connect;
use crate::domain::unit;

/// Nodes that one command asks: each is a connection that stays open while it answers.
const MOST: usize = 500;
/// Connections that are made at a time.
const AT_ONCE: usize = 32;
/// Longest silence of a command that should print.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read as a whole. In bytes.
const ANSWER: usize = 16 << 20;

/// The agents of a cluster, and how they are asked.
#[derive(Clone, Debug)]
pub(super) struct Across {
    pub(super) agents: Agents,
    /// The namespace that is meant where none is named.
    pub(super) namespace: String,
    /// What every command has behind its own words.
    global: Vec<String>,
    gate: Arc<Semaphore>,
}

impl Across {
    /// Makes the way to a cluster.
    pub(super) async fn open(context: &mut Context, to: &Way) -> anyhow::Result<Self> {
        let connection = connect(to.kubeconfig.as_deref(), to.context.as_deref()).await?;
        if context.global.verbose > 0 {
            let (server, space) = (&connection.server, &to.report_namespace);
            context
                .screen
                .note(&format!("asking {server} for the agents in {space} ({})", connection.origin));
        }
        // The user's own configuration says nothing of the agents; a socket that is named can only be theirs.
        let socket = context.global.socket.iter().map(|socket| format!("--socket={}", socket.display()));
        Ok(Self {
            agents: Agents::new(connection.client, to.report_namespace.clone()),
            namespace: connection.namespace,
            global: socket.collect(),
            gate: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// The agents of the nodes that are meant.
    pub(super) async fn chosen(&self, is_meant: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Agent>> {
        let all = self.agents.list().await?;
        let names: Vec<String> = all.iter().map(|agent| agent.node.clone()).collect();
        let chosen: Vec<Agent> = all.into_iter().filter(|agent| is_meant(&agent.node)).collect();
        if chosen.is_empty() {
            bail!("none of the nodes that are meant has an agent; agents are on {}", render::names(&names));
        }
        if chosen.len() > MOST {
            bail!(
                "{} nodes have agents, and one command asks {MOST} at most: choose some with --node-name; `enforcer status \
                 --cluster` shows all of them",
                chosen.len()
            );
        }
        Ok(chosen)
    }

    /// The words of a command, as they are executed on a node.
    pub(super) fn command(&self, words: impl IntoIterator<Item = String>) -> Vec<String> {
        let program = std::iter::once("enforcer".to_owned());
        program.chain(words).chain(self.global.iter().cloned()).collect()
    }

    /// Starts a command on a node, when it is its turn.
    pub(super) async fn run(&self, agent: &Agent, command: &[String]) -> Result<Running, Error> {
        // Nobody closes it.
        let _turn = self.gate.acquire().await.ok();
        self.agents.run(agent, command).await
    }

    /// What a command prints on each of these nodes, in the order of their names.
    pub(super) async fn ask(&self, chosen: &[Agent], command: &[String]) -> Vec<(String, Said)> {
        let mut tasks = JoinSet::new();
        for agent in chosen {
            let (across, agent, command) = (self.clone(), agent.clone(), command.to_vec());
            tasks.spawn(async move {
                let said = across.ask_one(&agent, &command).await;
                (agent.node, said)
            });
        }
        let mut all = tasks.join_all().await;
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    async fn ask_one(&self, agent: &Agent, command: &[String]) -> Said {
        let mut running = self.run(agent, command).await.map_err(Missing::from)?;
        let text = timeout(PATIENCE, running.rest(ANSWER)).await.unwrap_or_else(|_| Err(silent()));
        Ok((text.map_err(Missing::Other)?, running.end().await))
    }
}

/// What came of asking a node: what it printed, and how it ended.
pub(super) type Said = Result<(String, End), Missing>;

/// Why there is no answer of a node.
#[derive(Debug)]
pub(super) enum Missing {
    /// A right that is as likely missing for the other nodes.
    Right(String),
    /// In one sentence.
    Other(String),
}

impl From<Error> for Missing {
    fn from(error: Error) -> Self {
        match error {
            Error::Forbidden { .. } => Self::Right(error.to_string()),
            error => Self::Other(error.to_string()),
        }
    }
}

/// Nothing came for too long.
pub(super) fn silent() -> String {
    format!("nothing came for {} seconds: is the node there?", PATIENCE.as_secs())
}

/// Why a command that has ended is no answer.
pub(super) fn why(end: &End) -> Missing {
    let talk = end.talk.strip_prefix("error: ").unwrap_or(&end.talk);
    Missing::Other(match &end.code {
        Ok(code) if talk.is_empty() => format!("its command ended with {code}"),
        Ok(_) => talk.to_owned(),
        Err(problem) if talk.is_empty() => problem.clone(),
        Err(problem) => format!("{problem}; it said: {talk}"),
    })
}

/// Who has answered, and who has not.
#[derive(Debug, Default)]
pub(super) struct Roll {
    answered: usize,
    missing: BTreeSet<String>,
    /// Whether a missing right was told.
    told: bool,
}

impl Roll {
    pub(super) fn answered(&mut self) {
        self.answered += 1;
    }

    /// Tells why a node did not answer; that a right is missing once.
    pub(super) fn missing(&mut self, screen: &mut Screen, node: &str, why: &Missing) {
        let is_new = self.missing.insert(node.to_owned());
        match why {
            Missing::Right(problem) if !std::mem::replace(&mut self.told, true) => {
                screen.error(&format!("{node}: {problem}"));
            }
            Missing::Other(problem) if is_new => screen.error(&format!("{node}: {problem}")),
            _ => {}
        }
    }

    /// Whether this node was told as missing. It is not any more.
    pub(super) fn tells_again(&mut self, node: &str) -> bool {
        self.missing.remove(node)
    }

    /// How many did not answer; and what the exit code is.
    pub(super) fn close(self, screen: &mut Screen) -> anyhow::Result<Answer> {
        let Self { answered, missing, .. } = self;
        if missing.is_empty() {
            return Ok(Answer::Yes);
        }
        let names: Vec<String> = missing.into_iter().collect();
        let all = names.len() + answered;
        if answered == 0 {
            bail!("none of {all} nodes answered: {}", render::names(&names));
        }
        screen.error(&format!("{} of {all} nodes did not answer: {}", names.len(), render::names(&names)));
        Ok(Answer::No)
    }
}

/// Whether a name is meant by patterns; without any, every name is.
pub(super) fn is_named(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| unit::matches(pattern, name))
}

/// What a node printed, read as JSON, if its command ended with one of these codes; or why not.
pub(super) fn read<T: serde::de::DeserializeOwned>(said: Said, good: &[i32]) -> Result<T, Missing> {
    let (text, end) = said?;
    let is_good = end.code.as_ref().is_ok_and(|code| good.contains(code));
    match serde_json::from_str(&text) {
        Ok(read) if is_good => Ok(read),
        // Whoever refuses says so on standard error, and prints nothing.
        Err(error) if is_good && end.talk.is_empty() => Err(Missing::Other(format!(
            "its answer is not what this version expects ({error}): {}",
            quote(&first(&text))
        ))),
        _ => Err(why(&end)),
    }
}

/// The beginning of a text, for people.
fn first(text: &str) -> String {
    text.chars().take(80).collect()
}
