//! Entry points: one function per hook. Each names its hook and calls the room that decides; nothing is decided here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod churn;
mod emit;
mod facts;
mod family;
mod fault;
mod flows;
mod gate;
mod identity;
mod judge;
mod latency;
mod listen;
mod maps;
mod options;
mod parse;
mod peer;
mod policy;
mod probe;
mod sockets;
mod traffic;
mod wall;

use aya_ebpf::macros::{
    cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, classifier, lsm, sock_ops,
};
use aya_ebpf::programs::{
    LsmContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext, SockoptContext, TcContext,
};
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

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    wall::packet(Hook::Egress, ctx.skb.skb)
}

#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    wall::packet(Hook::Ingress, ctx.skb.skb)
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    listen::bound(Hook::Bind4, &ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    listen::bound(Hook::Bind6, &ctx)
}

#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    listen::may(Hook::PostBind4, &ctx)
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    listen::may(Hook::PostBind6, &ctx)
}

#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    options::set(ctx.sockopt)
}

#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    traffic::connection(ctx.ops)
}

#[lsm(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    family::created(&ctx)
}

/// Never attached: answers questions by `BPF_PROG_TEST_RUN`, so that tests compare kernel and host.
#[classifier]
pub fn judge(ctx: TcContext) -> i32 {
    probe::judge(&ctx)
}

/// Never attached: asks itself questions whose answers are known, while user space changes what is asked.
#[classifier]
pub fn churn(ctx: TcContext) -> i32 {
    churn::churn(&ctx)
}

/// A panic must be impossible: this loop has no end, so the verifier refuses a program that could reach it.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
