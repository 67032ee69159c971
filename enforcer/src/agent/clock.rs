//! The clocks that the rest of the agent gets as values.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::domain::time::{BootTime, Clocks};
use crate::domain::timestamp::Timestamp;

/// Two readings of a clock that are no further apart, in nanoseconds, were not interrupted.
const AT_ONCE: i64 = 20_000;
/// How often it is tried to be not interrupted; then the best reading counts.
const TRIES: u32 = 10;

/// Time since boot and wall-clock time of one moment, in nanoseconds. Whoever is interrupted between two clocks takes them for
/// the same moment, and is wrong by milliseconds.
fn both() -> Option<(i64, i64)> {
    let nanoseconds = |clock| {
        let now = clock_gettime(clock).ok()?;
        now.tv_sec().checked_mul(1_000_000_000)?.checked_add(now.tv_nsec())
    };
    let mut best: Option<(i64, (i64, i64))> = None;
    for _ in 0..TRIES {
        let before = nanoseconds(ClockId::CLOCK_BOOTTIME)?;
        let wall = nanoseconds(ClockId::CLOCK_REALTIME)?;
        let apart = nanoseconds(ClockId::CLOCK_BOOTTIME)? - before;
        if best.is_none_or(|(least, _)| apart < least) {
            best = Some((apart, (before + apart / 2, wall)));
        }
        if apart <= AT_ONCE {
            break;
        }
    }
    best.map(|(_, both)| both)
}

/// What has to be added to a time since boot to get wall-clock time, in nanoseconds; 0 if a clock can't be read, which
/// Linux does not do.
pub(super) fn boot_to_wall() -> i64 {
    both().map_or(0, |(boot, wall)| wall - boot)
}

/// Wall-clock time in seconds since 1970.
pub(super) fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What the clocks say, `up` being the time since the agent was started. A clock that can't be read, which Linux does not
/// have, stands at 0.
pub(super) fn clocks(up: Duration) -> Clocks {
    let (boot, wall) = both().unwrap_or_default();
    let nanos = u32::try_from(wall.rem_euclid(1_000_000_000)).unwrap_or(0);
    let wall = Timestamp { seconds: wall.div_euclid(1_000_000_000), nanos };
    Clocks { up, boot: BootTime(u64::try_from(boot).unwrap_or(0)), wall }
}
