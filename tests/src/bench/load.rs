//! The load: a process that serves, and one that asks, each in its own cgroup and both on one processor, if one is named.
//!
//! Started as this binary with [`ARGUMENT`]; it takes orders on standard input, one a line, and answers on standard output.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::puppet;

/// The hidden argument that makes a process a load; the processor follows.
pub const ARGUMENT: &str = "--load";

const CONNECTIONS: u16 = 7001;
const STREAM: u16 = 7002;
const DATAGRAMS: u16 = 7003;
const BULK: u16 = 7004;

/// The ports that are served, for those who write rules: TCP, and UDP.
pub const TCP_PORTS: [u16; 3] = [CONNECTIONS, STREAM, BULK];
/// See [`TCP_PORTS`].
pub const UDP_PORT: u16 = DATAGRAMS;

/// Bytes of one write of the bulk load.
const CHUNK: usize = 64 << 10;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Connections: open, one byte each way, close.
    Connections,
    /// One byte each way on one TCP connection.
    Stream,
    /// One byte each way by datagrams of connected sockets.
    Datagrams,
    /// Writes of 64 KiB on one TCP connection.
    Bulk,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Stream, Self::Datagrams, Self::Bulk];

    /// What is counted.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Stream => "TCP requests",
            Self::Datagrams => "UDP requests",
            Self::Bulk => "64 KiB writes",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Serve,
    Ask { kind: Kind, count: u64, at: Ipv4Addr, spread: u32 },
    Steady { rate: u32, milliseconds: u64, at: Ipv4Addr },
    Refused { ports: std::ops::Range<u16>, at: Ipv4Addr },
}

/// The whole life of a load.
pub fn live() {
    if let Some(cpu) = std::env::args().nth(2) {
        pin(cpu.parse().expect("the number of a processor"));
    }
    let mut client = Client::default();
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let done = match serde_json::from_str(&line).expect("an order") {
            Order::Serve => {
                serve();
                0
            }
            Order::Ask { kind, count, at, spread } => {
                client.ask(kind, count, at, spread);
                count
            }
            Order::Steady { rate, milliseconds, at } => steady(rate, Duration::from_millis(milliseconds), at),
            Order::Refused { ports, at } => ports.filter(|port| is_refused(at, *port)).count() as u64,
        };
        if writeln!(output, "{done}").and_then(|()| output.flush()).is_err() {
            break;
        }
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a small number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("stay on one processor");
}

/// Serves all kinds in the background.
fn serve() {
    let listen = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port");
    let (connections, stream, bulk) = (listen(CONNECTIONS), listen(STREAM), listen(BULK));
    let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DATAGRAMS)).expect("a free port");
    thread::spawn(move || {
        for peer in connections.incoming() {
            // The client resets when it has its answer, which may come before our close.
            let mut byte = [0];
            if let Ok(mut peer) = peer
                && peer.read_exact(&mut byte).is_ok()
            {
                peer.write_all(&byte).ok();
            }
        }
    });
    thread::spawn(move || {
        for peer in stream.incoming().filter_map(Result::ok) {
            peer.set_nodelay(true).expect("an option");
            echo(peer);
        }
    });
    thread::spawn(move || {
        let mut byte = [0];
        while let Ok((_, from)) = datagrams.recv_from(&mut byte) {
            datagrams.send_to(&byte, from).expect("an answer");
        }
    });
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        for mut peer in bulk.incoming().filter_map(Result::ok) {
            while peer.read_exact(&mut chunk).is_ok() {
                // The last of a round.
                if chunk.last() == Some(&1) && peer.write_all(&[1]).is_err() {
                    break;
                }
            }
        }
    });
}

fn echo(mut peer: TcpStream) {
    let mut byte = [0];
    while peer.read_exact(&mut byte).is_ok() && peer.write_all(&byte).is_ok() {}
}

#[derive(Default)]
struct Client {
    stream: Option<TcpStream>,
    datagrams: Option<UdpSocket>,
    bulk: Option<TcpStream>,
    random: u32,
}

impl Client {
    fn ask(&mut self, kind: Kind, count: u64, at: Ipv4Addr, spread: u32) {
        match kind {
            Kind::Connections => {
                for _ in 0..count {
                    // Numerical Recipes' linear congruence: all that matters is that caches can't guess.
                    self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let offset = ((u64::from(self.random) * u64::from(spread)) >> 32) as u32;
                    once(Ipv4Addr::from_bits(at.to_bits() + offset));
                }
            }
            Kind::Stream => {
                let stream = self.stream.get_or_insert_with(|| open(at, STREAM));
                let mut byte = [1];
                for _ in 0..count {
                    stream.write_all(&byte).expect("a request");
                    stream.read_exact(&mut byte).expect("an answer");
                }
            }
            Kind::Datagrams => {
                let socket = self.datagrams.get_or_insert_with(|| {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
                    socket.connect((at, DATAGRAMS)).expect("an allowed destination");
                    socket
                });
                let mut byte = [1];
                for _ in 0..count {
                    socket.send(&byte).expect("a request");
                    socket.recv(&mut byte).expect("an answer");
                }
            }
            Kind::Bulk => {
                let bulk = self.bulk.get_or_insert_with(|| open(at, BULK));
                let mut chunk = vec![0; CHUNK];
                for number in 1..=count {
                    // The last one asks for an answer: then all of it has arrived.
                    chunk[CHUNK - 1] = u8::from(number == count);
                    bulk.write_all(&chunk).expect("room");
                }
                bulk.read_exact(&mut [0]).expect("an answer");
            }
        }
    }
}

fn open(at: Ipv4Addr, port: u16) -> TcpStream {
    let stream = TcpStream::connect((at, port)).expect("an allowed connection");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// One connection. It ends with a reset, which leaves nothing behind on either side: with an orderly end each round would
/// fill the table of connections that wait for late packets, and the next one would pay for it.
fn once(at: Ipv4Addr) {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    let to = SockaddrIn::from(SocketAddrV4::new(at, CONNECTIONS));
    connect(fd.as_raw_fd(), &to).expect("an allowed connection");
    let mut byte = [1];
    send(fd.as_raw_fd(), &byte, MsgFlags::empty()).expect("a request");
    recv(fd.as_raw_fd(), &mut byte, MsgFlags::empty()).expect("an answer");
    reset(&fd);
}

/// As many connections in a second, evenly, for so long; how many there were. What can't be done in time is left out.
fn steady(rate: u32, lasts: Duration, at: Ipv4Addr) -> u64 {
    /// Timers are not finer; a few connections then come at once.
    const PAUSE: Duration = Duration::from_millis(1);
    let start = Instant::now();
    let mut done: u32 = 0;
    loop {
        let now = start.elapsed();
        let due = Duration::from_secs(1) * done / rate;
        if now.max(due) >= lasts {
            return done.into();
        }
        if due > now {
            thread::sleep(PAUSE);
        } else {
            once(at);
            done += 1;
        }
    }
}

/// Whether a call to a port is refused by policy.
fn is_refused(at: Ipv4Addr, port: u16) -> bool {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    let to = SockaddrIn::from(SocketAddrV4::new(at, port));
    connect(fd.as_raw_fd(), &to) == Err(nix::errno::Errno::EPERM)
}

fn reset(fd: &OwnedFd) {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(fd, sockopt::Linger, &now).expect("an option");
}

/// A running load, from outside.
#[derive(Debug)]
pub struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    clock: ClockId,
}

impl Load {
    /// Starts one in a cgroup and a network namespace, on one processor or on all.
    pub fn start(cgroup: &Path, namespace: BorrowedFd<'_>, cpu: Option<usize>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.arg(ARGUMENT).args(cpu.map(|cpu| cpu.to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        puppet::enter(&mut command, cgroup, namespace);
        let mut child = command.spawn().expect("a process");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let clock = clock_getcpuclockid(pid).expect("its clock");
        Self { child, input, output: BufReader::new(output), clock }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Serves from now on.
    pub fn serve(&mut self) {
        self.obey(&Order::Serve);
    }

    /// Asks a server so many times. Gives how long that took.
    pub fn ask(&mut self, kind: Kind, count: u64, at: Ipv4Addr, spread: u32) -> Duration {
        let start = Instant::now();
        self.obey(&Order::Ask { kind, count, at, spread });
        start.elapsed()
    }

    /// Processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        clock_gettime(self.clock).expect("a running process").into()
    }

    /// Has it begin to ask evenly; [`Self::done`] says how many connections it became.
    pub fn begin(&mut self, rate: u32, lasts: Duration, at: Ipv4Addr) {
        let milliseconds = u64::try_from(lasts.as_millis()).expect("a short time");
        self.send(&Order::Steady { rate, milliseconds, at });
    }

    /// Makes calls to these ports; how many were refused by policy.
    pub fn refused(&mut self, ports: std::ops::Range<u16>, at: Ipv4Addr) -> u64 {
        self.send(&Order::Refused { ports, at });
        self.done()
    }

    fn obey(&mut self, order: &Order) {
        self.send(order);
        self.done();
    }

    fn send(&mut self, order: &Order) {
        let text = serde_json::to_string(order).expect("an order is JSON");
        writeln!(self.input, "{text}").expect("the load listens");
    }

    /// Waits until the last order is done; how often what was done.
    pub fn done(&mut self) -> u64 {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the load answers");
        line.trim_end().parse().expect("the load says a number, or has told on standard error why not")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
