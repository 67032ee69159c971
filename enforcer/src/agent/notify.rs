//! Tells the service manager how we are (the protocol of `sd_notify(3)`: datagrams of `NAME=value` lines).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if there is one that wants to know.
#[derive(Debug)]
pub(super) struct Notifier {
    address: Option<OsString>,
    ready: bool,
}

impl Notifier {
    /// The one that the environment names.
    pub(super) fn from_environment() -> Self {
        Self::new(std::env::var_os("NOTIFY_SOCKET"))
    }

    pub(super) fn new(address: Option<OsString>) -> Self {
        Self { address: address.filter(|address| !address.is_empty()), ready: false }
    }

    /// Passes on the readiness. "Ready" is said once; what comes later is told in words.
    pub(super) fn readiness(&mut self, ready: bool, reason: &str) {
        let first = ready && !self.ready;
        self.ready |= ready;
        let reason = reason.replace('\n', " ");
        self.send(&format!("{}STATUS={reason}", if first { "READY=1\n" } else { "" }));
    }

    /// Says that the end has begun.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        let Some(address) = &self.address else { return };
        if let Err(error) = send(address, message) {
            tracing::warn!("tell the service manager at {}: {error}", address.display());
        }
    }
}

fn send(address: &OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}
