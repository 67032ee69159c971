//! Socket storage: who created a socket.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_sk_storage_get,
    bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id, bpf_skc_to_mptcp_sock,
};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::identity::SocketIdentity;

use crate::fault;
use crate::maps::SOCKETS;
use crate::parse::sock_addr;

/// Not 0: the kernel knows MPTCP. What connects and listens is then a socket of the kernel, for which `sock_create` is not
/// called; the application's socket is behind it (Go listens so by default). The loader sets 0 where `/proc/sys/net/mptcp` is not
/// there, because such a kernel refuses programs that name the helper.
#[unsafe(no_mangle)]
static MPTCP: Global<u8> = Global::new(1);

/// Remembers who creates this socket. Null if that is impossible: the socket must then not come into being, because
/// a workload can make later attempts fail (exhausting the socket's option memory).
#[inline(always)]
pub fn record(ctx: &SockContext) -> *mut SocketIdentity {
    // SAFETY: `sock` is the context of this hook, which the helper takes as its socket.
    let found = unsafe { storage(ctx.sock.cast(), BPF_SK_STORAGE_GET_F_CREATE.into()) };
    if found.is_null() {
        return found;
    }
    // SAFETY: not null, and the kernel keeps the value alive as long as the socket.
    let socket = unsafe { &mut *found };
    let mut level = 1;
    for slot in &mut socket.cgroups {
        *slot = ancestor(level);
        if *slot == 0 {
            break;
        }
        level += 1;
    }
    if ancestor(level) != 0 {
        fault::report(Stat::DeepCgroup);
    }
    // SAFETY: no arguments; always available in this hook.
    socket.leaf = unsafe { bpf_get_current_cgroup_id() };
    found
}

/// The calling process's ancestor cgroup at this level below the root; 0 beyond its own level.
#[inline(always)]
pub fn ancestor(level: i32) -> u64 {
    // SAFETY: takes a plain number; always available in these hooks.
    unsafe { bpf_get_current_ancestor_cgroup_id(level) }
}

/// The storage of this call's own socket, null if it was created before enforcer.
#[inline(always)]
pub fn of_call(ctx: &SockAddrContext) -> *mut SocketIdentity {
    let sk = sock_addr::socket(ctx.sock_addr);
    if sk.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `sk` is a full socket, checked against null.
    unsafe { recorded(sk.cast()) }
}

/// The storage of a packet's socket, null if there is none.
#[inline(always)]
pub fn of_packet(sk: *mut bpf_sock) -> *mut SocketIdentity {
    if sk.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: a socket, checked against null; the helper takes partial sockets too, and finds nothing.
    unsafe { storage(sk.cast(), 0) }
}

/// Makes storage for a packet's socket that has none: it was created before enforcer, or by the kernel on behalf of
/// another (parts of MPTCP connections), which has passed its cgroup on. Null if that is impossible.
#[inline(always)]
pub fn adopt(skb: *mut __sk_buff, sk: *mut bpf_sock) -> *mut SocketIdentity {
    if sk.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: as above.
    let found = unsafe { storage(sk.cast(), BPF_SK_STORAGE_GET_F_CREATE.into()) };
    if !found.is_null() {
        // SAFETY: not null, and alive as long as the socket.
        let socket = unsafe { &mut *found };
        for (level, slot) in (1..).zip(socket.cgroups.iter_mut()) {
            // SAFETY: the hook's own context.
            *slot = unsafe { bpf_skb_ancestor_cgroup_id(skb, level) };
            if *slot == 0 {
                break;
            }
        }
        socket.leaf = leaf(skb);
    }
    found
}

/// The cgroup in which the socket of a packet was created.
#[inline(always)]
pub fn leaf(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the hook's own context.
    unsafe { bpf_skb_cgroup_id(skb) }
}

/// What was recorded of this socket; null if nothing was. A part of an MPTCP connection, which is a socket of the kernel,
/// takes over what was recorded of the application's.
///
/// # Safety
/// `sk` is a full socket.
#[inline(always)]
pub unsafe fn recorded(sk: *mut c_void) -> *mut SocketIdentity {
    // SAFETY: the caller's promise.
    let found = unsafe { storage(sk, 0) };
    if !found.is_null() || MPTCP.load() == 0 {
        return found;
    }
    // SAFETY: as above.
    let whole = unsafe { bpf_skc_to_mptcp_sock(sk) };
    if whole.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: a socket, checked against null, that lives as long as its part.
    let whole = unsafe { storage(whole.cast(), 0) };
    if whole.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: as in `storage`; the value to begin with is a live value of the same map.
    let part = unsafe {
        bpf_sk_storage_get(
            ptr::addr_of!(SOCKETS).cast_mut().cast(),
            sk,
            whole.cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    if part.is_null() { whole } else { part.cast() }
}

/// # Safety
/// `sk` is a socket, or the context of a socket hook, that the helper takes in this program type.
#[inline(always)]
pub unsafe fn storage(sk: *mut c_void, flags: u64) -> *mut SocketIdentity {
    // SAFETY: the map is a socket storage whose value is `SocketIdentity`; a null value means "zeroed" on creation.
    unsafe { bpf_sk_storage_get(ptr::addr_of!(SOCKETS).cast_mut().cast(), sk, ptr::null_mut(), flags) }.cast()
}
