//! What `etherparse` reads in a packet, in the words of [`enforcer_common::packet`].
//!
//! Where the two mean to differ, ours is the stricter, and it says so here with the words "other than etherparse".

use std::net::Ipv6Addr;

use enforcer_common::packet::{EXTENSIONS, Family, Fragment, Packet};
use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6ExtensionsSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
};

/// The length field of both families ends here.
const LONGEST: usize = 0xffff;
const V6: usize = 40;

/// A packet as both parsers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub flags: u8,
    pub options: bool,
    pub routed: bool,
    pub fragment: Fragment,
    pub payload_offset: usize,
    pub length: usize,
}

impl From<Packet> for Reading {
    fn from(packet: Packet) -> Self {
        Self {
            source: packet.source.bytes().into(),
            destination: packet.destination.bytes().into(),
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            protocol: packet.protocol(),
            flags: packet.flags(),
            options: packet.options(),
            routed: packet.routed(),
            fragment: packet.fragment(),
            payload_offset: packet.payload_offset() as usize,
            length: packet.length() as usize,
        }
    }
}

/// Our own reading.
pub fn ours(bytes: &[u8], family: Family) -> Option<Reading> {
    enforcer_common::packet::parse(bytes, family).map(Reading::from)
}

/// The reading of `etherparse`.
pub fn theirs(bytes: &[u8], family: Family) -> Option<Reading> {
    let network = match family {
        Family::V4 => v4(bytes)?,
        Family::V6 => v6(bytes)?,
    };
    transport(bytes, network)
}

/// With the offset of the transport header as that of the payload, and without ports and flags.
fn v4(bytes: &[u8]) -> Option<Reading> {
    let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    let protocol = header.protocol();
    // Other than etherparse: it does not know BIG TCP of IPv4.
    let big = header.total_len() == 0 && protocol == IpNumber::TCP && bytes.len() > LONGEST;
    let length = if big { bytes.len() } else { header.total_len().into() };
    if length > bytes.len() || length < header.slice().len() {
        return None;
    }
    // Other than etherparse: an authentication header of IPv4 is a protocol, and is not looked behind.
    Some(Reading {
        source: header.source_addr().to_ipv6_mapped(),
        destination: header.destination_addr().to_ipv6_mapped(),
        source_port: 0,
        destination_port: 0,
        protocol: protocol.0,
        flags: 0,
        options: !header.options().is_empty(),
        routed: false,
        fragment: fragment(header.fragments_offset().value(), header.more_fragments()),
        payload_offset: header.slice().len(),
        length,
    })
}

fn v6(bytes: &[u8]) -> Option<Reading> {
    let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
    // Other than etherparse: a length of 0 means "all there is" only where the length field would not do.
    let jumbo = header.payload_length() == 0 && bytes.len() - V6 > LONGEST;
    let length = if jumbo { bytes.len() } else { V6 + usize::from(header.payload_length()) };
    let (source, destination) = (header.source_addr(), header.destination_addr());
    // Other than etherparse: a mapped address is never on the wire.
    if source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
        return None;
    }
    let reading = Reading {
        source,
        destination,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        flags: 0,
        options: false,
        routed: false,
        fragment: Fragment::Whole,
        payload_offset: V6,
        length,
    };
    walk(header.next_header(), bytes.get(V6..length)?, jumbo, reading)
}

/// Goes through the extension headers one by one: the iterator of etherparse 0.21 reads beyond the end of headers of which
/// only the first ones were good.
fn walk(first: IpNumber, payload: &[u8], jumbo: bool, mut reading: Reading) -> Option<Reading> {
    let (mut next, mut rest) = (first, payload);
    for index in 0.. {
        let size = match next {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).ok()?;
                match next {
                    IpNumber::IPV6_ROUTE_HEADER => reading.routed = true,
                    IpNumber::IPV6_HEADER_HOP_BY_HOP if index > 0 => return None,
                    // The header that the kernel adds for BIG TCP.
                    IpNumber::IPV6_HEADER_HOP_BY_HOP if jumbo && header.slice()[1..4] == [0, 0xc2, 4] => {}
                    _ => reading.options = true,
                }
                next = header.next_header();
                header.slice().len()
            }
            IpNumber::AUTHENTICATION_HEADER => {
                let header = IpAuthHeaderSlice::from_slice(rest).ok()?;
                next = header.next_header();
                header.slice().len()
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).ok()?;
                match fragment(header.fragment_offset().value(), header.more_fragments()) {
                    Fragment::Whole => {}
                    part => reading.fragment = part,
                }
                next = header.next_header();
                header.slice().len()
            }
            _ => break,
        };
        // Other than etherparse: a bounded number.
        if index >= EXTENSIONS {
            return None;
        }
        rest = &rest[size..];
        // Other than etherparse: what follows is the middle of something, not a header.
        if reading.fragment == Fragment::Later {
            break;
        }
    }
    if reading.fragment != Fragment::Later {
        let (_, protocol, transport) = Ipv6ExtensionsSlice::from_slice(first, payload).ok()?;
        assert_eq!((next, rest), (protocol, transport), "etherparse contradicts itself");
    }
    reading.protocol = next.0;
    reading.payload_offset += payload.len() - rest.len();
    Some(reading)
}

fn fragment(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

fn transport(bytes: &[u8], mut reading: Reading) -> Option<Reading> {
    if reading.fragment == Fragment::Later {
        return Some(reading);
    }
    let segment = &bytes[reading.payload_offset..reading.length];
    (reading.source_port, reading.destination_port) = match reading.protocol {
        6 => {
            let header = TcpHeaderSlice::from_slice(segment).ok()?;
            reading.flags = flags(&header);
            reading.payload_offset += header.slice().len();
            (header.source_port(), header.destination_port())
        }
        // UDP-Lite has the header of UDP, but for the meaning of its length field, which neither looks at.
        17 | 136 => {
            let header = UdpHeaderSlice::from_slice(segment).ok()?;
            reading.payload_offset += header.slice().len();
            (header.source_port(), header.destination_port())
        }
        // SCTP and DCCP, unknown to etherparse.
        132 | 33 => {
            let header = segment.get(..12)?;
            (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
        }
        // Other than etherparse: of a message of ICMP only the type is read, whatever follows it.
        1 | 58 => {
            let kind = question(reading.protocol, *segment.get(..8)?.first()?);
            (kind, kind)
        }
        _ => (0, 0),
    };
    Some(reading)
}

/// The type of the message that one of this type answers, or its own.
fn question(protocol: u8, kind: u8) -> u16 {
    const ANSWERS: [(u8, u8, u8); 8] = [
        (1, 0, 8),
        (1, 14, 13),
        (1, 16, 15),
        (1, 18, 17),
        (1, 43, 42),
        (58, 129, 128),
        (58, 140, 139),
        (58, 161, 160),
    ];
    let answered = ANSWERS.iter().find(|(of, answer, _)| (*of, *answer) == (protocol, kind));
    answered.map_or(kind, |(_, _, question)| *question).into()
}

fn flags(header: &TcpHeaderSlice) -> u8 {
    [
        header.fin(),
        header.syn(),
        header.rst(),
        header.psh(),
        header.ack(),
        header.urg(),
        header.ece(),
        header.cwr(),
    ]
    .into_iter()
    .enumerate()
    .map(|(bit, set)| u8::from(set) << bit)
    .sum()
}
