//! The clocks that the rest of the agent gets as values.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::domain::time::{BootTime, Clocks};
use crate::domain::timestamp::Timestamp;

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

/// What the clocks say, `up` being the time since the agent was started. A clock that can't be read, which Linux does not
/// have, stands at 0.
pub(super) fn clocks(up: Duration) -> Clocks {
    let read = |clock| clock_gettime(clock).map(|now| (now.tv_sec(), now.tv_nsec())).unwrap_or_default();
    let (seconds, nanoseconds) = read(ClockId::CLOCK_BOOTTIME);
    let boot = u64::try_from(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)).unwrap_or(0);
    let (seconds, nanoseconds) = read(ClockId::CLOCK_REALTIME);
    let wall = Timestamp { seconds, nanos: u32::try_from(nanoseconds).unwrap_or(0) };
    Clocks { up, boot: BootTime(boot), wall }
}
