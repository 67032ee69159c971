//! The own addresses of the daemon's network namespace, and which namespace that is.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use enforcer_common::abi::config::Setting;
use enforcer_common::limits;

use super::Kernel;
use super::error::Error;
use super::maps::{full_or, gone};

const MAP: &str = "OWN_ADDRESSES";
/// `SO_NETNS_COOKIE` (asm-generic/socket.h; the same on x86-64 and arm64).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Key and value are the canonical bytes of an address: the reader compares them, because a hash that changes in place
/// can return another key's value.
type Own<'a> = HashMap<&'a mut MapData, [u8; 16], [u8; 16]>;

impl Kernel {
    /// Tells the programs in which network namespace the own addresses are: that of the calling thread.
    pub fn set_own_namespace(&mut self) -> Result<(), Error> {
        let cookie = namespace_cookie().map_err(|source| Error::Io {
            operation: "tell the network namespace of",
            path: "/proc/self".into(),
            source,
        })?;
        self.set(Setting::OwnNetns, cookie)
    }
}

fn open(ebpf: &mut Ebpf) -> Result<Own<'_>, Error> {
    let map = ebpf.map_mut(MAP).ok_or(Error::MissingMap(MAP))?;
    Own::try_from(map).map_err(Error::map("open", MAP))
}

pub(super) fn set(ebpf: &mut Ebpf, address: IpAddr) -> Result<(), Error> {
    let bytes = canonical(address);
    open(ebpf)?.insert(bytes, bytes, 0).map_err(full_or(MAP, limits::OWN_ADDRESSES))
}

pub(super) fn remove(ebpf: &mut Ebpf, address: IpAddr) -> Result<(), Error> {
    gone(open(ebpf)?.remove(&canonical(address)), MAP)
}

/// All that the kernel has.
pub(super) fn all(ebpf: &mut Ebpf) -> Result<BTreeSet<IpAddr>, Error> {
    let keys: Result<Vec<[u8; 16]>, _> = open(ebpf)?.keys().collect();
    let keys = keys.map_err(Error::map("read", MAP))?;
    Ok(keys.into_iter().map(|bytes| Ipv6Addr::from(bytes).to_canonical()).collect())
}

/// The cookie of the calling thread's network namespace, as the kernel programs know it.
fn namespace_cookie() -> io::Result<u64> {
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut size = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: an open socket, and room for as many bytes as `size` says; both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

fn canonical(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Ipv6Addr::from(canonical(address)).to_canonical(), address);
        }
    }

    #[test]
    fn a_namespace_has_one_cookie() {
        let cookie = namespace_cookie().unwrap();
        assert_ne!(cookie, 0);
        assert_eq!(namespace_cookie().unwrap(), cookie);
    }
}
