//! What a packet says of itself: one parser for the packet hooks and for the tests.
//!
//! A packet hook sees a packet from its IP header on. What is malformed here is never forwarded, so whatever this parser
//! and a receiver could read differently is malformed: lengths that contradict each other, a hop-by-hop header that is not
//! the first, a transport header cut by a fragment's end, an IPv4-mapped address in an IPv6 header.
//!
//! Written for the verifier: whole words, one bounded loop, and values that differ by path are hidden
//! ([`Bytes::opaque`]) where the paths meet.

use crate::address::Address;

const ICMP: u64 = 1;
const TCP: u64 = 6;
const UDP: u64 = 17;
const DCCP: u64 = 33;
const ICMPV6: u64 = 58;
const SCTP: u64 = 132;
const UDPLITE: u64 = 136;

const HOP_BY_HOP: u64 = 0;
const ROUTING: u64 = 43;
const FRAGMENT: u64 = 44;
const AUTHENTICATION: u64 = 51;
const DESTINATION: u64 = 60;

/// Extension headers of IPv6 that are walked through; a packet with more is malformed. Each kind fits once, destination
/// options twice (RFC 8200, section 4.1).
pub const EXTENSIONS: u32 = 6;

/// The length field of both families ends here.
const LONGEST: u64 = 0xffff;
/// Length of an IPv6 header, in bytes.
const V6: u64 = 40;
/// The second to fourth byte of the hop-by-hop header that the kernel itself adds to a TCP packet whose length does not
/// fit the length field (BIG TCP): 8 bytes long, with the jumbo payload option alone (RFC 2675).
const JUMBO: u64 = 0xc204;

const OPTIONS: u64 = 1 << 48;
const ROUTED: u64 = 1 << 49;
const FIRST: u64 = 1 << 50;
const LATER: u64 = 1 << 51;

/// The bytes of a packet from its IP header on. Offsets count from there; numbers are in network byte order on the wire
/// and plain here.
pub trait Bytes: Copy {
    /// How many bytes there are.
    fn length(self) -> u32;

    /// The four bytes at this offset, `None` beyond the end.
    fn word(self, offset: u32) -> Option<u32>;

    /// The eight bytes at this offset, `None` beyond the end.
    #[inline(always)]
    fn long(self, offset: u32) -> Option<u64> {
        Some((u64::from(self.word(offset)?) << 32) | u64::from(self.word(offset + 4)?))
    }

    /// The same value. The kernel's bytes hide it from the verifier, as in
    /// [`PolicyView::opaque`](crate::verdict::PolicyView::opaque).
    #[inline(always)]
    fn opaque(self, value: u64) -> u64 {
        value
    }
}

impl Bytes for &[u8] {
    #[inline]
    fn length(self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn word(self, offset: u32) -> Option<u32> {
        self.get(offset as usize..)?.first_chunk().copied().map(u32::from_be_bytes)
    }
}

/// The family of the hook's packet, as its carrier says (`skb->protocol`), not the socket: an IPv6 socket also sends IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// All of it. Also an IPv6 "atomic" fragment, which has a fragment header and is whole (RFC 6946).
    Whole,
    /// Its beginning, with the transport header.
    First,
    /// Not its beginning: no transport header, and ports 0.
    Later,
}

/// What one packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The source address of the IP header.
    pub source: Address,
    /// The destination address of the IP header. Where [`Packet::routed`], the packet goes elsewhere after it.
    pub destination: Address,
    /// Destination port (16 bits, lowest), source port (16), protocol (8), TCP flags (8), then one bit each for
    /// [`OPTIONS`], [`ROUTED`], [`FIRST`], [`LATER`].
    packed: u64,
    /// Offset of the payload (32 bits, lowest), length (32).
    places: u64,
}

impl Packet {
    /// Ports and protocol in one word: destination port in the lowest 16 bits, source port in the next 16, protocol in
    /// the next 8, nothing above.
    #[inline(always)]
    pub const fn flow(&self) -> u64 {
        self.packed & 0xff_ffff_ffff
    }

    /// Destination port; of ICMP the type of the message, see [`icmp_type`]. 0 where the protocol has none, and in a later
    /// fragment.
    #[inline(always)]
    pub const fn destination_port(&self) -> u16 {
        self.packed as u16
    }

    /// Source port; of ICMP the same as [`Packet::destination_port`]. 0 where the protocol has none, and in a later fragment.
    #[inline(always)]
    pub const fn source_port(&self) -> u16 {
        (self.packed >> 16) as u16
    }

    /// IP protocol number of what follows the IP headers. In a later fragment of IPv6 that is what the fragment header
    /// names, which may be another extension header.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        (self.packed >> 32) as u8
    }

    /// The flags byte of a TCP header (FIN is 1, SYN is 2, RST is 4, ACK is 16); 0 of anything else.
    #[inline(always)]
    pub const fn flags(&self) -> u8 {
        (self.packed >> 40) as u8
    }

    /// Whether there are IP options: IPv4's, or a hop-by-hop or destination options header of IPv6. The header of a
    /// packet that is too long for its length field (BIG TCP) does not count: the kernel adds it.
    #[inline(always)]
    pub const fn options(&self) -> bool {
        self.packed & OPTIONS != 0
    }

    /// Whether there is an IPv6 routing header. IPv4's source routes are [`Packet::options`].
    #[inline(always)]
    pub const fn routed(&self) -> bool {
        self.packed & ROUTED != 0
    }

    /// Which part of a datagram this is.
    #[inline(always)]
    pub const fn fragment(&self) -> Fragment {
        if self.packed & LATER != 0 {
            Fragment::Later
        } else if self.packed & FIRST != 0 {
            Fragment::First
        } else {
            Fragment::Whole
        }
    }

    /// Where the payload of TCP, UDP and UDP-Lite begins, in bytes from the IP header on; of anything else, and of a later
    /// fragment, where the IP headers end. Never beyond [`Packet::length`].
    #[inline(always)]
    pub const fn payload_offset(&self) -> u32 {
        self.places as u32
    }

    /// The whole length in bytes, IP header included, as the header says; that many bytes are there.
    #[inline(always)]
    pub const fn length(&self) -> u32 {
        (self.places >> 32) as u32
    }
}

/// What the IP headers tell.
struct Network {
    source: Address,
    destination: Address,
    protocol: u64,
    /// Bits of [`Packet::packed`].
    marks: u64,
    /// Where the transport header begins.
    offset: u64,
    length: u64,
}

/// Reads a packet; `None` if it is malformed or cut short.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: B, family: Family) -> Option<Packet> {
    let network = match family {
        Family::V4 => v4(bytes)?,
        Family::V6 => v6(bytes)?,
    };
    if network.length > u64::from(bytes.length()) || network.offset > network.length {
        return None;
    }
    transport(bytes, &network)
}

#[inline(always)]
fn v4<B: Bytes>(bytes: B) -> Option<Network> {
    let first = bytes.long(0)?;
    let second = bytes.long(8)?;
    let destination = bytes.word(16)?;
    let words = (first >> 56) & 0xf;
    if first >> 60 != 4 || words < 5 {
        return None;
    }
    let protocol = (second >> 48) & 0xff;
    let mut length = (first >> 32) & LONGEST;
    if length == 0 && protocol == TCP && u64::from(bytes.length()) > LONGEST {
        // BIG TCP, which only this host makes.
        length = u64::from(bytes.length());
    }
    let mut marks = if words > 5 { OPTIONS } else { 0 };
    if first & 0x1fff != 0 {
        marks |= LATER;
    } else if first & 0x2000 != 0 {
        marks |= FIRST;
    }
    Some(Network {
        source: Address::v4(second as u32),
        destination: Address::v4(destination),
        protocol,
        marks: bytes.opaque(marks),
        offset: words * 4,
        length: bytes.opaque(length),
    })
}

#[inline(always)]
fn v6<B: Bytes>(bytes: B) -> Option<Network> {
    let first = bytes.long(0)?;
    let source = Address { high: bytes.long(8)?, low: bytes.long(16)? };
    let destination = Address { high: bytes.long(24)?, low: bytes.long(32)? };
    // A mapped address is the same value as the IPv4 address, which is elsewhere.
    if first >> 60 != 6 || source.is_v4() || destination.is_v4() {
        return None;
    }
    let mut length = ((first >> 16) & LONGEST) + V6;
    let jumbo = length == V6 && u64::from(bytes.length()) > LONGEST + V6;
    if jumbo {
        length = u64::from(bytes.length());
    }
    let length = bytes.opaque(length);
    let jumbo = bytes.opaque(u64::from(jumbo));

    let mut next = (first >> 8) & 0xff;
    let mut offset = V6;
    let mut marks = 0;
    for _ in 0..EXTENSIONS {
        if !is_extension(next) || marks & LATER != 0 {
            break;
        }
        let header = u64::from(bytes.word(offset as u32)?);
        let size = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (((header >> 16) & 0xff) + 2) * 4,
            _ => (((header >> 16) & 0xff) + 1) * 8,
        };
        marks |= match next {
            // Nobody obeys it anywhere else (RFC 8200, section 4.1).
            HOP_BY_HOP if offset != V6 => return None,
            HOP_BY_HOP if jumbo != 0 && header & 0xff_ffff == JUMBO => 0,
            HOP_BY_HOP | DESTINATION => OPTIONS,
            ROUTING => ROUTED,
            FRAGMENT if header & 0xfff8 != 0 => LATER,
            FRAGMENT if header & 1 != 0 => FIRST,
            // Shorter than its own fixed part.
            AUTHENTICATION if size < 12 => return None,
            _ => 0,
        };
        marks = bytes.opaque(marks);
        next = bytes.opaque(header >> 24);
        offset = bytes.opaque(offset + size);
    }
    if is_extension(next) && marks & LATER == 0 {
        return None;
    }
    Some(Network { source, destination, protocol: next, marks, offset, length })
}

#[inline(always)]
const fn is_extension(next: u64) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// Reads ports and flags, and puts everything together.
#[inline(always)]
fn transport<B: Bytes>(bytes: B, network: &Network) -> Option<Packet> {
    let Network { source, destination, protocol, marks, offset, length } = *network;
    let mut packed = marks | (protocol << 32);
    let mut payload = offset;
    let header = if marks & LATER == 0 { header(protocol) } else { 0 };
    if header != 0 {
        if offset + header > length {
            return None;
        }
        let first = u64::from(bytes.word(offset as u32)?);
        if protocol == ICMP || protocol == ICMPV6 {
            let kind = bytes.opaque(icmp_type(protocol as u8, (first >> 24) as u8).into());
            packed |= (kind << 16) | kind;
        } else {
            // Source port in the upper half, destination port in the lower: as in `packed`.
            packed |= first;
        }
        if protocol == TCP {
            let word = u64::from(bytes.word(offset as u32 + 12)?);
            let size = (word >> 28) * 4;
            if size < header || offset + size > length {
                return None;
            }
            packed |= ((word >> 16) & 0xff) << 40;
            payload += size;
        } else if protocol == UDP || protocol == UDPLITE {
            payload += header;
        }
    }
    Some(Packet {
        source,
        destination,
        packed: bytes.opaque(packed),
        places: bytes.opaque(payload) | (length << 32),
    })
}

/// What stands for the port of a flow of ICMP or `ICMPv6`: the type of its messages. An answer belongs to the flow of its
/// question, so it has the type of that (IANA, "ICMP Type Numbers" and "`ICMPv6` "type" Numbers"). 0 of other protocols.
///
/// Written as comparisons, one after the other: a table would be a map of its own in the kernel.
#[inline(always)]
pub const fn icmp_type(protocol: u8, kind: u8) -> u8 {
    if protocol as u64 == ICMP {
        if kind == 0 {
            return ECHO;
        }
        // Timestamps, information, address masks; the extended echo.
        if kind == 14 || kind == 16 || kind == 18 || kind == 43 {
            return kind - 1;
        }
        return kind;
    }
    if protocol as u64 == ICMPV6 {
        // The echo, information of nodes, the extended echo.
        if kind == 129 || kind == 140 || kind == 161 {
            return kind - 1;
        }
        return kind;
    }
    0
}

/// The type of an echo request.
const ECHO: u8 = 8;
/// The same of `ICMPv6`.
const ECHO_V6: u8 = 128;

/// The type of the messages that an ICMP echo socket sends, by its protocol; 0 of other protocols. A call on such a socket
/// names no type, and the kernel lets it send no other (but the extended echo, whose packets are judged).
#[inline(always)]
pub const fn echo_type(protocol: u8) -> u8 {
    match protocol as u64 {
        ICMP => ECHO,
        ICMPV6 => ECHO_V6,
        _ => 0,
    }
}

/// The least length of the header of a protocol that has ports or types, in bytes; 0 of one that has none.
#[inline(always)]
const fn header(protocol: u64) -> u64 {
    match protocol {
        TCP => 20,
        UDP | UDPLITE | ICMP | ICMPV6 => 8,
        SCTP | DCCP => 12,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
