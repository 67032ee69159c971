//! Packets written by hand, each form once.

use super::*;

const PORTS: [u8; 4] = [0xc0, 0x01, 0x01, 0xbb];
const SYN: u8 = 2;
const PSH_ACK: u8 = 0x18;

fn tcp(flags: u8, words: u8, payload: usize) -> Vec<u8> {
    let mut segment = PORTS.to_vec();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, words << 4, flags, 0xff, 0xff, 0xab, 0xcd, 0, 0]);
    segment.resize(usize::from(words.max(5)) * 4 + payload, 0x5a);
    segment
}

fn udp(payload: usize) -> Vec<u8> {
    let mut datagram = PORTS.to_vec();
    datagram.extend([0, 8 + u8::try_from(payload).unwrap(), 0xab, 0xcd]);
    datagram.resize(8 + payload, 0x5a);
    datagram
}

/// From 192.0.2.1 to 198.51.100.7, with the given flags and fragment offset, and this many words of options.
fn ipv4(protocol: u8, fragment: u16, options: u8, payload: &[u8]) -> Vec<u8> {
    let length = 20 + usize::from(options) * 4 + payload.len();
    let [high, low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    let [flags, offset] = fragment.to_be_bytes();
    let mut packet = vec![0x45 + options, 0, high, low, 0x12, 0x34, flags, offset, 64, protocol, 0xab, 0xcd];
    packet.extend([192, 0, 2, 1, 198, 51, 100, 7]);
    packet.resize(20 + usize::from(options) * 4, 1);
    packet.extend(payload);
    packet
}

/// From `2001:db8::1` to `2001:db8::2`.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut packet = vec![0x6a, 0xbc, 0xde, 0xf0, high, low, next, 64];
    packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

/// An extension header of 8 bytes with a padding option (or, as a routing header, type 1 with 4 segments left).
fn extension(next: u8) -> Vec<u8> {
    vec![next, 0, 1, 4, 0, 0, 0, 0]
}

fn fragment(next: u8, offset_and_more: u16) -> Vec<u8> {
    let [high, low] = offset_and_more.to_be_bytes();
    vec![next, 0, high, low, 0, 0, 0, 9]
}

fn read(packet: &[u8]) -> Packet {
    let family = if packet[0] >> 4 == 4 { Family::V4 } else { Family::V6 };
    let read = parse(packet, family).expect("well formed");
    assert_eq!(read.length() as usize, packet.len());
    let (v4, v6) = ((0xc000_0201, 0xc633_6407), (0x2001_0db8 << 32, 1, 2));
    match family {
        Family::V4 => assert_eq!((read.source, read.destination), (Address::v4(v4.0), Address::v4(v4.1))),
        Family::V6 => assert_eq!(
            (read.source, read.destination),
            (Address { high: v6.0, low: v6.1 }, Address { high: v6.0, low: v6.2 })
        ),
    }
    read
}

fn is_malformed(packet: &[u8]) -> bool {
    let family = if packet[0] >> 4 == 4 { Family::V4 } else { Family::V6 };
    parse(packet, family).is_none()
}

#[track_caller]
fn ports(packet: Packet) {
    assert_eq!((packet.source_port(), packet.destination_port()), (0xc001, 443));
    assert_eq!(packet.flow(), 0xc001_01bb | (u64::from(packet.protocol()) << 32));
}

#[track_caller]
fn no_ports(packet: Packet) {
    assert_eq!((packet.source_port(), packet.destination_port(), packet.flags()), (0, 0, 0));
}

#[test]
fn tcp_with_and_without_options() {
    let syn = read(&ipv4(6, 0x4000, 0, &tcp(SYN, 10, 0)));
    ports(syn);
    assert_eq!((syn.protocol(), syn.flags(), syn.payload_offset()), (6, SYN, 60));
    assert_eq!((syn.options(), syn.routed(), syn.fragment()), (false, false, Fragment::Whole));

    let data = read(&ipv6(6, &tcp(PSH_ACK, 5, 7)));
    ports(data);
    assert_eq!((data.protocol(), data.flags(), data.payload_offset()), (6, PSH_ACK, 60));
    assert_eq!((data.options(), data.routed(), data.fragment()), (false, false, Fragment::Whole));
}

#[test]
fn a_tcp_header_that_contradicts_itself_is_malformed() {
    for words in 0..5 {
        assert!(is_malformed(&ipv4(6, 0, 0, &tcp(SYN, words, 40))), "{words} words");
    }
    // 24 bytes of TCP header announced, 20 there.
    let mut short = ipv4(6, 0, 0, &tcp(SYN, 5, 0));
    short[32] = 6 << 4;
    assert!(is_malformed(&short));
    assert!(is_malformed(&ipv4(6, 0, 0, &tcp(SYN, 5, 0)[..19])));
}

#[test]
fn protocols_with_ports_and_without() {
    for (protocol, payload) in [(17, 28), (136, 28), (132, 20), (33, 20)] {
        let packet = read(&ipv4(protocol, 0, 0, &udp(12)));
        ports(packet);
        assert_eq!((packet.protocol(), packet.flags(), packet.payload_offset()), (protocol, 0, payload));
        let packet = read(&ipv6(protocol, &udp(12)));
        ports(packet);
        assert_eq!((packet.protocol(), packet.flags(), packet.payload_offset()), (protocol, 0, payload + 20));
    }
    // GRE, IPv6 in IPv4, ESP, and AH of IPv4.
    for protocol in [47, 41, 50, 51] {
        let packet = read(&ipv4(protocol, 0, 0, &udp(12)));
        no_ports(packet);
        assert_eq!((packet.protocol(), packet.payload_offset()), (protocol, 20));
    }
    // ESP, nothing, mobility.
    for protocol in [50, 59, 135] {
        let packet = read(&ipv6(protocol, &udp(12)));
        no_ports(packet);
        assert_eq!((packet.protocol(), packet.payload_offset()), (protocol, 40));
    }
    for (protocol, header) in [(17, 8), (136, 8), (132, 12), (33, 12), (1, 8), (58, 8)] {
        assert!(!is_malformed(&ipv4(protocol, 0, 0, &udp(12)[..header])), "{protocol}");
        assert!(is_malformed(&ipv4(protocol, 0, 0, &udp(12)[..header - 1])), "{protocol}");
        assert!(is_malformed(&ipv6(protocol, &udp(12)[..header - 1])), "{protocol}");
    }
    no_ports(read(&ipv4(47, 0, 0, &[])));
}

#[test]
fn a_message_of_icmp_has_its_type_for_ports_and_an_answer_that_of_its_question() {
    let message = |kind| [kind, 0, 0xab, 0xcd, 0, 1, 0, 2, 0x5a];
    for (protocol, kind, stands) in [
        (1, 8, 8),
        (1, 0, 8),
        (1, 3, 3),
        (1, 13, 13),
        (1, 14, 13),
        (1, 15, 15),
        (1, 16, 15),
        (1, 17, 17),
        (1, 18, 17),
        (1, 42, 42),
        (1, 43, 42),
        (1, 129, 129),
        (58, 0, 0),
        (58, 128, 128),
        (58, 129, 128),
        (58, 136, 136),
        (58, 139, 139),
        (58, 140, 139),
        (58, 161, 160),
    ] {
        for packet in [ipv4(protocol, 0, 0, &message(kind)), ipv6(protocol, &message(kind))] {
            let packet = read(&packet);
            assert_eq!(
                (packet.source_port(), packet.destination_port()),
                (stands, stands),
                "{protocol} {kind}"
            );
            assert_eq!(packet.protocol(), protocol);
        }
    }
    no_ports(read(&ipv4(1, 3, 0, &message(8))));
}

#[test]
fn options_of_ipv4() {
    for words in 1..=10 {
        let packet = read(&ipv4(17, 0, words, &udp(0)));
        ports(packet);
        assert!(packet.options());
        assert_eq!(packet.payload_offset(), 28 + u32::from(words) * 4);
    }
    let mut packet = ipv4(1, 0, 0, &[0; 8]);
    packet[0] = 0x44;
    assert!(is_malformed(&packet), "shorter than its fixed part");
    packet[0] = 0x48;
    assert!(is_malformed(&packet), "longer than the packet");
}

#[test]
fn fragments_of_ipv4() {
    let first = read(&ipv4(17, 0x2000, 0, &udp(8)));
    ports(first);
    assert_eq!(first.fragment(), Fragment::First);
    for fragment in [0x2001, 0x0001, 0x1fff, 0x4100] {
        let later = read(&ipv4(17, fragment, 0, &udp(8)));
        no_ports(later);
        assert_eq!((later.fragment(), later.protocol(), later.payload_offset()), (Fragment::Later, 17, 20));
    }
    // Too short for a header, and needs none.
    assert_eq!(read(&ipv4(6, 0x0001, 0, &[0])).fragment(), Fragment::Later);
    assert!(
        is_malformed(&ipv4(6, 0x2000, 0, &tcp(SYN, 10, 0)[..24])),
        "a header that ends in the next fragment"
    );
    // The reserved bit and "do not fragment" say nothing.
    assert_eq!(read(&ipv4(17, 0xc000, 0, &udp(8))).fragment(), Fragment::Whole);
}

#[test]
fn extension_headers() {
    let hop = read(&ipv6(0, &[extension(17), udp(3)].concat()));
    ports(hop);
    assert_eq!((hop.options(), hop.routed(), hop.payload_offset()), (true, false, 56));

    let destination = read(&ipv6(60, &[extension(6), tcp(SYN, 5, 0)].concat()));
    ports(destination);
    assert_eq!((destination.options(), destination.flags(), destination.payload_offset()), (true, SYN, 68));

    let routed = read(&ipv6(43, &[extension(17), udp(3)].concat()));
    ports(routed);
    assert_eq!((routed.options(), routed.routed(), routed.payload_offset()), (false, true, 56));

    // AH counts in words of four bytes, and two of them do not count.
    let header = [vec![17, 4, 0, 0], vec![7; 20]].concat();
    let authenticated = read(&ipv6(51, &[header, udp(3)].concat()));
    ports(authenticated);
    assert_eq!((authenticated.options(), authenticated.payload_offset()), (false, 72));

    // 16 bytes: one unit of eight beyond the first.
    let longer = [vec![17, 1, 1, 12], vec![0; 12]].concat();
    assert_eq!(read(&ipv6(60, &[longer, udp(3)].concat())).payload_offset(), 64);

    let esp = read(&ipv6(60, &[extension(50), udp(3)].concat()));
    no_ports(esp);
    assert_eq!((esp.protocol(), esp.payload_offset()), (50, 48));
    let nothing = read(&ipv6(0, &extension(59)));
    assert_eq!((nothing.protocol(), nothing.payload_offset(), nothing.length()), (59, 48, 48));
}

#[test]
fn extension_headers_that_are_malformed() {
    assert!(is_malformed(&ipv6(60, &[extension(0), extension(17), udp(3)].concat())), "hop-by-hop not first");
    assert!(
        is_malformed(&ipv6(51, &[vec![17, 0, 0, 0, 0, 0, 0, 0], udp(3)].concat())),
        "AH without its fixed part"
    );
    assert!(is_malformed(&ipv6(60, &[vec![17, 200, 0, 0, 0, 0, 0, 0], udp(3)].concat())), "beyond the end");
    assert!(
        is_malformed(&ipv6(60, &[vec![59, 1, 0, 0, 0, 0, 0, 0]].concat())),
        "beyond the end, nothing follows"
    );
    assert!(is_malformed(&ipv6(60, &[17, 0])));
    assert!(is_malformed(&ipv6(44, &[17, 0, 0, 8])), "half a fragment header");
}

#[test]
fn a_bounded_number_of_extension_headers() {
    let chain = |headers: usize| {
        let mut payload = vec![];
        for left in (0..headers).rev() {
            payload.extend(extension(if left == 0 { 17 } else { 60 }));
        }
        payload.extend(udp(3));
        ipv6(60, &payload)
    };
    for headers in 1..=6 {
        let packet = read(&chain(headers));
        ports(packet);
        assert_eq!(packet.payload_offset() as usize, 48 + headers * 8);
    }
    assert!(is_malformed(&chain(7)));
    assert!(is_malformed(&chain(12)));
}

#[test]
fn fragments_of_ipv6() {
    let first = read(&ipv6(44, &[fragment(17, 1), udp(8)].concat()));
    ports(first);
    assert_eq!((first.fragment(), first.payload_offset()), (Fragment::First, 56));
    let atomic = read(&ipv6(44, &[fragment(17, 0), udp(8)].concat()));
    ports(atomic);
    assert_eq!(atomic.fragment(), Fragment::Whole);
    // The two reserved bits say nothing.
    assert_eq!(read(&ipv6(44, &[fragment(17, 6), udp(8)].concat())).fragment(), Fragment::Whole);
    for at in [8, 9, 0xfff8, 0xffff] {
        let later = read(&ipv6(44, &[fragment(17, at), udp(8)].concat()));
        no_ports(later);
        assert_eq!((later.fragment(), later.protocol(), later.payload_offset()), (Fragment::Later, 17, 48));
    }
    // What follows a later fragment's header is the middle of something, even if it is called a header.
    let later = read(&ipv6(44, &[fragment(60, 8), vec![0xff; 4]].concat()));
    assert_eq!((later.fragment(), later.protocol(), later.payload_offset()), (Fragment::Later, 60, 48));
    let both = read(&ipv6(60, &[extension(43), extension(44), fragment(6, 1), tcp(SYN, 5, 0)].concat()));
    ports(both);
    assert_eq!((both.options(), both.routed(), both.fragment()), (true, true, Fragment::First));
    assert!(is_malformed(&ipv6(44, &[fragment(6, 1), tcp(SYN, 5, 0)[..12].to_vec()].concat())));
}

#[test]
fn a_length_that_is_not_true_is_malformed() {
    for packet in
        [ipv4(17, 0, 0, &udp(8)), ipv6(17, &udp(8)), ipv6(60, &[extension(6), tcp(SYN, 7, 3)].concat())]
    {
        for length in 1..packet.len() {
            assert!(is_malformed(&packet[..length]), "{length} bytes of {}", packet.len());
        }
        let padded = [packet.clone(), vec![0; 6]].concat();
        let family = if packet[0] >> 4 == 4 { Family::V4 } else { Family::V6 };
        let padded = parse(padded.as_slice(), family).expect("what follows a packet is not part of it");
        assert_eq!(padded, read(&packet));
    }
    for family in [Family::V4, Family::V6] {
        assert_eq!(parse(&[][..], family), None);
    }
    // The UDP header is there and beyond the end that the IP header names.
    let mut lying = ipv4(17, 0, 0, &udp(8));
    lying[3] = 27;
    assert!(is_malformed(&lying));
    lying[3] = 28;
    assert!(!is_malformed(&lying));
    lying[3] = 0;
    assert!(is_malformed(&lying));
    let mut lying = ipv6(17, &udp(8));
    lying[5] = 7;
    assert!(is_malformed(&lying));
    lying[5] = 0;
    assert!(is_malformed(&lying));
}

#[test]
fn the_version_is_that_of_the_carrier() {
    let (v4, v6) = (ipv4(17, 0, 0, &udp(40)), ipv6(17, &udp(40)));
    assert_eq!(parse(v4.as_slice(), Family::V6), None);
    assert_eq!(parse(v6.as_slice(), Family::V4), None);
    for version in [0, 1, 2, 3, 5, 7, 8, 15] {
        for (packet, family) in [(&v4, Family::V4), (&v6, Family::V6)] {
            let mut packet = packet.clone();
            packet[0] = (packet[0] & 0xf) | (version << 4);
            assert_eq!(parse(packet.as_slice(), family), None);
        }
    }
}

#[test]
fn a_mapped_address_on_the_wire_is_malformed() {
    for at in [8, 24] {
        let mut packet = ipv6(17, &udp(8));
        packet[at..at + 16].copy_from_slice(&Address::v4(0xc000_0201).bytes());
        assert!(is_malformed(&packet));
        packet[at + 10] = 0xfe;
        assert!(!is_malformed(&packet));
    }
}

#[test]
fn longer_than_the_length_field() {
    let long = tcp(PSH_ACK, 5, 70_000);
    let packet = read(&ipv4(6, 0, 0, &long));
    ports(packet);
    assert_eq!(packet.payload_offset(), 40);
    assert!(is_malformed(&ipv4(17, 0, 0, &long)), "no protocol but TCP is so long");

    // With the header that many kernels add, and without it.
    let jumbo = vec![6, 0, 0xc2, 4, 0, 1, 0x11, 0x70];
    for (next, payload, offset) in [(0, [jumbo.clone(), long.clone()].concat(), 68), (6, long.clone(), 60)] {
        let packet = read(&ipv6(next, &payload));
        ports(packet);
        assert_eq!((packet.options(), packet.payload_offset()), (false, offset));
    }
    assert!(read(&ipv6(0, &[jumbo, tcp(SYN, 5, 0)].concat())).options(), "not needed for so short a packet");
    assert!(read(&ipv6(0, &[extension(6), long].concat())).options(), "another option");
}
