//! Socket options that forge: source addresses that are not the host's, and routes that packets take on the way.
//!
//! The wall refuses routed packets; here the application gets a clean error. For source addresses this is the last place
//! that knows: the kernel checks them unless one of these options is set, and no packet hook knows all addresses of all
//! network namespaces.

use aya_ebpf::bindings::bpf_sockopt;
use enforcer_common::abi::config::Mode;
use enforcer_common::hook::Hook;
use enforcer_common::reason::Reason;

use crate::facts::Facts;
use crate::gate::{self, ALLOW};
use crate::identity;
use crate::parse::word;

/// `IPPROTO_IP`, `IPPROTO_IPV6` (linux/in.h, linux/in6.h).
const IP: u32 = 0;
const IPV6: u32 = 41;

/// `setsockopt`: does the option forge?
#[inline(always)]
pub fn set(ctx: *mut bpf_sockopt) -> i32 {
    // 0 tells the kernel to take the caller's own bytes, and lets values pass that are longer than a page, which would
    // otherwise fail (Documentation/bpf/prog_cgroup_sockopt.rst).
    // SAFETY: the hook's own context, a writable field.
    unsafe { core::ptr::write_volatile(core::ptr::addr_of_mut!((*ctx).optlen), 0) };
    let (level, option) = (word!(ctx, bpf_sockopt, level), word!(ctx, bpf_sockopt, optname));
    let mode = gate::mode();
    if !forges(level, option) || matches!(mode, Mode::Off) {
        return ALLOW;
    }
    let mut facts = Facts::nothing();
    facts.creator = identity::caller();
    facts.caller = facts.creator;
    if !identity::is_managed(facts.creator) {
        return ALLOW;
    }
    facts.add(gate::audit(mode));
    gate::refuse(Hook::Setsockopt, &facts, Reason::SocketOption)
}

#[inline(always)]
const fn forges(level: u32, option: u32) -> bool {
    match level {
        // IP_OPTIONS, IP_FREEBIND, IP_TRANSPARENT
        IP => matches!(option, 4 | 15 | 19),
        // IPV6_2292PKTOPTIONS, IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS, IPV6_TRANSPARENT,
        // IPV6_FREEBIND
        IPV6 => matches!(option, 6 | 54 | 55 | 57 | 59 | 75 | 78),
        _ => false,
    }
}
