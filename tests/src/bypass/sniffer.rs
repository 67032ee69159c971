//! What arrives at the end of the wire, and whether it should have.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::sys::{Socket, device};
use super::{FENCE, Family, MARKER, SERVED, TCP, UDP, VICTIM, WANTED, at};
use crate::patience;

const ALL_PROTOCOLS: u16 = 3;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// A packet as a filter would have to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Type of the frame.
    pub frame: u16,
    /// Where from.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// The protocol behind all extension headers.
    pub protocol: u8,
    /// Options, extension headers, or a later fragment.
    pub is_odd: bool,
    /// Ports of both ends, or type and code of ICMP in the first.
    pub ports: (u16, u16),
    /// Flags of TCP.
    pub flags: u8,
    /// Bytes behind the addresses' header.
    pub size: usize,
    /// Whether a vector's payload is in it.
    pub is_marked: bool,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frame, source, destination, protocol, ports, size, .. } = self;
        let odd = if self.is_odd { " with options, extension headers or as a fragment" } else { "" };
        let flags = if *protocol == 6 { format!(" flags {:#04x}", self.flags) } else { String::new() };
        let marked = if self.is_marked { ", marked" } else { "" };
        write!(f, "{frame:#06x} {source}:{} -> {destination}:{}", ports.0, ports.1)?;
        write!(f, " protocol {protocol}{flags}, {size} bytes{odd}{marked}")
    }
}

/// What a packet of the workloads' namespace means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// What the policy allows.
    Allowed,
    /// The kernel's own: resolving neighbours, resets, ICMP errors.
    Kernel,
    /// The end of a batch.
    Fence,
    /// What must not be.
    Leak,
}

impl Packet {
    /// Reads a packet that follows a frame's header.
    pub fn read(frame: u16, bytes: &[u8]) -> Self {
        let mut packet = Self {
            frame,
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            protocol: 0,
            is_odd: false,
            ports: (0, 0),
            flags: 0,
            size: bytes.len(),
            is_marked: bytes.windows(MARKER.len()).any(|part| part == MARKER),
        };
        let rest = match frame {
            IPV4 => packet.internet4(bytes),
            IPV6 => packet.internet6(bytes),
            _ => None,
        };
        if let Some(rest) = rest {
            packet.transport(rest);
        }
        packet
    }

    fn internet4<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.source = Ipv4Addr::from(array::<4>(bytes, 12)?).into();
        self.destination = Ipv4Addr::from(array::<4>(bytes, 16)?).into();
        self.protocol = *bytes.get(9)?;
        let length = usize::from(bytes[0] & 15) * 4;
        let fragment = u16::from_be_bytes(array(bytes, 6)?);
        self.is_odd = length != 20 || fragment & 0x1fff != 0;
        if fragment & 0x1fff != 0 { None } else { bytes.get(length..) }
    }

    fn internet6<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.source = Ipv6Addr::from(array::<16>(bytes, 8)?).into();
        self.destination = Ipv6Addr::from(array::<16>(bytes, 24)?).into();
        self.protocol = *bytes.get(6)?;
        let mut rest = bytes.get(40..)?;
        // Hop-by-hop, routing, fragment, destination options.
        while let 0 | 43 | 44 | 60 = self.protocol {
            // The kernel's own reports of memberships have an option, and datagrams too long for the wire are cut:
            // only what somebody chose is odd.
            let is_cut = self.protocol == 44;
            let later = is_cut && u16::from_be_bytes(array(rest, 2)?) & 0xfff8 != 0;
            let size = if is_cut { 8 } else { usize::from(*rest.get(1)?) * 8 + 8 };
            self.is_odd |= later || !is_cut;
            self.protocol = *rest.first()?;
            if later {
                return None;
            }
            rest = rest.get(size..)?;
        }
        Some(rest)
    }

    fn transport(&mut self, rest: &[u8]) {
        let words = (array(rest, 0), array(rest, 2));
        if let (Some(first), Some(second)) = words {
            self.ports = (u16::from_be_bytes(first), u16::from_be_bytes(second));
        }
        if self.protocol == 6 {
            self.flags = rest.get(13).copied().unwrap_or(0);
        }
    }

    /// What it means, by the policy of the suite.
    pub fn meaning(&self) -> Meaning {
        const RESET: u8 = 4;
        let family = match self.frame {
            ARP => return Meaning::Kernel,
            IPV4 => Family::V4,
            IPV6 => Family::V6,
            _ => return Meaning::Leak,
        };
        if self.is_kernels(family) || (self.protocol == 6 && self.flags & RESET != 0 && !self.is_marked) {
            return Meaning::Kernel;
        }
        let is_between = self.source == family.own() && self.destination == family.allowed();
        if !is_between || self.is_odd {
            return Meaning::Leak;
        }
        match (self.protocol, self.ports) {
            (17, (_, FENCE)) => Meaning::Fence,
            (6, (_, TCP)) | (17, (_, UDP)) => Meaning::Allowed,
            // What the workload or its neighbour answers.
            (6 | 17, (port, _)) if [SERVED, VICTIM, WANTED.0, WANTED.1].contains(&port) => Meaning::Allowed,
            _ => Meaning::Leak,
        }
    }

    /// Neighbours, memberships, and errors about what came in. An echo request is nobody's but a program's.
    fn is_kernels(&self, family: Family) -> bool {
        let [kind, _] = self.ports.0.to_be_bytes();
        match (family, self.protocol) {
            (Family::V4, 2) => !self.is_marked,
            (Family::V4, 1) => matches!(kind, 0 | 3 | 11 | 12),
            (Family::V6, 58) => matches!(kind, 1..=4 | 129 | 130..=137 | 143),
            _ => false,
        }
    }
}

fn array<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from + N)?.try_into().ok()
}

/// A socket that gets a copy of everything that arrives at a device.
#[derive(Debug)]
pub struct Sniffer {
    socket: Socket,
    fence: UdpSocket,
    fences: u64,
}

impl Sniffer {
    /// At a device of this thread's namespace. `fence` sends from the other end, past all hooks.
    pub fn new(name: &str, fence: UdpSocket) -> io::Result<Self> {
        let socket = Socket::bare(libc::AF_PACKET, libc::SOCK_DGRAM, ALL_PROTOCOLS.to_be().into())?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(16 << 20))?;
        socket.bind(&link_address(ALL_PROTOCOLS, device(name)?, [0; 6]))?;
        socket.patience(Duration::from_millis(20))?;
        Ok(Self { socket, fence, fences: 0 })
    }

    /// Everything that came since the last call, but for what it sent itself.
    ///
    /// # Panics
    /// When packets were lost, or the wire is cut.
    pub fn collect(&mut self) -> Vec<Packet> {
        self.fences += 1;
        let mark = format!("fence {}.", self.fences);
        let to = std::net::SocketAddr::new(Family::V4.allowed(), FENCE);
        let mut packets = Vec::new();
        let mut settled = None;
        let deadline = Instant::now() + patience::seconds(5);
        self.fence.send_to(mark.as_bytes(), to).expect("send the fence");
        loop {
            match self.next() {
                Some((_, bytes)) if bytes.ends_with(mark.as_bytes()) => {
                    // What another processor had in hand may still come.
                    let settling = if patience::is_emulated() { 12 } else { 3 };
                    settled = Some(Instant::now() + Duration::from_millis(settling));
                }
                Some((frame, bytes)) => packets.push(Packet::read(frame, &bytes)),
                None => {}
            }
            if settled.is_some_and(|at| Instant::now() >= at) {
                break;
            }
            assert!(Instant::now() < deadline, "the fence did not arrive: is the wire cut?");
        }
        assert_eq!(self.lost(), 0, "the sniffer lost packets");
        packets.retain(|packet| packet.meaning() != Meaning::Fence);
        packets
    }

    fn next(&self) -> Option<(u16, Vec<u8>)> {
        let mut buffer = vec![0_u8; 1 << 16];
        let mut from = [0_u8; 20];
        let mut size: libc::socklen_t = 20;
        // Nothing more may come after the fence: then a moment's patience is all.
        // SAFETY: both buffers are as large as the call is told, and live until it returns.
        let taken = unsafe {
            let address = from.as_mut_ptr().cast();
            libc::recvfrom(
                self.socket.fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                address,
                &raw mut size,
            )
        };
        buffer.truncate(usize::try_from(taken).ok()?);
        let frame = u16::from_be_bytes([from[2], from[3]]);
        // PACKET_OUTGOING: this end's own.
        (from[10] != 4).then_some((frame, buffer))
    }

    fn lost(&self) -> u32 {
        let mut statistics = [0_u32; 2];
        let mut size: libc::socklen_t = 8;
        let value = (&raw mut statistics).cast();
        const STATISTICS: libc::c_int = 6;
        // SAFETY: the value is as large as `size` says.
        unsafe { libc::getsockopt(self.socket.fd(), libc::SOL_PACKET, STATISTICS, value, &raw mut size) };
        statistics[1]
    }
}

/// An address of the link layer.
pub fn link_address(protocol: u16, device: u32, hardware: [u8; 6]) -> Vec<u8> {
    let mut bytes = at(Ipv4Addr::UNSPECIFIED.into(), 0);
    bytes.clear();
    bytes.extend(u16::try_from(libc::AF_PACKET).unwrap_or(0).to_ne_bytes());
    bytes.extend(protocol.to_be_bytes());
    bytes.extend(device.to_ne_bytes());
    // Kind of hardware, kind of packet, length of the address.
    bytes.extend([0, 0, 0, 6]);
    bytes.extend(hardware);
    bytes.extend([0; 2]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bypass::vectors::packet;

    fn meaning(bytes: &[u8]) -> Meaning {
        Packet::read(if bytes[0] >> 4 == 4 { IPV4 } else { IPV6 }, bytes).meaning()
    }

    #[test]
    fn only_the_allowed_flows_are_no_leak() {
        for family in [Family::V4, Family::V6] {
            let datagram = |to, port| packet::ip(family, family.own(), to, 17, &packet::udp(port, MARKER));
            assert_eq!(meaning(&datagram(family.allowed(), UDP)), Meaning::Allowed);
            assert_eq!(meaning(&datagram(family.allowed(), UDP + 1)), Meaning::Leak);
            assert_eq!(meaning(&datagram(family.forbidden(), UDP)), Meaning::Leak);
            let forged =
                packet::ip(family, family.foreign(), family.allowed(), 17, &packet::udp(UDP, MARKER));
            assert_eq!(meaning(&forged), Meaning::Leak);
            let other = packet::ip(family, family.own(), family.allowed(), 136, &packet::udp(UDP, MARKER));
            assert_eq!(meaning(&other), Meaning::Leak);
        }
    }

    #[test]
    fn odd_forms_to_the_allowed_peer_are_leaks() {
        let four = Family::V4;
        let mut late = packet::ip(four, four.own(), four.allowed(), 17, &packet::udp(UDP, MARKER));
        late[7] = 2;
        assert_eq!(meaning(&late), Meaning::Leak);
        let six = Family::V6;
        let options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &packet::udp(UDP, MARKER)].concat();
        assert_eq!(meaning(&packet::ip(six, six.own(), six.allowed(), 60, &options)), Meaning::Leak);
    }
}
