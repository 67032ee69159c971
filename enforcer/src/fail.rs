//! Points at which a test ends the process as a power cut would. Without the feature `fail-points`, which only the
//! suite asks for, a point is nothing at all.
//!
//! A point is armed by a file, so that a test can do it while the process runs: the file that `ENFORCER_FAIL_POINT` names
//! has one line `NAME` or `NAME COUNT`, and the process ends itself when it comes to that point so often since. `bindings COUNT` in its place narrows the map of bindings to so many, as far as the engine knows.

/// Ends the process here if a test has armed this point.
#[cfg(feature = "fail-points")]
macro_rules! fail_point {
    ($name:literal) => {{
        const { assert!($crate::fail::is_listed($name), "a point that is not in the list") };
        $crate::fail::here($name)
    }};
}

/// Nothing.
#[cfg(not(feature = "fail-points"))]
macro_rules! fail_point {
    ($name:literal) => {};
}

#[cfg(feature = "fail-points")]
pub use armed::{POINTS, VARIABLE, bindings, here, is_listed};

#[cfg(feature = "fail-points")]
mod armed {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    /// Names the file that arms a point.
    pub const VARIABLE: &str = "ENFORCER_FAIL_POINT";

    /// Every point: when it is passed, and its name.
    pub const POINTS: &[(When, &str)] = &[
        (When::Start, "state-opened"),
        (When::Start, "maps-made"),
        (When::Start, "programs-loaded"),
        (When::First, "version-written"),
        (When::First, "kinds-written"),
        (When::Start, "adopted"),
        (When::Start, "mode-set"),
        (When::First, "before-save"),
        (When::First, "file-unfinished"),
        (When::First, "file-renamed"),
        (When::First, "after-save"),
        (When::Start, "before-publish"),
        (When::Start, "table-filled"),
        (When::Start, "table-switched"),
        (When::Start, "epoch-raised"),
        (When::Start, "after-publish"),
        (When::First, "before-apply"),
        (When::First, "operation-applied"),
        (When::First, "after-apply"),
        (When::Start, "before-attach"),
        (When::First, "link-made"),
        (When::First, "link-pinned"),
        (When::First, "sockets-seeded"),
        (When::Restart, "program-replaced"),
        (When::Start, "after-attach"),
        (When::Push, "before-save"),
        (When::Push, "file-unfinished"),
        (When::Push, "file-renamed"),
        (When::Push, "after-save"),
        (When::Push, "before-publish"),
        (When::Push, "table-filled"),
        (When::Push, "table-switched"),
        (When::Push, "epoch-raised"),
        (When::Push, "after-publish"),
        (When::Push, "before-reply"),
        (When::Push, "after-reply"),
        (When::Stop, "stopping"),
        (When::Stop, "owner-ended"),
        (When::Stop, "parts-ended"),
    ];

    /// What an agent is at when it passes a point.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum When {
        /// A start, on a new host or not.
        Start,
        /// The first start on a host.
        First,
        /// A start that finds the pins of another one.
        Restart,
        /// A push.
        Push,
        /// The end that it was asked for.
        Stop,
    }

    /// Whether there is a point of this name.
    pub const fn is_listed(name: &str) -> bool {
        let mut at = 0;
        while at < POINTS.len() {
            if is_same(POINTS[at].1.as_bytes(), name.as_bytes()) {
                return true;
            }
            at += 1;
        }
        false
    }

    const fn is_same(one: &[u8], other: &[u8]) -> bool {
        if one.len() != other.len() {
            return false;
        }
        let mut at = 0;
        while at < one.len() {
            if one[at] != other[at] {
                return false;
            }
            at += 1;
        }
        true
    }

    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    /// How often each armed point was passed.
    static PASSED: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

    /// The number of bindings that a test leaves room for.
    pub fn bindings() -> Option<usize> {
        let text = std::fs::read_to_string(FILE.as_ref()?).ok()?;
        text.trim().strip_prefix("bindings ")?.parse().ok()
    }

    /// Ends the process if this point is armed and it is its turn.
    pub fn here(name: &str) {
        let Some(text) = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) else { return };
        let mut words = text.split_whitespace();
        if words.next() != Some(name) {
            return;
        }
        let turn = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(text.clone()).or_default();
        *count += 1;
        if *count == turn {
            // Not by `abort`, which would have time to write a core: SIGKILL is what a test can't prepare for.
            kill(Pid::this(), Signal::SIGKILL).ok();
        }
    }
}

#[cfg(feature = "fail-points")]
pub use armed::When;
