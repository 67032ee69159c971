//! The canary: a process that must not talk, and tries to. That it is refused, in the way that only enforcer refuses it, is
//! the proof that what the table says is what happens.

use serde::{Deserialize, Serialize};

use super::id::{CgroupId, Generation, IdentityId};
use super::time::Clocks;

/// What a canary gets from a host that enforces. Nothing else on a host answers a call to the loopback address so.
pub use enforcer_common::reason::CANARY_ERRNO as ERRNO;

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every call was refused as it should be.
    Refused,
    /// A call was not, or not so: one sentence.
    Failed(String),
    /// No call could be made: one sentence. That proves nothing, and is no failure.
    Unproven(String),
}

impl Outcome {
    /// The label in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed(_) => "failed",
            Self::Unproven(_) => "unproven",
        }
    }

    /// Every label.
    pub const LABELS: [&'static str; 3] = ["refused", "failed", "unproven"];
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The generation that was in force when it began.
    pub generation: Generation,
    /// What came of it.
    pub outcome: Outcome,
    /// When it was over.
    pub now: Clocks,
}

/// What is told of the canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryEvent {
    /// Its directory is there, to be bound to its identity.
    Ready(CgroupId),
    /// It can't be used: one sentence.
    Absent(String),
    /// It tried.
    Tried(Attempt),
}

/// How the canary is, for status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryInfo {
    /// `refused` (all is well), `failed`, `unproven` or `waiting`.
    pub state: String,
    /// One sentence.
    pub message: String,
    /// The generation for which it was refused last; 0 for none.
    pub generation: u64,
    /// When it was refused last, RFC 3339.
    pub last_success: Option<String>,
}

/// The calls that it makes, by the hooks that refuse them.
pub const CALLS: [&str; 4] = ["connect4", "connect6", "sendmsg4", "sendmsg6"];

/// What became of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The errno that it ended with; 0 if it went through.
    Called(i32),
    /// There was no socket to call with, for this errno: the protocol may be absent or not allowed.
    NoSocket(i32),
    /// The process could not get as far.
    Problem(String),
}

/// Calls in one line: `connect4=113 connect6=-97`.
pub fn report(calls: &[(&str, Reported)]) -> String {
    let word = |(call, reported): &(&str, Reported)| match reported {
        Reported::Called(errno) => format!("{call}={errno}"),
        Reported::NoSocket(errno) => format!("{call}=-{errno}"),
        Reported::Problem(problem) => format!("! {problem}"),
    };
    calls.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// What such a line proves: every call that was made has to be refused with [`ERRNO`], and one of them at least has to be
/// made.
pub fn judge(line: &str) -> Outcome {
    if let Some(problem) = line.strip_prefix("! ") {
        return Outcome::Unproven(format!("its process could not {problem}"));
    }
    let (mut refused, mut wrong, mut absent) = (0, Vec::new(), Vec::new());
    for word in line.split(' ') {
        let Some((call, errno)) =
            word.split_once('=').and_then(|(call, errno)| Some((call, errno.parse::<i32>().ok()?)))
        else {
            return Outcome::Unproven(format!("its process answers `{word}`, which means nothing"));
        };
        match errno {
            0 => wrong.push(format!("{call} was let through")),
            errno if errno == ERRNO.number() => refused += 1,
            errno if errno < 0 => absent.push(format!("{call} errno {}", -errno)),
            errno => wrong.push(format!("{call} was answered with errno {errno}, not {}", ERRNO.name())),
        }
    }
    if !wrong.is_empty() {
        return Outcome::Failed(wrong.join(", "));
    }
    if refused == 0 {
        return Outcome::Unproven(format!("no socket could be made: {}", absent.join(", ")));
    }
    Outcome::Refused
}

/// Whether the canary is one of two ends. What it does is asked for by nobody, so that no flow, no record and no series but its
/// own tells of it.
pub fn is_one_of(subject: u32, peer: u32) -> bool {
    [subject, peer].contains(&IdentityId::CANARY.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_errno_proves_anything() {
        let all = |errnos: [i32; 4]| {
            let calls: Vec<_> = CALLS.into_iter().zip(errnos.map(Reported::Called)).collect();
            judge(&report(&calls))
        };
        let right = ERRNO.number();
        assert_eq!(all([right; 4]), Outcome::Refused);
        let Outcome::Failed(said) = all([right, 0, 111, right]) else { panic!("it is a failure") };
        assert_eq!(said, "connect6 was let through, sendmsg4 was answered with errno 111, not EHOSTUNREACH");
        for wrong in [0, 1, 13, 111, 115] {
            assert!(matches!(all([right, right, right, wrong]), Outcome::Failed(_)), "{wrong}");
        }
    }

    #[test]
    fn what_was_not_tried_is_no_failure() {
        let right = Reported::Called(ERRNO.number());
        let none = Reported::NoSocket(97);
        assert_eq!(judge(&report(&[("connect4", right), ("connect6", none.clone())])), Outcome::Refused);
        for line in [
            report(&[("connect4", none)]),
            "! enter /x: Read-only file system".into(),
            "nonsense".into(),
            String::new(),
        ] {
            assert!(matches!(judge(&line), Outcome::Unproven(_)), "{line}");
        }
    }
}
