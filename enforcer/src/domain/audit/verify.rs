//! Finding what was done to a log: lines come in, findings go out.
//!
//! After a finding the chain is taken up again at the line that was found, so one manipulation is told once or twice and
//! not as often as there are lines behind it.

use std::fmt;

use super::chain::{self, Checkpoint, Hash, Head, Opened};
use crate::domain::timestamp::Timestamp;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as it was given; empty where no line is to blame.
    pub file: String,
    /// The line, from 1; 0 where no line is to blame.
    pub line: u64,
    /// The record that it is about.
    pub sequence: Option<u64>,
    /// What.
    pub what: What,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The line is no record.
    Unreadable(String),
    /// The record does not have the hash that it ends with.
    Changed,
    /// The record is whole and does not belong behind the one before it: that one, or this one, was replaced.
    Detached,
    /// Records are missing before this one.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The record's number was there already: it was moved or inserted.
    Misplaced {
        /// The number that belongs here.
        expected: u64,
    },
    /// The oldest records that should be kept are missing.
    HeadCut {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The last records that were written are missing.
    TailCut {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The record is another one than the checkpoint, or the head that was noted, says.
    Replaced,
    /// The checkpoint is missing or damaged, so that a cut head or tail can't be found.
    NoCheckpoint(String),
    /// The agent says that it found no checkpoint at this record: what was before can have been cut.
    CheckpointWasLost,
    /// The head that was noted is newer than the log.
    NotReached,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.file, self.line)?;
        }
        if let Some(sequence) = self.sequence {
            write!(f, "record {sequence}: ")?;
        }
        match &self.what {
            What::Unreadable(problem) => write!(f, "unreadable: {problem}"),
            What::Changed => f.write_str("changed: its content does not have the hash that it ends with"),
            What::Detached => f.write_str(
                "detached: the hash of the record before it is another one, so that record or this one was replaced",
            ),
            What::Missing { from, to } => write!(f, "missing: records {from} to {to} before it"),
            What::Misplaced { expected } => {
                write!(f, "misplaced: record {expected} belongs here; this one was moved or inserted")
            }
            What::HeadCut { from, to } => write!(f, "head cut: records {from} to {to} should be kept still"),
            What::TailCut { from, to } => write!(f, "tail cut: records {from} to {to} were written and are gone"),
            What::Replaced => f.write_str("replaced: its hash is not the one that was noted"),
            What::NoCheckpoint(problem) => {
                write!(f, "no checkpoint, so a cut head or tail can't be found: {problem}")
            }
            What::CheckpointWasLost => f.write_str(
                "the agent found no checkpoint when it wrote this record: what was before can have been cut",
            ),
            What::NotReached => f.write_str("the log ends before the record that was noted"),
        }
    }
}

/// The first or last record that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// By number.
    Sequence(u64),
    /// By time.
    Time(Timestamp),
}

/// Which records are asked for. Findings elsewhere are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first, included; `None` for the oldest.
    pub from: Option<Bound>,
    /// The last, included; `None` for the newest.
    pub to: Option<Bound>,
}

impl Range {
    /// Whether a record is asked for.
    pub fn contains(&self, sequence: u64, timestamp: Timestamp) -> bool {
        let from = self.from.is_none_or(|from| match from {
            Bound::Sequence(from) => sequence >= from,
            Bound::Time(from) => timestamp >= from,
        });
        from && self.to.is_none_or(|to| match to {
            Bound::Sequence(to) => sequence <= to,
            Bound::Time(to) => timestamp <= to,
        })
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that is wrong, in the order of lines.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are kept.
    pub more: u64,
    /// Records that were read.
    pub records: u64,
    /// Number of the oldest record, 0 if there is none.
    pub first: u64,
    /// The newest record: to be noted elsewhere.
    pub head: Head,
    /// Whether a head was noted that is older than what is kept, so that it could not be compared.
    pub noted_is_older: bool,
}

/// Findings that are kept one by one.
const KEPT: usize = 1_000;
/// What a record says whose agent found no checkpoint, as it stands in the line.
const LOST_MARK: &str = "\"action\":\"audit-checkpoint-lost\"";

/// Follows the chain, line by line.
#[derive(Debug)]
pub struct Verifier {
    range: Range,
    checkpoint: Result<Option<Checkpoint>, String>,
    noted: Option<Head>,
    /// The record before the next one; its hash, if that is known.
    at: Option<(u64, Option<Hash>)>,
    time: Timestamp,
    report: Report,
}

impl Verifier {
    /// A verifier that was told what the checkpoint says (`Ok(None)` if there is no log yet either), and which head was
    /// noted elsewhere.
    pub fn new(checkpoint: Result<Option<Checkpoint>, String>, noted: Option<Head>, range: Range) -> Self {
        let report = Report::default();
        Self { range, checkpoint, noted, at: None, time: Timestamp::EARLIEST, report }
    }

    /// Takes the next line, without its newline. Lines come in the order of files and lines.
    pub fn line(&mut self, file: &str, line: u64, text: &[u8]) {
        let opened = match chain::open(text) {
            Ok(opened) => opened,
            Err(problem) => {
                let sequence = self.at.map(|(sequence, _)| sequence.saturating_add(1));
                self.at = sequence.map(|sequence| (sequence, None));
                return self.find(file, line, None, What::Unreadable(problem));
            }
        };
        self.time = opened.timestamp;
        self.report.records += 1;
        if !opened.is_whole {
            self.find(file, line, Some(opened.sequence), What::Changed);
        } else if text.windows(LOST_MARK.len()).any(|part| part == LOST_MARK.as_bytes()) {
            self.find(file, line, Some(opened.sequence), What::CheckpointWasLost);
        }
        self.compare_with_noted(file, line, &opened);
        match self.at {
            None => self.begin(file, line, &opened),
            Some((sequence, hash)) => self.follow(file, line, &opened, (sequence, hash)),
        }
        self.at = Some((opened.sequence, Some(opened.hash)));
        self.report.head = opened.head();
    }

    fn follow(&mut self, file: &str, line: u64, opened: &Opened, (before, hash): (u64, Option<Hash>)) {
        // The numbers are whatever somebody has written.
        let expected = before.saturating_add(1);
        let found = Some(opened.sequence);
        if opened.sequence > expected {
            let missing = What::Missing { from: expected, to: opened.sequence - 1 };
            self.find(file, line, found, missing);
        } else if opened.sequence < expected {
            self.find(file, line, found, What::Misplaced { expected });
        } else if hash.is_some_and(|hash| hash != opened.previous) {
            self.find(file, line, found, What::Detached);
        }
    }

    /// The first line that can be read.
    fn begin(&mut self, file: &str, line: u64, opened: &Opened) {
        self.report.first = opened.sequence;
        let before = match &self.checkpoint {
            Ok(Some(checkpoint)) => checkpoint.before,
            _ => return,
        };
        let kept = before.sequence.saturating_add(1);
        if opened.sequence > kept {
            let cut = What::HeadCut { from: kept, to: opened.sequence - 1 };
            self.find(file, line, Some(opened.sequence), cut);
        } else if opened.sequence == kept && opened.previous != before.hash {
            self.find(file, line, Some(opened.sequence), What::Detached);
        }
    }

    fn compare_with_noted(&mut self, file: &str, line: u64, opened: &Opened) {
        let last = self.checkpoint.as_ref().ok().and_then(|checkpoint| checkpoint.map(|it| it.last));
        let differs = |noted: Head| noted.sequence == opened.sequence && noted.hash != opened.hash;
        if last.is_some_and(differs) || self.noted.is_some_and(differs) {
            self.find(file, line, Some(opened.sequence), What::Replaced);
        }
    }

    /// Everything was read.
    pub fn finish(mut self) -> Report {
        let end = self.report.head.sequence;
        let is_open = self.range.to.is_none();
        match self.checkpoint.clone() {
            Err(problem) => self.find_nowhere(None, What::NoCheckpoint(problem)),
            Ok(None) if self.report.records > 0 => {
                self.find_nowhere(None, What::NoCheckpoint("the file is not there".to_owned()));
            }
            Ok(Some(checkpoint)) if is_open && checkpoint.last.sequence > end => {
                let cut = What::TailCut {
                    from: end.max(checkpoint.before.sequence).saturating_add(1),
                    to: checkpoint.last.sequence,
                };
                self.find_nowhere(None, cut);
            }
            Ok(_) => {}
        }
        if let Some(noted) = self.noted {
            if noted.sequence > end {
                self.find_nowhere(Some(noted.sequence), What::NotReached);
            }
            self.report.noted_is_older = noted.sequence < self.report.first;
        }
        self.report
    }

    fn find(&mut self, file: &str, line: u64, sequence: Option<u64>, what: What) {
        // What has no number stands next to what has one.
        let place = sequence.unwrap_or_else(|| self.at.map_or(0, |(sequence, _)| sequence));
        if self.range.contains(place, self.time) {
            self.keep(Finding { file: file.to_owned(), line, sequence, what });
        }
    }

    fn find_nowhere(&mut self, sequence: Option<u64>, what: What) {
        self.keep(Finding { file: String::new(), line: 0, sequence, what });
    }

    fn keep(&mut self, finding: Finding) {
        if self.report.findings.len() < KEPT {
            self.report.findings.push(finding);
        } else {
            self.report.more += 1;
        }
    }
}
