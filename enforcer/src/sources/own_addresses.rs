//! The host's own addresses: a peer that is reached by one of them is on this host, and is found by its socket.
//!
//! ```text
//!   NETLINK_ROUTE (an address came or went) --+
//!   every second -----------------------------+--> getifaddrs(3) --> the whole set, if it differs
//!   SIGHUP -----------------------------------+
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use nix::ifaddrs::getifaddrs;
use tokio::sync::{mpsc, watch};

/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR` (linux/rtnetlink.h).
const GROUPS: u32 = 0x10 | 0x100;
/// The set is looked at this often even if nothing is reported.
const PAUSE: Duration = Duration::from_secs(1);

/// What the source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnEvent {
    /// All own addresses of the daemon's network namespace. Without loopback addresses, which mean this host everywhere, and
    /// IPv6 link-local ones, which mean another host on each link.
    Addresses(BTreeSet<IpAddr>),
    /// They can't be read; the last set stays.
    Problem(String),
}

/// Tells the own addresses whenever they change, until nobody listens.
///
/// # Errors
/// None that ends it: what fails is told as a problem, and looking goes on.
pub async fn run(events: mpsc::Sender<OwnEvent>, mut demand: watch::Receiver<u64>) -> io::Result<()> {
    let mut reports = match listen() {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(
                "changes of own addresses are noticed within a second instead of at once: {error}"
            );
            None
        }
    };
    let mut told = None;
    loop {
        let now = match addresses() {
            Ok(addresses) => OwnEvent::Addresses(addresses),
            Err(error) => OwnEvent::Problem(format!("the host's own addresses can't be read: {error}")),
        };
        if told.as_ref() != Some(&now) {
            told = Some(now.clone());
            if events.send(now).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = reported(&mut reports) => {}
            changed = demand.changed() => if changed.is_err() { return Ok(()) },
            () = events.closed() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Hears of every address that comes or goes in this network namespace.
fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
    Ok(socket)
}

/// Waits for a report. What it says does not matter: the set is read anew in any case, also when reports were lost.
async fn reported(socket: &mut Option<TokioSocket>) {
    let Some(reports) = socket else { return std::future::pending().await };
    let mut buffer = Vec::with_capacity(8 << 10);
    match reports.recv(&mut buffer).await {
        Ok(()) => {}
        // Reports came faster than they were read.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {}
        Err(_) => *socket = None,
    }
}

/// All own addresses now.
fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    let all = getifaddrs()?.filter_map(|interface| interface.address);
    let all = all.filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(all.filter(is_own).collect())
}

fn is_own(address: &IpAddr) -> bool {
    let is_link_local = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !is_link_local(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_are_own() {
        for (address, expect) in [
            ("192.0.2.1", true),
            ("169.254.1.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("127.1.2.3", false),
            ("::1", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_own(&address.parse().unwrap()), expect, "{address}");
        }
    }

    #[tokio::test]
    async fn the_set_is_told_once_and_ends_with_its_listener() {
        let (sender, mut events) = mpsc::channel(4);
        let (_demand, demanded) = watch::channel(0);
        let source = tokio::spawn(run(sender, demanded));
        let first = events.recv().await.unwrap();
        let OwnEvent::Addresses(own) = first else { panic!("{first:?}") };
        assert!(own.iter().all(is_own));
        drop(events);
        source.await.unwrap().unwrap();
    }
}
