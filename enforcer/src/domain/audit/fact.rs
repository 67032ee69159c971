//! What happened, as the parts of the agent tell it, and the records that it becomes.

use similar::TextDiff;

use super::Kind;
use super::chain::Hash;
use super::record::{Action, Diff, Group, Host, Process, Record, Rule, User, Workload};
use crate::domain::timestamp::Timestamp;

/// The longest diff in a record, in bytes.
const LONGEST_DIFF: usize = 128 << 10;
/// Unchanged lines around changed ones.
const AROUND: usize = 3;

/// A client of the API, by the kernel's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, if the kernel tells it.
    pub pid: Option<u32>,
}

/// Something that is in force now and was not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A policy.
    Policy {
        /// `namespace/name`.
        name: String,
        /// Its kind.
        kind: &'static str,
        /// `pushed`, or its file.
        origin: String,
        /// Its document before, if there was one.
        before: Option<String>,
        /// Its document now, if there is one.
        after: Option<String>,
    },
    /// A quarantine.
    Quarantine {
        /// `namespace/name` of the workload.
        workload: String,
        /// The terms; `None` if it ended.
        terms: Option<String>,
        /// Whether it was there before.
        was_there: bool,
    },
}

/// Something that deserves a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The agent starts.
    Started {
        /// Its version.
        version: String,
        /// Kernel release.
        kernel: String,
        /// What is done with a denial.
        mode: &'static str,
        /// The generation that an earlier agent left in force.
        generation: Option<u64>,
    },
    /// The agent ends.
    Stopped {
        /// Why not as it should; empty if as it should.
        problem: String,
    },
    /// Programs and maps were removed: nothing is enforced any more.
    Uninstalled {
        /// Who did it.
        actor: Actor,
        /// How many pins there were.
        pins: usize,
    },
    /// Something changed that is asked for.
    Changed {
        /// What.
        changed: Changed,
        /// Who asked, if anybody did.
        actor: Option<Actor>,
        /// Generation in force.
        generation: u64,
    },
    /// Somebody asks for a change that is made only when this is recorded.
    Asking {
        /// What: `policy-apply` and the like.
        action: &'static str,
        /// About what it is.
        kind: Kind,
        /// Who.
        actor: Option<Actor>,
        /// Names of what it is about.
        names: Vec<String>,
    },
    /// Somebody asked for a change.
    Asked {
        /// What: `policy-apply` and the like.
        action: &'static str,
        /// About what it is.
        kind: Kind,
        /// Who.
        actor: Option<Actor>,
        /// Names of what it is about.
        names: Vec<String>,
        /// Why it was refused; `None` if it was not.
        refused: Option<String>,
    },
    /// Something is wrong, or is no longer.
    Problem {
        /// Its kind, as in metrics.
        area: &'static str,
        /// One sentence.
        message: String,
        /// Whether it is over.
        settled: bool,
    },
    /// Something was put back in the kernel.
    Repaired {
        /// Its kind, as in metrics.
        kind: &'static str,
        /// One sentence.
        message: String,
    },
}

const fn action(
    kind: Kind,
    action: &'static str,
    category: &'static str,
    types: &'static [&'static str],
    outcome: &'static str,
) -> Action {
    Action { kind, action, category, types, outcome }
}

impl Fact {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Started { .. } | Self::Stopped { .. } | Self::Uninstalled { .. } => Kind::Lifecycle,
            Self::Changed { changed: Changed::Policy { .. }, .. } => Kind::Policy,
            Self::Changed { changed: Changed::Quarantine { .. }, .. } => Kind::Quarantine,
            Self::Asked { kind, .. } | Self::Asking { kind, .. } => *kind,
            Self::Problem { .. } => Kind::Degradation,
            Self::Repaired { .. } => Kind::Repair,
        }
    }

    /// About how many bytes it takes while it waits.
    pub fn size(&self) -> usize {
        let texts = match self {
            Self::Changed { changed: Changed::Policy { before, after, .. }, .. } => {
                before.as_ref().map_or(0, String::len) + after.as_ref().map_or(0, String::len)
            }
            Self::Asked { names, refused, .. } => {
                names.iter().map(String::len).sum::<usize>() + refused.as_ref().map_or(0, String::len)
            }
            Self::Asking { names, .. } => names.iter().map(String::len).sum(),
            Self::Problem { message, .. } | Self::Repaired { message, .. } => message.len(),
            _ => 0,
        };
        texts + 512
    }

    /// Its record.
    pub fn record(self, at: Timestamp, host: &Host) -> Record {
        let new = |action, message: String| Record::new(at, host, action, message);
        match self {
            Self::Started { version, kernel, mode, generation } => {
                let started = action(Kind::Lifecycle, "agent-started", "process", &["start"], "success");
                let message = format!("enforcer {version} starts on Linux {kernel} in mode {mode}");
                let mut record = new(started, message);
                record.enforcer.generation = generation;
                record
            }
            Self::Stopped { problem } => {
                let outcome = if problem.is_empty() { "success" } else { "failure" };
                let stopped = action(Kind::Lifecycle, "agent-stopped", "process", &["end"], outcome);
                let mut record =
                    new(stopped, "the agent ends; what is attached stays and enforces".to_owned());
                record.event.reason = problem;
                record
            }
            Self::Uninstalled { actor, pins } => {
                let action =
                    action(Kind::Lifecycle, "uninstalled", "process", &["end", "deletion"], "success");
                let mut record = new(
                    action,
                    format!("{pins} pins were removed: nothing is enforced on this host any more"),
                );
                sign(&mut record, Some(actor));
                record
            }
            Self::Changed { changed, actor, generation } => {
                let mut record = self::changed(changed, actor, at, host);
                record.enforcer.generation = Some(generation);
                record
            }
            Self::Asking { action: word, kind, actor, names } => {
                let types = &["change", "info"];
                let asking =
                    Action { kind, action: word, category: "configuration", types, outcome: "unknown" };
                let mut record = new(asking, format!("{word} {} is asked for", names.join(" ")));
                record.event.action.push_str("-requested");
                sign(&mut record, actor);
                record
            }
            Self::Asked { action: word, kind, actor, names, refused } => {
                let outcome = if refused.is_some() { "failure" } else { "success" };
                let types: &[&str] =
                    if refused.is_some() { &["change", "denied"] } else { &["change", "info"] };
                let asked = Action { kind, action: word, category: "configuration", types, outcome };
                let end = if refused.is_some() { "was refused" } else { "is done" };
                let mut record = new(asked, format!("{word} {} {end}", names.join(" ")));
                record.event.reason = refused.unwrap_or_default();
                sign(&mut record, actor);
                record
            }
            Self::Problem { area, message, settled } => {
                let (word, outcome) =
                    if settled { ("problem-settled", "success") } else { ("problem", "failure") };
                let types: &[&str] = if settled { &["end"] } else { &["error"] };
                let problem =
                    Action { kind: Kind::Degradation, action: word, category: "host", types, outcome };
                let mut record = new(problem, message);
                area.clone_into(&mut record.event.reason);
                record
            }
            Self::Repaired { kind, message } => {
                let repaired = action(Kind::Repair, "repaired", "host", &["change"], "success");
                let mut record = new(repaired, message);
                kind.clone_into(&mut record.event.reason);
                record
            }
        }
    }
}

/// Says who did it.
fn sign(record: &mut Record, actor: Option<Actor>) {
    let Some(Actor { uid, gid, pid }) = actor else { return };
    record.user = Some(User { id: uid.to_string(), group: Some(Group { id: gid.to_string() }) });
    record.process = pid.map(|pid| Process { pid, name: String::new() });
}

fn changed(changed: Changed, actor: Option<Actor>, at: Timestamp, host: &Host) -> Record {
    let mut record = match changed {
        Changed::Policy { name, kind, origin, before, after } => {
            let (word, types): (_, &[&str]) = match (&before, &after) {
                (None, _) => ("policy-created", &["creation"]),
                (Some(_), None) => ("policy-deleted", &["deletion"]),
                _ => ("policy-changed", &["change"]),
            };
            let action = Action {
                kind: Kind::Policy,
                action: word,
                category: "configuration",
                types,
                outcome: "success",
            };
            let message = format!("{kind} {name} ({origin}): {}", word.replace('-', " "));
            let mut record = Record::new(at, host, action, message);
            record.rule = Some(Rule {
                id: String::new(),
                name: String::new(),
                category: kind.to_owned(),
                ruleset: name,
            });
            record.enforcer.change = Some(diff(origin, before.as_deref(), after.as_deref()));
            record
        }
        Changed::Quarantine { workload, terms, was_there } => {
            let (word, types): (_, &[&str]) = match (&terms, was_there) {
                (None, _) => ("quarantine-ended", &["deletion"]),
                (Some(_), false) => ("quarantine-began", &["creation"]),
                (Some(_), true) => ("quarantine-changed", &["change"]),
            };
            let action = Action {
                kind: Kind::Quarantine,
                action: word,
                category: "configuration",
                types,
                outcome: "success",
            };
            let terms = terms.map(|terms| format!(": {terms}")).unwrap_or_default();
            let mut record =
                Record::new(at, host, action, format!("{} for {workload}{terms}", word.replace('-', " ")));
            record.enforcer.workload = Some(Workload { name: workload, identity: None });
            record
        }
    };
    if actor.is_none() {
        "nobody asked over the API: a file, or time that passed".clone_into(&mut record.event.reason);
    }
    sign(&mut record, actor);
    record
}

/// How a document changed.
fn diff(origin: String, before: Option<&str>, after: Option<&str>) -> Diff {
    let of = |text: Option<&str>| text.map(|text| Hash::of(text.as_bytes()));
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    let mut diff = if old.len().max(new.len()) > 4 * LONGEST_DIFF {
        // Comparing it would take longer than anybody would read.
        String::new()
    } else {
        TextDiff::from_lines(old, new).unified_diff().context_radius(AROUND).to_string()
    };
    let cut = diff.len() > LONGEST_DIFF || (diff.is_empty() && old != new);
    diff.truncate(
        (0..=LONGEST_DIFF.min(diff.len())).rev().find(|at| diff.is_char_boundary(*at)).unwrap_or(0),
    );
    Diff { origin, before: of(before), after: of(after), diff, cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_policy_shows_its_lines_and_who_changed_it() {
        let fact = Fact::Changed {
            changed: Changed::Policy {
                name: "default/db".into(),
                kind: "TrafficPolicy",
                origin: "pushed".into(),
                before: Some("a\nb\nc\n".into()),
                after: Some("a\nx\nc\n".into()),
            },
            actor: Some(Actor { uid: 0, gid: 7, pid: Some(42) }),
            generation: 5,
        };
        let record = fact.record(Timestamp::default(), &Host::default());
        let change = record.enforcer.change.unwrap();
        assert_eq!(change.diff, "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n");
        assert_eq!((change.before, change.cut), (Some(Hash::of(b"a\nb\nc\n")), false));
        assert_eq!(record.event.action, "policy-changed");
        assert_eq!(record.process.unwrap().pid, 42);
        assert_eq!(record.user.unwrap().group.unwrap().id, "7");
    }

    #[test]
    fn a_long_diff_is_cut_and_says_so() {
        let long = "é\n".repeat(100_000);
        let short = diff(String::new(), None, Some(&long));
        assert!(
            short.cut && short.diff.len() <= LONGEST_DIFF && short.after == Some(Hash::of(long.as_bytes()))
        );
        assert!(diff(String::new(), None, Some(&"x".repeat(1 << 20))).cut);
        assert!(!diff(String::new(), Some("a"), Some("a")).cut);
    }
}
