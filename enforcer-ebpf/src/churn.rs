//! Reads under change: asks for verdicts, bindings and addresses whose answers follow from the question, and counts those
//! that do not (`BPF_PROG_TEST_RUN`, see [`enforcer_common::churn`]).

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use enforcer_common::address::Address;
use enforcer_common::churn::{Churn, Draw, FIRST_CGROUP, MEMBERS, PORTS, PREFIX, is_of, next, word};
use enforcer_common::id::IdentityId;
use enforcer_common::verdict::{self, Direction, Query, Verdict};

use crate::policy::{self, opaque};
use crate::{identity, peer};

/// Reads a [`Churn`] from the start of the packet and writes it back with what was found. 0 when done.
#[inline(always)]
pub fn churn(ctx: &TcContext) -> i32 {
    // Read in place: a second copy would not fit beside what the callback calls.
    let mut place = MaybeUninit::<Churn>::uninit();
    let (skb, size) = (ctx.skb.skb.cast(), size_of::<Churn>() as u32);
    // SAFETY: the program's own context, and a place of that size, which the helper fills or refuses to.
    if unsafe { bpf_skb_load_bytes(skb, 0, place.as_mut_ptr().cast(), size) } != 0 {
        return 1;
    }
    // SAFETY: filled; every bit pattern is a valid value.
    let churn = unsafe { place.assume_init_mut() };
    let (questions, churn) = (churn.questions as u32, ptr::from_mut(churn).cast::<c_void>());
    // SAFETY: the callback takes what is handed over here, which outlives the call.
    unsafe { bpf_loop(questions, turn as *mut c_void, churn, 0) };
    // SAFETY: the program's own context and a live value.
    if unsafe { bpf_skb_store_bytes(skb.cast(), 0, churn, size, 0) } == 0 { 0 } else { 2 }
}

/// One question of each kind.
unsafe extern "C" fn turn(_index: u32, churn: *mut Churn) -> i64 {
    // SAFETY: the value that `churn` handed over.
    let churn = unsafe { &mut *churn };
    churn.random = opaque(next(churn.random));
    let draw = Draw::new(churn.random);
    ask(churn, &draw);
    // SAFETY: a live value.
    unsafe { find(churn, draw.binding.into(), draw.prefix.into()) };
    0
}

#[inline(always)]
fn ask(churn: &mut Churn, draw: &Draw) {
    churn.asked += 1;
    let Some(table) = policy::current() else {
        churn.missing += 1;
        return;
    };
    let generation = opaque(verdict::generation(table).0);
    churn.backwards += u64::from(generation < churn.generation);
    churn.swapped += u64::from(generation != churn.generation);
    churn.generation = generation;
    let by_address = draw.peer >= MEMBERS;
    let query = Query {
        subject: IdentityId(IdentityId::FIRST_WORKLOAD.0 + draw.subject),
        peer: if by_address {
            IdentityId::UNKNOWN
        } else {
            IdentityId(IdentityId::FIRST_WORKLOAD.0 + draw.peer)
        },
        address: Address::v4(draw.peer),
        port: if draw.port == 0 { PORTS[0] } else { PORTS[1] },
        protocol: 6,
        direction: if draw.ingress == 0 { Direction::Egress } else { Direction::Ingress },
    };
    let found = policy::verdict(table, &query);
    let (enforced, hypothetical) = (word(generation, draw, false), word(generation, draw, true));
    if found.enforced != enforced || found.hypothetical != hypothetical {
        // SAFETY: a live value.
        unsafe { complain(churn, generation, found.enforced.0, found.hypothetical.0) };
    }
}

/// Finds out what is bad about a verdict. Global (see `judge.rs`).
///
/// # Safety
/// `churn` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn complain(churn: *mut Churn, generation: u64, enforced: u64, hypothetical: u64) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(churn) = (unsafe { churn.as_mut() }) else { return 0 };
    let found = Verdict { enforced: verdict::Word(enforced), hypothetical: verdict::Word(hypothetical) };
    let (rule, other) = (found.enforced.rule().0, found.hypothetical.rule().0);
    if rule == 0 || other == 0 {
        churn.missing += 1;
    } else if rule ^ other != 1 {
        churn.torn += 1;
    } else if u64::from(rule >> 16) != generation & 0xffff {
        churn.mixed += 1;
    } else {
        churn.wrong += 1;
    }
    if churn.sample[0] == 0 {
        churn.sample = [churn.random, generation, enforced, hypothetical];
    }
    0
}

/// Looks up a binding and an address. Global (see `judge.rs`).
///
/// # Safety
/// `churn` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn find(churn: *mut Churn, binding: u64, prefix: u64) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(churn) = (unsafe { churn.as_mut() }) else { return 0 };
    let bound = identity::bound(FIRST_CGROUP + binding);
    if bound == 0 {
        churn.unbound += u64::from(binding & 1 == 0);
    } else if bound == u64::from(IdentityId::UNMANAGED.0) {
        churn.refused += 1;
    } else {
        churn.bound += 1;
        churn.misbound += u64::from(!is_of(bound as u32, binding as u32));
    }
    let placed = peer::by_address(Address { high: PREFIX, low: prefix }).identity as u32;
    if placed == IdentityId::WORLD.0 {
        churn.unplaced += u64::from(prefix & 1 == 0);
    } else if placed == IdentityId::UNKNOWN.0 {
        churn.refused += 1;
    } else {
        churn.placed += 1;
        churn.misplaced += u64::from(!is_of(placed, prefix as u32));
    }
    0
}
