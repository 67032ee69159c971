//! What the programs cost: how often they ran and how long, as the kernel itself counts it.

use std::time::Duration;

use aya::sys::{Stats, enable_stats};
use enforcer_common::hook::Hook;

use super::Kernel;
use super::error::Error;

/// 1 where the administrator has the runs of all programs counted.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Kernel {
    /// Has the kernel count the runs of all programs of the host, as long as this agent lives (Linux 5.8).
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn count_runs(&mut self) -> Result<(), Error> {
        let held = enable_stats(Stats::RunTime).map_err(|error| Error::Io {
            operation: "have program runs counted, as by",
            path: SWITCH.into(),
            source: error.io_error,
        })?;
        self.statistics = Some(held);
        Ok(())
    }

    /// Runs of each program since this agent loaded it, and the time they took; nothing where they are not counted.
    pub fn runs(&self) -> Option<Vec<(Hook, u64, Duration)>> {
        let counted =
            self.statistics.is_some() || std::fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "1");
        let of = |hook: Hook| {
            let info = self.ebpf.program(hook.program())?.info().ok()?;
            Some((hook, info.run_count(), info.run_time()))
        };
        counted.then(|| self.hooks().filter_map(of).collect())
    }
}
