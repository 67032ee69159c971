//! The policy table as the kernel sees it.

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use enforcer_common::abi::config::SocketKind;
use enforcer_common::abi::policy::{H_NEXT, H_UNTIL, Row};
use enforcer_common::address::Address;
use enforcer_common::id::IdentityId;
use enforcer_common::limits::SUCCESSORS;
use enforcer_common::verdict::{
    self, Direction, NO_TABLES, PolicyView, Query, Verdict, Word, decide, decide_listen, decide_socket,
};

use crate::maps::{TABLES, Table};

/// The table of one generation. Whoever holds it reads that generation only, whatever is published meanwhile.
#[derive(Clone, Copy)]
pub struct KernelTable(&'static Table);

impl PolicyView for KernelTable {
    #[inline(always)]
    fn row(&self, index: u32) -> Option<&Row> {
        let words = self.0.get(index)?;
        // SAFETY: a row is exactly these words (`repr(C)`, no padding), with the same alignment.
        Some(unsafe { &*core::ptr::from_ref(words).cast::<Row>() })
    }

    #[inline(always)]
    fn opaque(self, value: u64) -> u64 {
        opaque(value)
    }
}

/// The table that is enforced now: the published one, or that of its successors whose time has come.
#[inline(always)]
pub fn current() -> Option<KernelTable> {
    let mut table = TABLES.get(0).map(KernelTable)?;
    let mut now = 0;
    for _ in 0..SUCCESSORS {
        let next = table.row(1)?;
        let until = next.words[H_UNTIL];
        if until == 0 {
            break;
        }
        if now == 0 {
            // SAFETY: no arguments.
            now = unsafe { bpf_ktime_get_boot_ns() };
        }
        if now < until {
            break;
        }
        table = TABLES.get(next.words[H_NEXT] as u32).map(KernelTable)?;
    }
    Some(table)
}

/// Judges one flow in one direction.
#[inline(always)]
pub fn verdict(table: KernelTable, query: &Query) -> Verdict {
    let mut verdict = Verdict { enforced: Word::NONE, hypothetical: Word::NONE };
    let parties = (u64::from(query.subject.0) << 32) | u64::from(query.peer.0);
    let flow = u64::from(query.port) | (u64::from(query.protocol) << 16) | ((query.direction as u64) << 24);
    // A copy, so that the rest of the query needs no memory.
    let address = query.address;
    decide_into(table, parties, &address, flow, &mut verdict);
    Verdict { enforced: Word(opaque(verdict.enforced.0)), hypothetical: Word(opaque(verdict.hypothetical.0)) }
}

/// Whether it depends on addresses who may call this subject.
#[inline(always)]
pub fn depends_on_address(table: KernelTable, subject: IdentityId) -> bool {
    verdict::depends_on_address(table, subject)
}

/// Judges whether somebody may listen on a port.
#[inline(always)]
pub fn listen(subject: IdentityId, protocol: u8, port: u16) -> Verdict {
    let mut verdict = Verdict { enforced: NO_TABLES, hypothetical: NO_TABLES };
    // SAFETY: a live value.
    unsafe { judge_listen(subject.0.into(), protocol.into(), port.into(), &raw mut verdict) };
    Verdict { enforced: Word(opaque(verdict.enforced.0)), hypothetical: Word(opaque(verdict.hypothetical.0)) }
}

/// Global (see `judge.rs`). Without a table `out` stays as it is.
///
/// # Safety
/// `out` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn judge_listen(subject: u64, protocol: u64, port: u64, out: *mut Verdict) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let (Some(table), Some(out)) = (current(), unsafe { out.as_mut() }) else { return 0 };
    *out = decide_listen(table, IdentityId(subject as u32), protocol as u8, port as u16);
    1
}

/// Whether some policy in force speaks of creating sockets. Without a table none is known.
#[inline(always)]
pub fn speaks_of_sockets() -> bool {
    asks_of_sockets() != 0
}

/// Global (see `judge.rs`).
#[unsafe(no_mangle)]
#[inline(never)]
fn asks_of_sockets() -> u64 {
    current().is_some_and(verdict::speaks_of_sockets).into()
}

/// Judges whether somebody may create a socket of a kind, of which the configuration says `otherwise`. The generation of the
/// table that was asked comes with it.
#[inline(always)]
pub fn socket(subject: IdentityId, kind: SocketKind, otherwise: Word) -> (Verdict, u64) {
    let mut verdict = Verdict { enforced: otherwise, hypothetical: otherwise };
    // SAFETY: a live value.
    let generation =
        unsafe { judge_socket(subject.0.into(), kind.class().into(), otherwise.0, &raw mut verdict) };
    (
        Verdict {
            enforced: Word(opaque(verdict.enforced.0)),
            hypothetical: Word(opaque(verdict.hypothetical.0)),
        },
        generation,
    )
}

/// Global (see `judge.rs`). Without a table `out` stays as it is.
///
/// # Safety
/// `out` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn judge_socket(subject: u64, class: u64, otherwise: u64, out: *mut Verdict) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let (Some(table), Some(out)) = (current(), unsafe { out.as_mut() }) else { return 0 };
    *out = decide_socket(table, IdentityId(subject as u32), class as u16, Word(otherwise));
    verdict::generation(table).0
}

/// [`decide`] as one BPF subprogram, present once in the object. A query in registers, as far as it fits: in memory it
/// would count in the stack of every hook. `flow`: port, protocol and direction.
#[inline(never)]
fn decide_into(table: KernelTable, parties: u64, address: &Address, flow: u64, out: &mut Verdict) {
    let query = Query {
        subject: IdentityId((parties >> 32) as u32),
        peer: IdentityId(parties as u32),
        address: *address,
        port: flow as u16,
        protocol: (flow >> 16) as u8,
        direction: if flow >> 24 == 0 { Direction::Egress } else { Direction::Ingress },
    };
    *out = decide(table, &query);
}

/// The same value, of which the verifier knows nothing: it walks each path that leads to a different value it can tell
/// apart, and joins those that lead to a value it knows nothing of.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: `bpf_jiffies64` takes no arguments (a plain load after the verifier's fix-ups; any unknown number would
    // do), and the two register-only instructions cancel out.
    unsafe {
        let noise = bpf_jiffies64();
        asm!(
            "{value} ^= {noise}",
            "{value} ^= {noise}",
            value = inout(reg) value,
            noise = in(reg) noise,
            options(pure, nomem, nostack)
        );
    }
    value
}

/// Zero, but the compiler does not know: it turns neighbouring stores of zeros into a call of a byte-wise loop, which
/// costs more than the rest of a hook, and the verifier keeps what stood in a slot that is written byte by byte.
#[inline(always)]
pub fn zero() -> u64 {
    let zero: u64;
    // SAFETY: one register-only instruction.
    unsafe { asm!("{zero} = 0", zero = out(reg) zero, options(pure, nomem, nostack)) };
    zero
}
