//! The gate every hook goes through: parse, identify, decide, account, enforce.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::abi::config::{Config, Mode, Stat};
use enforcer_common::abi::flow::Outcome;
use enforcer_common::abi::identity::SentTo;
use enforcer_common::hook::Hook;
use enforcer_common::limits::SENT_TO;

use crate::facts::{Facts, REPLY};
use crate::judge::Judgement;
use crate::maps::CONFIG;
use crate::parse::sock_addr::UDP;
use crate::{emit, facts, fault, identity, judge};

/// What a hook returns to let the call go on, or to refuse it.
const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// `sock_create`: who creates this socket?
#[inline(always)]
pub fn created(ctx: &SockContext) -> i32 {
    if identity::record(ctx) {
        return ALLOW;
    }
    fault::report(Stat::NoSocketStorage);
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
    let mut facts = facts::gather(hook, ctx, matches!(mode, Mode::Audit));
    identity::identify(ctx, &mut facts);
    let mut judgement = Judgement::unjudged();
    judge::judge(&facts, &mut judgement);
    let verdict = judgement.decisive();
    let dropped = verdict.outcome == Outcome::Dropped as u64;
    if dropped || is_news(hook, ctx, &facts, judgement.generation) {
        emit::flow(ctx, hook, &facts, &judgement);
    }
    if !dropped {
        return ALLOW;
    }
    // SAFETY: a negative errno, as the helper wants it. Should it fail, the kernel's own EPERM remains.
    unsafe { bpf_set_retval(-verdict.word.errno().number()) };
    REFUSE
}

#[inline(always)]
fn mode(config: &Config) -> Mode {
    // SAFETY: a live, aligned word of the map; volatile because the daemon may change it at any time.
    Mode::from_code(unsafe { core::ptr::read_volatile(core::ptr::addr_of!(config.mode)) })
}

/// Whether an allowed flow is a new one: each connect is, but a datagram only when its destination, or the tables, are
/// not among those that its socket remembers. Remembers the destination of datagrams: what comes back from there is a
/// reply.
#[inline(always)]
fn is_news(hook: Hook, ctx: &SockAddrContext, facts: &Facts, generation: u64) -> bool {
    let connects = matches!(hook, Hook::Connect4 | Hook::Connect6);
    if facts.has(REPLY) {
        return false;
    }
    if connects && facts.protocol() != UDP {
        return true;
    }
    let own = identity::own(ctx);
    if own.is_null() {
        return true;
    }
    // SAFETY: not null; a map value of this type, alive as long as the socket. Races between two senders on one
    // socket cost at most a repeated event, or the memory of one destination.
    let socket = unsafe { &mut *own };
    let port_generation = (u64::from(facts.port()) << 48) | (generation & 0xffff_ffff_ffff);
    let mut known = false;
    for to in &socket.sent {
        known |= to.high == facts.address.high
            && to.low == facts.address.low
            && to.port_generation == port_generation;
    }
    if !known {
        let next = (socket.sent_count % SENT_TO as u64) as usize;
        if let Some(slot) = socket.sent.get_mut(next) {
            *slot = SentTo { high: facts.address.high, low: facts.address.low, port_generation };
        }
        socket.sent_count += 1;
    }
    connects || !known
}
