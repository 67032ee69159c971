//! A workload: a name, labels, a cgroup directory, and a process in it that does as it is told.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use enforcer::domain::labels::LabelSet;
use enforcer::domain::registry::IdentityKey;
use enforcer_common::id::CgroupId;

use crate::patience;
use crate::puppet::{Answer, Fd, Order, Puppet, Tally};
use crate::sockaddr;

/// See the module.
#[derive(Debug)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: LabelSet,
    /// Directory.
    pub cgroup: PathBuf,
    /// The process.
    pub puppet: Puppet,
}

/// A server socket of a workload that takes what comes.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its descriptor.
    pub fd: Fd,
    /// Its port.
    pub port: u16,
}

/// A refusal or success as the application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// 0 is success.
    pub errno: i32,
    /// How long the call took.
    pub micros: u64,
}

impl Workload {
    pub(crate) fn new(
        namespace: &str,
        name: &str,
        labels: &[(&str, &str)],
        cgroup: PathBuf,
        puppet: Puppet,
    ) -> Self {
        let mut workload = Self {
            namespace: namespace.into(),
            name: name.into(),
            labels: LabelSet::default(),
            cgroup,
            puppet,
        };
        workload.relabel(labels);
        workload
    }

    /// Gives it other labels; whoever enforces has to be told.
    pub fn relabel(&mut self, labels: &[(&str, &str)]) {
        self.labels = LabelSet(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
    }

    /// What distinguishes it for policies.
    pub fn identity(&self) -> IdentityKey {
        IdentityKey::new(self.namespace.clone(), self.labels.clone())
    }

    /// The id of its directory.
    pub fn cgroup_id(&self) -> CgroupId {
        cgroup_id(&self.cgroup)
    }

    /// Has an order obeyed that must succeed.
    pub fn must(&self, order: &Order) -> Answer {
        let answer = self.puppet.obey(order);
        assert_eq!(answer.errno, 0, "{}: {order:?}", self.name);
        answer
    }

    /// A new socket.
    pub fn socket(&self, domain: i32, kind: i32) -> Fd {
        self.socket_of(domain, kind, 0)
    }

    /// A new socket of a protocol.
    pub fn socket_of(&self, domain: i32, kind: i32, protocol: i32) -> Fd {
        descriptor(&self.must(&Order::Socket { domain, kind, protocol }))
    }

    /// Opens a server socket and takes what comes. Port 0 means any.
    pub fn serve(&self, stream: bool, at: &str) -> Server {
        let at: SocketAddr = at.parse().expect("an address with a port");
        let server = self.open(stream, &at);
        self.must(&Order::Serve { fd: server.fd, stream });
        server
    }

    /// Opens a server socket and takes nothing.
    pub fn open(&self, stream: bool, at: &SocketAddr) -> Server {
        let fd = self.socket(family(at), if stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM });
        self.must(&Order::Bind { fd, to: sockaddr::of(*at) });
        if stream {
            self.must(&Order::Listen { fd });
        }
        let port = sockaddr::port(&self.must(&Order::Name { fd }).data);
        Server { fd, port }
    }

    /// Closes a server that nothing was taken from.
    pub fn shut(&self, server: &Server) {
        self.close(server.fd);
    }

    /// How many connections or datagrams a server has taken.
    pub fn served(&self, server: &Server) -> u64 {
        self.must(&Order::Served { fd: server.fd }).value.cast_unsigned()
    }

    /// Waits until a server has taken exactly so many.
    pub fn until_served(&self, server: &Server, count: u64) {
        let what = format!("{} takes {count} at port {}", self.name, server.port);
        patience::until_true(&what, patience::seconds(5), || self.served(server) >= count);
        assert_eq!(self.served(server), count, "{what}");
    }

    /// Opens a TCP connection and closes it.
    pub fn connect(&self, to: &str) -> Seen {
        let to: SocketAddr = to.parse().expect("an address with a port");
        let fd = self.socket(family(&to), libc::SOCK_STREAM);
        let seen = self.connect_on(fd, sockaddr::of(to));
        self.close(fd);
        seen
    }

    /// Sends one datagram from a new socket.
    pub fn send(&self, to: &str) -> Seen {
        let to: SocketAddr = to.parse().expect("an address with a port");
        let fd = self.socket(family(&to), libc::SOCK_DGRAM);
        let seen = self.send_on(fd, Some(sockaddr::of(to)));
        self.close(fd);
        seen
    }

    /// `connect(2)` on a socket.
    pub fn connect_on(&self, fd: Fd, to: Vec<u8>) -> Seen {
        Seen::from(&self.puppet.obey(&Order::Connect { fd, to }))
    }

    /// One datagram on a socket.
    pub fn send_on(&self, fd: Fd, to: Option<Vec<u8>>) -> Seen {
        let order = Order::Send { fd, to, data: vec![1], flags: 0, control: Vec::new() };
        Seen::from(&self.puppet.obey(&order))
    }

    /// `close(2)`
    pub fn close(&self, fd: Fd) {
        self.must(&Order::Close { fd });
    }

    /// Opens as many connections, or sends as many datagrams.
    pub fn repeat(&self, count: u64, stream: bool, to: &str) -> Tally {
        let to = sockaddr::of(to.parse().expect("an address with a port"));
        self.must(&Order::Repeat { count, stream, to }).tally
    }
}

impl Seen {
    /// Success.
    pub const OK: i32 = 0;
}

impl From<&Answer> for Seen {
    fn from(answer: &Answer) -> Self {
        Self { errno: answer.errno, micros: answer.micros }
    }
}

/// The id of a cgroup directory: its inode number.
pub fn cgroup_id(directory: &Path) -> CgroupId {
    let metadata = std::fs::metadata(directory);
    CgroupId(metadata.unwrap_or_else(|error| panic!("{}: {error}", directory.display())).ino())
}

/// The descriptor that an order made.
pub fn descriptor(answer: &Answer) -> Fd {
    Fd::try_from(answer.value).expect("descriptors are small")
}

fn family(address: &SocketAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}
