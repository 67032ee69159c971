//! The other end of the wire: a namespace with an allowed and a forbidden peer, outside of everything enforced.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::sniffer::Sniffer;
use super::sys::{Socket, limit};
use super::{DEVICE, Family, INSIDE_MAC, LINK_LOCAL, MARKER, OUTSIDE_MAC, TCP, UDP, at, netlink};
use crate::patience;
use crate::world::{inside, new_namespace};

const DEVICE_THERE: &str = "s0";
/// How often the servers look whether they are wanted still.
const STEP: i64 = 100_000;

/// See the module. Ends with its last handle.
#[derive(Debug)]
pub struct Outside {
    namespace: OwnedFd,
    stop: Arc<AtomicBool>,
}

impl Outside {
    /// Lays the wire from a namespace, and opens the servers at its end.
    pub fn new(workloads: BorrowedFd<'_>) -> (Self, Sniffer) {
        let namespace = new_namespace();
        let fence = inside(workloads, || {
            prepare().expect("settings of the namespace");
            netlink::wire((DEVICE, INSIDE_MAC), (DEVICE_THERE, OUTSIDE_MAC), namespace.as_fd())
                .expect("a pair of devices");
            no_detection(DEVICE);
            end(DEVICE, &[Family::own], &[(Family::allowed, OUTSIDE_MAC), (Family::forbidden, OUTSIDE_MAC)])
                .expect("the workloads' end of the wire");
            netlink::neighbour(DEVICE, LINK_LOCAL.into(), OUTSIDE_MAC).expect("a neighbour");
            UdpSocket::bind("0.0.0.0:0").expect("the fence's socket")
        });
        let outside = Self { namespace, stop: Arc::default() };
        let sniffer = outside.inside(|| {
            prepare().expect("settings of the namespace");
            no_detection(DEVICE_THERE);
            end(DEVICE_THERE, &[Family::allowed, Family::forbidden], &[(Family::own, INSIDE_MAC)])
                .expect("the other end of the wire");
            for family in [Family::V4, Family::V6] {
                for peer in [family.allowed(), family.forbidden()] {
                    outside.serve(SocketAddr::new(peer, TCP), SocketAddr::new(peer, UDP));
                }
            }
            Sniffer::new(DEVICE_THERE, fence).expect("a sniffer")
        });
        (outside, sniffer)
    }

    /// Does something over there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.namespace.as_fd(), work)
    }

    /// Whether one of the peers gets a connection to a port of the workloads' namespace.
    pub fn reaches(&self, from: std::net::IpAddr, to: (std::net::IpAddr, u16)) -> bool {
        self.reaches_in(limit(), from, to)
    }

    /// The same where it should: a busy machine may take its time.
    pub fn must_reach(&self, from: std::net::IpAddr, to: (std::net::IpAddr, u16)) -> bool {
        self.reaches_in(patience::seconds(10), from, to)
    }

    fn reaches_in(&self, time: Duration, from: std::net::IpAddr, to: (std::net::IpAddr, u16)) -> bool {
        self.inside(|| {
            let family = if from.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            let socket = Socket::new(family, libc::SOCK_STREAM, 0).expect("a socket");
            socket.patience(time).expect("a time-out");
            socket.bind(&at(from, 0)).expect("bind to the peer's address");
            socket.connect(&at(to.0, to.1)).is_ok()
        })
    }

    /// Sends a marked datagram from one of the peers.
    pub fn sends(&self, from: std::net::IpAddr, to: (std::net::IpAddr, u16)) {
        self.inside(|| {
            let socket = UdpSocket::bind(SocketAddr::new(from, 0)).expect("a socket of the peer");
            socket.send_to(MARKER, SocketAddr::new(to.0, to.1)).expect("send");
        });
    }

    fn serve(&self, stream: SocketAddr, datagrams: SocketAddr) {
        let limit = TimeVal::new(0, STEP);
        let listener = listen(stream).unwrap_or_else(|error| panic!("listen at {stream}: {error}"));
        setsockopt(&listener, sockopt::ReceiveTimeout, &limit).expect("a timeout");
        let socket = UdpSocket::bind(datagrams).unwrap_or_else(|error| panic!("bind {datagrams}: {error}"));
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit).expect("a timeout");
        let stop = Arc::clone(&self.stop);
        thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                if let Ok((stream, _)) = listener.accept() {
                    let stop = Arc::clone(&stop);
                    thread::spawn(move || echo(stream, &stop));
                }
            }
        });
        let stop = Arc::clone(&self.stop);
        thread::spawn(move || {
            let mut buffer = vec![0_u8; 1 << 16];
            while !stop.load(Ordering::SeqCst) {
                if let Ok((size, from)) = socket.recv_from(&mut buffer) {
                    // A forged sender can't be answered.
                    socket.send_to(&buffer[..size.min(64)], from).ok();
                }
            }
        });
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// By MPTCP where the kernel has it: to plain TCP there is no difference.
fn listen(to: SocketAddr) -> io::Result<TcpListener> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = Socket::bare(family, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
        .or_else(|_| Socket::bare(family, libc::SOCK_STREAM, 0))?;
    socket.bind(&at(to.ip(), to.port()))?;
    socket.listen()?;
    Ok(TcpListener::from(socket.into_owned()))
}

fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    let mut buffer = [0_u8; 4096];
    stream.set_read_timeout(Some(Duration::from_millis(100))).ok();
    while !stop.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(size) => {
                if stream.write_all(&buffer[..size]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// What the vectors count on in a namespace.
fn prepare() -> io::Result<()> {
    // Ping sockets for everybody, as containerd sets it; data with the first segment, without a cookie.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1031")?;
    Ok(())
}

/// A link-local address counts at once.
fn no_detection(device: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/accept_dad");
    fs::write(&path, "0").unwrap_or_else(|error| panic!("{path}: {error}"));
}

type Address = fn(Family) -> std::net::IpAddr;

fn end(device: &str, own: &[Address], neighbours: &[(Address, [u8; 6])]) -> io::Result<()> {
    netlink::up(device)?;
    for family in [Family::V4, Family::V6] {
        let prefix = if family == Family::V4 { 24 } else { 64 };
        for address in own {
            netlink::address(device, address(family), prefix)?;
        }
        for (address, hardware) in neighbours {
            netlink::neighbour(device, address(family), *hardware)?;
        }
    }
    Ok(())
}
