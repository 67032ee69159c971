//! The gate every hook goes through: parse, identify, decide, account, enforce.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::abi::config::{Config, Mode, Stat};
use enforcer_common::abi::flow::{FlowKey, Outcome};
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::id::{Generation, IdentityId};
use enforcer_common::verdict::{self, Direction, NO_TABLES, Query, Verdict, Word};

use crate::facts::{Facts, Party};
use crate::maps::CONFIG;
use crate::policy::{self, KernelTable};
use crate::{account, emit, facts, fault, identity};

/// What a hook returns to let the call go on, or to refuse it.
const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// A flow judged in both directions.
#[derive(Clone, Copy)]
pub struct Judgement {
    /// Whose egress was judged: the socket's creator, or the caller if the creator may and the caller may not.
    pub subject: Party,
    pub egress: Verdict,
    /// [`SILENT`] where it was not judged.
    pub ingress: Verdict,
}

/// A direction that was not judged.
const SILENT: Verdict = Verdict { enforced: Word::NONE, hypothetical: Word::NONE };

/// What became of a flow, and by whose policy.
#[derive(Clone, Copy)]
pub struct Decision {
    pub outcome: Outcome,
    pub direction: Direction,
    pub word: Word,
}

/// `sock_create`: who creates this socket?
#[inline(always)]
pub fn created(ctx: &SockContext) -> i32 {
    if identity::record(ctx) {
        return ALLOW;
    }
    fault::count(Stat::NoSocketStorage);
    match CONFIG.get(0) {
        Some(config) if !matches!(mode(config), Mode::Enforce) => ALLOW,
        _ => REFUSE,
    }
}

/// `connect` and `sendmsg`: may this flow be?
#[inline(always)]
pub fn outbound(hook: Hook, ctx: &SockAddrContext) -> i32 {
    // The only entry of an array is always there; the verifier wants to see the other case.
    let Some(config) = CONFIG.get(0) else { return REFUSE };
    let mode = mode(config);
    if matches!(mode, Mode::Off) {
        return ALLOW;
    }
    let facts = facts::gather(hook, ctx, matches!(mode, Mode::Audit));
    let (judgement, generation) = judge_both(&facts);
    let decision = decide(&judgement, &facts);
    account_for(&judgement, &facts);
    if decision.outcome == Outcome::Dropped || is_news(hook, ctx, &facts, generation) {
        emit::flow(ctx, hook, &facts, &judgement, &decision, generation);
    }
    enforce(&decision)
}

#[inline(always)]
fn mode(config: &Config) -> Mode {
    // SAFETY: a live, aligned word of the map; volatile because the daemon may change it at any time.
    Mode::from_code(unsafe { core::ptr::read_volatile(core::ptr::addr_of!(config.mode)) })
}

/// Judges the creator of the socket and, where someone else makes the call (a socket that was passed on, a process
/// that moved), the caller too: both must be allowed.
#[inline(always)]
fn judge_both(facts: &Facts) -> (Judgement, Generation) {
    let Some(table) = policy::current() else {
        fault::count(Stat::TableFault);
        let egress = facts.forget_verdict(Verdict { enforced: NO_TABLES, hypothetical: NO_TABLES });
        return (Judgement { subject: facts.creator, egress, ingress: facts.forget_verdict(SILENT) }, Generation(0));
    };
    let mut judgement = judge(table, facts, facts.creator);
    if facts.caller.identity != facts.creator.identity && decide(&judgement, facts).outcome != Outcome::Dropped {
        let other = judge(table, facts, facts.caller);
        if decide(&other, facts).outcome != Outcome::Forwarded {
            judgement = other;
        }
    }
    (judgement, verdict::generation(table))
}

/// Egress of the subject and, where the peer was found by its socket, ingress of the peer.
#[inline(always)]
fn judge(table: KernelTable, facts: &Facts, subject: Party) -> Judgement {
    let (from, to) = (IdentityId(subject.identity as u32), IdentityId(facts.peer.identity as u32));
    let egress = policy::verdict(table, &query(from, to, facts.address, facts, Direction::Egress));
    let egress = facts.forget_verdict(egress);
    let mut ingress = SILENT;
    if facts.peer.cgroup != 0 && !egress.enforced.is_deny() {
        ingress = policy::verdict(table, &query(to, from, facts.source, facts, Direction::Ingress));
    }
    Judgement { subject, egress, ingress: facts.forget_verdict(ingress) }
}

#[inline(always)]
fn query(subject: IdentityId, peer: IdentityId, address: Address, facts: &Facts, direction: Direction) -> Query {
    Query { subject, peer, address, port: facts.port as u16, protocol: facts.protocol as u8, direction }
}

/// Brings the two directions together: a denial decides, then what audit mode held back, then egress.
#[inline(always)]
fn decide(judgement: &Judgement, facts: &Facts) -> Decision {
    let egress = outcome(judgement.egress, facts);
    let ingress = outcome(judgement.ingress, facts);
    if egress == Outcome::Dropped || (egress == Outcome::Audit && ingress != Outcome::Dropped) || ingress == Outcome::Forwarded {
        Decision { outcome: egress, direction: Direction::Egress, word: judgement.egress.reported() }
    } else {
        Decision { outcome: ingress, direction: Direction::Ingress, word: judgement.ingress.reported() }
    }
}

/// What becomes of one direction in this mode. The one place where the mode is applied.
#[inline(always)]
fn outcome(verdict: Verdict, facts: &Facts) -> Outcome {
    if verdict.enforced.is_deny() {
        if facts.audit == 0 { Outcome::Dropped } else { Outcome::Audit }
    } else if verdict.is_audited() {
        Outcome::Audit
    } else {
        Outcome::Forwarded
    }
}

/// Counts one verdict per judged direction.
#[inline(always)]
fn account_for(judgement: &Judgement, facts: &Facts) {
    let (subject, peer) = (judgement.subject.identity as u32, facts.peer.identity as u32);
    count(subject, peer, facts, Direction::Egress, judgement.egress);
    if judgement.ingress.enforced.0 != 0 {
        count(peer, subject, facts, Direction::Ingress, judgement.ingress);
    }
}

#[inline(always)]
fn count(subject: u32, peer: u32, facts: &Facts, direction: Direction, verdict: Verdict) {
    let word = verdict.reported();
    account::verdict(&FlowKey {
        subject,
        peer,
        rule: word.rule().0,
        port: facts.port as u16,
        protocol: facts.protocol as u8,
        reason: word.reason_code(),
        direction: direction as u8,
        outcome: outcome(verdict, facts) as u8,
        reserved: 0,
    });
}

/// Whether an allowed flow is a new one: each connect is, but a datagram only when its destination, or the tables,
/// differ from the socket's last.
#[inline(always)]
fn is_news(hook: Hook, ctx: &SockAddrContext, facts: &Facts, generation: Generation) -> bool {
    if !matches!(hook, Hook::Sendmsg4 | Hook::Sendmsg6) {
        return true;
    }
    let own = identity::own(ctx);
    if own.is_null() {
        return true;
    }
    // SAFETY: not null; a map value of this type, alive as long as the socket. Races between two senders on one
    // socket cost at most a repeated event.
    let socket = unsafe { &mut *own };
    let port_generation = (facts.port << 48) | (generation.0 & 0xffff_ffff_ffff);
    let same = socket.last_high == facts.address.high
        && socket.last_low == facts.address.low
        && socket.last_port_generation == port_generation;
    socket.last_high = facts.address.high;
    socket.last_low = facts.address.low;
    socket.last_port_generation = port_generation;
    !same
}

/// Turns the decision into what the kernel does.
#[inline(always)]
fn enforce(decision: &Decision) -> i32 {
    if decision.outcome != Outcome::Dropped {
        return ALLOW;
    }
    // SAFETY: a negative errno, as the helper wants it. Should it fail, the kernel's own EPERM remains.
    unsafe { bpf_set_retval(-decision.word.errno().number()) };
    REFUSE
}
