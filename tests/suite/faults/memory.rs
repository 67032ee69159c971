//! The daemon's cgroup has less and less memory, until the kernel refuses it or kills it.

use std::fs;
use std::path::{Path, PathBuf};

use super::stage::{PROBE, Stage};
use super::{Figures, is_long};
use crate::registry::skip;

const EHOSTUNREACH: i32 = 113;
/// What is left of the present use with each step, in hundredths.
const STEPS: [u64; 8] = [95, 90, 80, 70, 60, 50, 35, 20];

pub(super) fn memory() {
    let mut figures = Figures::new("memory");
    let root = enforcer::config::cgroup_root(None).unwrap();
    require_controller(&root);
    let mut stage = Stage::set("memory");
    let cgroup = stage.world.agents();
    let _controllers = Controllers::enable(&root, cgroup.parent().unwrap());
    stage.agent.run();
    let told = stage.agent.told();
    assert!(!told.contains("memory limit"), "sockets must not count against the daemon's limit: {told}");
    stage.check();
    let load = stage.load();
    let (mut taken, mut refused, mut silent, mut wrong) = (0_u64, 0_u64, 0_u64, 0_u64);
    let rounds = if is_long() { 10 } else { 1 };
    let mut killed = 0;
    for round in 0..rounds {
        let used = read(&cgroup.join("memory.current"));
        let mut denied = stage.good.connect(PROBE).errno == EHOSTUNREACH;
        for step in STEPS {
            // Reclaiming may end it at once.
            fs::write(cgroup.join("memory.max"), (used * step / 100).to_string()).unwrap();
            if stage.agent.has_ended() {
                break;
            }
            // Each push means the opposite of the one before, and is large enough to need memory for its table.
            let told = stage.agent.cli_with(&["policy", "apply", "-f", "-"], &policy(!denied));
            let now = stage.good.connect(PROBE).errno;
            wrong += u64::from(![0, EHOSTUNREACH].contains(&now));
            if told.code == 0 {
                taken += 1;
                wrong += u64::from((now == EHOSTUNREACH) == denied);
            } else {
                refused += 1;
                silent += u64::from(told.stderr.trim().is_empty());
            }
            denied = now == EHOSTUNREACH;
            wrong += u64::from(stage.bad.connect(PROBE).errno != super::stage::EPERM);
        }
        if stage.agent.has_ended() {
            killed += 1;
            let code = stage.agent.until_ended();
            // 137: by the kernel, which `memory.events` tells; others have said why.
            assert!(code == 137 || code != 0 && !stage.agent.told().is_empty(), "round {round}: {code}");
            // A start in too little memory ends or is refused, and changes nothing.
            stage.agent.spawn();
            let code = stage.agent.until_ended();
            assert_ne!(code, 0, "round {round}");
        } else {
            assert_eq!(stage.agent.terminate(), 0);
        }
        wrong += u64::from(stage.bad.connect(PROBE).errno != super::stage::EPERM);
        fs::write(cgroup.join("memory.max"), "max").unwrap();
        stage.agent.run();
        stage.agent.cli_with(&["policy", "apply", "-f", "-"], &policy(false)).expect_ok();
        stage.check();
    }
    let outcome = load.rest();
    figures.note("rounds", rounds);
    figures.note("pushes-taken", taken);
    figures.note("pushes-refused", refused);
    figures.note("daemons-ended", killed);
    figures.note("oom-kills", event(&cgroup, "oom_kill"));
    figures.at_least("squeezed", refused + killed, 1);
    figures.exactly("refused-without-a-word", silent, 0);
    figures.exactly("wrong-verdicts", wrong, 0);
    outcome.figures(&mut figures);
    figures.finish();
}

/// Denies `good` the probe, or allows it.
fn policy(deny: bool) -> String {
    let action = if deny { "Deny" } else { "Allow" };
    // Ports of three protocols: three tables of 128 KiB each.
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: pushed}}\nspec: {{errno: EHOSTUNREACH, \
         subject: {{matchLabels: {{app: good}}}}, egress: [{{action: {action}, ports: [{{port: 7020}}, {{port: 7021, \
         protocol: UDP}}, {{port: 7022, protocol: SCTP}}]}}, {{}}]}}\n"
    )
}

fn read(file: &Path) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn event(cgroup: &Path, name: &str) -> u64 {
    let events = fs::read_to_string(cgroup.join("memory.events")).unwrap();
    let line = events.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().trim().parse().unwrap()
}

fn require_controller(root: &Path) {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap();
    if !controllers.split_whitespace().any(|name| name == "memory") {
        skip(
            "the cgroup v2 tree of this machine has no memory controller: `cargo xtask vm 6.1 6.12 -- faults::memory`",
        );
    }
}

/// The memory controller, switched on down to the daemon's directory; off again when dropped, where it was off.
struct Controllers(Vec<PathBuf>);

impl Controllers {
    fn enable(root: &Path, above: &Path) -> Self {
        let mut changed = Vec::new();
        for directory in [root, above] {
            let file = directory.join("cgroup.subtree_control");
            let on = fs::read_to_string(&file).unwrap();
            if !on.split_whitespace().any(|name| name == "memory") {
                fs::write(&file, "+memory").unwrap();
                changed.push(file);
            }
        }
        Self(changed)
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        for file in self.0.iter().rev() {
            // Directories of other tests may need it by now.
            fs::write(file, "-memory").ok();
        }
    }
}
