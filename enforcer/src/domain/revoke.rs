//! Revocation: which open sockets carry a flow that is no longer allowed.
//!
//! The wall stops their packets at once. What is worked out here is whose sockets are to be destroyed, so that both
//! applications learn it instead of waiting for a timeout. Destroying can't be undone, so a socket whose ends can't be
//! told for certain stays: its packets are judged all the same.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use enforcer_common::abi::identity::Role;
use enforcer_common::address::Address;
use enforcer_common::id::{CgroupId, IdentityId};
use enforcer_common::limits::CGROUP_DEPTH;
use enforcer_common::verdict::{Direction, Query, Word};
use ipnet::IpNet;

use super::delta::Tables;
use super::table::PolicyTable;
use super::time::BootTime;

/// Linux takes the ports of clients from here on, unless told otherwise.
const CLIENTS: u16 = 32_768;

/// What is in force: the tables that the kernel judges by, as they can be asked here.
#[derive(Clone, Debug)]
pub struct InForce {
    table: Arc<PolicyTable>,
    tables: Tables,
    /// Lengths of the prefixes that stand for somebody, longest first; of IPv4 and of IPv6. Looked for when they are
    /// asked for the first time: whoever makes this has no time for it.
    lengths: OnceLock<[Vec<u8>; 2]>,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address, in the canonical form.
    pub address: Address,
    /// Port, host byte order.
    pub port: u16,
}

/// Who created a socket, as its storage tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creator {
    /// Directories from the outermost level inwards, 0 beyond the innermost.
    pub cgroups: [u64; CGROUP_DEPTH],
    /// Which end of its flow the socket is.
    pub role: Role,
}

/// A socket of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// IP protocol number.
    pub protocol: u8,
    /// Its own end.
    pub local: Endpoint,
    /// The other end; unchosen for a server's socket.
    pub remote: Endpoint,
    /// `false` for a server's socket that takes what comes: one that listens, or a datagram socket without a peer.
    pub connected: bool,
    /// Who created it; `None` where nothing was recorded.
    pub creator: Option<Creator>,
}

/// A socket that has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its place in the list.
    pub index: usize,
    /// The denial.
    pub word: Word,
}

/// What became of the sockets of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Those that have to go, in the order of the list.
    pub revoked: Vec<Revoked>,
    /// Connected sockets whose ends can't be told; they stay.
    pub undecided: usize,
}

impl InForce {
    /// From the tables of an agent.
    pub fn new(table: Arc<PolicyTable>, tables: Tables) -> Self {
        Self { table, tables, lengths: OnceLock::new() }
    }

    /// Whether the table and what directories are bound to are those of another; then only addresses can differ.
    pub fn has_bindings_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.table, &other.table) && self.tables.bindings == other.tables.bindings
    }

    /// When kernel time next changes who is who: nanoseconds since boot, `None` for never.
    pub fn changes_at(&self, now: u64) -> Option<u64> {
        let ends = self.tables.bindings.values().filter_map(|bound| bound.until);
        ends.map(|until| until.0).filter(|until| *until > now).min()
    }

    /// Judges the sockets of one network namespace. `now` is in nanoseconds since boot.
    pub fn judge(&self, sockets: &[Socket], now: u64) -> Judged {
        let scene = Scene::new(self, sockets, now);
        let mut words: BTreeMap<usize, Word> = BTreeMap::new();
        let mut undecided = 0;
        for (index, socket) in sockets.iter().enumerate().filter(|(_, socket)| socket.connected) {
            match scene.verdict(socket) {
                Some(word) if word.is_deny() => {
                    words.entry(index).or_insert(word);
                    // The other end may judge alike; but it has to go in any case.
                    if let Some(other) = scene.other_end(socket) {
                        words.entry(other).or_insert(word);
                    }
                }
                Some(_) => {}
                None => undecided += 1,
            }
        }
        let revoked = words.into_iter().map(|(index, word)| Revoked { index, word }).collect();
        Judged { revoked, undecided }
    }

    /// The identity of the innermost of these directories that is bound; the host where none is.
    fn identity_of(&self, creator: &Creator, now: u64) -> IdentityId {
        let bindings = &self.tables.bindings;
        let bound = creator.cgroups.iter().rev().find_map(|cgroup| bindings.get(&CgroupId(*cgroup)));
        bound.map_or(IdentityId::HOST, |bound| match bound.until {
            Some(until) if until <= BootTime(now) => bound.after,
            _ => bound.identity,
        })
    }

    /// The identity of an address by its longest prefix, the world where there is none.
    fn identity_at(&self, address: Address) -> IdentityId {
        let six = Ipv6Addr::from(number(address));
        let addresses = &self.tables.addresses;
        // The length in the form that the kernel has, where IPv4 addresses are those of IPv6 that end in them.
        let find = |address: IpAddr, more: u32| {
            let lengths = &self.lengths()[usize::from(address.is_ipv6())];
            let mut nets = lengths.iter().filter_map(|length| IpNet::new(address, *length).ok());
            nets.find_map(|net| Some((u32::from(net.prefix_len()) + more, *addresses.get(&net.trunc())?)))
        };
        let four = six.to_ipv4_mapped().and_then(|four| find(four.into(), 96));
        let longest = four.into_iter().chain(find(six.into(), 0)).max_by_key(|(length, _)| *length);
        longest.map_or(IdentityId::WORLD, |(_, identity)| identity)
    }

    fn lengths(&self) -> &[Vec<u8>; 2] {
        self.lengths.get_or_init(|| {
            let mut lengths = [BTreeSet::new(), BTreeSet::new()];
            for net in self.tables.addresses.keys() {
                lengths[usize::from(matches!(net, IpNet::V6(_)))].insert(net.prefix_len());
            }
            lengths.map(|lengths| lengths.into_iter().rev().collect())
        })
    }
}

/// The sockets of a namespace, by what they can be found by.
struct Scene<'a> {
    rules: &'a InForce,
    sockets: &'a [Socket],
    now: u64,
    /// Connected sockets by protocol and both ends.
    connected: HashMap<(u8, Endpoint, Endpoint), usize>,
    /// Servers by protocol and port.
    servers: HashMap<(u8, u16), Vec<usize>>,
}

/// Who the other end is.
#[derive(Clone, Copy)]
struct Peer {
    identity: IdentityId,
    /// Whether it was found by its socket.
    by_socket: bool,
}

impl<'a> Scene<'a> {
    fn new(rules: &'a InForce, sockets: &'a [Socket], now: u64) -> Self {
        let mut connected = HashMap::with_capacity(sockets.len());
        let mut servers: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, socket) in sockets.iter().enumerate() {
            if socket.connected {
                connected.insert((socket.protocol, socket.local, socket.remote), index);
            } else {
                servers.entry((socket.protocol, socket.local.port)).or_default().push(index);
            }
        }
        Self { rules, sockets, now, connected, servers }
    }

    /// The socket at the other end, if it is in this namespace.
    fn other_end(&self, socket: &Socket) -> Option<usize> {
        self.connected.get(&(socket.protocol, socket.remote, socket.local)).copied()
    }

    /// The server's socket that takes what comes to this end: one at the very address before one at all addresses.
    fn server_at(&self, protocol: u8, end: Endpoint) -> Option<&'a Socket> {
        let servers = self.servers.get(&(protocol, end.port))?;
        let at = |matches: fn(Address, Address) -> bool| {
            let mut sockets = servers.iter().map(|index| &self.sockets[*index]);
            sockets.find(|server| matches(server.local.address, end.address))
        };
        at(|server, address| server == address)
            .or_else(|| at(|server, address| server.is_unchosen() && server.is_v4() == address.is_v4()))
            .or_else(|| at(|server, _| server.is_unchosen()))
    }

    /// Whose socket this is. A connection that was accepted is its server's.
    fn creator(&self, socket: &'a Socket) -> Option<(&'a Creator, Role)> {
        let server = || self.server_at(socket.protocol, socket.local);
        match &socket.creator {
            Some(creator) if creator.role != Role::Unknown => Some((creator, creator.role)),
            Some(creator) if server().is_some() => Some((creator, Role::Server)),
            // A server that is gone may have left it.
            Some(_) if socket.local.port < CLIENTS => None,
            Some(creator) => Some((creator, Role::Client)),
            None => server()?.creator.as_ref().map(|creator| (creator, Role::Server)),
        }
    }

    /// Who the other end is; `None` if it is on this host and can't be told.
    fn peer(&self, socket: &Socket) -> Option<Peer> {
        let found = match self.other_end(socket) {
            Some(index) => Some(&self.sockets[index]),
            // A datagram server without a peer of its own, or a connection that is being opened.
            None if is_here(socket) => Some(self.server_at(socket.protocol, socket.remote)?),
            None => None,
        };
        let Some(other) = found else {
            let identity = self.rules.identity_at(socket.remote.address);
            return Some(Peer { identity, by_socket: false });
        };
        let creator = match &other.creator {
            Some(creator) => creator,
            None => self.creator(other)?.0,
        };
        Some(Peer { identity: self.rules.identity_of(creator, self.now), by_socket: true })
    }

    /// The word that decides about the flow of a socket: a denial of either side, else an allowing one. `None` if it
    /// can't be told.
    fn verdict(&self, socket: &'a Socket) -> Option<Word> {
        let (creator, role) = self.creator(socket)?;
        let own = self.rules.identity_of(creator, self.now);
        let peer = self.peer(socket)?;
        if !is_judged(own) && !is_judged(peer.identity) {
            return Some(Word::NONE);
        }
        let flow = if role == Role::Server {
            Flow { client: peer.identity, server: own, from: socket.remote, to: socket.local }
        } else {
            Flow { client: own, server: peer.identity, from: socket.local, to: socket.remote }
        };
        let judge = |direction| self.rules.table.decide(&flow.query(socket.protocol, direction)).enforced;
        // Egress is judged where the client is, ingress where the server is, and at the source where the server is
        // known; a client that is known by its address only is elsewhere.
        let (egress, ingress) = if role == Role::Server {
            (peer.by_socket, true)
        } else {
            (true, peer.by_socket || peer.identity >= IdentityId::FIRST_WORKLOAD)
        };
        let words = [(egress, Direction::Egress), (ingress, Direction::Ingress)];
        let mut words = words.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, side)| judge(side));
        let first = words.next()?;
        if first.is_deny() { Some(first) } else { Some(words.next().unwrap_or(first)) }
    }
}

/// A flow from the end that opened it to the end that serves it.
struct Flow {
    client: IdentityId,
    server: IdentityId,
    from: Endpoint,
    to: Endpoint,
}

impl Flow {
    fn query(&self, protocol: u8, direction: Direction) -> Query {
        let (subject, peer, address) = match direction {
            Direction::Egress => (self.client, self.server, self.to.address),
            Direction::Ingress => (self.server, self.client, self.from.address),
        };
        Query { subject, peer, address, port: self.to.port, protocol, direction }
    }
}

/// Whether policies can mean this identity: flows of the host with the world are nobody's business here.
fn is_judged(identity: IdentityId) -> bool {
    identity >= IdentityId::FIRST_WORKLOAD || identity == IdentityId::UNMANAGED
}

/// Whether the other end is in the same network namespace for certain.
fn is_here(socket: &Socket) -> bool {
    socket.remote.address.is_loopback() || socket.remote.address == socket.local.address
}

fn number(address: Address) -> u128 {
    (u128::from(address.high) << 64) | u128::from(address.low)
}
