//! Waiting: on conditions, with a deadline, longer where the machine is emulated.

use std::time::{Duration, Instant};

/// How much slower than a real processor an emulated one counts.
const EMULATED: u32 = 10;
/// How much longer than on a machine that does nothing else something may take that is waited for. Only what never comes takes
/// so long, and a machine with other work is no reason to fail. An emulated one is given its time already.
const BUSY: u32 = 4;
const BUSY_EMULATED: u32 = 2;
/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(2);

/// Whether this is one of the emulated machines that `cargo xtask vm` starts, by the name their init gives them.
pub fn is_emulated() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/hostname").is_ok_and(|name| name.trim() == "testvm")
}

/// How much longer everything may take here.
pub fn slowness() -> u32 {
    if is_emulated() { EMULATED } else { 1 }
}

/// This many seconds, or what they come to on this machine.
pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count) * slowness()
}

/// This many repetitions, or a part of them where each takes longer.
pub fn scaled(count: u64, emulated: u64) -> u64 {
    if is_emulated() { emulated } else { count }
}

/// Waits until `look` finds something; panics with `what` was waited for when that takes too long, on a busy machine too.
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    in_time(what, limit * if is_emulated() { BUSY_EMULATED } else { BUSY }, look)
}

/// The same where the limit is what is promised.
pub fn in_time<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", limit.as_secs());
        std::thread::sleep(STEP);
    }
}

/// Waits until `look` says yes.
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || look().then_some(()));
}
