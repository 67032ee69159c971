//! What a puppet can be told, and what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::probe::Probe;
use crate::bypass::Family;

/// A descriptor of the puppet's process.
pub type Fd = i32;

/// How often which errno came back; 0 is success.
pub type Tally = BTreeMap<i32, u64>;

/// One thing to do. Addresses are the bytes of a `sockaddr`, so that malformed ones can be tried too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// `socket(2)`; every blocking call on it ends after a while.
    Socket {
        /// Address family.
        domain: i32,
        /// `SOCK_STREAM` or `SOCK_DGRAM`.
        kind: i32,
        /// Protocol, 0 for the usual one.
        protocol: i32,
    },
    /// `bind(2)`
    Bind {
        /// The socket.
        fd: Fd,
        /// Where.
        to: Vec<u8>,
    },
    /// `listen(2)`
    Listen {
        /// The socket.
        fd: Fd,
    },
    /// `accept(2)`; the new descriptor.
    Accept {
        /// The server's socket.
        fd: Fd,
    },
    /// `recv(2)` of up to a few bytes; how many came. 0 is the orderly end of a stream.
    Receive {
        /// The socket.
        fd: Fd,
    },
    /// Opens as many connections and keeps them; how many there are.
    Hold {
        /// How many.
        count: u64,
        /// Where.
        to: Vec<u8>,
    },
    /// Takes as many connections and keeps them; how many there are.
    Keep {
        /// How many.
        count: u64,
        /// The server's socket.
        fd: Fd,
    },
    /// How many of the connections that are held or kept have failed, by errno.
    Lost,
    /// `connect(2)`
    Connect {
        /// The socket.
        fd: Fd,
        /// Where.
        to: Vec<u8>,
    },
    /// `sendmsg(2)`
    Send {
        /// The socket.
        fd: Fd,
        /// Where; nowhere for a connected socket.
        to: Option<Vec<u8>>,
        /// What.
        data: Vec<u8>,
        /// As in `send(2)`.
        flags: i32,
        /// Ancillary data, as bytes.
        control: Vec<u8>,
    },
    /// `sendmmsg(2)`: one byte to each.
    SendMany {
        /// The socket.
        fd: Fd,
        /// Where.
        to: Vec<Vec<u8>>,
    },
    /// `setsockopt(2)` with a number.
    SetOption {
        /// The socket.
        fd: Fd,
        /// Level.
        level: i32,
        /// Name.
        name: i32,
        /// Value.
        value: i32,
    },
    /// `getsockname(2)`
    Name {
        /// The socket.
        fd: Fd,
    },
    /// `close(2)`
    Close {
        /// The descriptor.
        fd: Fd,
    },
    /// Makes a Unix socket at which descriptors arrive.
    Mailbox {
        /// Its path.
        path: PathBuf,
    },
    /// Passes a descriptor on (`SCM_RIGHTS`).
    Give {
        /// The mailbox.
        path: PathBuf,
        /// What.
        fd: Fd,
    },
    /// Takes a descriptor out of a mailbox.
    Take {
        /// The mailbox.
        fd: Fd,
    },
    /// Moves the whole process to another cgroup.
    Enter {
        /// Its directory.
        cgroup: PathBuf,
    },
    /// Accepts or receives in the background, for ever.
    Serve {
        /// The socket.
        fd: Fd,
        /// Whether it is a stream socket.
        stream: bool,
    },
    /// How much a server has accepted or received.
    Served {
        /// The socket.
        fd: Fd,
    },
    /// Opens and closes as many connections, or sends as many datagrams from one socket.
    Repeat {
        /// How often.
        count: u64,
        /// Whether by connections.
        stream: bool,
        /// Where.
        to: Vec<u8>,
    },
    /// Opens and closes connections in the background until told to stop.
    Hammer {
        /// Where.
        to: Vec<u8>,
    },
    /// Ends the hammer and tells what came back.
    Rest,
    /// Connects to each of these once a second, so many times.
    Visit {
        /// Where.
        to: Vec<Vec<u8>>,
        /// How often.
        rounds: u64,
    },
    /// Go on for this long when nobody gives orders any more.
    Stay {
        /// Seconds.
        seconds: u64,
    },
    /// Gives up everything that root may and others may not.
    Demote,
    /// Tries a way round the hooks (`bypass::vectors`).
    Attempt {
        /// Its name.
        vector: String,
        /// By which addresses.
        family: Family,
    },
    /// Opens flows side by side, each in its time; what came of each ([`Answer::errnos`]).
    Probe {
        /// Which.
        probes: Vec<Probe>,
    },
    /// Takes the datagrams of probes that have come ([`Answer::tokens`]).
    Drain {
        /// The sockets.
        sockets: Vec<Fd>,
    },
    /// `connect(2)` by way of `io_uring`.
    RingConnect {
        /// The socket.
        fd: Fd,
        /// Where.
        to: Vec<u8>,
    },
}

/// What came of an order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// What the system call returned, if it succeeded.
    pub value: i64,
    /// The errno if it failed, else 0.
    pub errno: i32,
    /// How long the system call took.
    pub micros: u64,
    /// What was read.
    pub data: Vec<u8>,
    /// Results of many calls.
    pub tally: Tally,
}
