//! The story, in the order in which it happens.

use std::time::Instant;

use crate::patience;

use super::screen::{Line, Screen};
use super::stage::{POLICIES, Stage, counted, errno_name};

const FLOWS: [&str; 3] = ["web -> api", "api -> db", "web -> db"];
const ALLOWED: &str = "forwarded";
const REFUSED: &str = "dropped";
/// What the application gets by policy `web`.
const EPERM: i32 = 1;
/// Who refuses: `web` may call nobody but `api`.
const RULE: &str = "default/web egress (isolated)";
/// A refusal is a matter of the call itself. Where nothing answers, TCP tries again after a second.
const AT_ONCE: u64 = 500_000;

/// Tells it.
pub(super) fn tell(stage: &mut Stage, screen: &mut Screen) {
    screen.title("enforcer: who may talk to whom, decided by the kernel, by workload instead of by address");
    cast(stage, screen);
    before(stage, screen);
    with_policies(stage, screen);
    without_the_daemon(stage, screen);
    with_the_daemon_again(stage, screen);
    numbers(stage, screen);
}

fn cast(stage: &mut Stage, screen: &mut Screen) {
    let start = Instant::now();
    stage.agent.run();
    let took = start.elapsed().as_secs_f64();
    let status = stage.agent.status();
    let pids = [&stage.web, &stage.api, &stage.db].map(|it| it.puppet.pid().to_string());
    screen.fact("kernel", &format!("Linux {}, cgroup v2 at {}", status.kernel, status.cgroup_root));
    screen.fact(
        "workloads",
        &format!("web, api, db: processes {}, each in a cgroup of its own", pids.join(", ")),
    );
    screen.fact("address", "127.0.0.1 for all three: no address tells them apart");
    screen.fact(
        "daemon",
        &format!("process {}, {} hooks attached in {took:.1} s", stage.agent.pid(), status.hooks.len()),
    );
}

/// A call that is allowed; by whom is not worth a word.
fn allowed(stage: &mut Stage, screen: &mut Screen, flow: &'static str) {
    let call = stage.call(flow);
    let error = errno_name(call.errno);
    let line = Line {
        flow,
        address: call.address,
        refused: call.errno != 0,
        micros: call.micros,
        error: &error,
        by: "",
    };
    screen.flow(call.errno == 0, &line);
}

/// A call that is refused at once; with `ask` the daemon is asked by which rule.
fn refused(stage: &mut Stage, screen: &mut Screen, flow: &'static str, ask: bool) {
    let call = stage.call(flow);
    let error = errno_name(call.errno);
    let rule = if ask { rule(stage) } else { None };
    let holds = call.errno == EPERM && call.micros < AT_ONCE && (!ask || rule.as_deref() == Some(RULE));
    let text = rule.as_ref().map(|rule| format!("by {rule}")).unwrap_or_default();
    let line = Line {
        flow: call.flow,
        address: call.address,
        refused: call.errno != 0,
        micros: call.micros,
        error: &error,
        by: &text,
    };
    screen.flow(holds, &line);
}

fn before(stage: &mut Stage, screen: &mut Screen) {
    screen.chapter("Without policies: everyone may");
    for flow in FLOWS {
        allowed(stage, screen, flow);
    }
}

fn with_policies(stage: &mut Stage, screen: &mut Screen) {
    screen.chapter("With policies: web may call api, api may call db, and nobody else may");
    let file = Stage::policies().display().to_string();
    let applied = stage.agent.cli(&["policy", "apply", "-f", &file]);
    let generation = stage.agent.status().generation;
    screen.state(
        applied.code == 0,
        &format!("enforcer policy apply -f policies/{POLICIES}: generation {generation}"),
    );
    three_calls(stage, screen, true);
}

/// The three calls as the policies want them; the daemon is asked for the rule while there is one.
fn three_calls(stage: &mut Stage, screen: &mut Screen, ask: bool) {
    allowed(stage, screen, "web -> api");
    allowed(stage, screen, "api -> db");
    refused(stage, screen, "web -> db", ask);
}

/// The rule behind the last refusal. The event is on its way for a moment.
fn rule(stage: &Stage) -> Option<String> {
    let limit = patience::seconds(2);
    let start = Instant::now();
    loop {
        let found = stage.refused_by();
        if found.is_some() || start.elapsed() > limit {
            return found;
        }
    }
}

fn without_the_daemon(stage: &mut Stage, screen: &mut Screen) {
    let pid = stage.agent.pid();
    stage.agent.kill9();
    screen.chapter(&format!("Without the daemon: process {pid} was killed with -9"));
    three_calls(stage, screen, false);
}

fn with_the_daemon_again(stage: &mut Stage, screen: &mut Screen) {
    let start = Instant::now();
    stage.agent.run();
    let pid = stage.agent.pid();
    let took = start.elapsed().as_secs_f64();
    screen.chapter(&format!("With the daemon again: process {pid} took over in {took:.1} s"));
    three_calls(stage, screen, true);
}

fn numbers(stage: &mut Stage, screen: &mut Screen) {
    screen.chapter("Counters: what was done, and what /metrics of the second daemon says of it");
    let metrics = stage.agent.metrics();
    screen.note(&format!("  {:<36} {:>6} {:>9}", "", "done", "counted"));
    let sent = |flow: &str| stage.sent.get(flow).copied().unwrap_or_default();
    for flow in ["web -> api", "api -> db"] {
        screen.numbers(&format!("{flow:<10}  allowed"), sent(flow), counted(&metrics, flow, ALLOWED));
    }
    // The first call to the database was before the policies.
    screen.numbers("web -> db   allowed, no policies yet", 1, counted(&metrics, "web -> db", ALLOWED));
    screen.numbers("web -> db   refused", sent("web -> db") - 1, counted(&metrics, "web -> db", REFUSED));
    let taken = stage.api.served(&stage.api_server);
    screen.numbers("connections that api accepted", sent("web -> api"), taken);
    let taken = stage.db.served(&stage.db_server);
    screen.numbers("connections that db accepted", sent("api -> db") + 1, taken);
}
