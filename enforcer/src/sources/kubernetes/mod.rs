//! The cluster's API as a source: pods, namespaces, services, nodes and policies, listed once and watched from then on.
//!
//! ```text
//!   watches of nine kinds --> every object by itself --> world --> differences --> the agent's task
//!   directories ------------------------------------------^          (pods at their directories)
//!   heartbeat: silence is not taken for peace; after an outage all is listed anew
//!   disk: what is known is saved, and used by an agent that starts while the server is away
//! ```
//!
//! # What must stay true
//! * Nothing is told before every kind was listed, or is known from disk: half of a cluster would open what the other half
//!   closes.
//! * What was told last stays while the server is away, for however long; since when, and what is wrong, is told.
//! * An object that can't be read is a problem of its own: what was known of it stays, and the others are not touched.
//! * Namespace, service account and UID of a pod are the API server's word. Labels and annotations are whoever's who may
//!   create pods, and give nobody another's directory, address, namespace or account.

mod kinds;
mod known;
mod mirror;
mod news;
mod place;
mod pod;
mod policy;
mod saved;
mod service;
mod watch;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use self::mirror::Mirror;
use self::news::{News, news};
use self::saved::Saved;
use super::directories::{Directories, Moved};
use crate::domain::cluster_policy::{ClusterPolicy, KUBERNETES, SourceInfo};
use crate::domain::timestamp::Timestamp;
use crate::domain::workload::{Changes, WorkloadEvent};

/// Time between looks at everything that no event tells.
const TICK: Duration = Duration::from_secs(1);
/// Time between heartbeats while the server answers and nothing else is heard from it.
const BEAT: Duration = Duration::from_secs(10);
/// The same while it does not answer, or some watch fails.
const ANXIOUS_BEAT: Duration = Duration::from_secs(2);
/// Time that an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// An agent that starts waits so long for the server before it uses what was saved.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time between savings.
const SAVE: Duration = Duration::from_secs(10);
/// Events that are taken together at most.
const BATCH: usize = 1_024;

/// A connection to the API server.
#[derive(Clone)]
pub struct Link {
    /// The client.
    pub client: kube::Client,
    /// Its address, for people.
    pub server: String,
    /// Says what an error means: what failed, where, and what to do.
    pub explain: fn(&kube::Error) -> String,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A connection that is being made, or the sentence why there is none.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Link, String>> + Send>>;

/// Makes connections.
pub type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// Writes a content, piece by piece.
pub type Content<'a> = &'a dyn Fn(&mut dyn io::Write) -> io::Result<()>;

/// Puts a content on disk.
pub type Keep = Arc<dyn Fn(Content<'_>) -> Result<(), String> + Send + Sync>;

/// What the source needs besides directories.
#[derive(Clone)]
pub struct Settings {
    /// The name of this node.
    pub node: String,
    /// Makes a connection, from credentials as they are now.
    pub connect: Connect,
    /// What [`Settings::keep`] was given last.
    pub saved: Option<Vec<u8>>,
    /// Puts on disk what an agent that starts later can use. May block.
    pub keep: Keep,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What this source tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// Workloads, namespaces and services.
    Workloads(WorkloadEvent),
    /// All policy objects.
    Policies(Vec<Arc<ClusterPolicy>>),
    /// How it is.
    State(SourceInfo),
}

/// Tells until nobody listens.
///
/// # Errors
/// That the index of directories ended.
pub async fn run(
    settings: Settings,
    directories: Directories,
    told: mpsc::Sender<Told>,
) -> Result<(), String> {
    let moved = directories.subscribe();
    tokio::select! {
        () = directories.scanned() => {}
        () = told.closed() => return Ok(()),
    }
    let mut source = Source::new(settings, directories, told);
    let mut moved = Some(moved);
    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        let connect = Arc::clone(&source.settings.connect);
        match connect().await {
            Ok(link) => match source.follow(link, &mut moved).await {
                End::Closed => return Ok(()),
                End::Directories => return Err("the index of directories ended".to_owned()),
                End::Again => {}
            },
            Err(problem) => source.is_away(problem),
        }
        pause = if began.elapsed() > BEAT { Duration::ZERO } else { (pause * 2).clamp(TICK, BEAT) };
        if source.wait(pause, &mut moved).await.is_break() {
            return Ok(());
        }
    }
}

/// Why a connection is given up.
enum End {
    /// Nobody listens.
    Closed,
    /// The server answers again, and what is known has to be compared with it.
    Again,
    /// The directories are not looked after any more.
    Directories,
}

/// What the server did not answer.
struct Away {
    since: Timestamp,
    message: String,
}

struct Source {
    settings: Settings,
    directories: Directories,
    told: mpsc::Sender<Told>,
    mirror: Mirror,
    server: String,
    away: Option<Away>,
    started: Instant,
    /// When the server was heard last.
    heard: Option<(Instant, Timestamp)>,
    saved: Option<Saved>,
    /// Of when it is what was restored.
    restored: Option<Timestamp>,
    saved_at: Instant,
    /// What is being put on disk. The disk may be slow, and pods don't wait for it.
    saving: Option<JoinHandle<Result<(), String>>>,
    save_problem: Option<String>,
    /// Whether the whole was told.
    is_told: bool,
    info: Option<SourceInfo>,
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanos: now.subsec_nanos() }
}

impl Source {
    fn new(mut settings: Settings, directories: Directories, told: mpsc::Sender<Told>) -> Self {
        let mut save_problem = None;
        let read = |text: Vec<u8>| {
            Saved::read(&text)
                .inspect_err(|problem| {
                    save_problem = Some(format!("what was saved of the cluster is not used: {problem}"));
                })
                .ok()
        };
        let saved = settings.saved.take().and_then(read);
        Self {
            mirror: Mirror::new(settings.node.clone(), now()),
            settings,
            directories,
            told,
            server: String::new(),
            away: None,
            started: Instant::now(),
            heard: None,
            saved,
            restored: None,
            saved_at: Instant::now(),
            saving: None,
            save_problem,
            is_told: false,
            info: None,
        }
    }

    /// Follows the server until it has to be begun anew.
    async fn follow(&mut self, link: Link, moved: &mut Option<broadcast::Receiver<Moved>>) -> End {
        self.server.clone_from(&link.server);
        let mut events = watch::all(&link.client);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beat: Option<JoinHandle<Result<(), String>>> = None;
        let mut asked = Instant::now();
        let closed = self.told.clone();
        loop {
            tokio::select! {
                Some(item) = events.next() => {
                    let mut next = Some(item);
                    for _ in 0..BATCH {
                        let Some(item) = next else { break };
                        self.take(item, &link);
                        next = events.next().now_or_never().flatten();
                    }
                    if let Some(item) = next {
                        self.take(item, &link);
                    }
                }
                news = news(moved) => {
                    let Some(news) = news else { return End::Directories };
                    self.heed(news);
                }
                answer = answer(&mut beat) => {
                    beat = None;
                    if self.answered(answer) {
                        return End::Again;
                    }
                }
                _ = tick.tick() => {
                    let anxious = self.away.is_some() || self.mirror.is_troubled() || !self.mirror.is_complete();
                    let every = if anxious { ANXIOUS_BEAT } else { BEAT };
                    let silent = self.heard.is_none_or(|(heard, _)| heard.elapsed() >= every);
                    if beat.is_none() && silent && asked.elapsed() >= every {
                        asked = Instant::now();
                        beat = Some(tokio::spawn(ask(link.clone())));
                    }
                    self.mirror.settle();
                }
                () = closed.closed() => {
                    self.save(true).await;
                    return End::Closed;
                }
            }
            self.tell().await;
        }
    }

    /// Waits, while directories come and go.
    async fn wait(
        &mut self,
        pause: Duration,
        moved: &mut Option<broadcast::Receiver<Moved>>,
    ) -> std::ops::ControlFlow<()> {
        let until = tokio::time::Instant::now() + pause;
        let closed = self.told.clone();
        loop {
            self.tell().await;
            let patience = tokio::time::sleep(TICK);
            tokio::select! {
                () = tokio::time::sleep_until(until) => return std::ops::ControlFlow::Continue(()),
                () = patience => {}
                news = news(moved) => match news {
                    Some(news) => self.heed(news),
                    None => *moved = None,
                },
                () = closed.closed() => {
                    self.save(true).await;
                    return std::ops::ControlFlow::Break(());
                }
            }
        }
    }

    /// Has looked at whatever depends on directories that came or went.
    fn heed(&mut self, News { all, pods }: News) {
        if all {
            self.mirror.world.directories_moved();
        }
        for uid in pods {
            self.mirror.world.directory_moved(uid);
        }
    }

    fn take(&mut self, (kind, event): watch::Item, link: &Link) {
        match event {
            // It says that an attempt begins, and not that the server was heard.
            Ok(event @ kube::runtime::watcher::Event::Init) => self.mirror.take(kind, event, now()),
            Ok(event) => {
                self.heard = Some((Instant::now(), now()));
                self.mirror.take(kind, event, now());
            }
            Err(error) => {
                if watch::status(&error).is_some() {
                    self.heard = Some((Instant::now(), now()));
                }
                self.mirror.failed(kind, &error, link.explain, now());
            }
        }
    }

    /// The server can't be reached, or does not know us.
    fn is_away(&mut self, message: String) {
        let since = self.away.as_ref().map_or_else(now, |away| away.since);
        self.away = Some(Away { since, message });
    }

    /// Takes the answer to a heartbeat; whether it is the first after others that did not come.
    fn answered(&mut self, answer: Result<(), String>) -> bool {
        match answer {
            Ok(()) => {
                self.heard = Some((Instant::now(), now()));
                self.away.take().is_some()
            }
            Err(message) => {
                self.is_away(message);
                false
            }
        }
    }

    /// Tells what is different since this was called last.
    async fn tell(&mut self) {
        let is_over = self.started.elapsed() > PATIENCE || self.away.is_some() || self.mirror.is_troubled();
        if !self.mirror.is_complete()
            && is_over
            && let Some(saved) = self.saved.take()
        {
            self.restored = Some(saved.at);
            self.mirror.restore(saved, now());
        }
        if self.mirror.is_complete() {
            self.saved = None;
            let directories = self.directories.clone();
            let changes = self.mirror.world.changes(&directories);
            if std::mem::take(&mut self.mirror.policies_changed) {
                self.send(Told::Policies(self.mirror.policies())).await;
            }
            let source = KUBERNETES.to_owned();
            if !std::mem::replace(&mut self.is_told, true) {
                self.send(Told::Workloads(self.mirror.world.snapshot(KUBERNETES))).await;
            } else if changes != Changes::default() {
                let changes = Box::new(changes);
                self.send(Told::Workloads(WorkloadEvent::Changes { source, changes })).await;
            }
        }
        self.save(false).await;
        let info = self.info();
        if self.info.as_ref() != Some(&info) {
            self.info = Some(info.clone());
            self.send(Told::State(info)).await;
        }
    }

    async fn send(&self, told: Told) {
        // Nobody listens any more when the agent ends.
        self.told.send(told).await.ok();
    }

    /// Puts what is known on disk, not too often; `at_once`: and waits until it is there.
    async fn save(&mut self, at_once: bool) {
        if self.saving.as_ref().is_some_and(|saving| at_once || saving.is_finished()) {
            self.saved().await;
        }
        let is_due = self.saving.is_none() && (at_once || self.saved_at.elapsed() >= SAVE);
        let is_known = self.mirror.is_complete() && !self.mirror.is_restored();
        if !is_due || !is_known || !std::mem::take(&mut self.mirror.unsaved) {
            return;
        }
        self.saved_at = Instant::now();
        let (saved, keep) = (self.mirror.save(now()), Arc::clone(&self.settings.keep));
        self.saving = Some(tokio::task::spawn_blocking(move || keep(&|to| saved.write(to))));
        if at_once {
            self.saved().await;
        }
    }

    /// Waits for what is being put on disk.
    async fn saved(&mut self) {
        let Some(saving) = self.saving.take() else { return };
        let kept = saving.await.map_err(|error| error.to_string()).flatten();
        self.mirror.unsaved |= kept.is_err();
        self.save_problem = kept.err().map(|problem| {
            format!("what is known of the cluster can't be saved, so a restart during an outage would not know it: {problem}")
        });
    }

    fn info(&self) -> SourceInfo {
        let away = self.away.as_ref();
        let kinds = self.mirror.kinds(away.map(|away| away.since));
        let has = |state: &str| kinds.iter().any(|kind| kind.state == state);
        let state = ["waiting", "restored", "away"].into_iter().find(|state| has(state)).unwrap_or("synced");
        let since = kinds.iter().filter(|kind| kind.state == state).map(|kind| kind.since.clone());
        // An outage began with its first sign, a sync was complete with its last.
        let since = if state == "synced" { since.max() } else { since.min() };
        let mut problems: Vec<String> = away
            .map(|away| {
                let kept = match state {
                    "waiting" => "nothing is known of the cluster yet",
                    "restored" => "what was saved on disk is used",
                    _ => "what was told last stays",
                };
                format!("{} (since {}); {kept}", away.message, away.since.whole_seconds())
            })
            .into_iter()
            .collect();
        problems.extend(self.mirror.problems(away.is_none()));
        problems.extend(self.save_problem.clone());
        if state == "waiting" && away.is_none() && self.started.elapsed() > PATIENCE {
            problems.push(format!("waiting for the first list of {}", self.mirror.waiting().join(", ")));
        }
        if self.mirror.is_complete() && !self.mirror.world.knows_itself() {
            problems.push(format!(
                "the cluster has no node {}, so no pod is found on this host: name it with --node-name as `kubectl get \
                 nodes` does",
                self.mirror.world.own()
            ));
        }
        SourceInfo {
            name: KUBERNETES.to_owned(),
            state: state.to_owned(),
            since: since.unwrap_or_default(),
            known: self.known(state),
            server: self.server.clone(),
            kinds,
            problems,
        }
    }

    /// When what is used was last known to be so. While all is well that is now, and saying so every second tells nothing.
    fn known(&self, state: &str) -> String {
        match state {
            "synced" | "waiting" => String::new(),
            "restored" => self.restored.map(Timestamp::whole_seconds).unwrap_or_default(),
            _ => self.heard.map(|(_, at)| at.whole_seconds()).unwrap_or_default(),
        }
    }
}

/// The answer to a heartbeat that is on its way.
async fn answer(beat: &mut Option<JoinHandle<Result<(), String>>>) -> Result<(), String> {
    match beat {
        Some(beat) => beat.await.map_err(|error| error.to_string()).flatten(),
        None => std::future::pending().await,
    }
}

/// Asks the server for something that everybody may know.
async fn ask(link: Link) -> Result<(), String> {
    let server = &link.server;
    let request = http::Request::get("/version").body(Vec::new()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(ANSWER, link.client.request_text(request)).await {
        Ok(Ok(_)) => Ok(()),
        // It answers: while it has not read the roles after its start, or where not everybody may know its version.
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Ok(()),
        Ok(Err(error)) => Err(format!("the API server {server} is away: {}", (link.explain)(&error))),
        Err(_) => Err(format!("the API server {server} is away: no answer within {} s", ANSWER.as_secs())),
    }
}
