//! Packets made by hand.

use std::net::IpAddr;

use super::super::{Family, v4, v6};

/// An IP packet.
pub fn ip(family: Family, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let size = |size: usize| u16::try_from(size).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = Vec::new();
    match family {
        Family::V4 => {
            bytes.extend([0x45, 0]);
            bytes.extend(size(20 + payload.len()));
            bytes.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
            bytes.extend(v4(from).octets());
            bytes.extend(v4(to).octets());
            let sum = checksum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Family::V6 => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(size(payload.len()));
            bytes.extend([protocol, 64]);
            bytes.extend(v6(from).octets());
            bytes.extend(v6(to).octets());
        }
    }
    bytes.extend(payload);
    bytes
}

/// A UDP header without a checksum, and what it heads.
pub fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let head = [7777_u16, port, size, 0];
    let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.extend(payload);
    bytes
}

/// A segment that opens a TCP connection.
pub fn syn(port: u16) -> Vec<u8> {
    let mut bytes = [7777_u16, port].map(u16::to_be_bytes).concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// A packet that opens a TCP connection, right in every sum.
pub fn opening(family: Family, from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let mut segment = [from.1, to.1].map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    // The same words in both families: addresses, protocol, length.
    let summed = [octets(from.0), octets(to.0), vec![0, 6, 0, 20], segment.clone()].concat();
    let sum = checksum(&summed);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(family, from.0, to.0, 6, &segment)
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_sums_up_to_nothing() {
        let packet = ip(Family::V4, Family::V4.own(), Family::V4.allowed(), 17, &[]);
        assert_eq!(checksum(&packet), 0);
    }
}
