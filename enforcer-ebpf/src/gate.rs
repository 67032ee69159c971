//! The gate every hook goes through: parse, identify, decide, account, enforce.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::abi::config::{Mode, Setting, Stat};
use enforcer_common::abi::flow::Outcome;
use enforcer_common::hook::Hook;

use crate::facts::{Facts, REPLY};
use crate::judge::Judgement;
use crate::maps::setting;
use crate::{emit, facts, fault, identity, judge};

/// What a hook returns to let the call go on, or to refuse it.
const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// `sock_create`: who creates this socket?
#[inline(always)]
pub fn created(ctx: &SockContext) -> i32 {
    if identity::record(ctx) {
        return ALLOW;
    }
    fault::report(Stat::NoSocketStorage);
    if matches!(mode(), Mode::Enforce) { REFUSE } else { ALLOW }
}

/// `connect` and `sendmsg`: may this flow be?
#[inline(always)]
pub fn outbound(hook: Hook, ctx: &SockAddrContext) -> i32 {
    let mode = mode();
    if matches!(mode, Mode::Off) {
        return ALLOW;
    }
    let mut facts = facts::gather(hook, ctx, matches!(mode, Mode::Audit));
    identity::identify(ctx, &mut facts);
    let mut judgement = Judgement::unjudged();
    judge::judge(&facts, &mut judgement);
    let verdict = judgement.decisive();
    let dropped = verdict.outcome == Outcome::Dropped as u64;
    if dropped || is_news(&facts) {
        emit::flow(ctx, hook, &facts, &judgement);
    }
    if !dropped {
        return ALLOW;
    }
    // SAFETY: a negative errno, as the helper wants it. Should it fail, the kernel's own EPERM remains.
    unsafe { bpf_set_retval(-verdict.word.errno().number()) };
    REFUSE
}

#[inline(always)]
fn mode() -> Mode {
    Mode::from_code(setting(Setting::Mode))
}

/// Whether an allowed flow is a new one.
#[inline(always)]
fn is_news(facts: &Facts) -> bool {
    !facts.has(REPLY)
}
