//! Socket families that no other hook sees.

use aya_ebpf::programs::LsmContext;
use enforcer_common::abi::config::Mode;
use enforcer_common::hook::Hook;
use enforcer_common::reason::Reason;

use crate::facts::Facts;
use crate::gate::{self, REFUSE};
use crate::identity;

/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`: local, judged by the other hooks, or needed to ask for addresses.
/// Everything else (packet, vsock, XDP, ...) reaches other machines, or other workloads, past them.
const KNOWN: [i32; 4] = [1, 2, 10, 16];
/// `-EPERM`
const NOT_PERMITTED: i32 = -1;

/// `socket_create` of the LSM: may this process have a socket of this family?
#[inline(always)]
pub fn created(ctx: &LsmContext) -> i32 {
    let (family, kernel, verdict): (i32, i32, i32) = (ctx.arg(0), ctx.arg(3), ctx.arg(4));
    if verdict != 0 {
        return verdict;
    }
    let mode = gate::mode();
    if kernel != 0 || matches!(mode, Mode::Off) || KNOWN.contains(&family) {
        return 0;
    }
    let mut facts = Facts::nothing();
    facts.creator = identity::caller();
    facts.caller = facts.creator;
    if !identity::is_managed(facts.creator) {
        return 0;
    }
    facts.add(gate::audit(mode));
    if gate::refuse(Hook::SocketCreate, &facts, Reason::SocketKind) == REFUSE { NOT_PERMITTED } else { 0 }
}
