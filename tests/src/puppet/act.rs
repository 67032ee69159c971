//! The puppet's side: from orders to system calls.

use std::collections::HashMap;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::background::{Counter, Hammer, serve, visit};
use super::order::{Answer, Fd, Order, Tally};
use super::probe;
use crate::bypass::ring::{self, By};
use crate::bypass::vectors;
use crate::patience;

/// Seconds after which a blocking call on a puppet's socket gives up.
const LIMIT: u64 = 5;

/// What a puppet has besides its descriptors.
#[derive(Debug, Default)]
pub(super) struct State {
    servers: HashMap<Fd, Counter>,
    hammer: Option<Hammer>,
    held: Vec<Fd>,
    /// How long to go on without orders.
    pub(super) stay: Duration,
}

impl State {
    pub(super) fn obey(&mut self, order: Order) -> Answer {
        match order {
            Order::Socket { domain, kind, protocol } => timed(|| socket(domain, kind, protocol)),
            Order::Bind { fd, to } => timed(|| bind(fd, &to)),
            // SAFETY: no pointers.
            Order::Listen { fd } => timed(|| check(unsafe { libc::listen(fd, 4096) })),
            Order::Accept { fd } => timed(|| accept(fd)),
            Order::Receive { fd } => timed(|| receive(fd, 0)),
            Order::Hold { count, to } => timed(|| {
                self.hold(count, || {
                    let fd = socket(family(&to), libc::SOCK_STREAM, 0)?;
                    connect(Fd::try_from(fd).unwrap(), &to).map(|_| fd)
                })
            }),
            Order::Keep { count, fd } => timed(|| self.hold(count, || accept(fd))),
            Order::Lost => Answer { tally: self.lost(), ..Answer::default() },
            Order::Connect { fd, to } => timed(|| connect(fd, &to)),
            Order::Send { fd, to, data, flags, control } => {
                timed(|| Message::new(to, data, control).send(fd, flags))
            }
            Order::SendMany { fd, to } => timed(|| send_many(fd, to)),
            Order::SetOption { fd, level, name, value } => timed(|| set_option(fd, level, name, &value)),
            Order::Name { fd } => name(fd),
            // SAFETY: no pointers; the descriptor is the puppet's to close.
            Order::Close { fd } => timed(|| check(unsafe { libc::close(fd) })),
            Order::Mailbox { path } => timed(|| mailbox(&path)),
            Order::Give { path, fd } => timed(|| give(&path, fd)),
            Order::Take { fd } => timed(|| take(fd)),
            Order::Enter { cgroup } => timed(|| std::fs::write(cgroup.join("cgroup.procs"), "0").map(|()| 0)),
            Order::Serve { fd, stream } => {
                self.servers.insert(fd, serve(fd, stream));
                Answer::default()
            }
            Order::Served { fd } => {
                let count = self.servers.get(&fd).map_or(0, Counter::get);
                Answer { value: i64::try_from(count).unwrap(), ..Answer::default() }
            }
            Order::Repeat { count, stream, to } => {
                let tally = if stream { open_many(count, &to) } else { send_often(count, &to) };
                Answer { tally, ..Answer::default() }
            }
            Order::Hammer { to } => {
                self.hammer = Some(Hammer::start(to));
                Answer::default()
            }
            Order::Rest => {
                let tally = self.hammer.take().map(Hammer::stop).unwrap_or_default();
                Answer { tally, ..Answer::default() }
            }
            Order::Visit { to, rounds } => {
                visit(to, rounds);
                Answer::default()
            }
            Order::Stay { seconds } => {
                self.stay = Duration::from_secs(seconds);
                Answer::default()
            }
            Order::Demote => timed(demote),
            Order::Attempt { vector, family } => {
                timed(|| vectors::run(&vector, family).map(|got| i64::try_from(got).unwrap()))
            }
            Order::Probe { probes } => probe::probe(&probes),
            Order::Drain { sockets } => probe::drain(&sockets),
            Order::RingConnect { fd, to } => timed(|| ring::connect(By::Caller, fd, &to).map(|()| 0)),
        }
    }
}

impl State {
    /// Makes sockets and keeps them.
    fn hold(&mut self, count: u64, mut make: impl FnMut() -> io::Result<i64>) -> io::Result<i64> {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        for _ in 0..count {
            let fd = make()?;
            self.held.push(Fd::try_from(fd).unwrap());
        }
        Ok(i64::try_from(self.held.len()).unwrap())
    }

    /// What became of the sockets that are kept; those that live are left out.
    fn lost(&self) -> Tally {
        let mut tally = Tally::new();
        for fd in &self.held {
            match receive(*fd, libc::MSG_DONTWAIT | libc::MSG_PEEK) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    *tally.entry(result.map_or_else(|error| errno(&error), |_| 0)).or_default() += 1;
                }
            }
        }
        tally
    }
}

fn timed(call: impl FnOnce() -> io::Result<i64>) -> Answer {
    let start = Instant::now();
    let result = call();
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    match result {
        Ok(value) => Answer { value, micros, ..Answer::default() },
        Err(error) => Answer { errno: errno(&error), micros, ..Answer::default() },
    }
}

/// The errno of an error; -1 for one that has none.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

pub(super) fn check(result: libc::c_int) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.into()) }
}

fn check_size(result: isize) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i64::try_from(result).unwrap()) }
}

fn length(bytes: &[u8]) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes.len()).expect("addresses are short")
}

pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<i64> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    let fd = Fd::try_from(fd).expect("descriptors are small");
    let limit = libc::timeval {
        tv_sec: libc::time_t::try_from(patience::seconds(LIMIT).as_secs()).expect("seconds are few"),
        tv_usec: 0,
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &limit)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &limit)?;
    // A raw socket has a protocol in the place of a port, and is too late for this.
    if domain == libc::AF_INET6 && kind != libc::SOCK_RAW {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0_i32)?;
    }
    Ok(fd.into())
}

pub(super) fn bind(fd: Fd, to: &[u8]) -> io::Result<i64> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)?;
    // SAFETY: pointer and length of one live slice.
    check(unsafe { libc::bind(fd, to.as_ptr().cast(), length(to)) })
}

pub(super) fn connect(fd: Fd, to: &[u8]) -> io::Result<i64> {
    // SAFETY: pointer and length of one live slice.
    check(unsafe { libc::connect(fd, to.as_ptr().cast(), length(to)) })
}

fn accept(fd: Fd) -> io::Result<i64> {
    // SAFETY: null addresses mean that none is wanted.
    check(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) })
}

fn receive(fd: Fd, flags: i32) -> io::Result<i64> {
    let mut buffer = [0_u8; 64];
    // SAFETY: pointer and length of one live buffer.
    check_size(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// One datagram.
pub(super) fn send(fd: Fd, to: Option<Vec<u8>>, data: Vec<u8>) -> io::Result<i64> {
    Message::new(to, data, Vec::new()).send(fd, 0)
}

pub(super) fn set_option<T>(fd: Fd, level: i32, name: i32, value: &T) -> io::Result<i64> {
    let size = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: pointer and size of one live value.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size) })
}

fn name(fd: Fd) -> Answer {
    let mut data = vec![0_u8; size_of::<libc::sockaddr_storage>()];
    let mut size = length(&data);
    // SAFETY: the buffer is as large as `size` says, and both live until the call returns.
    let result = check(unsafe { libc::getsockname(fd, data.as_mut_ptr().cast(), &raw mut size) });
    data.truncate(size as usize);
    match result {
        Ok(value) => Answer { value, data, ..Answer::default() },
        Err(error) => Answer { errno: errno(&error), ..Answer::default() },
    }
}

/// One message with everything its header points to.
struct Message {
    to: Option<Vec<u8>>,
    control: Vec<u8>,
    part: libc::iovec,
    /// Owns what `part` points to.
    _data: Vec<u8>,
}

impl Message {
    fn new(to: Option<Vec<u8>>, mut data: Vec<u8>, control: Vec<u8>) -> Self {
        let part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        Self { to, control, part, _data: data }
    }

    fn send(mut self, fd: Fd, flags: i32) -> io::Result<i64> {
        // SAFETY: the header points into `self`, which outlives the call.
        check_size(unsafe { libc::sendmsg(fd, &self.header(), flags) })
    }

    fn header(&mut self) -> libc::msghdr {
        // SAFETY: all zeros is a valid, empty header.
        let mut header: libc::msghdr = unsafe { zeroed() };
        if let Some(to) = &mut self.to {
            header.msg_name = to.as_mut_ptr().cast();
            header.msg_namelen = length(to);
        }
        if !self.control.is_empty() {
            header.msg_control = self.control.as_mut_ptr().cast();
            header.msg_controllen = self.control.len() as _;
        }
        header.msg_iov = &raw mut self.part;
        header.msg_iovlen = 1;
        header
    }
}

fn send_many(fd: Fd, to: Vec<Vec<u8>>) -> io::Result<i64> {
    let mut messages: Vec<Message> =
        to.into_iter().map(|to| Message::new(Some(to), vec![1], Vec::new())).collect();
    let mut headers: Vec<libc::mmsghdr> =
        messages.iter_mut().map(|message| libc::mmsghdr { msg_hdr: message.header(), msg_len: 0 }).collect();
    let count = u32::try_from(headers.len()).expect("messages are few");
    // SAFETY: as many headers as `count` says, each pointing into a message that outlives the call.
    check(unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count, 0) })
}

/// The user nobody, without a capability or a group.
fn demote() -> io::Result<i64> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    Ok(0)
}

fn mailbox(path: &Path) -> io::Result<i64> {
    let socket = std::os::unix::net::UnixDatagram::bind(path)?;
    socket.set_read_timeout(Some(patience::seconds(LIMIT)))?;
    Ok(socket.into_raw_fd().into())
}

fn give(path: &Path, fd: Fd) -> io::Result<i64> {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let to = UnixAddr::new(path)?;
    let part = [io::IoSlice::new(b"x")];
    let rights = [ControlMessage::ScmRights(&[fd])];
    let sent = sendmsg(socket.as_raw_fd(), &part, &rights, MsgFlags::empty(), Some(&to))?;
    Ok(i64::try_from(sent).unwrap())
}

fn take(fd: Fd) -> io::Result<i64> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
    let mut byte = [0_u8; 1];
    let mut part = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([Fd; 1]);
    let message = recvmsg::<UnixAddr>(fd, &mut part, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut taken = message.cmsgs()?.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    taken.next().map(i64::from).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

/// A connection that leaves nothing behind: closed by a reset, so that no port waits.
pub(crate) fn open_once(to: &[u8]) -> io::Result<i64> {
    let fd = socket(family(to), libc::SOCK_STREAM, 0)?;
    // SAFETY: a new descriptor that nothing else owns; dropping it closes the socket.
    let socket = unsafe { std::os::fd::OwnedFd::from_raw_fd(Fd::try_from(fd).unwrap()) };
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
    connect(socket.as_raw_fd(), to)
}

fn open_many(count: u64, to: &[u8]) -> Tally {
    let mut tally = Tally::new();
    for _ in 0..count {
        *tally.entry(open_once(to).map_or_else(|error| errno(&error), |_| 0)).or_default() += 1;
    }
    tally
}

fn send_often(count: u64, to: &[u8]) -> Tally {
    let mut tally = Tally::new();
    let fd = socket(family(to), libc::SOCK_DGRAM, 0).expect("a datagram socket");
    let fd = Fd::try_from(fd).unwrap();
    for _ in 0..count {
        let mut message = Message::new(Some(to.to_vec()), vec![1], Vec::new());
        // SAFETY: the header points into `message`, which outlives the call.
        let sent = check_size(unsafe { libc::sendmsg(fd, &message.header(), 0) });
        *tally.entry(sent.map_or_else(|error| errno(&error), |_| 0)).or_default() += 1;
    }
    // SAFETY: the descriptor made above, closed once.
    unsafe { libc::close(fd) };
    tally
}

pub(super) fn family(to: &[u8]) -> i32 {
    i32::from(u16::from_ne_bytes([to[0], to[1]]))
}
