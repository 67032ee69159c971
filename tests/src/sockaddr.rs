//! Socket addresses as the bytes that a system call takes, wrong ones included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address in the form of its family.
pub fn of(address: SocketAddr) -> Vec<u8> {
    match address.ip() {
        IpAddr::V4(ip) => inet(libc::AF_INET, ip, address.port()),
        IpAddr::V6(ip) => inet6(ip, address.port()),
    }
}

/// An IPv4 address under any family number: the kernel accepts `AF_UNSPEC` in places.
pub fn inet(family: i32, ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut bytes = family_and_port(family, port);
    bytes.extend(ip.octets());
    bytes.extend([0; 8]);
    bytes
}

/// An IPv6 address.
pub fn inet6(ip: Ipv6Addr, port: u16) -> Vec<u8> {
    let mut bytes = family_and_port(libc::AF_INET6, port);
    bytes.extend([0; 4]);
    bytes.extend(ip.octets());
    bytes.extend([0; 4]);
    bytes
}

/// What dissolves a connection: `connect(AF_UNSPEC)`.
pub fn unspecified() -> Vec<u8> {
    inet(libc::AF_UNSPEC, Ipv4Addr::UNSPECIFIED, 0)
}

/// The port in an address of either family.
pub fn port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[2], bytes[3]])
}

fn family_and_port(family: i32, port: u16) -> Vec<u8> {
    let family = u16::try_from(family).expect("families are small numbers");
    [family.to_ne_bytes(), port.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        let four: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let six: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(of(four).len(), size_of::<libc::sockaddr_in>());
        assert_eq!(of(six).len(), size_of::<libc::sockaddr_in6>());
        assert_eq!((port(&of(four)), port(&of(six))), (80, 80));
    }
}
