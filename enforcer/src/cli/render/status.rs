//! How the agent is, for people.

use enforcer_common::hook::Hook;
use serde::Serialize;

use super::{Paint, clean, lists};
use crate::domain::canary::CanaryInfo;
use crate::domain::cluster_policy::{KindInfo, SourceInfo};
use crate::domain::command::{Confinement, Status};
use crate::domain::unguarded::Unguarded;

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
        ("Hooks", hooks(status)),
        ("Kernel", absent(&status.kernel)),
        ("Cgroups", absent(&status.cgroup_root)),
        ("Pins", absent(&status.pins)),
        ("Confined", confined(&status.confinement, color)),
    ];
    lines.extend(
        status
            .runtimes
            .iter()
            .map(|(name, stands)| ("Source", format!("{}: {}", clean(name), clean(stands)))),
    );
    lines.extend(status.absent_hooks.iter().map(|it| {
        ("Absent", Paint::Yellow.on(&format!("hook {}: {}", clean(&it.hook), clean(&it.reason)), color))
    }));
    if let Some(push) = &status.unconfirmed {
        let text = format!(
            "push of {}, taken back at {} (in {}) unless `enforcer policy confirm` comes first",
            clean(&push.since),
            clean(&push.until),
            duration(push.seconds_left)
        );
        lines.push(("Unconfirmed", Paint::Yellow.on(&text, color)));
    }
    if let Some(text) = &status.rolled_back {
        lines.push(("Taken back", Paint::Yellow.on(&clean(text), color)));
    }
    lines.extend(canary(&status.canary, color));
    lines.extend(
        status.pending_peers.iter().map(|peer| {
            ("Pending", Paint::Yellow.on(&format!("{} (matches nobody yet)", clean(peer)), color))
        }),
    );
    if !status.quarantined.is_empty() {
        let names = format!("{}: {}", status.quarantined.len(), clean(&status.quarantined.join(" ")));
        lines.push(("Quarantined", Paint::Yellow.on(&names, color)));
    }
    lines.extend(status.sources.iter().map(|source| ("Source", of_source(source, color))));
    lines.extend(status.problems.iter().map(|problem| ("Problem", Paint::Red.on(&clean(problem), color))));
    lines.extend(status.notices.iter().map(|notice| ("Notice", Paint::Yellow.on(&clean(notice), color))));
    lines.push((
        "Unguarded",
        format!("{} ways past enforcer, see `enforcer status --unguarded`", status.unguarded.len()),
    ));
    lines.into_iter().flat_map(|(word, text)| [format!("{word:MARGIN$}"), text, "\n".to_owned()]).collect()
}

/// The same of agents of several nodes.
pub fn of_nodes(told: &[(String, Status)], unguarded: bool, color: bool) -> String {
    let part = |(node, of): &(String, Status)| {
        let text = if unguarded { lists::unguarded(&of.unguarded) } else { status(of, color) };
        format!("{:MARGIN$}{}\n{text}", "Node", clean(node))
    };
    told.iter().map(part).collect::<Vec<_>>().join("\n")
}

/// An agent of a node, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<'a> {
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unguarded: Option<&'a [Unguarded]>,
}

/// Agents of nodes, for programs: all of what they say, or the ways past them.
pub fn records(told: &[(String, Status)], unguarded: bool) -> Vec<Record<'_>> {
    let all = told.iter().map(|(node, status)| Record {
        node,
        status: (!unguarded).then_some(status),
        unguarded: unguarded.then_some(&status.unguarded[..]),
    });
    all.collect()
}

/// What the agent has given up, and what it could not.
fn confined(confinement: &Confinement, color: bool) -> String {
    let Confinement { seccomp, no_new_privileges, capabilities, problems } = confinement;
    let on = |on: bool| if on { "on" } else { "off" };
    let text = format!(
        "seccomp {}, no new privileges {}, {} capabilities",
        on(*seccomp),
        on(*no_new_privileges),
        capabilities.len()
    );
    let paint = if *seccomp && *no_new_privileges { Paint::Green } else { Paint::Yellow };
    let problems = problems.iter().map(|problem| format!("; {}", clean(problem)));
    paint.on(&(text + &problems.collect::<String>()), color)
}

/// What the canary has proven; nothing where an agent knows of none.
fn canary(canary: &CanaryInfo, color: bool) -> Option<(&'static str, String)> {
    let CanaryInfo { state, message, generation, last_success } = canary;
    let last = match last_success {
        Some(when) => format!(", last refused at {} under generation {generation}", clean(when)),
        None => String::new(),
    };
    let text = format!("{}: {}{last}", clean(state), clean(message));
    let text = match state.as_str() {
        "" => return None,
        "refused" => Paint::Green.on(&text, color),
        "failed" => Paint::Red.on(&text, color),
        _ => Paint::Yellow.on(&text, color),
    };
    Some(("Canary", text))
}

/// How a source is, and what it knows.
fn of_source(source: &SourceInfo, color: bool) -> String {
    let SourceInfo { name, state, since, known, server, kinds, problems: _ } = source;
    let paint = if state == "synced" { Paint::Green } else { Paint::Yellow };
    let at = |server: &str| if server.is_empty() { String::new() } else { format!(" at {}", clean(server)) };
    let known = if known.is_empty() { String::new() } else { format!(", known as of {}", clean(known)) };
    let count = |kind: &KindInfo| match kind.state.as_str() {
        "not-installed" => format!("{} not installed", clean(&kind.kind)),
        _ => format!("{} {}", kind.objects, clean(&kind.kind)),
    };
    let counts: Vec<String> = kinds.iter().map(count).collect();
    let state = paint.on(&clean(state), color);
    let since = if since.is_empty() { String::new() } else { format!(" since {}", clean(since)) };
    format!("{}{}: {state}{since}{known}; {}", clean(name), at(server), counts.join(", "))
}

/// Every hook that there is, attached or not: a missing one should be seen without knowing the list by heart.
fn hooks(status: &Status) -> String {
    let missing: Vec<&str> = Hook::ALL
        .iter()
        .map(|hook| hook.program())
        .filter(|name| !status.hooks.iter().any(|attached| attached == name))
        .collect();
    let attached = format!("{} of {} attached: ", status.hooks.len(), Hook::ALL.len());
    let attached = attached + &absent(&status.hooks.join(" "));
    if missing.is_empty() { attached } else { format!("{attached}; not attached: {}", missing.join(" ")) }
}

fn absent(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { clean(text).into_owned() }
}

/// The two greatest units, as in `3d4h`.
pub(super) fn duration(seconds: u64) -> String {
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
