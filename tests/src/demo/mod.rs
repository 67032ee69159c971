//! The demo: three workloads on one address, a daemon that dies, and numbers that add up.
//!
//! Everything it says it has just seen. A line that is not as told is marked and makes the demo fail; everything it
//! made is removed in any case, unless it is told to stay.

mod keep;
pub(crate) mod screen;
mod stage;
mod story;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use self::screen::Screen;
use self::stage::Stage;

/// Tells the story; with `keep` everything stays at the end, with a list of commands to try.
pub fn run(keep: bool) -> ExitCode {
    let start = Instant::now();
    let mut screen = Screen::standard();
    if let Some(missing) = missing() {
        screen.fault(&missing);
        return ExitCode::from(2);
    }
    // A panic unwinds through the stage, which removes itself.
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut stage = Stage::new();
        story::tell(&mut stage, &mut screen);
        if keep {
            keep::leave(stage, &mut screen);
        }
    }));
    if told.is_err() {
        screen.fault("the demo could not go on, see above; everything it made is removed");
        return ExitCode::FAILURE;
    }
    screen.end(start.elapsed(), keep)
}

/// What this machine lacks, in one sentence with the next command.
fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some(
            "the demo needs root, because it loads kernel programs: `cargo xtask demo` asks for it".into(),
        );
    }
    enforcer::config::cgroup_root(None).err().map(|error| error.to_string())
}
