//! The verdict function on questions that user space brings along (`BPF_PROG_TEST_RUN`).

use aya_ebpf::programs::TcContext;
use enforcer_common::abi::probe::{Answer, Question};
use enforcer_common::address::Address;
use enforcer_common::id::IdentityId;
use enforcer_common::verdict::{Direction, Query};

use crate::policy;

/// Reads a [`Question`] from the start of the packet and writes the [`Answer`] behind it. 0 when answered.
#[inline(always)]
pub fn judge(ctx: &TcContext) -> i32 {
    let Ok(question) = ctx.load::<Question>(0) else { return 1 };
    let Some(table) = policy::current() else { return 2 };
    let query = Query {
        subject: IdentityId(question.subject),
        peer: IdentityId(question.peer),
        address: Address { high: question.high, low: question.low },
        port: question.port,
        protocol: question.protocol,
        direction: if question.direction == Direction::Ingress as u8 {
            Direction::Ingress
        } else {
            Direction::Egress
        },
    };
    let verdict = policy::verdict(table, &query);
    let answer = Answer { enforced: verdict.enforced.0, hypothetical: verdict.hypothetical.0 };
    match ctx.store(size_of::<Question>(), &answer, 0) {
        Ok(()) => 0,
        Err(_) => 3,
    }
}
