//! Judges a flow in both directions and counts the verdicts.
//!
//! [`judge_flow`] is a *global* BPF function (`no_mangle`, not inlined): the verifier checks it once, on its own, with
//! arguments of which it knows nothing but their size. Checked as a part of its callers, it would be walked again for
//! every path through parsing and identification (IPv4 or not, socket found or not, ...). Such a function takes plain
//! numbers and pointers to memory (which may be null, so it has to ask), and returns a number.

use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowKey, Outcome};
use enforcer_common::id::{IdentityId, RuleId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{self, Direction, NO_TABLES, Query, Tier, Verdict, Word};

use crate::facts::{AGAIN, AUDIT, Facts, NO_SOURCE, Party, SERVER};
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

/// A judged flow: what became of it, and by whose policy. Whole words only, as [`Facts`], and as few: it stands in the
/// stack of every hook.
#[derive(Clone, Copy)]
pub struct Judgement {
    egress: Word,
    ingress: Word,
    /// The tables that judged.
    pub generation: u64,
    /// [`CALLER`], [`INGRESS`] and the outcomes of both directions.
    marks: u64,
}

/// Egress of the caller was judged, not of the socket's creator, who may.
const CALLER: u64 = 1;
/// The server's policy decided, not the client's.
const INGRESS: u64 = 2;
/// The server's policy was not asked: it depends on this end's address, which nobody has chosen yet.
const OPEN: u64 = 4;
/// Where the outcome of egress stands; that of ingress follows after two bits.
const OUTCOMES: u32 = 8;

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
            egress: NO_TABLES,
            ingress: Word(zero()),
            generation: zero(),
            marks: (Outcome::Dropped as u64) << OUTCOMES,
        }
    }

    /// A refusal that no policy has to be asked for, by the code of its [`Reason`]. Counted.
    #[inline(always)]
    pub fn refused(facts: &Facts, reason: u8) -> Self {
        // The reason stands in the lowest byte.
        let none = Word::deny(Tier::Default, Errno::Perm, Reason::None, RuleId::NONE);
        let word = Word(none.0 | u64::from(reason));
        let denied = side(Verdict { enforced: word, hypothetical: word }, facts);
        let mut judgement = Self::unjudged();
        let direction = if facts.has(SERVER) { Direction::Ingress } else { Direction::Egress };
        if facts.has(SERVER) {
            judgement.set(Side::silent(), denied, INGRESS);
        } else {
            judgement.set(denied, Side::silent(), 0);
        }
        count(facts.creator.identity as u32, facts.peer.identity as u32, facts, direction, denied);
        judgement
    }

    /// The verdict about listening on a port, the server's part of every flow. Counted where it holds back.
    #[inline(always)]
    pub fn of_listening(facts: &Facts, verdict: Verdict) -> Self {
        let ingress = side(verdict, facts);
        let mut judgement = Self::unjudged();
        judgement.set(Side::silent(), ingress, INGRESS);
        if ingress.outcome != Outcome::Forwarded as u64 {
            count(
                facts.creator.identity as u32,
                facts.peer.identity as u32,
                facts,
                Direction::Ingress,
                ingress,
            );
        }
        judgement
    }

    /// The verdict about a socket that is created, which its owner's policies and the configuration decide. Counted where it
    /// holds back.
    #[inline(always)]
    pub fn of_socket(facts: &Facts, verdict: Verdict, generation: u64) -> Self {
        let egress = side(verdict, facts);
        let mut judgement = Self::unjudged();
        judgement.generation = generation;
        judgement.set(egress, Side::silent(), 0);
        if egress.outcome != Outcome::Forwarded as u64 {
            count(
                facts.creator.identity as u32,
                facts.peer.identity as u32,
                facts,
                Direction::Egress,
                egress,
            );
        }
        judgement
    }

    #[inline(always)]
    fn set(&mut self, egress: Side, ingress: Side, marks: u64) {
        self.egress = egress.word;
        self.ingress = ingress.word;
        self.marks =
            policy::opaque(marks | (egress.outcome << OUTCOMES) | (ingress.outcome << (OUTCOMES + 2)));
    }

    /// The client's egress.
    #[inline(always)]
    pub fn egress(&self) -> Side {
        Side { word: self.egress, outcome: (self.marks >> OUTCOMES) & 3 }
    }

    /// The server's ingress.
    #[inline(always)]
    pub fn ingress(&self) -> Side {
        Side { word: self.ingress, outcome: (self.marks >> (OUTCOMES + 2)) & 3 }
    }

    /// Whose socket it is, or who calls if that is why the flow is denied.
    #[inline(always)]
    pub fn subject(&self, facts: &Facts) -> Party {
        if self.marks & CALLER == 0 { facts.creator } else { facts.caller }
    }

    /// The [`Direction`] code of the policy that decided.
    #[inline(always)]
    pub fn direction(&self) -> u64 {
        if self.marks & INGRESS == 0 { Direction::Egress as u64 } else { Direction::Ingress as u64 }
    }

    /// Whether the packets have to be judged: what the server's policy says is not known yet.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.marks & OPEN != 0
    }

    /// Whether the flow goes on.
    #[inline(always)]
    pub fn lets_through(&self) -> bool {
        self.decisive().outcome != Outcome::Dropped as u64
    }

    /// The direction that decided.
    #[inline(always)]
    pub fn decisive(&self) -> Side {
        if self.marks & INGRESS == 0 { self.egress() } else { self.ingress() }
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
    if facts.has(AGAIN) && judgement.lets_through() {
        // The flow was counted when it was opened.
        return 0;
    }
    let own = judgement.subject(facts).identity as u32;
    let other = facts.peer.identity as u32;
    let (client, server) = if facts.has(SERVER) { (other, own) } else { (own, other) };
    let (egress, ingress) = (judgement.egress(), judgement.ingress());
    // What is let through is counted by the end that it concerns: egress where it leaves, ingress where it arrives.
    if !facts.has(SERVER) || egress.outcome == Outcome::Dropped as u64 {
        count(client, server, facts, Direction::Egress, egress);
    }
    if ingress.word != Word::NONE && (facts.has(SERVER) || ingress.outcome == Outcome::Dropped as u64) {
        count(server, client, facts, Direction::Ingress, ingress);
    }
    0
}

/// Judges the creator of the socket and, where someone else makes the call (a socket that was passed on, a process
/// that moved), the caller too: both must be allowed.
#[inline(always)]
fn judge_both(facts: &Facts, judgement: &mut Judgement) {
    judge_party(facts, judgement, facts.creator.identity);
    if facts.caller.identity == facts.creator.identity || !judgement.lets_through() {
        return;
    }
    let (egress, ingress, marks) = (judgement.egress, judgement.ingress, judgement.marks);
    judge_party(facts, judgement, facts.caller.identity);
    if judgement.marks >> OUTCOMES == 0 {
        (judgement.egress, judgement.ingress, judgement.marks) = (egress, ingress, marks);
    } else {
        judgement.marks |= CALLER;
    }
}

/// Egress of the client and ingress of the server, as far as they are known here. Both by the same table: where one is
/// published in between, they are asked again.
#[inline(always)]
fn judge_party(facts: &Facts, judgement: &mut Judgement, subject: u64) {
    let answers = facts.has(SERVER);
    let known = answers_for_itself(facts.peer);
    for _ in 0..ATTEMPTS {
        judgement.generation = zero();
        judgement.set(Side::silent(), Side::silent(), if answers { INGRESS } else { 0 });
        // Of a flow that is opened, a server judges its own end: the client's end was judged where it was opened.
        if !answers || known && facts.has(AGAIN) {
            // SAFETY: both live until the call returns.
            if unsafe { judge_side(facts, judgement, subject) } != 0 {
                return;
            }
        }
        let generation = judgement.generation;
        if answers || known {
            // SAFETY: as above.
            unsafe { judge_side(facts, judgement, subject | OF_SERVER) };
        }
        if generation == 0 || generation == judgement.generation {
            return;
        }
    }
    // Tables that change faster than they can be read.
    *judgement = Judgement::unjudged();
}

/// How often tables may be published during one verdict.
const ATTEMPTS: u32 = 3;
/// The server's end is asked, not the client's.
const OF_SERVER: u64 = 1 << 32;

/// Judges one end. `question`: the identity of this end, and [`OF_SERVER`]. Not 0 if it denies.
///
/// Global, as [`judge_flow`]: the verifier walks through the table once, not once for each end.
///
/// # Safety
/// Each pointer is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn judge_side(facts: *const Facts, judgement: *mut Judgement, question: u64) -> u64 {
    // SAFETY: the caller's promise; null is ruled out here.
    let (Some(facts), Some(judgement)) = (unsafe { facts.as_ref() }, unsafe { judgement.as_mut() }) else {
        return 0;
    };
    let Some(table) = policy::current() else {
        fault::report(Stat::TableFault);
        let denied = side(Verdict { enforced: NO_TABLES, hypothetical: NO_TABLES }, facts);
        judgement.set(denied, Side::silent(), 0);
        return 1;
    };
    judgement.generation = policy::opaque(verdict::generation(table).0);
    let (own, other) = (IdentityId(question as u32), IdentityId(facts.peer.identity as u32));
    let (answers, of_server) = (facts.has(SERVER), question & OF_SERVER != 0);
    let is_own = answers == of_server;
    let (subject, peer) = if is_own { (own, other) } else { (other, own) };
    if of_server && facts.has(NO_SOURCE) && policy::depends_on_address(table, subject) {
        judgement.marks |= OPEN;
        return 0;
    }
    let query = Query {
        subject: IdentityId(policy::opaque(subject.0.into()) as u32),
        peer: IdentityId(policy::opaque(peer.0.into()) as u32),
        address: if is_own { facts.address } else { facts.source },
        port: facts.port(),
        protocol: facts.protocol(),
        direction: if of_server { Direction::Ingress } else { Direction::Egress },
    };
    let judged = policy::verdict(table, &query);
    let found = side(judged, facts);
    if of_server {
        let egress = judgement.egress();
        judgement.set(egress, found, decisive(egress, found, answers));
    } else {
        judgement.set(found, Side::silent(), 0);
    }
    judged.enforced.is_deny().into()
}

/// Whether the other end's own policy is asked here: it was found by its socket, or is a known workload.
#[inline(always)]
fn answers_for_itself(peer: Party) -> bool {
    peer.cgroup != 0 || peer.identity >= u64::from(IdentityId::FIRST_WORKLOAD.0)
}

/// Which direction decides: a denial, then what audit mode held back, then this end's own.
#[inline(always)]
fn decisive(egress: Side, ingress: Side, answers: bool) -> u64 {
    let let_through = Outcome::Forwarded as u64;
    let stronger = if egress.outcome == let_through {
        answers || ingress.outcome != let_through
    } else {
        egress.outcome == Outcome::Audit as u64 && ingress.outcome == Outcome::Dropped as u64
    };
    if stronger { INGRESS } else { 0 }
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
    let parties = (u64::from(subject) << 32) | u64::from(peer);
    // SAFETY: live until the call returns.
    unsafe { count_verdict(facts, parties, side.word.0, (direction as u64) | (side.outcome << 8)) };
}

/// Adds one verdict: of whom about whom, by which word, in which direction (lowest byte) and with which outcome (the next).
///
/// Global, as [`judge_flow`], whose stack the key would count in.
///
/// # Safety
/// `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn count_verdict(facts: *const Facts, parties: u64, word: u64, marks: u64) -> u64 {
    // SAFETY: the caller's promise; null is ruled out here.
    let Some(facts) = (unsafe { facts.as_ref() }) else { return 0 };
    let word = Word(word);
    account::verdict(&FlowKey {
        subject: (parties >> 32) as u32,
        peer: parties as u32,
        rule: word.rule().0,
        port: facts.port(),
        protocol: facts.protocol(),
        reason: word.reason_code(),
        direction: marks as u8,
        outcome: (marks >> 8) as u8,
        reserved: 0,
    });
    0
}
