//! Events: the story behind the counters. May be lost, and then says so.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, BPF_RB_NO_WAKEUP, bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_prandom_u32,
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::abi;
use enforcer_common::abi::config::{EVENT_WINDOW, Setting, Stat};
use enforcer_common::abi::flow::{FlowEvent, Outcome, Quota};
use enforcer_common::abi::identity::Role;
use enforcer_common::hook::Hook;

use crate::facts::{Facts, SERVER};
use crate::judge::Judgement;
use crate::maps::{EVENTS, QUOTAS, setting};
use crate::policy::zero;
use crate::{account, fault};

/// Reports a flow judged in a call. A denial wakes the reader; an allowed flow waits for the reader's timer, because a
/// wake-up costs a thousand times what the record does.
#[inline(always)]
pub fn call(ctx: &SockAddrContext, hook: u64, facts: &Facts, judgement: &Judgement) {
    // SAFETY: the hook's own context, and live values.
    unsafe { emit_call(ctx.sock_addr, hook, facts, judgement) };
}

/// Reports a socket that was refused.
#[inline(always)]
pub fn socket(ctx: &SockContext, hook: Hook, facts: &Facts, judgement: &Judgement) {
    // SAFETY: the hook's own context, and live values.
    unsafe { emit_socket(ctx.sock, hook as u64, facts, judgement) };
}

/// Reports a flow judged by a packet. Never wakes the reader: whoever sends refused packets must not be able to spend
/// the host's time that way.
#[inline(always)]
pub fn packet(skb: *mut __sk_buff, hook: u64, facts: &Facts, judgement: &Judgement) {
    // SAFETY: the hook's own context, and live values.
    unsafe { emit_packet(skb, hook, facts, judgement) };
}

/// Reports a refused call about which nothing but the caller is known.
#[inline(always)]
pub fn caller(hook: Hook, facts: &Facts, judgement: &Judgement) {
    // SAFETY: live values.
    unsafe { emit_caller(hook as u64, facts, judgement) };
}

/// Global (see `judge.rs`), as are the next ones: the type of the context tells the verifier where they may be called.
///
/// # Safety
/// `ctx` is the context; each other pointer is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn emit_call(
    ctx: *mut bpf_sock_addr,
    hook: u64,
    facts: *const Facts,
    judgement: *const Judgement,
) -> u64 {
    // SAFETY: the caller's promise; the helper takes this context.
    unsafe { write(hook, facts, judgement, bpf_get_socket_cookie(ctx.cast()), true) }
}

/// # Safety
/// As [`emit_call`].
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn emit_socket(
    ctx: *mut bpf_sock,
    hook: u64,
    facts: *const Facts,
    judgement: *const Judgement,
) -> u64 {
    // SAFETY: the caller's promise; the helper takes this context.
    unsafe { write(hook, facts, judgement, bpf_get_socket_cookie(ctx.cast()), true) }
}

/// # Safety
/// As [`emit_call`].
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn emit_packet(
    ctx: *mut __sk_buff,
    hook: u64,
    facts: *const Facts,
    judgement: *const Judgement,
) -> u64 {
    // SAFETY: the caller's promise; the helper takes this context.
    unsafe { write(hook, facts, judgement, bpf_get_socket_cookie(ctx.cast()), false) }
}

/// # Safety
/// As [`emit_call`].
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn emit_caller(hook: u64, facts: *const Facts, judgement: *const Judgement) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { write(hook, facts, judgement, 0, true) }
}

/// Writes one record. `process`: the hook runs in the context of the process whose call it is.
///
/// # Safety
/// Each pointer is null or points at a live value.
#[inline(always)]
unsafe fn write(
    hook: u64,
    facts: *const Facts,
    judgement: *const Judgement,
    cookie: u64,
    process: bool,
) -> u64 {
    // SAFETY: the caller's promise; null is ruled out here.
    let (Some(facts), Some(judgement)) = (unsafe { facts.as_ref() }, unsafe { judgement.as_ref() }) else {
        return 0;
    };
    let (verdict, subject) = (judgement.decisive(), judgement.subject(facts));
    // Limited by who opens flows, not by who refuses them: else one client could hide the others' refusals.
    let opener = if facts.has(SERVER) { facts.peer.identity } else { facts.creator.identity };
    if is_left_out(opener, verdict.outcome) != 0 {
        return 0;
    }
    let Some(mut slot) = EVENTS.reserve(0) else {
        fault::count(Stat::EventsLost);
        return 0;
    };
    let (pid, uid, comm) = if process { who() } else { (0, 0, [zero(), zero()]) };
    let denied = verdict.outcome == Outcome::Dropped as u64;
    let event = slot.as_mut_ptr();
    // SAFETY: `event` is a reserved record of exactly this type, aligned to 8 bytes by the ring; the name is bytes for
    // words, of the same size.
    unsafe {
        event.write(FlowEvent {
            version: abi::VERSION as u16,
            size: size_of::<FlowEvent>() as u16,
            hook: hook as u8,
            protocol: facts.protocol(),
            port: facts.port(),
            time: bpf_ktime_get_boot_ns(),
            generation: judgement.generation,
            cookie,
            subject_cgroup: subject.cgroup,
            peer_cgroup: facts.peer.cgroup,
            address_high: facts.address.high,
            address_low: facts.address.low,
            egress: judgement.egress().word.0,
            ingress: judgement.ingress().word.0,
            subject: subject.identity as u32,
            peer: facts.peer.identity as u32,
            pid,
            uid,
            direction: judgement.direction() as u8,
            outcome: verdict.outcome as u8,
            errno: if denied { verdict.word.errno().number().unsigned_abs() as u16 } else { 0 },
            caller: other_caller(facts),
            comm: core::mem::transmute::<[u64; 2], [u8; 16]>(comm),
            role: if facts.has(SERVER) { Role::Server as u8 } else { Role::Client as u8 },
            reserved: 0,
            client_port: facts.client_port(),
            reserved2: 0,
        });
    }
    slot.submit(if denied && process { 0 } else { BPF_RB_NO_WAKEUP.into() });
    fault::count(Stat::EventsDelivered);
    0
}

/// The identity of a caller who is not the socket's creator, else 0.
#[inline(always)]
fn other_caller(facts: &Facts) -> u32 {
    if facts.caller.identity == facts.creator.identity { 0 } else { facts.caller.identity as u32 }
}

/// Whether an event is left out: of the allowed flows that are not in the sample, and of every identity what is beyond
/// its limit. One workload can't fill the ring with its story in place of everybody else's.
///
/// Global (see `judge.rs`).
#[unsafe(no_mangle)]
#[inline(never)]
fn is_left_out(identity: u64, outcome: u64) -> u64 {
    fault::count(Stat::EventsSeen);
    let allowed = outcome == Outcome::Forwarded as u64;
    let limit = setting(if allowed { Setting::AllowedEvents } else { Setting::DeniedEvents });
    let sample = if allowed { setting(Setting::EventSample) } else { 0 };
    // SAFETY: a helper without arguments.
    let in_sample = sample <= 1 || unsafe { u64::from(bpf_get_prandom_u32()) } % sample == 0;
    // SAFETY: a helper without arguments.
    let window = || unsafe { bpf_ktime_get_boot_ns() } >> EVENT_WINDOW;
    if in_sample && (limit == 0 || told(identity as u32, window(), allowed) < limit) {
        return 0;
    }
    fault::count(Stat::EventsSampledOut);
    1
}

/// How many events of this kind were told of this identity in this window before. When two CPUs begin a window at the
/// same time, some are not counted: more is told than the limit says, never less.
#[inline(always)]
fn told(identity: u32, window: u64, allowed: bool) -> u64 {
    let Some(quota) = QUOTAS.get_ptr_mut(identity) else {
        let first = Quota { window, allowed: u64::from(allowed), denied: u64::from(!allowed) };
        // Where there is no room the event is told, which is what a limit that is not there would do.
        let _ = QUOTAS.insert(identity, first, BPF_ANY.into());
        return 0;
    };
    // SAFETY: a live value made of aligned words, which other CPUs write too.
    unsafe {
        if addr_of!((*quota).window).read_volatile() != window {
            addr_of_mut!((*quota).allowed).write_volatile(0);
            addr_of_mut!((*quota).denied).write_volatile(0);
            addr_of_mut!((*quota).window).write_volatile(window);
        }
        account::next(if allowed { addr_of_mut!((*quota).allowed) } else { addr_of_mut!((*quota).denied) })
    }
}

/// Process id, user id and command name of the caller, the name NUL padded.
#[inline(always)]
fn who() -> (u32, u32, [u64; 2]) {
    let mut comm = [zero(), zero()];
    // SAFETY: 16 writable bytes (on failure the name stays empty, which is what the reader shows then), and helpers
    // without arguments.
    unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), 16);
        ((bpf_get_current_pid_tgid() >> 32) as u32, bpf_get_current_uid_gid() as u32, comm)
    }
}
