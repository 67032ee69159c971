//! The gate of every call that opens a flow or a socket: parse, identify, decide, account, enforce.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::abi::config::{Mode, Setting, SocketKind, Stat};
use enforcer_common::abi::flow::Outcome;
use enforcer_common::abi::identity::{Role, SocketIdentity};
use enforcer_common::hook::Hook;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict;

use crate::facts::{self, AGAIN, AUDIT, Facts, SERVER};
use crate::flows::Memory;
use crate::judge::{self, Judgement};
use crate::maps::setting;
use crate::parse::sock_addr::TCP;
use crate::parse::word;
use crate::{emit, fault, flows, identity, peer, policy, sockets};

/// What a hook returns to let the call go on, or to refuse it.
pub const ALLOW: i32 = 1;
pub const REFUSE: i32 = 0;

/// `sock_create`: who creates this socket, and may they?
#[inline(always)]
pub fn created(ctx: &SockContext) -> i32 {
    let mode = mode();
    let own = sockets::record(ctx);
    if own.is_null() {
        fault::report(Stat::NoSocketStorage);
        return if matches!(mode, Mode::Enforce) { REFUSE } else { ALLOW };
    }
    let protocol = word!(ctx.sock, aya_ebpf::bindings::bpf_sock, protocol);
    let kind = SocketKind::of(word!(ctx.sock, aya_ebpf::bindings::bpf_sock, type_), protocol);
    let allowed = setting(Setting::SocketKinds) & kind.bit() != 0;
    // Who creates it is found out only where that makes a difference.
    if matches!(mode, Mode::Off) || allowed && !policy::speaks_of_sockets() {
        return ALLOW;
    }
    let mut facts = Facts::nothing();
    facts.creator = identity::creator(own);
    if !identity::is_managed(facts.creator) {
        return ALLOW;
    }
    facts.caller = facts.creator;
    facts.set(0, 0, protocol as u8, audit(mode));
    let otherwise = verdict::configured_socket(allowed);
    let (verdict, generation) = policy::socket(IdentityId(facts.creator.identity as u32), kind, otherwise);
    let judgement = Judgement::of_socket(&facts, verdict, generation);
    if judgement.decisive().outcome == Outcome::Forwarded as u64 {
        return ALLOW;
    }
    emit::socket(ctx, Hook::SockCreate, &facts, &judgement);
    if judgement.lets_through() {
        return ALLOW;
    }
    // SAFETY: a negative errno, as the helper wants it.
    unsafe { bpf_set_retval(-judgement.decisive().word.errno().number()) };
    REFUSE
}

/// `connect` and `sendmsg`: may this flow be?
#[inline(always)]
pub fn outbound(hook: Hook, ctx: &SockAddrContext) -> i32 {
    let mode = mode();
    if matches!(mode, Mode::Off) {
        return ALLOW;
    }
    // Before the tables are looked at: what is decided now must not count for a later epoch.
    let epoch = setting(Setting::Epoch);
    let mut facts = Facts::nothing();
    let mut judgement = Judgement::unjudged();
    // Here and not below: which fields of the context may be read depends on the hook.
    facts::gather(hook as u64, ctx, &mut facts);
    // SAFETY: the hook's own context, and live values.
    unsafe {
        if prepare(ctx.sock_addr, hook as u64, &raw mut facts) == PASS {
            return ALLOW;
        }
        judge::judge(&facts, &mut judgement);
        conclude(ctx.sock_addr, hook as u64, &raw const facts, &raw const judgement, epoch);
    }
    if judgement.lets_through() {
        return ALLOW;
    }
    // SAFETY: a negative errno, as the helper wants it. Should it fail, the kernel's own EPERM remains.
    unsafe { bpf_set_retval(-judgement.decisive().word.errno().number()) };
    REFUSE
}

/// What [`prepare`] finds: the call goes on. Anything else: it is judged.
const PASS: u64 = 1;

/// Finds out whether a call belongs to a flow that was decided, and if not, who is at both
/// ends. A socket from before enforcer counts as the caller's.
///
/// Global (see `judge.rs`), and done before the judge is asked, so that their stacks don't add up.
///
/// # Safety
/// `raw` is the context; `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn prepare(raw: *mut bpf_sock_addr, hook: u64, facts: *mut Facts) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(facts) = (unsafe { facts.as_mut() }) else { return 0 };
    let ctx = SockAddrContext::new(raw);
    facts.add(audit(mode()));
    let connects = hook == Hook::Connect4 as u64 || hook == Hook::Connect6 as u64;
    let own = sockets::of_call(&ctx);
    if !(connects && facts.protocol() == TCP) {
        let memory = remembered(&ctx, own, facts);
        if !connects && memory.is_fresh(flows::fresh_epoch()) && is_callers(own) {
            return PASS;
        }
        if memory.role() == Role::Server as u64 {
            facts.add(SERVER | AGAIN);
        } else if memory.role() != 0 && !connects {
            facts.add(AGAIN);
        }
    }
    if own.is_null() {
        facts.caller = identity::caller();
        facts.creator = facts.caller;
    } else {
        facts.creator = identity::creator(own);
        facts.caller =
            if facts.creator.cgroup == identity::current() { facts.creator } else { identity::caller() };
    }
    facts.peer = peer::of_call(raw, facts);
    0
}

/// Remembers an allowed flow and who opened it, and reports what is new or refused. Global (see `judge.rs`).
///
/// # Safety
/// `raw` is the context; the other pointers are null or point at live values.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn conclude(
    raw: *mut bpf_sock_addr,
    hook: u64,
    facts: *const Facts,
    judgement: *const Judgement,
    epoch: u64,
) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let (Some(facts), Some(judgement)) = (unsafe { facts.as_ref() }, unsafe { judgement.as_ref() }) else {
        return 0;
    };
    let ctx = SockAddrContext::new(raw);
    let allowed = judgement.lets_through();
    if allowed {
        let own = sockets::of_call(&ctx);
        if !own.is_null() {
            // With no epoch it is known who opened the flow, and that its packets are to be judged.
            remember(&ctx, own, if judgement.is_open() { 0 } else { epoch }, facts);
        }
    }
    if !allowed || !facts.has(AGAIN) {
        emit::call(&ctx, hook, facts, judgement);
    }
    0
}

/// What is to be done with a denial.
#[inline(always)]
pub fn mode() -> Mode {
    Mode::from_code(setting(Setting::Mode))
}

/// The flag of facts for this mode.
#[inline(always)]
pub fn audit(mode: Mode) -> u64 {
    if matches!(mode, Mode::Audit) { AUDIT } else { 0 }
}

/// What is remembered of a datagram flow.
#[inline(always)]
fn remembered(ctx: &SockAddrContext, own: *mut SocketIdentity, facts: &Facts) -> Memory {
    let flow = flows::of(facts);
    if !own.is_null() {
        // SAFETY: not null, and alive as long as the socket.
        let memory = unsafe { flows::recall(own, flow) };
        if memory.role() != 0 {
            return memory;
        }
    }
    flows::recall_far(cookie(ctx), flow)
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the hook's own context.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

/// Whether whoever created this call's socket makes the call, too.
#[inline(always)]
fn is_callers(own: *mut SocketIdentity) -> bool {
    // SAFETY: checked against null; alive as long as the socket.
    !own.is_null() && unsafe { (*own).leaf } == identity::current()
}

/// Remembers an allowed flow, and who opened it.
#[inline(always)]
fn remember(ctx: &SockAddrContext, own: *mut SocketIdentity, epoch: u64, facts: &Facts) {
    let flow = flows::of(facts);
    let role = if facts.has(SERVER) { Role::Server } else { Role::Client };
    let decided = flows::decided(epoch, role);
    let parties = flows::parties(facts.creator, facts.peer);
    // SAFETY: the caller has checked against null; alive as long as the socket.
    unsafe {
        if facts.protocol() == TCP {
            (*own).role = Role::Client as u64;
        }
        flows::remember(own, flow, facts.protocol() == TCP, decided, parties);
    }
    if facts.protocol() != TCP {
        flows::remember_far(cookie(ctx), flow, decided, parties);
    }
}

/// Refuses a call by something else than a policy. The one place where that is reported.
#[inline(always)]
pub fn refuse(hook: Hook, facts: &Facts, reason: Reason) -> i32 {
    let judgement = Judgement::refused(facts, reason as u8);
    emit::caller(hook, facts, &judgement);
    if judgement.decisive().outcome == Outcome::Dropped as u64 { REFUSE } else { ALLOW }
}
