//! Moments of two clocks: of the wall, which people name and set, and of the time since boot, which the kernel programs
//! read and nobody can set. Both come in as values.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timestamp::Timestamp;

/// Nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;
/// Clocks that drift by less are left alone, nanoseconds.
const TOLERANCE: i128 = SECOND;

/// Nanoseconds since the host was started, time in suspension included (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(pub u64);

/// What the clocks said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Time since the agent was started.
    pub up: Duration,
    /// Time since the host was started.
    pub boot: BootTime,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Clocks {
    /// How far the two clocks are apart.
    pub fn offset(&self) -> Offset {
        Offset(total(self.wall) - i128::from(self.boot.0))
    }

    /// The moment so much later. `boot_id` names this run of the host.
    pub fn after(&self, duration: Duration, boot_id: &str) -> Deadline {
        let nanoseconds = i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 4);
        let boot = boot(i128::from(self.boot.0) + nanoseconds);
        Deadline { boot_id: boot_id.to_owned(), boot, wall: timestamp(total(self.wall) + nanoseconds) }
    }
}

/// What has to be added to a time since boot to get wall-clock time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(i128);

impl Offset {
    /// The time since boot at which the wall clock says this. What was before the start of the host is its start.
    pub fn boot(self, wall: Timestamp) -> BootTime {
        boot(total(wall) - self.0)
    }

    /// What the wall clock says then.
    pub fn wall(self, boot: BootTime) -> Timestamp {
        timestamp(i128::from(boot.0) + self.0)
    }

    /// This offset, or the other one if the clocks were set meanwhile: they always drift a little.
    #[must_use]
    pub fn unless_set(self, now: Self) -> Self {
        if (now.0 - self.0).abs() > TOLERANCE { now } else { self }
    }
}

/// A moment in the future that is kept across restarts: exact as long as the host runs, and by the wall clock after
/// that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The run of the host in which `boot` counts.
    pub boot_id: String,
    /// Since boot.
    pub boot: BootTime,
    /// By the wall clock.
    pub wall: Timestamp,
}

impl Deadline {
    /// The same deadline in the present run of the host.
    #[must_use]
    pub fn adopted(&self, boot_id: &str, offset: Offset) -> Self {
        if self.boot_id == boot_id {
            return self.clone();
        }
        Self { boot_id: boot_id.to_owned(), boot: offset.boot(self.wall), wall: self.wall }
    }
}

fn total(moment: Timestamp) -> i128 {
    i128::from(moment.seconds) * SECOND + i128::from(moment.nanos)
}

fn timestamp(total: i128) -> Timestamp {
    let seconds = i64::try_from(total.div_euclid(SECOND)).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: u32::try_from(total.rem_euclid(SECOND)).unwrap_or(0) }
}

fn boot(nanoseconds: i128) -> BootTime {
    // The greatest number means "never" to the kernel programs.
    BootTime(u64::try_from(nanoseconds.clamp(1, i128::from(u64::MAX) - 1)).unwrap_or(1))
}

/// Reads `90s`, `10m`, `2h` or `1d`: a whole number above zero and a unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = if plain { number.parse::<u32>().ok()? } else { return None };
    (number > 0).then(|| Duration::from_secs(u64::from(number) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks() -> Clocks {
        let wall = Timestamp { seconds: 1_000, nanos: 5 };
        Clocks { up: Duration::ZERO, boot: BootTime(10_000_000_000), wall }
    }

    #[test]
    fn the_two_clocks_are_translated_into_each_other() {
        let offset = clocks().offset();
        let later = Timestamp { seconds: 1_060, nanos: 5 };
        assert_eq!(offset.boot(later), BootTime(70_000_000_000));
        assert_eq!(offset.wall(BootTime(70_000_000_000)), later);
        assert_eq!(offset.boot(Timestamp::default()), BootTime(1), "before the start of the host");
        assert_eq!(offset.boot(Timestamp { seconds: i64::MAX, nanos: 0 }), BootTime(u64::MAX - 1));
    }

    #[test]
    fn a_deadline_is_exact_until_the_host_starts_anew() {
        let deadline = clocks().after(Duration::from_mins(1), "one");
        assert_eq!(deadline.boot, BootTime(70_000_000_000));
        let set = Clocks { wall: Timestamp { seconds: 9_000, nanos: 0 }, ..clocks() };
        assert_eq!(deadline.adopted("one", set.offset()), deadline, "whatever is done to the wall clock");
        let next =
            Clocks { boot: BootTime(2_000_000_000), wall: Timestamp { seconds: 1_050, nanos: 5 }, ..set };
        assert_eq!(deadline.adopted("two", next.offset()).boot, BootTime(12_000_000_000));
    }

    #[test]
    fn drift_is_not_a_set_clock() {
        let offset = clocks().offset();
        let moved = |nanos| Offset(offset.0 + nanos);
        assert_eq!(offset.unless_set(moved(TOLERANCE)), offset);
        assert_eq!(offset.unless_set(moved(-TOLERANCE - 1)), moved(-TOLERANCE - 1));
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "s", "10", "0s", "-1s", "+1s", "1.5h", "1w", "1 m", "99999999999s", "é"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
