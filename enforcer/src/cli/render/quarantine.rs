//! Who is in quarantine.

use super::clean;
use super::table::table;
use crate::domain::command::QuarantineInfo;

/// `default/web is in quarantine until 2026-11-22T12:53:39Z; let in: default/probe`
pub fn added(info: &QuarantineInfo) -> String {
    let until = match &info.until {
        Some(until) => format!("until {}", clean(until)),
        None => "until it is released".to_owned(),
    };
    let guests = match info.allow_from.as_slice() {
        [] => "nobody is let in".to_owned(),
        guests => format!("let in: {}", clean(&guests.join(" "))),
    };
    format!("{} is in quarantine {until}; {guests}\n", name(info))
}

/// `default/web is out of quarantine, in which it was since 2026-11-22T12:53:39Z`
pub fn released(info: &QuarantineInfo) -> String {
    format!("{} is out of quarantine, in which it was since {}\n", name(info), clean(&info.since))
}

/// `quarantine list`
pub fn list(quarantines: &[QuarantineInfo]) -> String {
    let rows: Vec<_> = quarantines
        .iter()
        .map(|info| {
            vec![
                info.namespace.clone(),
                info.name.clone(),
                info.since.clone(),
                info.until.clone().unwrap_or_default(),
                // Labels have commas of their own.
                info.allow_from.join(" "),
                info.by.map(|by| by.to_string()).unwrap_or_default(),
                if info.exists { "present" } else { "absent" }.to_owned(),
            ]
        })
        .collect();
    table(&["NAMESPACE", "NAME", "SINCE", "UNTIL", "ALLOW-FROM", "BY", "WORKLOAD"], &rows)
}

fn name(info: &QuarantineInfo) -> String {
    clean(&format!("{}/{}", info.namespace, info.name)).into_owned()
}
