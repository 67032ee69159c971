//! What a call is about, gathered before anything is decided.

use enforcer_common::address::Address;
use enforcer_common::hook::Hook;

use aya_ebpf::programs::SockAddrContext;

use crate::parse::sock_addr::destination;
use crate::policy::zero;

/// Someone: an identity and the cgroup in which the socket was created.
#[derive(Clone, Copy)]
pub struct Party {
    pub identity: u64,
    /// 0 where no socket is known.
    pub cgroup: u64,
}

impl Party {
    /// Not known: as a subject it is denied.
    #[inline(always)]
    pub fn nobody() -> Self {
        Self { identity: zero(), cgroup: zero() }
    }
}

/// What a call is about. Whole words only: the verifier forgets what stood in a stack slot only when all of it is
/// overwritten at once.
pub struct Facts {
    /// Who created the socket; the caller where that was not recorded.
    pub creator: Party,
    /// Who makes the call.
    pub caller: Party,
    /// The other end. Its cgroup is known where it was found by its socket.
    pub peer: Party,
    /// Where the call goes.
    pub address: Address,
    /// The address that the other end will see.
    pub source: Address,
    /// Destination port, own port, protocol and flags in one word, because every word of these facts counts in the stack
    /// of every hook (512 bytes for all calls together, and Linux 6.1 rounds each up to 32).
    packed: u64,
}

/// Denials are only reported: the daemon's mode is `audit`.
pub const AUDIT: u64 = 1 << 40;
/// The answer to a datagram that the other end has sent before. It is judged as that datagram was: see
/// [`Facts::turn_round`].
pub const REPLY: u64 = 1 << 41;

impl Facts {
    /// Destination port.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.packed as u16
    }

    /// The port that the other end will see, 0 where none is chosen yet.
    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        (self.packed >> 16) as u16
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.packed >> 32) as u8
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub fn has(&self, flag: u64) -> bool {
        self.packed & flag != 0
    }

    /// Makes these the facts of the flow that is being answered: the other end opened it, this end serves it. Policies
    /// speak of who opens a flow; replies are implied by it, and end when it is no longer allowed.
    #[inline(always)]
    pub fn turn_round(&mut self) {
        let server = self.creator;
        self.creator = self.peer;
        self.caller = self.peer;
        self.peer = server;
        (self.address, self.source) = (self.source, self.address);
        let ports = (u64::from(self.port()) << 16) | u64::from(self.source_port());
        self.packed = (self.packed >> 32 << 32) | ports | REPLY;
    }
}

/// What the context tells; who is at both ends comes from [`crate::identity::identify`].
#[inline(always)]
pub fn gather(hook: Hook, ctx: &SockAddrContext, audit: bool) -> Facts {
    let to = destination(hook, ctx);
    let source = if to.source.is_unchosen() {
        // Not chosen by the caller: loopback destinations are reached from the loopback address of the family.
        if to.address.is_v4() { Address::LOOPBACK_V4 } else { Address::LOOPBACK_V6 }
    } else {
        to.source
    };
    Facts {
        creator: Party::nobody(),
        caller: Party::nobody(),
        peer: Party::nobody(),
        address: to.address,
        source,
        packed: u64::from(to.port)
            | (u64::from(to.source_port) << 16)
            | (u64::from(to.protocol) << 32)
            | if audit { AUDIT } else { zero() },
    }
}
