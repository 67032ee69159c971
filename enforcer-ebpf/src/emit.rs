//! Events: the story behind the counters. May be lost, and then says so.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
};
use aya_ebpf::EbpfContext;
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::abi;
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowEvent, Outcome};
use enforcer_common::hook::Hook;
use enforcer_common::id::Generation;

use crate::facts::Facts;
use crate::fault;
use crate::gate::{Decision, Judgement};
use crate::maps::EVENTS;

/// Reports a judged flow. A denial wakes the reader; an allowed flow waits for the reader's timer, because a wake-up
/// costs a thousand times what the record does.
#[inline(always)]
pub fn flow(
    ctx: &SockAddrContext,
    hook: Hook,
    facts: &Facts,
    judgement: &Judgement,
    decision: &Decision,
    generation: Generation,
) {
    let Some(mut slot) = EVENTS.reserve(0) else {
        fault::count(Stat::EventsLost);
        return;
    };
    // SAFETY: helpers without arguments, or with the hook's own context.
    let (time, cookie, pid, uid) = unsafe {
        (
            bpf_ktime_get_boot_ns(),
            bpf_get_socket_cookie(ctx.as_ptr()),
            (bpf_get_current_pid_tgid() >> 32) as u32,
            bpf_get_current_uid_gid() as u32,
        )
    };
    let denied = decision.outcome == Outcome::Dropped;
    let event = slot.as_mut_ptr();
    // SAFETY: `event` is a reserved record of exactly this type, aligned to 8 bytes by the ring.
    unsafe {
        event.write(FlowEvent {
            version: abi::VERSION as u16,
            size: size_of::<FlowEvent>() as u16,
            hook: hook as u8,
            protocol: facts.protocol as u8,
            port: facts.port as u16,
            time,
            generation: generation.0,
            cookie,
            subject_cgroup: judgement.subject.cgroup,
            peer_cgroup: facts.peer.cgroup,
            address_high: facts.address.high,
            address_low: facts.address.low,
            egress: judgement.egress.reported().0,
            ingress: judgement.ingress.reported().0,
            subject: judgement.subject.identity as u32,
            peer: facts.peer.identity as u32,
            pid,
            uid,
            direction: decision.direction as u8,
            outcome: decision.outcome as u8,
            errno: if denied { decision.word.errno().number() as u16 } else { 0 },
            caller: if facts.caller.identity == facts.creator.identity { 0 } else { facts.caller.identity as u32 },
            comm: [0; 16],
        });
        // On failure the name stays empty, which is what the reader shows then.
        bpf_get_current_comm(core::ptr::addr_of_mut!((*event).comm).cast(), 16);
    }
    slot.submit(if denied { 0 } else { BPF_RB_NO_WAKEUP.into() });
    fault::count(Stat::EventsDelivered);
}
