//! From a hook's context to plain values. The only room that touches context pointers.

pub mod skb;
pub mod sock_addr;

/// One word of a context or socket, at a constant offset. Written out because the compiler otherwise merges loads of
/// neighbouring fields, or computes the address of one of two fields, and the verifier refuses both.
macro_rules! word {
    ($from:expr, $struct:ty, $field:ident $(, $index:literal)?) => {{
        let value: u64;
        // SAFETY: the caller of this macro has a context or socket pointer from the kernel in hand; the field lies
        // within it and is readable in this hook.
        unsafe {
            core::arch::asm!(
                "{value} = *(u32 *)({from} + {offset})",
                value = out(reg) value,
                from = in(reg) $from,
                offset = const (core::mem::offset_of!($struct, $field) $(+ 4 * $index)?),
                options(pure, readonly, nostack)
            );
        }
        value as u32
    }};
}

/// Four words in network byte order.
macro_rules! address {
    ($from:expr, $struct:ty, $field:ident) => {
        enforcer_common::address::Address {
            high: (u64::from(u32::from_be($crate::parse::word!($from, $struct, $field, 0))) << 32)
                | u64::from(u32::from_be($crate::parse::word!($from, $struct, $field, 1))),
            low: (u64::from(u32::from_be($crate::parse::word!($from, $struct, $field, 2))) << 32)
                | u64::from(u32::from_be($crate::parse::word!($from, $struct, $field, 3))),
        }
    };
}

/// The address a socket is bound to, zero where none is chosen yet. `$sk` is a socket, not null.
macro_rules! own_address {
    ($sk:expr) => {
        // `AF_INET6`
        if $crate::parse::word!($sk, aya_ebpf::bindings::bpf_sock, family) == 10 {
            $crate::parse::address!($sk, aya_ebpf::bindings::bpf_sock, src_ip6)
        } else {
            enforcer_common::address::Address::v4(u32::from_be($crate::parse::word!(
                $sk,
                aya_ebpf::bindings::bpf_sock,
                src_ip4
            )))
        }
    };
}

/// A pointer-sized field of a context, at a constant offset, as the register that the verifier knows to be a pointer.
macro_rules! pointer {
    ($from:expr, $size:literal, $offset:expr) => {{
        let value: u64;
        // SAFETY: the caller of this macro has the context from the kernel in hand; the field lies within it.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(", $size, " *)({from} + {offset})"),
                value = out(reg) value,
                from = in(reg) $from,
                offset = const $offset,
                options(pure, readonly, nostack)
            );
        }
        value
    }};
}

pub(crate) use {address, own_address, pointer, word};
