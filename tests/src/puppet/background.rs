//! What a puppet does on the side: serving, and hammering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::act::{errno, open_once};
use super::order::{Fd, Tally};

/// How much a server has taken.
#[derive(Debug)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Accepts connections and closes them, or receives datagrams, until the puppet ends.
pub(super) fn serve(fd: Fd, stream: bool) -> Counter {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Counter(Arc::clone(&count));
    std::thread::spawn(move || {
        loop {
            let taken = if stream { accept(fd) } else { receive(fd) };
            match taken {
                Ok(()) => _ = count.fetch_add(1, Ordering::SeqCst),
                // Nothing came for a while, or a connection was reset before it was taken.
                Err(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED) => {}
                Err(_) => return,
            }
        }
    });
    counter
}

/// Calls on everyone once a second.
pub(super) fn visit(to: Vec<Vec<u8>>, rounds: u64) {
    std::thread::spawn(move || {
        for _ in 0..rounds {
            for to in &to {
                // A refusal is as interesting to whoever watches.
                open_once(to).ok();
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

fn last_errno() -> i32 {
    errno(&std::io::Error::last_os_error())
}

fn accept(fd: Fd) -> Result<(), i32> {
    // SAFETY: null addresses mean that none is wanted.
    let taken = unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
    if taken < 0 {
        return Err(last_errno());
    }
    // SAFETY: a descriptor that was just made and that nothing else knows.
    unsafe { libc::close(taken) };
    Ok(())
}

fn receive(fd: Fd) -> Result<(), i32> {
    let mut buffer = [0_u8; 64];
    // SAFETY: pointer and length of one live buffer.
    let taken = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if taken < 0 { Err(last_errno()) } else { Ok(()) }
}

/// A thread that opens and closes connections.
#[derive(Debug)]
pub(super) struct Hammer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Hammer {
    pub(super) fn start(to: Vec<u8>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut tally = Tally::new();
            while !seen.load(Ordering::SeqCst) {
                let result = open_once(&to).map_or_else(|error| errno(&error), |_| 0);
                *tally.entry(result).or_default() += 1;
            }
            tally
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the hammer does not panic")
    }
}
