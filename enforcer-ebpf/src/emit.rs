//! Events: the story behind the counters. May be lost, and then says so.

use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_socket_cookie,
    bpf_ktime_get_boot_ns,
};
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::abi;
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowEvent, Outcome};
use enforcer_common::abi::identity::Role;
use enforcer_common::hook::Hook;

use crate::facts::Facts;
use crate::fault;
use crate::judge::Judgement;
use crate::maps::EVENTS;
use crate::policy::zero;

/// Reports a judged flow. A denial wakes the reader; an allowed flow waits for the reader's timer, because a wake-up
/// costs a thousand times what the record does.
#[inline(always)]
pub fn flow(ctx: &SockAddrContext, hook: Hook, facts: &Facts, judgement: &Judgement) {
    // SAFETY: the hook's own context, and live values.
    unsafe { emit_flow(ctx.sock_addr, hook as u64, facts, judgement) };
}

/// Global (see `judge.rs`).
///
/// # Safety
/// `ctx` is the context; each other pointer is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn emit_flow(
    ctx: *mut bpf_sock_addr,
    hook: u64,
    facts: *const Facts,
    judgement: *const Judgement,
) -> u64 {
    // SAFETY: the caller's promise; null is ruled out here.
    let (Some(facts), Some(judgement)) = (unsafe { facts.as_ref() }, unsafe { judgement.as_ref() }) else {
        return 0;
    };
    let Some(mut slot) = EVENTS.reserve(0) else {
        fault::count(Stat::EventsLost);
        return 0;
    };
    let (time, cookie, pid, uid) = moment(ctx);
    let verdict = judgement.decisive();
    let denied = verdict.outcome == Outcome::Dropped as u64;
    let event = slot.as_mut_ptr();
    // SAFETY: `event` is a reserved record of exactly this type, aligned to 8 bytes by the ring.
    unsafe {
        event.write(FlowEvent {
            version: abi::VERSION as u16,
            size: size_of::<FlowEvent>() as u16,
            hook: hook as u8,
            protocol: facts.protocol(),
            port: facts.port(),
            time,
            generation: judgement.generation,
            cookie,
            subject_cgroup: judgement.subject.cgroup,
            peer_cgroup: facts.peer.cgroup,
            address_high: facts.address.high,
            address_low: facts.address.low,
            egress: judgement.egress.word.0,
            ingress: judgement.ingress.word.0,
            subject: judgement.subject.identity as u32,
            peer: facts.peer.identity as u32,
            pid,
            uid,
            direction: judgement.direction as u8,
            outcome: verdict.outcome as u8,
            errno: if denied { verdict.word.errno().number().unsigned_abs() as u16 } else { 0 },
            caller: if facts.caller.identity == facts.creator.identity {
                0
            } else {
                facts.caller.identity as u32
            },
            comm: comm(),
            role: Role::Client as u8,
            reserved: 0,
            client_port: facts.source_port(),
            reserved2: 0,
        });
    }
    slot.submit(if denied { 0 } else { BPF_RB_NO_WAKEUP.into() });
    fault::count(Stat::EventsDelivered);
    0
}

/// Name of the calling process, NUL padded.
#[inline(always)]
fn comm() -> [u8; 16] {
    let mut comm = [zero(), zero()];
    // SAFETY: 16 writable bytes. On failure the name stays empty, which is what the reader shows then.
    unsafe { bpf_get_current_comm(comm.as_mut_ptr().cast(), 16) };
    // SAFETY: bytes for words, of the same size.
    unsafe { core::mem::transmute(comm) }
}

/// Time, socket cookie, and process and user id of the caller.
#[inline(always)]
fn moment(ctx: *mut bpf_sock_addr) -> (u64, u64, u32, u32) {
    // SAFETY: helpers without arguments, or with the hook's own context.
    unsafe {
        (
            bpf_ktime_get_boot_ns(),
            bpf_get_socket_cookie(ctx.cast()),
            (bpf_get_current_pid_tgid() >> 32) as u32,
            bpf_get_current_uid_gid() as u32,
        )
    }
}
