//! The clocks that the rest of the agent gets as values.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// What has to be added to a time since boot to get wall-clock time, in nanoseconds; 0 if a clock can't be read, which
/// Linux does not do.
pub(super) fn boot_to_wall() -> i64 {
    let nanoseconds = |clock| {
        let now = clock_gettime(clock).ok()?;
        now.tv_sec().checked_mul(1_000_000_000)?.checked_add(now.tv_nsec())
    };
    let offset = || Some(nanoseconds(ClockId::CLOCK_REALTIME)? - nanoseconds(ClockId::CLOCK_BOOTTIME)?);
    offset().unwrap_or(0)
}

/// Wall-clock time in seconds since 1970.
pub(super) fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
