//! The wall: every packet of every socket below the attached directory, in both directions.
//!
//! What was decided for a flow is found in the socket's storage with one look-up, and the packet goes on. Everything else
//! takes [`packet_of_no_flow`]: the first packet of a flow that no call announced, a flow that was decided in an earlier epoch, and
//! whatever does not look like a plain packet.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock};
use enforcer_common::abi::config::{Mode, Setting, SocketKind, Stat};
use enforcer_common::abi::identity::{Role, SocketIdentity};
use enforcer_common::hook::Hook;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;

use crate::facts::{
    AGAIN, BARE_RESET, Facts, LATER_FRAGMENT, LISTENS, OPTIONS, Party, ROUTED, SERVER, STRANGE, SYN,
};
use crate::flows::Memory;
use crate::gate::{self, ALLOW, REFUSE};
use crate::judge::{self, Judgement};
use crate::maps::setting;
use crate::parse::sock_addr::{TCP, UDP};
use crate::parse::{own_address, skb, word};
use crate::{emit, fault, flows, identity, peer, sockets, traffic};

/// Id of the root of the cgroup tree, where the kernel's own sockets live (those that send resets, echo replies and
/// neighbour discovery).
const ROOT: u64 = 1;

/// One packet of a socket.
#[inline(always)]
pub fn packet(hook: Hook, raw: *mut __sk_buff) -> i32 {
    let outbound = matches!(hook, Hook::Egress);
    if matches!(gate::mode(), Mode::Off) {
        return ALLOW;
    }
    let sk = skb::socket(raw);
    let own = sockets::of_packet(sk);
    if !own.is_null()
        && let Some(plain) = skb::plain(raw, outbound)
    {
        if word!(sk, bpf_sock, state) == peer::LISTEN {
            if outbound || !plain.opens {
                // The answer to a packet that was judged, or what follows before the connection has a socket of its own.
                return ALLOW;
            }
            return packet_of_no_flow(hook, raw);
        }
        let flow = flows::id(plain.remote, plain.remote_port, plain.protocol);
        // SAFETY: not null, and alive as long as the socket.
        let memory = unsafe { flows::recall(own, flow) };
        if memory.is_fresh(flows::fresh_epoch())
            && !(plain.opens && is_turned(memory, plain.protocol, outbound))
        {
            if plain.protocol == UDP {
                let port =
                    if memory.role() == Role::Server as u64 { plain.local_port } else { plain.remote_port };
                traffic::datagram(raw, outbound, memory.parties, port, memory.role());
            }
            return ALLOW;
        }
    }
    packet_of_no_flow(hook, raw)
}

/// A packet whose flow was not decided in this epoch.
#[inline(always)]
fn packet_of_no_flow(hook: Hook, raw: *mut __sk_buff) -> i32 {
    // Before the tables are looked at: what is decided now must not count for a later epoch.
    let epoch = setting(Setting::Epoch);
    let mut facts = Facts::nothing();
    let mut judgement = Judgement::unjudged();
    // SAFETY: the hook's own context, and live values.
    unsafe {
        match prepare_packet(raw, hook as u64, &raw mut facts) {
            PASS => return ALLOW,
            JUDGE => {}
            _ => return REFUSE,
        }
        judge::judge(&facts, &mut judgement);
        as_return(conclude_packet(raw, hook as u64, &raw const facts, &raw const judgement, epoch))
    }
}

/// What [`prepare_packet`] finds: the packet goes on, or is judged. Anything else: it is refused.
const PASS: u64 = 1;
const JUDGE: u64 = 2;

/// `SOCK_RAW`
const SOCK_RAW: u32 = 3;

/// The verifier knows nothing of what a global function returns: one bit is cut out in its sight.
#[inline(always)]
fn as_return(value: u64) -> i32 {
    let mut value = value;
    // SAFETY: one register-only instruction.
    unsafe { core::arch::asm!("{value} &= 1", value = inout(reg) value, options(pure, nomem, nostack)) };
    value as i32
}

/// Parses the packet and finds out who is at both ends, and which of them opened the flow. One of the codes above.
///
/// Global (see `judge.rs`), and done before the judge is asked, so that their stacks don't add up.
///
/// # Safety
/// `raw` is the context; `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn prepare_packet(raw: *mut __sk_buff, hook: u64, facts: *mut Facts) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(facts) = (unsafe { facts.as_mut() }) else { return 0 };
    let outbound = hook == Hook::Egress as u64;
    let sk = skb::socket(raw);
    if sk.is_null() {
        return PASS;
    }
    let mut own = sockets::of_packet(sk);
    if own.is_null() {
        if sockets::leaf(raw) == ROOT {
            return PASS;
        }
        own = sockets::adopt(raw, sk);
    }
    let readable = skb::read(raw, outbound, facts);
    facts.add(gate::audit(gate::mode()));
    facts.creator = if own.is_null() { identity::creator_of_packet(raw) } else { identity::creator(own) };
    facts.caller = facts.creator;
    if !readable {
        fault::count(Stat::PacketUnread);
    }
    let refusal = refusal(readable, outbound, facts);
    if refusal as u64 != 0 {
        // SAFETY: the hook's own context and a live value.
        return unsafe { refuse(raw, hook, facts, refusal as u64) };
    }
    if !readable {
        return PASS;
    }
    let listens = facts.protocol() == TCP && word!(sk, bpf_sock, state) == peer::LISTEN;
    let memory = remembered(raw, own, outbound, listens, facts);
    if facts.protocol() == TCP {
        match stream(raw, own, outbound, listens, facts) {
            Stream::Passes => return PASS,
            Stream::Role(flags) => facts.add(flags),
        }
    } else if memory.role() == Role::Server as u64 || memory.role() == 0 && !outbound {
        facts.add(SERVER);
    }
    if listens {
        // Each packet that opens a connection is a flow of its own, also where it looks like one from before.
        facts.add(LISTENS);
    } else if memory.is_fresh(flows::fresh_epoch()) {
        count(raw, outbound, memory, facts);
        return PASS;
    } else {
        facts.add(if memory.role() == 0 { STRANGE } else { AGAIN });
    }
    // SAFETY: the hook's own context and a live value.
    unsafe { find_peer(raw, facts, memory.parties) };
    if outbound && is_spoofed(sk, facts) {
        // SAFETY: the hook's own context and a live value.
        return unsafe { refuse(raw, hook, facts, Reason::SpoofedSource as u64) };
    }
    JUDGE
}

/// Remembers and reports what was judged. 1 if the packet may go on, else 0. Global (see `judge.rs`).
///
/// # Safety
/// `raw` is the context; the other pointers are null or point at live values.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn conclude_packet(
    raw: *mut __sk_buff,
    hook: u64,
    facts: *const Facts,
    judgement: *const Judgement,
    epoch: u64,
) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let (Some(facts), Some(judgement)) = (unsafe { facts.as_ref() }, unsafe { judgement.as_ref() }) else {
        return 0;
    };
    if !judgement.lets_through() {
        emit::packet(raw, hook, facts, judgement);
        return 0;
    }
    let role = if facts.has(SERVER) { Role::Server } else { Role::Client };
    let decided = flows::decided(epoch, role);
    let parties = flows::parties(facts.creator, facts.peer);
    let own = sockets::of_packet(skb::socket(raw));
    if !own.is_null() {
        let flow = flows::of(facts);
        let only = facts.protocol() == TCP && !facts.has(LISTENS);
        // SAFETY: not null, and alive as long as the socket.
        unsafe { flows::remember(own, flow, only, decided, parties) };
        if only && facts.has(SERVER) && facts.has(STRANGE) {
            // Too many were opened at once for it to inherit its flow: only now it is known with whom it is.
            traffic::opened(parties, facts.port(), role as u64);
        }
        if facts.protocol() != TCP {
            // SAFETY: the hook's own context.
            flows::remember_far(unsafe { bpf_get_socket_cookie(raw.cast()) }, flow, decided, parties);
        }
    }
    if !facts.has(AGAIN) && !skb::is_local(raw) {
        emit::packet(raw, hook, facts, judgement);
    }
    if facts.protocol() == UDP {
        let outbound = hook == Hook::Egress as u64;
        traffic::datagram(raw, outbound, parties, facts.port(), role as u64);
    }
    1
}

/// Why a packet of a managed party is refused whatever the policies say; [`Reason::None`] if it is not.
#[inline(always)]
fn refusal(readable: bool, outbound: bool, facts: &Facts) -> Reason {
    if !identity::is_managed(facts.creator) {
        Reason::None
    } else if !readable {
        Reason::MalformedPacket
    } else if facts.has(LATER_FRAGMENT) {
        Reason::LaterFragment
    } else if outbound && facts.has(OPTIONS | ROUTED) {
        Reason::SourceRouted
    } else {
        Reason::None
    }
}

/// Global (see `judge.rs`).
///
/// # Safety
/// `raw` is the context; `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn refuse(raw: *mut __sk_buff, hook: u64, facts: *const Facts, reason: u64) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(facts) = (unsafe { facts.as_ref() }) else { return 0 };
    let judgement = Judgement::refused(facts, reason as u8);
    emit::packet(raw, hook, facts, &judgement);
    judgement.lets_through().into()
}

/// What is remembered of a flow that is not on the fast path.
#[inline(always)]
fn remembered(
    raw: *mut __sk_buff,
    own: *mut SocketIdentity,
    outbound: bool,
    listens: bool,
    facts: &Facts,
) -> Memory {
    let flow = flows::of(facts);
    if listens {
        // Of the connections that came out of it, not of the one that comes now.
        return Memory::NONE;
    }
    if !own.is_null() {
        // SAFETY: not null, and alive as long as the socket.
        let memory = unsafe { flows::recall(own, flow) };
        if facts.has(SYN) && is_turned(memory, TCP, outbound) {
            return Memory::NONE;
        }
        if memory.role() != 0 || facts.protocol() == TCP {
            return memory;
        }
    }
    // SAFETY: the hook's own context.
    flows::recall_far(unsafe { bpf_get_socket_cookie(raw.cast()) }, flow)
}

/// Whether a socket that opens a connection remembers one that it served: it has listened, and was taken for another
/// purpose.
#[inline(always)]
fn is_turned(memory: Memory, protocol: u8, outbound: bool) -> bool {
    outbound && protocol == TCP && memory.role() == Role::Server as u64
}

/// What to do with a TCP packet.
enum Stream {
    /// It goes on: what it belongs to was judged.
    Passes,
    /// It is judged, as one end.
    Role(u64),
}

/// Who opened the connection of a TCP packet.
#[inline(always)]
fn stream(
    raw: *mut __sk_buff,
    own: *mut SocketIdentity,
    outbound: bool,
    listens: bool,
    facts: &Facts,
) -> Stream {
    if listens {
        if !facts.has(SYN) || outbound {
            // The answer to a packet that was judged, or what follows before the connection has a socket of its own.
            return Stream::Passes;
        }
        if !own.is_null() {
            // Connections inherit it. Whatever this socket was before, it is a server's now.
            // SAFETY: not null, and alive as long as the socket.
            unsafe { (*own).role = Role::Server as u64 };
        }
        return Stream::Role(SERVER);
    }
    let role = if own.is_null() {
        0
    } else {
        // SAFETY: not null, and alive as long as the socket.
        unsafe { (*own).role }
    };
    if facts.has(SYN) && outbound {
        // Whatever this socket was before, it is a client now.
        return Stream::Role(0);
    }
    if role != 0 && facts.has(BARE_RESET) {
        // So that the other end learns it when a connection is refused in the middle.
        return Stream::Passes;
    }
    if role == Role::Server as u64 {
        // Judged and counted when it was opened.
        return Stream::Role(SERVER | AGAIN);
    }
    if role == Role::Client as u64 {
        return Stream::Role(AGAIN);
    }
    if facts.has(SYN) {
        return Stream::Role(SERVER);
    }
    // A connection from before enforcer.
    // SAFETY: the hook's own context and a live value.
    if unsafe { somebody_listens(raw, facts) } != 0 {
        Stream::Role(SERVER | AGAIN)
    } else {
        Stream::Role(AGAIN)
    }
}

/// Global (see `judge.rs`).
///
/// # Safety
/// `raw` is the context; `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn somebody_listens(raw: *mut __sk_buff, facts: *const Facts) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    unsafe { facts.as_ref().is_some_and(|facts| peer::somebody_listens_here(raw.cast(), facts)).into() }
}

/// Finds the other end. Where its socket is gone already, it is who it was before.
///
/// Global (see `judge.rs`).
///
/// # Safety
/// `raw` is the context; `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn find_peer(raw: *mut __sk_buff, facts: *mut Facts, parties: u64) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(facts) = (unsafe { facts.as_mut() }) else { return 0 };
    facts.peer = peer::of_packet(raw, facts);
    if facts.peer.cgroup == 0 && facts.peer.identity == u64::from(IdentityId::UNKNOWN.0) && parties != 0 {
        facts.peer = Party { identity: parties & 0xffff_ffff, cgroup: 0 };
    }
    0
}

/// Whether a packet claims to come from another workload's address. Only raw sockets can do that: of the others the kernel
/// checks the address, unless an option is set that the hook on `setsockopt` refuses. Where raw sockets are open to everybody,
/// the packets of all sockets are looked at.
#[inline(always)]
fn is_spoofed(sk: *mut bpf_sock, facts: &Facts) -> bool {
    if !identity::is_managed(facts.creator)
        || own_address!(sk) == facts.source
        || facts.source.is_loopback()
        || setting(Setting::SocketKinds) & SocketKind::Raw.bit() == 0 && !is_raw(sk)
    {
        return false;
    }
    let owner = peer::by_address(facts.source).identity;
    owner >= u64::from(IdentityId::FIRST_WORKLOAD.0) && owner != facts.creator.identity
}

/// Whether it is a raw socket, of which there can be some although they are not open to everybody.
#[inline(always)]
fn is_raw(sk: *mut bpf_sock) -> bool {
    // SAFETY: the packet's socket, checked against null; what comes back is checked below.
    let whole = unsafe { bpf_sk_fullsock(sk) };
    !whole.is_null() && word!(whole, bpf_sock, type_) == SOCK_RAW
}

#[inline(always)]
fn count(raw: *mut __sk_buff, outbound: bool, memory: Memory, facts: &Facts) {
    if facts.protocol() == UDP {
        traffic::datagram(raw, outbound, memory.parties, facts.port(), memory.role());
    }
}
