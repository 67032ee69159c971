//! What a call is about, gathered before anything is decided.

use enforcer_common::address::Address;
use enforcer_common::packet;

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
    /// Address of the other end.
    pub address: Address,
    /// Address of this end, as the other end sees it.
    pub source: Address,
    /// The other end's port, own port, protocol and flags in one word, because every word of these facts counts in the stack
    /// of every hook (512 bytes for all calls together, and Linux 6.1 rounds each up to 32).
    packed: u64,
}

/// Denials are only reported: the daemon's mode is `audit`.
pub const AUDIT: u64 = 1 << 40;
/// The other end opened the flow, and this end serves it.
pub const SERVER: u64 = 1 << 41;
/// The flow was allowed and counted in an earlier epoch.
pub const AGAIN: u64 = 1 << 42;
/// A TCP packet that opens a connection.
pub const SYN: u64 = 1 << 43;
/// A TCP packet that ends one at once, or answers one: nothing in it but the header.
pub const BARE_RESET: u64 = 1 << 44;
/// A TCP packet that answers one that opens a connection.
pub const SYN_ACK: u64 = 1 << 45;
/// The packet carries IP options, or IPv6 options.
pub const OPTIONS: u64 = 1 << 46;
/// The packet carries an IPv6 routing header.
pub const ROUTED: u64 = 1 << 47;
/// The packet is a fragment other than the first.
pub const LATER_FRAGMENT: u64 = 1 << 48;
/// The packet reached a listening socket, which has no flow of its own.
pub const LISTENS: u64 = 1 << 49;
/// Nothing is remembered of the flow.
pub const STRANGE: u64 = 1 << 50;
/// This end's address is not chosen yet, and will not be a loopback address.
pub const NO_SOURCE: u64 = 1 << 51;

impl Facts {
    /// Nothing known yet.
    #[inline(always)]
    pub fn nothing() -> Self {
        Self {
            creator: Party::nobody(),
            caller: Party::nobody(),
            peer: Party::nobody(),
            address: Address { high: zero(), low: zero() },
            source: Address { high: zero(), low: zero() },
            packed: zero(),
        }
    }

    /// Sets ports, protocol and flags.
    #[inline(always)]
    pub fn set(&mut self, remote_port: u16, local_port: u16, protocol: u8, flags: u64) {
        self.packed =
            u64::from(remote_port) | (u64::from(local_port) << 16) | (u64::from(protocol) << 32) | flags;
    }

    /// Sets flags in addition.
    #[inline(always)]
    pub fn add(&mut self, flags: u64) {
        self.packed |= flags;
    }

    /// What this end's address will be.
    #[inline(always)]
    pub fn set_source(&mut self, source: Address) {
        self.source = source;
        self.packed &= !NO_SOURCE;
    }

    /// The other end's port.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        self.packed as u16
    }

    /// This end's port, 0 where none is chosen yet.
    #[inline(always)]
    pub fn local_port(&self) -> u16 {
        (self.packed >> 16) as u16
    }

    /// Port of the server's end, which is what policies speak of.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        if self.has(SERVER) { self.local_port() } else { self.remote_port() }
    }

    /// Port of the client's end, 0 where none is chosen yet.
    #[inline(always)]
    pub fn client_port(&self) -> u16 {
        if self.has(SERVER) { self.remote_port() } else { self.local_port() }
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
}

/// What the context tells; who is at both ends comes from [`crate::identity`] and [`crate::peer`].
#[inline(always)]
pub fn gather(hook: u64, ctx: &SockAddrContext, facts: &mut Facts) {
    let to = destination(hook, ctx);
    facts.address = to.address.zero_is_loopback();
    // A call on an ICMP socket names no type, and its port means nothing.
    let echo = packet::echo_type(to.protocol).into();
    let (port, own) = if echo == 0 { (to.port, to.source_port) } else { (echo, echo) };
    facts.set(port, own, to.protocol, zero());
    facts.source = if to.source.is_unchosen() {
        if !facts.address.is_loopback() {
            facts.add(NO_SOURCE);
        }
        // Loopback destinations are reached from the loopback address of the family.
        if facts.address.is_v4() { Address::LOOPBACK_V4 } else { Address::LOOPBACK_V6 }
    } else {
        to.source
    };
}
