//! How the agent is, for people.

use super::{Paint, clean};
use crate::domain::command::Status;

/// Width of the words on the left.
const MARGIN: usize = 12;

/// `status`
pub fn status(status: &Status, color: bool) -> String {
    let good = status.state == "enforcing" && status.problems.is_empty();
    let paint = if good { Paint::Green } else { Paint::Red };
    let state = paint.on(&clean(&status.state), color);
    let mode = if status.mode == "enforce" { Paint::Green } else { Paint::Yellow };
    let waiting = match status.endpoints_waiting {
        0 => String::new(),
        waiting => format!(", {waiting} waiting for their cgroup"),
    };
    let mut lines = vec![
        (
            "Agent",
            format!("{state}, version {}, up {}", clean(&status.version), duration(status.uptime_seconds)),
        ),
        ("Mode", mode.on(&clean(&status.mode), color)),
        (
            "Policies",
            format!(
                "{}, generation {}, {} table entries",
                status.policies, status.generation, status.entries
            ),
        ),
        ("Endpoints", format!("{}{waiting}", status.endpoints)),
        ("Identities", status.identities.to_string()),
        ("Hooks", absent(&status.hooks.join(" "))),
        ("Kernel", absent(&status.kernel)),
        ("Cgroups", absent(&status.cgroup_root)),
        ("Pins", absent(&status.pins)),
    ];
    lines.extend(status.problems.iter().map(|problem| ("Problem", Paint::Red.on(&clean(problem), color))));
    lines.extend(status.notices.iter().map(|notice| ("Notice", Paint::Yellow.on(&clean(notice), color))));
    lines.extend(status.unguarded.iter().map(|unguarded| ("Unguarded", clean(unguarded).into_owned())));
    lines.into_iter().flat_map(|(word, text)| [format!("{word:MARGIN$}"), text, "\n".to_owned()]).collect()
}

fn absent(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { clean(text).into_owned() }
}

/// The two greatest units, as in `3d4h`.
fn duration(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let parts = units.iter().skip(first).take(2).map(|(name, unit)| {
        let number = rest / unit;
        rest %= unit;
        format!("{number}{name}")
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (192, "3m12s"), (3600, "1h0m"), (273_600, "3d4h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
