//! Judges a flow in both directions and counts the verdicts.
//!
//! [`judge_flow`] is a *global* BPF function (`no_mangle`, not inlined): the verifier checks it once, on its own, with
//! arguments of which it knows nothing but their size. Checked as a part of its callers, it would be walked again for
//! every path through parsing and identification (IPv4 or not, socket found or not, ...). Such a function takes plain
//! numbers and pointers to memory (which may be null, so it has to ask), and returns a number.

use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowKey, Outcome};
use enforcer_common::id::IdentityId;
use enforcer_common::verdict::{self, Direction, NO_TABLES, Query, Verdict, Word};

use crate::facts::{AUDIT, Facts, Party, REPLY};
use crate::policy::{self, zero};
use crate::{account, fault};

/// One direction of a judged flow.
#[derive(Clone, Copy)]
pub struct Side {
    /// The word to report, see [`Verdict::reported`]; [`Word::NONE`] where the direction was not judged.
    pub word: Word,
    /// An [`Outcome`] code.
    pub outcome: u64,
}

/// A judged flow: what became of it, and by whose policy. Whole words only, as [`Facts`].
#[derive(Clone, Copy)]
pub struct Judgement {
    /// Whose egress was judged: the socket's creator, or the caller if the creator may and the caller may not.
    pub subject: Party,
    pub egress: Side,
    pub ingress: Side,
    /// The [`Direction`] code of the policy that decided.
    pub direction: u64,
    /// The tables that judged.
    pub generation: u64,
}

impl Side {
    /// A direction that was not judged: [`Word::NONE`], [`Outcome::Forwarded`].
    #[inline(always)]
    fn silent() -> Self {
        Self { word: Word(zero()), outcome: zero() }
    }
}

impl Judgement {
    /// Stands where the judge does not come to write: a denial.
    #[inline(always)]
    pub fn unjudged() -> Self {
        Self {
            subject: Party::nobody(),
            egress: Side { word: NO_TABLES, outcome: Outcome::Dropped as u64 },
            ingress: Side::silent(),
            direction: zero(),
            generation: zero(),
        }
    }

    /// The direction that decided.
    #[inline(always)]
    pub fn decisive(&self) -> Side {
        if self.direction == Direction::Egress as u64 { self.egress } else { self.ingress }
    }
}

/// Judges a flow and counts the verdicts.
#[inline(always)]
pub fn judge(facts: &Facts, judgement: &mut Judgement) {
    // SAFETY: both live until the call returns.
    unsafe { judge_flow(facts, judgement) };
}

/// # Safety
/// Each pointer is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn judge_flow(facts: *const Facts, judgement: *mut Judgement) -> u64 {
    // SAFETY: the caller's promise; null is ruled out here.
    let (Some(facts), Some(judgement)) = (unsafe { facts.as_ref() }, unsafe { judgement.as_mut() }) else {
        return 0;
    };
    judge_both(facts, judgement);
    if facts.has(REPLY) && judgement.decisive().outcome == Outcome::Forwarded as u64 {
        // The flow was counted when it was opened.
        return 0;
    }
    let (subject, peer) = (judgement.subject.identity as u32, facts.peer.identity as u32);
    count(subject, peer, facts, Direction::Egress, judgement.egress);
    if judgement.ingress.word != Word::NONE {
        count(peer, subject, facts, Direction::Ingress, judgement.ingress);
    }
    0
}

/// Judges the creator of the socket and, where someone else makes the call (a socket that was passed on, a process
/// that moved), the caller too: both must be allowed.
#[inline(always)]
fn judge_both(facts: &Facts, judgement: &mut Judgement) {
    // SAFETY: both live until the call returns.
    unsafe { judge_party(facts, judgement, facts.creator.identity) };
    judgement.subject = facts.creator;
    judgement.direction = decisive(judgement.egress, judgement.ingress);
    if facts.caller.identity == facts.creator.identity
        || judgement.decisive().outcome == Outcome::Dropped as u64
    {
        return;
    }
    let (egress, ingress) = (judgement.egress, judgement.ingress);
    // SAFETY: as above.
    unsafe { judge_party(facts, judgement, facts.caller.identity) };
    if (judgement.egress.outcome | judgement.ingress.outcome) == Outcome::Forwarded as u64 {
        (judgement.egress, judgement.ingress) = (egress, ingress);
    } else {
        judgement.subject = facts.caller;
    }
    judgement.direction = decisive(judgement.egress, judgement.ingress);
}

/// Egress of the subject and, where the peer was found by its socket, ingress of the peer; both by one table.
///
/// Global, as [`judge_flow`].
///
/// # Safety
/// Each pointer is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn judge_party(facts: *const Facts, judgement: *mut Judgement, subject: u64) -> u64 {
    // SAFETY: the caller's promise; null is ruled out here.
    let (Some(facts), Some(judgement)) = (unsafe { facts.as_ref() }, unsafe { judgement.as_mut() }) else {
        return 0;
    };
    judgement.ingress = Side::silent();
    let Some(table) = policy::current() else {
        fault::report(Stat::TableFault);
        judgement.egress = side(Verdict { enforced: NO_TABLES, hypothetical: NO_TABLES }, facts);
        return 0;
    };
    judgement.generation = verdict::generation(table).0;
    let (from, to) = (IdentityId(subject as u32), IdentityId(facts.peer.identity as u32));
    let (port, protocol) = (facts.port(), facts.protocol());
    let mut query = Query {
        subject: from,
        peer: to,
        address: facts.address,
        port,
        protocol,
        direction: Direction::Egress,
    };
    let verdict = policy::verdict(table, &query);
    judgement.egress = side(verdict, facts);
    if facts.peer.cgroup != 0 && !verdict.enforced.is_deny() {
        // The same query turned round in its place: a second one would take stack.
        query.subject = to;
        query.peer = from;
        query.address = facts.source;
        query.direction = Direction::Ingress;
        judgement.ingress = side(policy::verdict(table, &query), facts);
    }
    0
}

/// Which direction decides: a denial, then what audit mode held back, then egress.
#[inline(always)]
fn decisive(egress: Side, ingress: Side) -> u64 {
    let stronger = egress.outcome == Outcome::Forwarded as u64
        && ingress.outcome != Outcome::Forwarded as u64
        || egress.outcome == Outcome::Audit as u64 && ingress.outcome == Outcome::Dropped as u64;
    policy::opaque(if stronger { Direction::Ingress } else { Direction::Egress } as u64)
}

/// What becomes of one direction in this mode. The one place where the mode is applied.
#[inline(always)]
fn side(verdict: Verdict, facts: &Facts) -> Side {
    let outcome = if verdict.enforced.is_deny() {
        if facts.has(AUDIT) { Outcome::Audit } else { Outcome::Dropped }
    } else if verdict.is_audited() {
        Outcome::Audit
    } else {
        Outcome::Forwarded
    };
    Side { word: Word(policy::opaque(verdict.reported().0)), outcome: policy::opaque(outcome as u64) }
}

#[inline(always)]
fn count(subject: u32, peer: u32, facts: &Facts, direction: Direction, side: Side) {
    account::verdict(&FlowKey {
        subject,
        peer,
        rule: side.word.rule().0,
        port: facts.port(),
        protocol: facts.protocol(),
        reason: side.word.reason_code(),
        direction: direction as u8,
        outcome: side.outcome as u8,
        reserved: 0,
    });
}
