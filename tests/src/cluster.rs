//! Pods of a cluster on this machine: each a process in a cgroup and a network namespace of its own, which has the pod's
//! address.
//!
//! ```text
//!  pod's namespace          hub                        pod's namespace
//!  p0 10.244.1.10 ── veth ── h0 ─ forwards by host routes ─ h1 ── veth ── p0 10.244.1.11
//! ```
//!
//! The hub knows the way to these addresses and to nothing else: there is no way out. A [`Place`] has an address, not a
//! name, so that one cluster after the other can move in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use enforcer_common::id::CgroupId;

use crate::bypass::netlink::{self, Request};
use crate::bypass::sys::device;
use crate::patience;
use crate::puppet::{Fd, Means, Order, Probe, Puppet, SILENCE};
use crate::workload::Workload;
use crate::world::{World, inside, new_namespace};

/// A transport protocol by its number.
pub const TCP: u8 = 6;
/// The other one.
pub const UDP: u8 = 17;

/// The next hop of every pod.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// A pod's device.
const DEVICE: &str = "p0";

/// Addresses with somebody at each.
#[derive(Debug)]
pub struct Places {
    hub: OwnedFd,
    places: BTreeMap<IpAddr, Place>,
}

/// Somebody at an address.
#[derive(Debug)]
pub struct Place {
    /// The process.
    pub workload: Workload,
    /// The sockets at which datagrams arrive.
    pub mailboxes: Vec<Fd>,
    open: BTreeMap<(u8, u16), Fd>,
}

impl Places {
    /// A hub with nobody around it.
    pub fn new() -> Self {
        let hub = new_namespace();
        inside(hub.as_fd(), || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding in the hub");
        });
        Self { hub, places: BTreeMap::new() }
    }

    /// Who has this address.
    #[track_caller]
    pub fn at(&self, address: IpAddr) -> &Place {
        self.places.get(&address).unwrap_or_else(|| panic!("nobody has {address}"))
    }

    /// Everybody.
    pub fn all(&self) -> impl Iterator<Item = (IpAddr, &Place)> {
        self.places.iter().map(|(address, place)| (*address, place))
    }

    /// Somebody moves in, if nobody is there: a pod below what is guarded, or a machine elsewhere.
    pub fn settle(&mut self, world: &World, address: IpAddr, is_pod: bool) {
        if self.places.contains_key(&address) {
            return;
        }
        let namespace = self.lay(address);
        let name = address.to_string();
        let cgroup = if is_pod { world.directory(&format!("pod-{name}")) } else { world.agents() };
        let puppet = Puppet::start(&name, &cgroup, namespace.as_fd());
        let workload = Workload::new("", &name, &[], cgroup, puppet);
        self.places.insert(address, Place { workload, mailboxes: Vec::new(), open: BTreeMap::new() });
    }

    /// A namespace with this address and a wire to the hub.
    fn lay(&self, address: IpAddr) -> OwnedFd {
        let index = u8::try_from(self.places.len()).expect("a small cluster");
        let (pod_end, hub_end) = ([2, 0, 0, 0, 1, index], [2, 0, 0, 0, 2, index]);
        let there = format!("h{index}");
        let namespace = new_namespace();
        inside(namespace.as_fd(), || -> io::Result<()> {
            netlink::wire((DEVICE, pod_end), (&there, hub_end), self.hub.as_fd())?;
            netlink::address(DEVICE, address, 32)?;
            netlink::up(DEVICE)?;
            netlink::neighbour(DEVICE, GATEWAY.into(), hub_end)?;
            route(DEVICE, None, Some(GATEWAY))
        })
        .unwrap_or_else(|error| panic!("the pod's end of the wire to {address}: {error}"));
        inside(self.hub.as_fd(), || -> io::Result<()> {
            netlink::up(&there)?;
            netlink::neighbour(&there, address, pod_end)?;
            route(&there, Some(address), None)
        })
        .unwrap_or_else(|error| panic!("the hub's end of the wire to {address}: {error}"));
        namespace
    }

    /// Opens a server there, if it is not open.
    pub fn serve(&mut self, address: IpAddr, protocol: u8, port: u16) {
        let place = self.places.get_mut(&address).unwrap_or_else(|| panic!("nobody has {address}"));
        let Place { workload, mailboxes, open } = place;
        open.entry((protocol, port)).or_insert_with(|| {
            let at = SocketAddr::new(address, port);
            if protocol == TCP {
                return workload.serve(true, &at.to_string()).fd;
            }
            assert_eq!(protocol, UDP, "nobody serves {protocol}");
            // What arrives waits there until it is asked for.
            let server = workload.open(false, &at);
            mailboxes.push(server.fd);
            server.fd
        });
    }
}

/// A flow from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who opens it.
    pub from: IpAddr,
    /// How.
    pub means: Means,
    /// The server.
    pub to: SocketAddr,
    /// Whether the client's socket has its address before the call.
    pub bound: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the application was told; 0 for nothing bad.
    pub errno: i32,
    /// Whether the connection came about, or the datagram arrived.
    pub reached: bool,
}

impl Seen {
    /// Nothing came through, and nobody said why.
    pub fn is_silent(self) -> bool {
        !self.reached && [0, SILENCE].contains(&self.errno)
    }
}

/// Datagrams are told apart by numbers that are not used again.
static TOKEN: AtomicU32 = AtomicU32::new(0);

/// How long is waited for who should be refused, in milliseconds: longer than a handshake over two wires takes.
const PATIENCE: u64 = 300;
/// So much longer a flow may take that should come about: the machine may have other work.
const HOPE: u64 = 50;

impl Places {
    /// Tries one flow, which should come about or not.
    pub fn try_one(&self, attempt: Attempt, hoped: bool) -> Seen {
        self.attempt(&[(attempt, hoped)])[0]
    }

    /// Tries all of these side by side, each with whether it should come about.
    pub fn attempt(&self, attempts: &[(Attempt, bool)]) -> Vec<Seen> {
        let count = u32::try_from(attempts.len()).expect("a small cluster");
        let first = TOKEN.fetch_add(count, Ordering::SeqCst);
        let mut by_client: BTreeMap<IpAddr, Vec<(usize, Probe)>> = BTreeMap::new();
        for ((index, (attempt, hoped)), token) in attempts.iter().enumerate().zip(first..) {
            let own = attempt.bound.then_some(attempt.from);
            let millis = Self::millis(*hoped);
            let probe = Probe { means: attempt.means, own, to: attempt.to, token, millis };
            by_client.entry(attempt.from).or_default().push((index, probe));
        }
        let mut seen = vec![Seen { errno: 0, reached: false }; attempts.len()];
        std::thread::scope(|scope| {
            let ask = |(client, probes): (&IpAddr, &Vec<(usize, Probe)>)| {
                let client = &self.at(*client).workload;
                let probes = probes.iter().map(|(_, probe)| *probe).collect();
                scope.spawn(move || client.must(&Order::Probe { probes }).errnos())
            };
            let threads: Vec<_> = by_client.iter().map(ask).collect();
            for (thread, probes) in threads.into_iter().zip(by_client.values()) {
                let errnos = thread.join().expect("a puppet answers");
                assert_eq!(errnos.len(), probes.len(), "an errno for each probe");
                for ((index, probe), errno) in probes.iter().zip(errnos) {
                    seen[*index] = Seen { errno, reached: errno == 0 && probe.means == Means::Connection };
                }
            }
        });
        self.datagrams(attempts, first, &mut seen);
        seen
    }

    /// How long a flow may take.
    fn millis(hoped: bool) -> u64 {
        PATIENCE * u64::from(patience::slowness()) * if hoped { HOPE } else { 1 }
    }

    /// Waits for the datagrams that went on their way.
    fn datagrams(&self, attempts: &[(Attempt, bool)], first: u32, seen: &mut [Seen]) {
        let start = Instant::now();
        loop {
            let is_over = |hoped| start.elapsed() > Duration::from_millis(Self::millis(hoped));
            let (late, over) = (is_over(false), is_over(true));
            let is_under_way =
                |hoped: bool, seen: &Seen| seen.errno == 0 && !seen.reached && (hoped || !late);
            let receivers: BTreeSet<IpAddr> = attempts
                .iter()
                .zip(seen.iter())
                .filter(|((_, hoped), seen)| is_under_way(*hoped, seen))
                .map(|((attempt, _), _)| attempt.to.ip())
                .filter(|address| self.places.contains_key(address))
                .collect();
            for address in &receivers {
                for token in self.at(*address).tokens() {
                    // One of an earlier attempt was waited for in vain.
                    let Some(index) = token.checked_sub(first).map(|index| index as usize) else { continue };
                    assert_eq!(
                        attempts[index].0.to.ip(),
                        *address,
                        "every datagram comes to its own receiver"
                    );
                    seen[index].reached = true;
                }
            }
            if receivers.is_empty() || over {
                return;
            }
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// The id of its directory.
    pub fn cgroup(&self) -> CgroupId {
        self.workload.cgroup_id()
    }

    /// The tokens of the datagrams that have come.
    pub fn tokens(&self) -> Vec<u32> {
        self.workload.must(&Order::Drain { sockets: self.mailboxes.clone() }).tokens()
    }
}

/// The way to one address, or to all, by a device: by a next hop on it, or to whoever is at its other end.
fn route(name: &str, to: Option<IpAddr>, by: Option<Ipv4Addr>) -> io::Result<()> {
    const NEW_ROUTE: u16 = 24;
    const CREATE: u16 = 0x400;
    /// The next hop needs no route of its own.
    const ON_LINK: u32 = 4;
    let scope = if by.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let bits = if to.is_some() { 32 } else { 0 };
    // Family, bits of destination and source, service, table, origin, scope, kind.
    let mut fixed = vec![2, bits, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, scope, libc::RTN_UNICAST];
    fixed.extend(by.map_or(0, |_| ON_LINK).to_ne_bytes());
    // RTA_DST, RTA_GATEWAY, RTA_OIF.
    let mut request = Request::new(NEW_ROUTE, CREATE, &fixed);
    if let Some(IpAddr::V4(to)) = to {
        request = request.attribute(1, &to.octets());
    }
    if let Some(by) = by {
        request = request.attribute(5, &by.octets());
    }
    request.attribute(4, &device(name)?.to_ne_bytes()).ask(libc::NETLINK_ROUTE).map(drop)
}
