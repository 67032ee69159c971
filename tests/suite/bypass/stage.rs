//! Where the probes happen: one world, one wire, one engine, for all of them.

use std::path::Path;

use enforcer_common::abi::config::Mode;
use enforcer_common::hook::Hook;
use enforcer_common::id::IdentityId;
use enforcer_tests::bypass::outside::Outside;
use enforcer_tests::bypass::sniffer::{Meaning, Packet, Sniffer};
use enforcer_tests::bypass::{Family, VICTIM, foreign, netlink};
use enforcer_tests::direct::Direct;
use enforcer_tests::patience;
use enforcer_tests::puppet::{Answer, Order, Puppet};
use enforcer_tests::workload::{Server, Workload};
use enforcer_tests::world::World;

use super::row::Privilege;

/// `web` may call the allowed peer at two ports and be called by it at one; `db` may be called by nobody here; `friend`
/// may do what `web` must not.
pub(super) const POLICIES: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web}
spec:
  subject: {matchLabels: {app: web}}
  egress:
    - to: [{cidr: 198.51.100.16/32}, {cidr: '2001:db8:1::10/128'}]
      ports: [{port: 7001}, {protocol: UDP, port: 7002}]
  ingress:
    - from: [{cidr: 198.51.100.16/32}, {cidr: '2001:db8:1::10/128'}]
      ports: [{port: 7003}, {protocol: UDP, port: 7003}]
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db}
spec:
  subject: {matchLabels: {app: db}}
  ingress:
    - from: [{cidr: 198.51.100.16/32}, {cidr: '2001:db8:1::10/128'}]
";

/// Nothing is left of what `web` may do.
pub(super) const NOTHING: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web}
spec:
  subject: {matchLabels: {app: web}}
  egress: []
  ingress: []
";

/// The hook that is not on a cgroup.
const LSM: &str = "socket_create";

/// See the module.
pub(super) struct Stage {
    pub(super) direct: Direct,
    pub(super) web: Workload,
    /// The same cgroup without privileges.
    nobody: Workload,
    pub(super) victim: Workload,
    victims: [Server; 2],
    pub(super) friend: Workload,
    pub(super) sniffer: Sniffer,
    pub(super) outside: Outside,
    /// Hooks that are switched off.
    off: Vec<&'static str>,
    /// Whether a leak is waited for.
    pub(super) wanted: bool,
    /// Families whose forbidden address the allowed peer has announced to MPTCP.
    pub(super) announced: Vec<Family>,
    // Last, so that everything in it is gone before it goes.
    pub(super) world: World,
}

impl Stage {
    pub(super) fn new(name: &str) -> Self {
        let world = World::new(name);
        let (outside, sniffer) = Outside::new(world.namespace());
        // A kernel without MPTCP has no use for it.
        world.inside(|| netlink::mptcp_limits(2)).ok();
        let mut direct = Direct::start(&world);
        let web = world.workload("web");
        let nobody = world.workload_in("default", "web", &[("app", "web")]);
        let (victim, friend) = (world.workload("db"), world.workload("friend"));
        nobody.must(&Order::Demote);
        direct.bind([&web, &victim, &friend]);
        direct.bind_directory(&world.directory("unknown"), IdentityId::UNMANAGED);
        direct.policies(POLICIES);
        // One socket for both families.
        let serve = |stream| victim.serve(stream, &format!("[::]:{VICTIM}"));
        let victims = [true, false].map(serve);
        let (off, announced) = (Vec::new(), Vec::new());
        Self {
            direct,
            web,
            nobody,
            victim,
            victims,
            friend,
            sniffer,
            outside,
            off,
            wanted: false,
            announced,
            world,
        }
    }

    /// The hostile workload.
    pub(super) fn who(&self, privilege: Privilege) -> &Workload {
        match privilege {
            Privilege::Root => &self.web,
            Privilege::Nobody => &self.nobody,
        }
    }

    /// Another process of it, or of another directory.
    pub(super) fn fresh(&self, directory: &Path, privilege: Privilege) -> Puppet {
        let puppet = self.world.puppet(directory);
        if privilege == Privilege::Nobody {
            must(&puppet, &Order::Demote);
        }
        puppet
    }

    /// Whether a hook is there and on.
    pub(super) fn has(&self, program: &str) -> bool {
        Hook::ALL.iter().any(|hook| hook.program() == program)
            && !self.off.contains(&program)
            && self.direct.pins().join(format!("link_{program}")).exists()
    }

    /// Whether any hook is switched off.
    pub(super) fn is_mutated(&self) -> bool {
        !self.off.is_empty()
    }

    /// Switches hooks off; those that this version does not have are off anyway.
    pub(super) fn switch_off(&mut self, programs: &[&'static str]) {
        self.off = programs.to_vec();
        self.detach(programs);
        // Its link can't be detached while the engine holds it: then everything is off.
        if programs.contains(&LSM) {
            self.mode(Mode::Off);
        }
    }

    /// All hooks are on again.
    pub(super) fn switch_on(&mut self) {
        self.off.clear();
        self.attach();
        self.mode(Mode::Enforce);
    }

    /// Takes all hooks away while something happens, as before the start.
    pub(super) fn before_the_start<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let all: Vec<_> = Hook::ALL.iter().map(|hook| hook.program()).collect();
        self.detach(&all);
        let result = work(self);
        self.attach();
        self.detach(&self.off.clone());
        result
    }

    fn mode(&mut self, mode: Mode) {
        self.direct.kernel().set_mode(mode).unwrap_or_else(|error| panic!("{error}"));
    }

    fn attach(&mut self) {
        self.direct.kernel().attach().unwrap_or_else(|error| panic!("{error}"));
    }

    fn detach(&self, programs: &[&'static str]) {
        for program in programs.iter().filter(|program| **program != LSM) {
            let pin = self.direct.pins().join(format!("link_{program}"));
            if pin.exists() {
                foreign::detach(&pin).unwrap_or_else(|error| panic!("detach {program}: {error}"));
            }
        }
    }

    /// Packets that must not be, since the last call.
    pub(super) fn leaks(&mut self) -> Vec<Packet> {
        let mut packets = self.sniffer.collect();
        packets.retain(|packet| packet.meaning() == Meaning::Leak);
        packets
    }

    /// Waits until nothing comes any more of what was.
    pub(super) fn quiet(&mut self) {
        patience::until_true("the wire is quiet", patience::seconds(10), || {
            self.sniffer.collect().iter().all(|packet| packet.meaning() == Meaning::Kernel)
        });
    }

    /// How often the neighbour was reached.
    pub(super) fn reached(&self) -> u64 {
        self.victims.iter().map(|server| self.victim.served(server)).sum()
    }

    /// Panics unless the allowed peer answers.
    pub(super) fn ordinary(&self, privilege: Privilege, when: &str) {
        for family in [Family::V4, Family::V6] {
            let once = || attempt(&self.who(privilege).puppet, "ordinary traffic", family);
            // A ring of the probe before, still being taken apart, interrupts the next call.
            let mut answer = once();
            for _ in 0..3 {
                if answer.errno == libc::EINTR {
                    answer = once();
                }
            }
            assert_eq!(answer.errno, 0, "ordinary traffic by {} {when}", family.label());
        }
    }
}

/// Has a vector tried.
pub(super) fn attempt(puppet: &Puppet, vector: &str, family: Family) -> Answer {
    puppet.obey(&Order::Attempt { vector: vector.to_owned(), family })
}

/// Has an order obeyed that must succeed.
pub(super) fn must(puppet: &Puppet, order: &Order) -> Answer {
    let answer = puppet.obey(order);
    assert_eq!(answer.errno, 0, "{order:?}");
    answer
}
