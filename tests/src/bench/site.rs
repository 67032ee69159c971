//! The places that are compared: each has a network namespace, two cgroups and two processes of its own, and differs from
//! the others in one thing only.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use enforcer::domain::delta::Operation;
use enforcer::domain::table::{PolicyTable, ProtocolPorts, Sections};
use enforcer::kernel::Scheduled;
use enforcer_common::abi::policy::{Plane, key};
use enforcer_common::address::Address;
use enforcer_common::id::{Generation, IdentityId, RuleId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Tier, Word};
use ipnet::IpNet;

use super::load::{Kind, Load, TCP_PORTS, UDP_PORT};
use crate::direct::Direct;
use crate::foreign;
use crate::workload::Workload;
use crate::world::{self, World};

/// Both processes run here: what one does for the other is then measured once and not twice, and the time of both adds up to the
/// time that passes.
const CPU: usize = 1;

/// Addresses of the loopback net that the loads of table sizes are spread over.
pub(super) const SPREAD: u32 = 1_000_000;

/// Three policies as people write them.
const POLICIES: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: client}
spec:
  subject: {matchLabels: {app: client}}
  egress:
    - to:
        - workloads: {matchLabels: {app: server}}
      ports:
        - {port: 7001}
        - {port: 7002}
        - {port: 7003, protocol: UDP}
        - {port: 7004}
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: server}
spec:
  subject: {matchLabels: {app: server}}
  ingress:
    - from:
        - workloads: {matchLabels: {app: client}}
      ports:
        - {port: 7001}
        - {port: 7002}
        - {port: 7003, protocol: UDP}
        - {port: 7004}
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: database}
spec:
  subject: {matchLabels: {app: database}}
  ingress:
    - from:
        - workloads: {matchLabels: {app: server}}
      ports:
        - port: 5432
";

/// One round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Time that passed.
    pub wall: Duration,
    /// Processor time of both ends.
    pub cpu: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Site {
    // Dropped in this order: processes, hooks, directories.
    client: Load,
    server: Load,
    at: Ipv4Addr,
    spread: u32,
    direct: Option<Direct>,
    _idle: Vec<OwnedFd>,
    _workloads: [Workload; 2],
    world: World,
    _far: Option<OwnedFd>,
}

impl Site {
    /// Nothing is enforced.
    pub(super) fn bare(name: &str) -> Self {
        Self::start(name, Wire::Loopback, 1, |_, _| None)
    }

    /// Programs that do nothing at the hooks: what a verdict costs before it begins.
    pub(super) fn idle(name: &str) -> Self {
        let site = Self::bare(name);
        Self { _idle: foreign::idle(&site.world.guarded()), ..site }
    }

    /// As [`Site::idle`], but each socket gets storage in the map of `enforced`, which the kernel copies to accepted connections and
    /// frees: what it costs to know who a socket belongs to, before anything is done with that.
    pub(super) fn remembering(name: &str, enforced: &Self) -> Self {
        let sockets = enforced.direct.as_ref().expect("it enforces").pins().join("SOCKETS");
        let mut programs = Vec::new();
        // Before the server listens: its connections inherit from the listening socket.
        let site = Self::start(name, Wire::Loopback, 1, |world, _| {
            programs = foreign::remembering(&world.guarded(), &sockets);
            None
        });
        Self { _idle: programs, ..site }
    }

    /// Three policies.
    pub(super) fn enforced(name: &str) -> Self {
        Self::start(name, Wire::Loopback, 1, |world, workloads| Some(enforce(world, workloads)))
    }

    /// A table with an entry for each of so many of the addresses that the loads are spread over.
    pub(super) fn with_entries(name: &str, entries: u32) -> Self {
        Self::start(name, Wire::Loopback, SPREAD, |world, workloads| {
            let mut direct = Direct::start(world);
            direct.bind(workloads);
            let [client, server] =
                [&workloads[0], &workloads[1]].map(|it| direct.registry().identity(&it.identity()));
            let generation = direct.next_generation();
            let table = table(generation, client, server, entries);
            direct.kernel().publish(&[Scheduled::always(&table)]).unwrap_or_else(|error| panic!("{error}"));
            direct.skip_generations(generation);
            Some(direct)
        })
    }

    /// Two network namespaces and a pair of virtual devices between them.
    pub(super) fn veth(name: &str, enforced: bool) -> Self {
        Self::start(name, Wire::Veth, 1, |world, workloads| {
            let mut direct = enforced.then(|| enforce(world, workloads))?;
            for (workload, address) in workloads.iter().zip(ENDS) {
                let identity = direct.registry().identity(&workload.identity());
                let net = IpNet::from(std::net::IpAddr::V4(address));
                direct
                    .kernel()
                    .apply(&Operation::SetAddress(net, identity))
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            Some(direct)
        })
    }

    /// Rules of nftables instead.
    pub(super) fn nftables(name: &str, rules: &str) -> Self {
        let site = Self::bare(name);
        site.world.inside(|| nft(rules));
        site
    }

    fn start(
        name: &str,
        wire: Wire,
        spread: u32,
        enforce: impl FnOnce(&World, &[Workload; 2]) -> Option<Direct>,
    ) -> Self {
        let world = World::new(name);
        let workloads = ["client", "server"].map(|name| world.workload(name));
        let direct = enforce(&world, &workloads);
        let far = matches!(wire, Wire::Veth).then(world::new_namespace);
        let near = world.namespace();
        let there = far.as_ref().map_or(near, |far| far.as_fd());
        for namespace in [near, there] {
            world::inside(namespace, settle);
        }
        let client = Load::start(&workloads[0].cgroup, near, Some(CPU));
        let mut server = Load::start(&workloads[1].cgroup, there, Some(CPU));
        if far.is_some() {
            connect(near, there, server.pid());
        }
        server.serve();
        let at = if far.is_some() { ENDS[1] } else { Ipv4Addr::LOCALHOST };
        Self {
            client,
            server,
            at,
            spread,
            direct,
            _idle: Vec::new(),
            _workloads: workloads,
            world,
            _far: far,
        }
    }

    /// One round of so many operations.
    pub(super) fn round(&mut self, kind: Kind, count: u64) -> Round {
        if let Some(direct) = &mut self.direct {
            direct.forget_events();
        }
        let before = self.client.cpu_time() + self.server.cpu_time();
        let wall = self.client.ask(kind, count, self.at, self.spread);
        let after = self.client.cpu_time() + self.server.cpu_time();
        Round { wall, cpu: after.checked_sub(before).expect("clocks go on") }
    }

    /// What enforces, where something does.
    pub(super) fn direct(&mut self) -> Option<&mut Direct> {
        self.direct.as_mut()
    }
}

#[derive(Clone, Copy, Debug)]
enum Wire {
    Loopback,
    Veth,
}

/// The ends of the virtual wire (RFC 5737).
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

fn enforce(world: &World, workloads: &[Workload; 2]) -> Direct {
    let mut direct = Direct::start(world);
    direct.policies(POLICIES);
    direct.bind(workloads);
    direct
}

/// What would make one round depend on those before it.
fn settle() {
    fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1").expect("a setting of the network namespace");
}

fn connect(near: BorrowedFd<'_>, there: BorrowedFd<'_>, server: u32) {
    let ip = |words: &str| {
        let status = Command::new("ip").args(words.split(' ')).stdin(Stdio::null()).status();
        assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "ip {words}: {status:?}");
    };
    world::inside(near, || {
        ip(&format!("link add bench0 type veth peer name bench1 netns {server}"));
        ip(&format!("address add {}/24 dev bench0", ENDS[0]));
        ip("link set bench0 up");
    });
    world::inside(there, || {
        ip(&format!("address add {}/24 dev bench1", ENDS[1]));
        ip("link set bench1 up");
    });
}

/// Whether a program is in `PATH`.
pub(super) fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn nft(rules: &str) {
    use std::io::Write as _;
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    child.stdin.take().expect("its input").write_all(rules.as_bytes()).expect("it reads");
    assert!(child.wait().expect("its end").success(), "nft refuses the rules");
}

/// How many rules of nftables.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rules {
    /// That of the load behind so many that are about others.
    List(u32),
    /// One rule with a set of so many.
    Set(u32),
}

/// Rules that keep track of connections, for both directions, as policies of client and server do.
pub(super) fn rules(rules: Rules) -> String {
    let mut text = String::from("table inet bench {\n");
    let tcp = TCP_PORTS.map(|port| port.to_string()).join(", ");
    if let Rules::Set(count) = rules {
        text += "set allowed { type ipv4_addr . inet_service; elements = {\n";
        (0..count).for_each(|n| writeln!(text, "{} . {},", other(n).0, other(n).1).expect("memory"));
        for port in TCP_PORTS.into_iter().chain([UDP_PORT]) {
            writeln!(text, "127.0.0.1 . {port},").expect("memory");
        }
        text += "} }\n";
    }
    for hook in ["input", "output"] {
        writeln!(text, "chain {hook} {{\ntype filter hook {hook} priority 0; policy drop;").expect("memory");
        text += "ct state established,related accept\n";
        match rules {
            Rules::List(count) => {
                for (address, port) in (0..count).map(other) {
                    writeln!(text, "ip daddr {address} tcp dport {port} accept").expect("memory");
                }
                writeln!(text, "ip daddr 127.0.0.1 tcp dport {{ {tcp} }} accept").expect("memory");
                writeln!(text, "ip daddr 127.0.0.1 udp dport {UDP_PORT} accept").expect("memory");
            }
            Rules::Set(_) => {
                text += "ip daddr . tcp dport @allowed accept\nip daddr . udp dport @allowed accept\n";
            }
        }
        text += "}\n";
    }
    text + "}\n"
}

/// Address and port of somebody else (RFC 5737).
fn other(number: u32) -> (Ipv4Addr, u32) {
    (Ipv4Addr::from_bits(0xc633_6400 | (number % 256)), 10_000 + number / 256)
}

/// The client may call the server, and so many addresses each by an entry of its own; the server takes calls of the client.
fn table(generation: u64, client: IdentityId, server: IdentityId, entries: u32) -> PolicyTable {
    // Numbers below are their own classes.
    let last = client.0.max(server.0);
    let first_address = last + 1;
    let allow = Word::allow(Tier::Allow, Reason::AllowedByRule, RuleId(1));
    let isolated = Word::deny(Tier::Isolation, Errno::Perm, Reason::Isolated, RuleId(2));
    let unmanaged = Word::deny(Tier::Default, Errno::Perm, Reason::Unmanaged, RuleId::NONE);
    let entry = |ingress, subject: IdentityId, peer, port, word| {
        (key(Plane::Enforced, ingress, subject.0, peer, port), word)
    };
    let mut all = vec![
        entry(false, IdentityId::UNMANAGED, 0, 0, unmanaged),
        entry(true, IdentityId::UNMANAGED, 0, 0, unmanaged),
        entry(false, client, 0, 0, isolated),
        entry(false, client, server.0, 1, allow),
        entry(true, server, 0, 0, isolated),
        entry(true, server, client.0, 1, allow),
    ];
    all.extend((0..entries).map(|n| entry(false, client, first_address + n, 1, allow)));
    let [low, high] = [TCP_PORTS[0], TCP_PORTS[2]];
    let addresses = (0..entries).map(|n| (Address::v4(Ipv4Addr::LOCALHOST.to_bits() + n), first_address + n));
    let end = (Address::v4(Ipv4Addr::LOCALHOST.to_bits() + entries), 0);
    let sections = Sections {
        generation: Generation(generation),
        hypothetical: false,
        sockets: false,
        default: Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE),
        protocols: [6, 17].map(|protocol| (protocol, ProtocolPorts::Ranges(vec![(low, high, 1)]))).into(),
        identities: (0..=last).collect(),
        entries: all,
        addresses: addresses.chain([end]).collect(),
    };
    PolicyTable::build(&sections).expect("a table")
}
