//! The agent: the only room that sees all others. It wires them, performs what the engine asks for, and decides
//! nothing.
//!
//! ```text
//!   sources ----\                          /--> store     (save)
//!   API calls ---+--> owner: engine::step -+--> kernel    (publish, apply, attach)
//!   time --------+    one task, one state  +--> API       (replies, readiness)
//!   signals ----/                          \--> telemetry (names, numbers)
//!                                          \\--> revoke    (open sockets, beside the owner)
//!   event ring --> reader --> telemetry::Pipeline --> API (flows)
//! ```
//!
//! * The owner has the main thread: its calls into the kernel and the store block that thread and nobody else. They are
//!   quick (microseconds for a binding, milliseconds for a table of a hundred thousand entries, a flush for a save);
//!   everything that has to go on meanwhile (the ring's reader, the API, scrapes) runs on the workers of the runtime,
//!   which therefore has to be a multi-threaded one.
//! * The kernel is behind a lock because a scrape reads the counters at its own moment; the lock is held for one
//!   operation at a time.
//! * A part that ends is started again with growing pauses, and is a problem meanwhile; nothing ends silently.
//! * Ending leaves links and maps in place: enforcement does not need the agent. `uninstall` removes them.

mod audit;
mod canary;
mod clock;
mod cluster;
mod coverage;
mod error;
mod logs;
mod notify;
mod outputs;
mod owner;
mod parts;
mod pins;
mod report;
mod revoke;
mod runtimes;
mod sample;
mod scrape;
mod start;
mod supervise;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::Error;

use crate::config::{Config, Switch};
use crate::domain::command::Confinement;
use crate::kernel::Kernel;
use crate::store::Store;

/// Has the kernel back memory with small pages only, from now on. The allocator asks for pages of 2 MiB; what an agent keeps
/// is small and scattered, so each of them stays for a few kilobytes: 30 MiB of 130 in a cluster of 5,000 pods. To be called
/// first of all. A kernel that does not know it has no such pages.
pub fn take_small_pages() {
    nix::sys::prctl::set_thp_disable(true).ok();
}

/// Gives up what an agent does not need: capabilities, new privileges and, unless the configuration says otherwise, system
/// calls. To be called before there is a second thread, because each has rights of its own.
pub fn confine(config: &Config) -> Confinement {
    crate::kernel::confine::confine(config.seccomp == Switch::On)
}

/// Runs the agent until it is told to end. To be called from the main thread of a multi-threaded runtime.
///
/// # Errors
/// Says in one sentence what is missing and what to do next.
pub async fn run(config: Config, confinement: Confinement) -> Result<(), Error> {
    start::log(&config)?;
    for problem in &confinement.problems {
        tracing::warn!("{problem}: the agent keeps what it does not need");
    }
    let started = start::start(&config, confinement)?;
    tracing::info!(
        "enforcer {} on Linux {}, cgroups under {}, pins in {}, API on {}",
        start::VERSION,
        started.facts.kernel,
        started.facts.cgroup_root,
        started.facts.pins,
        config.socket.display(),
    );
    parts::run(&config, started).await
}

/// Removes pins and links, and tells what was removed.
///
/// # Errors
/// If an agent runs, because it would go on as if nothing had happened; or names the pin that could not be removed.
pub fn uninstall(config: &Config) -> Result<Vec<String>, Error> {
    start::require_root()?;
    Store::require_stopped(&config.state_dir)?;
    let _lock = pins::PinsLock::take(&config.pins)?;
    let mut removed = crate::kernel::uninstall(&config.pins)?;
    // Without the tree there is no directory in it.
    if let Ok(attach) = crate::config::cgroup_root(config.cgroup_root.as_deref())
        .map_err(Error::from)
        .and_then(|root| start::attach(config, &root))
    {
        removed.extend(canary::uninstall(&attach, config)?);
    }
    audit::uninstalled(config, removed.len());
    Ok(removed)
}

/// The kernel, shared between the owner and scrapes.
type SharedKernel = Arc<Mutex<Kernel>>;

/// A thread that panicked within a map operation leaves the maps as the kernel has them, which is what counts.
fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}
