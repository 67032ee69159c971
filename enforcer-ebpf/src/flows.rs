//! Flows that were decided: what makes the next packet cheap.
//!
//! A socket remembers its last few flows in its storage, datagram sockets with many peers in an LRU map as well. What is
//! remembered tells two things: that the flow was allowed in some epoch, and who opened it. The first counts for that
//! epoch only. The second outlives it: a server's answer stays an answer when policies change, and is judged as one.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use enforcer_common::abi::config::Setting;
use enforcer_common::abi::identity::{DecidedFlow, FlowRef, Role, SocketIdentity};
use enforcer_common::address::Address;
use enforcer_common::flow_id::{FlowId, is_credible, seal, unseal};
use enforcer_common::limits::FLOWS_PER_SOCKET;

use crate::facts::{Facts, Party};
use crate::maps::{FLOWS, setting};

/// What is remembered of a flow.
#[derive(Clone, Copy)]
pub struct Memory {
    /// `(epoch << 2) | role`, 0 if nothing is remembered.
    word: u64,
    /// Identity of this end (upper half) and of the other.
    pub parties: u64,
}

impl Memory {
    pub const NONE: Self = Self { word: 0, parties: 0 };

    /// Whether the flow was allowed in this epoch.
    #[inline(always)]
    pub fn is_fresh(self, epoch: u64) -> bool {
        epoch != 0 && self.word >> 2 == epoch
    }

    /// Code of the role of this end, 0 if nothing is remembered.
    #[inline(always)]
    pub fn role(self) -> u64 {
        self.word & 3
    }
}

/// The epoch whose verdicts count now; 0 if none does, because kernel time may have changed what is in force.
#[inline(always)]
pub fn fresh_epoch() -> u64 {
    let until = setting(Setting::FreshUntil);
    // SAFETY: no arguments.
    if until != u64::MAX && unsafe { bpf_ktime_get_boot_ns() } >= until {
        return 0;
    }
    setting(Setting::Epoch)
}

/// The fingerprint of a flow.
#[inline(always)]
pub fn id(remote: Address, port: u16, protocol: u8) -> FlowId {
    FlowId::new(setting(Setting::Secret), remote, port, protocol)
}

/// The fingerprint of the flow that these facts are about.
#[inline(always)]
pub fn of(facts: &Facts) -> FlowId {
    id(facts.address, facts.remote_port(), facts.protocol())
}

/// What the socket with this storage remembers.
///
/// # Safety
/// `socket` is a live value of socket storage.
#[inline(always)]
pub unsafe fn recall(socket: *mut SocketIdentity, flow: FlowId) -> Memory {
    let now = setting(Setting::Epoch);
    // SAFETY: the caller's promise. Other CPUs write meanwhile, word by word; the words are bound to each other.
    for slot in unsafe { &(*socket).flows } {
        if slot.flow == flow.0 {
            let word = unseal(flow, slot.seal);
            if is_credible(word, now) {
                return Memory { word, parties: slot.parties };
            }
        }
    }
    Memory::NONE
}

/// What is remembered of a datagram flow that its socket has forgotten.
#[inline(always)]
pub fn recall_far(cookie: u64, flow: FlowId) -> Memory {
    let key = FlowRef { cookie, flow: flow.0 };
    // SAFETY: the word that counts is read at once and checked to belong to the key.
    let Some(decided) = (unsafe { FLOWS.get(key) }) else { return Memory::NONE };
    let word = unseal(far(cookie, flow), decided.seal);
    if is_credible(word, setting(Setting::Epoch)) {
        Memory { word, parties: decided.parties }
    } else {
        Memory::NONE
    }
}

/// Remembers that a flow was allowed. A connection has one flow only; a listening socket remembers those that its next
/// connections inherit.
///
/// # Safety
/// `socket` is a live value of socket storage.
#[inline(always)]
pub unsafe fn remember(socket: *mut SocketIdentity, flow: FlowId, only: bool, decided: u64, parties: u64) {
    // SAFETY: the caller's promise.
    let socket = unsafe { &mut *socket };
    let slot = if only {
        0
    } else {
        let next = socket.flow_count % FLOWS_PER_SOCKET as u64;
        socket.flow_count += 1;
        next
    };
    if let Some(place) = socket.flows.get_mut(slot as usize) {
        *place = DecidedFlow { flow: flow.0, seal: seal_word(flow, decided), parties };
    }
}

/// Remembers a datagram flow beyond its socket. That the map is full or busy costs a repeated verdict at most.
#[inline(always)]
pub fn remember_far(cookie: u64, flow: FlowId, decided: u64, parties: u64) {
    let key = FlowRef { cookie, flow: flow.0 };
    let seal = seal_word(far(cookie, flow), decided);
    let _ = FLOWS.insert(key, DecidedFlow { flow: flow.0, seal, parties }, 0);
}

/// `(epoch << 2) | role`.
#[inline(always)]
pub fn decided(epoch: u64, role: Role) -> u64 {
    seal(FlowId(0), epoch, role)
}

/// Sockets with the same peer must not be able to open each other's words.
#[inline(always)]
fn far(cookie: u64, flow: FlowId) -> FlowId {
    FlowId(flow.0 ^ cookie.rotate_left(32))
}

#[inline(always)]
fn seal_word(flow: FlowId, decided: u64) -> u64 {
    decided ^ flow.0
}

/// Both identities in one word.
#[inline(always)]
pub fn parties(own: Party, other: Party) -> u64 {
    (own.identity << 32) | (other.identity & 0xffff_ffff)
}
