//! Whether this node should be given an agent. `probe` says what the kernel can; this judges it, and everything around it, and
//! says what to do next. Nothing is changed: what is tried is undone before it returns.

mod node;

use serde::Serialize;

use super::probe::{Feature, ProbeReport};
pub use node::{Asked, Node};

/// What was found of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// An agent will run, with less than it could have.
    Warn,
    /// An agent will not run.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was found.
    pub result: Verdict,
    /// In words.
    pub detail: String,
    /// What to do about it; empty where nothing is to be done.
    pub next: String,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preflight {
    /// Name of the host.
    pub node: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// The things, the most basic first.
    pub checks: Vec<Check>,
}

impl Preflight {
    /// Whether an agent will run here.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.result != Verdict::Fail)
    }
}

/// Free space below which not even the state fits, in bytes.
const LEAST_SPACE: u64 = 64 << 20;
/// Memory below which tables of a usual size do not fit, in bytes.
const LEAST_MEMORY: u64 = 256 << 20;
/// The oldest kernel that is tested, major and minor.
const OLDEST: (u32, u32) = (6, 1);

/// Judges a node.
pub fn judge(node: &Node, probe: &ProbeReport) -> Preflight {
    let mut checks = vec![kernel(&probe.kernel), rights(node)];
    checks.extend(features(probe));
    checks.extend([
        compiler(node),
        lockdown(node),
        unprivileged(node),
        others(node),
        agent(node),
        port(node),
        space(node),
        memory(node),
        runtimes(node),
        clock(node),
    ]);
    Preflight { node: node.name.clone(), kernel: probe.kernel.clone(), checks }
}

fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, result: Verdict::Ok, detail: detail.into(), next: String::new() }
}

fn warn(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Check {
    Check { name, result: Verdict::Warn, detail: detail.into(), next: next.into() }
}

fn fail(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Check {
    Check { name, result: Verdict::Fail, detail: detail.into(), next: next.into() }
}

fn kernel(release: &str) -> Check {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(|it| it.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST;
    if version >= OLDEST {
        ok("kernel", format!("Linux {release}"))
    } else {
        let detail = format!("Linux {release} is older than {major}.{minor}, the oldest that is tested");
        warn("kernel", detail, "what counts is below: it was tried")
    }
}

fn rights(node: &Node) -> Check {
    let name = "rights";
    if !node.root {
        return fail(name, "this user is not root", "repeat the command with `sudo`");
    }
    if node.missing_capabilities.is_empty() {
        return ok(name, "root, with every capability that an agent keeps");
    }
    let detail = format!("capabilities are missing: {}", node.missing_capabilities.join(" "));
    fail(name, detail, "give them to the unit or container, see docs/install.md#rights")
}

/// What the kernel was tried for. What is there is one row for all.
fn features(probe: &ProbeReport) -> Vec<Check> {
    let (present, absent): (Vec<&Feature>, Vec<_>) = probe.features.iter().partition(|it| it.present);
    let detail =
        format!("{} of {} are there; `enforcer probe` lists them", present.len(), probe.features.len());
    let mut checks = vec![ok("kernel features", detail)];
    checks.extend(absent.into_iter().map(|feature| {
        let detail = format!("{}: {}", feature.name, feature.detail);
        let next = match &*feature.name {
            "cgroup v2" => "boot with `systemd.unified_cgroup_hierarchy=1`, or `mount -t cgroup2 none /sys/fs/cgroup`",
            "BPF file system" => "`mount -t bpf bpf /sys/fs/bpf`",
            "BPF LSM" => "add `bpf` to lsm= on the kernel's command line; without it `status --unguarded` lists what is open",
            "kernel BTF" => "a kernel with CONFIG_DEBUG_INFO_BTF",
            _ => "`enforcer probe` tells more; docs/kernel-support.md says which kernels have it",
        };
        if feature.required { fail("kernel features", detail, next) } else { warn("kernel features", detail, next) }
    }));
    checks
}

fn compiler(node: &Node) -> Check {
    let name = "JIT compiler";
    match node.jit.as_deref() {
        Some("0") => warn(
            name,
            "programs are interpreted, which costs many times as much",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Some(_) => ok(name, "on"),
        None => ok(name, "always on, or this kernel does not say"),
    }
}

fn lockdown(node: &Node) -> Check {
    let name = "lockdown";
    match node.lockdown.as_deref() {
        Some(text) if text.contains("[confidentiality]") => warn(
            name,
            "the kernel keeps its memory from programs",
            "boot with lockdown=integrity if programs are refused above",
        ),
        Some(text) if text.contains("[integrity]") => ok(name, "integrity, which allows all that is needed"),
        _ => ok(name, "off"),
    }
}

fn unprivileged(node: &Node) -> Check {
    let name = "bpf(2) for users";
    match node.unprivileged.as_deref() {
        Some("0") => {
            warn(name, "every user may load programs", "`sysctl -w kernel.unprivileged_bpf_disabled=1`")
        }
        _ => ok(name, "refused to those without rights"),
    }
}

fn others(node: &Node) -> Check {
    let name = "other programs";
    match &node.others {
        Err(error) => warn(name, format!("can't be asked for: {error}"), "see the row `rights`"),
        Ok(others) if others.is_empty() => ok(name, "none at the hooks of the tree's root"),
        Ok(others) => warn(
            name,
            format!("at our hooks: {}; they may change what applications are told", others.join(", ")),
            "`bpftool cgroup tree` tells whose they are",
        ),
    }
}

fn agent(node: &Node) -> Check {
    let name = "agent";
    let place = node.pins.display();
    match (node.agent_answers, node.pins.exists()) {
        (true, _) => warn(
            name,
            format!("one answers on {} already", node.socket.display()),
            "`enforcer status`; stop it before another one is started",
        ),
        (false, true) => {
            ok(name, format!("{place} has what an earlier one left; the next one takes it over"))
        }
        (false, false) => ok(name, "none yet"),
    }
}

fn port(node: &Node) -> Check {
    let name = "monitoring port";
    match (&node.port, node.agent_answers) {
        (None, _) => ok(name, "none is configured"),
        (Some((address, Ok(()))), _) => ok(name, format!("{address} is free")),
        (Some((address, Err(_))), true) => ok(name, format!("{address} is in use while an agent runs")),
        (Some((address, Err(error))), false) => fail(
            name,
            format!("{address}: {error}"),
            "`ss -ltnp` tells whose it is; choose another with `metrics-listen`",
        ),
    }
}

fn space(node: &Node) -> Check {
    let name = "disk space";
    let place = node.state.display();
    match &node.free {
        Err(error) => fail(name, format!("{place}: {error}"), "choose another `state-dir`"),
        Ok(free) if *free < LEAST_SPACE => fail(
            name,
            format!("{place} has {}", mebibytes(*free)),
            "make room, or choose another `state-dir`",
        ),
        Ok(free) if *free < node.wanted => warn(
            name,
            format!(
                "{place} has {}; audit log and flow history may grow to {}",
                mebibytes(*free),
                mebibytes(node.wanted)
            ),
            "lower `audit-total-size` and `history-size`, or make room",
        ),
        Ok(free) => ok(name, format!("{place} has {}", mebibytes(*free))),
    }
}

fn memory(node: &Node) -> Check {
    let name = "memory";
    match node.memory {
        Some(free) if free < LEAST_MEMORY => warn(
            name,
            format!("{} are available", mebibytes(free)),
            "an agent and its maps need about 256 MiB",
        ),
        Some(free) => ok(name, format!("{} are available", mebibytes(free))),
        None => ok(name, "this kernel does not say"),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn runtimes(node: &Node) -> Check {
    let name = "runtimes";
    if node.runtimes.is_empty() {
        return warn(
            name,
            "no socket of a container runtime or of systemd",
            "workloads come from Kubernetes or from a file then",
        );
    }
    ok(name, node.runtimes.join(", "))
}

fn clock(node: &Node) -> Check {
    let name = "clock";
    match node.synchronized {
        Some(true) => ok(name, "synchronized"),
        _ => warn(
            name,
            "not synchronized: audit log, history and expiring rules go by it",
            "`timedatectl set-ntp true`, or another client of time servers",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &str, present: bool, required: bool) -> Feature {
        Feature { name: name.into(), present, required, detail: "what it is for".into() }
    }

    fn probe(features: Vec<Feature>) -> ProbeReport {
        ProbeReport { kernel: "6.12.1-cloud".into(), features }
    }

    fn good() -> Node {
        Node {
            name: "one".into(),
            root: true,
            missing_capabilities: Vec::new(),
            jit: Some("1".into()),
            lockdown: Some("[none] integrity confidentiality".into()),
            unprivileged: Some("2".into()),
            others: Ok(Vec::new()),
            socket: "/nowhere/enforcer.sock".into(),
            agent_answers: false,
            pins: "/nowhere/pins".into(),
            port: Some(("127.0.0.1:9962".parse().unwrap(), Ok(()))),
            state: "/var/lib/enforcer".into(),
            free: Ok(8 << 30),
            wanted: 768 << 20,
            memory: Some(1 << 30),
            runtimes: vec!["containerd".into()],
            synchronized: Some(true),
        }
    }

    fn result(node: &Node, name: &str) -> Verdict {
        let found = judge(node, &probe(Vec::new()));
        found.checks.iter().find(|check| check.name == name).unwrap().result
    }

    #[test]
    fn a_good_node_has_nothing_to_be_said_of() {
        let found = judge(&good(), &probe(vec![feature("cgroup v2", true, true)]));
        assert!(found.ok());
        assert!(
            found.checks.iter().all(|check| check.result == Verdict::Ok && check.next.is_empty()),
            "{found:?}"
        );
    }

    #[test]
    fn every_fault_has_its_row_and_a_next_step() {
        type Fault = fn(&mut Node);
        let faults: [(&str, Verdict, Fault); 14] = [
            ("rights", Verdict::Fail, |node| node.root = false),
            ("rights", Verdict::Fail, |node| node.missing_capabilities = vec!["CAP_BPF".into()]),
            ("JIT compiler", Verdict::Warn, |node| node.jit = Some("0".into())),
            ("lockdown", Verdict::Warn, |node| {
                node.lockdown = Some("none integrity [confidentiality]".into());
            }),
            ("bpf(2) for users", Verdict::Warn, |node| node.unprivileged = Some("0".into())),
            ("other programs", Verdict::Warn, |node| node.others = Ok(vec!["sd_fw (7)".into()])),
            ("other programs", Verdict::Warn, |node| node.others = Err("EPERM".into())),
            ("agent", Verdict::Warn, |node| node.agent_answers = true),
            ("monitoring port", Verdict::Fail, |node| {
                node.port = Some(("[::1]:1".parse().unwrap(), Err("taken".into())));
            }),
            ("disk space", Verdict::Fail, |node| node.free = Ok(1 << 20)),
            ("disk space", Verdict::Warn, |node| node.free = Ok(100 << 20)),
            ("memory", Verdict::Warn, |node| node.memory = Some(1 << 20)),
            ("runtimes", Verdict::Warn, |node| node.runtimes = Vec::new()),
            ("clock", Verdict::Warn, |node| node.synchronized = Some(false)),
        ];
        for (name, verdict, fault) in faults {
            let mut node = good();
            fault(&mut node);
            let found = judge(&node, &probe(Vec::new()));
            let bad: Vec<_> = found.checks.iter().filter(|check| check.result != Verdict::Ok).collect();
            assert_eq!(bad.len(), 1, "{name}: {bad:?}");
            assert_eq!((bad[0].name, bad[0].result), (name, verdict));
            assert!(!bad[0].next.is_empty(), "{name}");
            assert_eq!(found.ok(), verdict != Verdict::Fail);
        }
    }

    #[test]
    fn what_the_kernel_lacks_counts_by_whether_it_is_needed() {
        let found =
            judge(&good(), &probe(vec![feature("BPF LSM", false, false), feature("hash", true, true)]));
        assert!(found.ok());
        let lacks = judge(&good(), &probe(vec![feature("ring buffer", false, true)]));
        assert!(!lacks.ok());
    }

    #[test]
    fn a_port_that_a_running_agent_has_is_no_fault() {
        let mut node = good();
        node.agent_answers = true;
        node.port = Some(("127.0.0.1:9962".parse().unwrap(), Err("in use".into())));
        assert_eq!(result(&node, "monitoring port"), Verdict::Ok);
    }

    #[test]
    fn an_old_kernel_is_warned_of() {
        assert_eq!(kernel("5.15.0-91-generic").result, Verdict::Warn);
        assert_eq!(kernel("6.1.0").result, Verdict::Ok);
        assert_eq!(kernel("10.0").result, Verdict::Ok);
    }

    #[test]
    fn this_node_can_be_looked_at() {
        let asked = Asked {
            cgroup_root: None,
            pins: "/sys/fs/bpf/nothing-here".into(),
            socket: "/nowhere/enforcer.sock".into(),
            state: std::env::temp_dir().join("a/b/c"),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            wanted: 1,
        };
        let node = Node::look(asked);
        assert!(node.free.unwrap() > 0, "the nearest folder that exists counts");
        assert_eq!(node.port.unwrap().1, Ok(()));
        assert!(!node.agent_answers && node.memory.unwrap() > 0);
    }
}
