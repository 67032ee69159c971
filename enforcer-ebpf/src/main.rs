//! Entry points: one function per hook. Each names its hook and calls the gate; nothing is decided here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod emit;
mod facts;
mod fault;
mod gate;
mod identity;
mod judge;
mod maps;
mod parse;
mod policy;
mod probe;

use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, SockContext, TcContext};
use enforcer_common::hook::Hook;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    gate::created(&ctx)
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    gate::outbound(Hook::Connect4, &ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    gate::outbound(Hook::Connect6, &ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    gate::outbound(Hook::Sendmsg4, &ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    gate::outbound(Hook::Sendmsg6, &ctx)
}

/// Never attached: answers questions by `BPF_PROG_TEST_RUN`, so that tests compare kernel and host.
#[classifier]
pub fn judge(ctx: TcContext) -> i32 {
    probe::judge(&ctx)
}

/// A panic must be impossible: this loop has no end, so the verifier refuses a program that could reach it.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
