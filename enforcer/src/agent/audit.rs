//! What the owner tells the audit log: who asked for what, what became of it, and what went wrong. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::start;
use crate::api::Call;
use crate::api::access::Peer;
use crate::config::{AuditFsync, AuditMode, Config};
use crate::domain::audit::Kind;
use crate::domain::audit::fact::{Actor, Fact};
use crate::domain::audit::record::{Boot, Host};
use crate::domain::command::{Refused, Reply, Request};
use crate::domain::timestamp::Timestamp;
use crate::engine::{Effect, Event, Facts, Ticket};
use crate::telemetry::audit::{Audit, Flush, Settings, Status};
use crate::telemetry::history;

/// The part, as problems name it.
const NAME: &str = "the audit log";
/// The other part, as problems name it.
const HISTORY: &str = "the flow history";
/// Askers that are remembered although they don't wait any more.
const GONE: usize = 256;
/// A change waits so long for the log, where it has to be recorded before it is made.
const PATIENCE: Duration = Duration::from_secs(5);

/// Settings of the log.
pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        directory: config.audit_directory(),
        file_size: config.audit_file_size.0,
        file_age: config.audit_file_age,
        total_size: config.audit_total_size.0,
        flush: match config.audit_fsync {
            AuditFsync::Always => Flush::Always,
            AuditFsync::Interval => Flush::Interval,
            AuditFsync::Never => Flush::Never,
        },
    }
}

/// Starts the log, if there is to be one.
pub(super) fn begin(
    config: &Config,
    facts: &Facts,
    host: &str,
) -> Result<Option<(Audit, std::thread::JoinHandle<()>)>, String> {
    if config.audit == AuditMode::Off {
        return Ok(None);
    }
    let host = Host { hostname: host.to_owned(), boot: Boot { id: facts.boot_id.clone() } };
    let started = Audit::start(settings(config), host, wall);
    started.map(Some).map_err(|error| format!("start the thread of {NAME}: {error}"))
}

/// Records that everything was removed, where there is a log. No agent runs, which the caller has made sure of.
pub(super) fn uninstalled(config: &Config, pins: usize) {
    if config.audit == AuditMode::Off || !config.audit_directory().is_dir() {
        return;
    }
    let boot = Boot { id: start::fact("/proc/sys/kernel/random/boot_id") };
    let host = Host { hostname: start::fact("/proc/sys/kernel/hostname"), boot };
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let actor = Actor { uid, gid, pid: Some(std::process::id()) };
    let Ok((audit, thread)) = Audit::start(settings(config), host, wall) else { return };
    audit.tell(Fact::Uninstalled { actor, pins });
    audit.stop();
    // It says itself what it could not write; a disk that does not answer is not waited for.
    let begin = Instant::now();
    while !thread.is_finished() && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wall() -> Timestamp {
    super::clock::clocks(Duration::ZERO).wall
}

/// Who asked for a change, until it is answered.
struct Asker {
    actor: Option<Actor>,
    action: &'static str,
    kind: Kind,
    names: Vec<String>,
}

/// See the module.
pub(super) struct Auditor {
    audit: Option<Audit>,
    askers: BTreeMap<Ticket, Asker>,
    /// Those of them who don't wait any more.
    gone: BTreeSet<Ticket>,
    /// The problems that were told last.
    problems: BTreeMap<&'static str, String>,
}

impl Auditor {
    pub(super) fn new(audit: Option<Audit>) -> Self {
        Self { audit, askers: BTreeMap::new(), gone: BTreeSet::new(), problems: BTreeMap::new() }
    }

    pub(super) fn tell(&self, fact: Fact) {
        if let Some(audit) = &self.audit {
            // What there is no room for is counted.
            audit.tell(fact);
        }
    }

    /// A request comes in.
    pub(super) fn asked(&mut self, ticket: Ticket, request: &Request, from: Option<Peer>) {
        let Some((action, kind, names)) = change(request) else { return };
        let actor = from.map(actor);
        if self.audit.is_some() {
            self.askers.insert(ticket, Asker { actor, action, kind, names });
        }
    }

    /// Nobody waits for the answer any more. A change that has begun goes on, and is still theirs who asked for it: hanging up
    /// hides nobody. One that has not begun is never answered, so the oldest are forgotten some time.
    pub(super) fn gone(&mut self, ticket: Ticket) {
        self.gone.insert(ticket);
        if self.gone.len() > GONE
            && let Some(oldest) = self.gone.pop_first()
        {
            self.askers.remove(&oldest);
        }
    }

    /// An effect is about to be performed.
    pub(super) fn perform(&mut self, effect: &Effect) {
        let Some(audit) = &self.audit else { return };
        match effect {
            Effect::Changed { ticket, generation, changes } => {
                let asker = ticket.and_then(|ticket| self.askers.get(&ticket));
                let actor = asker.and_then(|asker| asker.actor);
                for changed in changes {
                    audit.tell(Fact::Changed { changed: changed.clone(), actor, generation: *generation });
                }
            }
            Effect::Reply { ticket, reply } => {
                self.gone.remove(ticket);
                let Some(asker) = self.askers.remove(ticket) else { return };
                let Asker { actor, action, kind, names } = asker;
                let refused = match reply {
                    Reply::Refused(Refused { message, diagnostics, .. }) => Some(
                        diagnostics.iter().take(3).fold(message.clone(), |text, more| text + " | " + more),
                    ),
                    // What was changed was told when it came into force.
                    _ if action != CONFIRM => return,
                    _ => None,
                };
                audit.tell(Fact::Asked { action, kind, actor, names, refused });
            }
            Effect::Problem { area, message, settled } => {
                audit.tell(Fact::Problem { area, message: message.clone(), settled: *settled });
            }
            Effect::PublishNames(names) => audit.names(names),
            _ => {}
        }
    }

    /// How the log is.
    pub(super) fn status(&self) -> Option<Status> {
        self.audit.as_ref().map(Audit::status)
    }

    /// What the engine has to know of log and history, as far as that is something else than before.
    pub(super) fn look(&mut self, history: Option<&history::Status>) -> Vec<Event> {
        let audit = self.status().and_then(|status| status.problem);
        let history = history.and_then(|status| status.problem.clone());
        let mut events = Vec::new();
        for (name, problem) in [(NAME, audit), (HISTORY, history)] {
            if problem.as_ref() != self.problems.get(name) {
                match &problem {
                    Some(problem) => drop(self.problems.insert(name, problem.clone())),
                    None => drop(self.problems.remove(name)),
                }
                events.push(Event::Part { name, problem });
            }
        }
        events
    }
}

const CONFIRM: &str = "policy-confirm";

/// What a request asks to change: a word for it, what it is about, and names. `None` for questions and dry runs.
fn change(request: &Request) -> Option<(&'static str, Kind, Vec<String>)> {
    match request {
        Request::PolicyApply { dry_run: false, files, .. } => {
            Some(("policy-apply", Kind::Policy, files.iter().map(|file| file.name.clone()).collect()))
        }
        Request::PolicyConfirm { .. } => Some((CONFIRM, Kind::Policy, Vec::new())),
        Request::PolicyDelete { names } => Some(("policy-delete", Kind::Policy, names.clone())),
        Request::QuarantineAdd(wish) => {
            Some(("quarantine-add", Kind::Quarantine, vec![wish.workload.clone()]))
        }
        Request::QuarantineRelease { workload, .. } => {
            Some(("quarantine-release", Kind::Quarantine, vec![workload.clone()]))
        }
        _ => None,
    }
}

fn actor(Peer { uid, gid, pid }: Peer) -> Actor {
    Actor { uid, gid, pid }
}

/// Between the API and the owner where no change may be made that can't be recorded: a change passes when the log has
/// taken and flushed that somebody asks for it. Questions pass at once.
pub(super) fn gate(audit: Audit, owner: mpsc::Sender<Call>) -> mpsc::Sender<Call> {
    let (sender, mut calls) = mpsc::channel::<Call>(1);
    let (changes, mut queue) = mpsc::channel::<Call>(super::parts::CALLS);
    let to_owner = owner.clone();
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            let next = if change(&call.request).is_some() { &changes } else { &to_owner };
            if next.send(call).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(call) = queue.recv().await {
            match record(&audit, &call).await {
                Ok(()) => {
                    if owner.send(call).await.is_err() {
                        return;
                    }
                }
                Err(problem) => refuse(call.reply, &problem),
            }
        }
    });
    sender
}

/// Has the log take and flush that somebody asks for a change.
async fn record(audit: &Audit, call: &Call) -> Result<(), String> {
    let Some((action, kind, names)) = change(&call.request) else { return Ok(()) };
    if !audit.tell(Fact::Asking { action, kind, actor: call.from.map(actor), names }) {
        return Err("more waits to be written than there is room for".to_owned());
    }
    match tokio::time::timeout(PATIENCE, audit.flushed()).await {
        Ok(Ok(flushed)) => flushed,
        Ok(Err(_)) => Err("its writer has ended".to_owned()),
        Err(_) => Err(format!("its disk has not answered for {} s", PATIENCE.as_secs())),
    }
}

fn refuse(reply: oneshot::Sender<Reply>, problem: &str) {
    let message = format!(
        "no change is made that can't be recorded (setting `audit: fail-closed`): {problem}; nothing was changed: make room \
         or repair the disk, and repeat the command"
    );
    // The asker may be gone.
    reply.send(Reply::Refused(Refused { message, diagnostics: Vec::new(), not_found: false })).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::fact::Changed;
    use crate::domain::audit::verify::Range;
    use crate::telemetry::audit::read;

    #[test]
    fn hanging_up_hides_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state_dir: folder.path().to_owned(), ..Config::default() };
        let (audit, thread) = Audit::start(settings(&config), Host::default(), wall).unwrap();
        let mut auditor = Auditor::new(Some(audit.clone()));
        let (begun, never) = (Ticket(1), Ticket(2));
        for ticket in [begun, never] {
            let request = Request::PolicyDelete { names: vec!["default/db".into()] };
            auditor.asked(ticket, &request, Some(Peer { uid: 1000, gid: 1000, pid: Some(7) }));
            auditor.gone(ticket);
        }
        let changed = Changed::Policy {
            name: "default/db".into(),
            kind: "TrafficPolicy",
            origin: "pushed".into(),
            before: Some("kind: TrafficPolicy".into()),
            after: None,
        };
        auditor.perform(&Effect::Changed { ticket: Some(begun), generation: 3, changes: vec![changed] });
        audit.stop();
        thread.join().unwrap();
        let mut users = Vec::new();
        read::records(&config.audit_directory(), Range::default(), |_, record| {
            if record.event.action == "policy-deleted" {
                users.push(record.user.map(|user| user.id));
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(users, [Some("1000".to_owned())]);
        // What is never answered is forgotten some time.
        for number in 10..10 + 2 * GONE as u64 {
            auditor.asked(Ticket(number), &Request::PolicyDelete { names: Vec::new() }, None);
            auditor.gone(Ticket(number));
        }
        assert_eq!((auditor.gone.len(), auditor.askers.len()), (GONE, GONE));
    }
}
