//! Records in the words of the Open Cybersecurity Schema Framework (OCSF 1.3).
//!
//! Verdicts become *Network Activity*, changes of policies, identities and quarantines *Entity Management*, start and end
//! *Application Lifecycle*, everything else a *Base Event*. What has no place there is kept whole under `unmapped`.

use serde_json::{Map, Value, json};

use super::Kind;
use super::record::{Place, Record};
use crate::domain::timestamp::Timestamp;

/// Version of OCSF.
pub const OCSF: &str = "1.3.0";

/// Class, category and activity of a record.
struct Class {
    number: u32,
    category: u32,
    activity: u32,
}

fn class(record: &Record) -> Class {
    let is = |word: &str| record.event.types.iter().any(|it| it == word);
    match record.enforcer.kind {
        // 5: refused, 6: traffic that was let through.
        Kind::Verdict => Class { number: 4001, category: 4, activity: if is("denied") { 5 } else { 6 } },
        Kind::Policy | Kind::Identity | Kind::Quarantine => {
            let activity = [("creation", 1), ("change", 3), ("deletion", 4)];
            let activity = activity.into_iter().find(|(word, _)| is(word)).map_or(99, |(_, number)| number);
            Class { number: 3004, category: 3, activity }
        }
        Kind::Lifecycle => Class { number: 6002, category: 6, activity: if is("start") { 3 } else { 4 } },
        Kind::Degradation | Kind::Repair | Kind::Log => Class { number: 0, category: 0, activity: 99 },
    }
}

/// The record as an OCSF event.
///
/// # Errors
/// What `serde_json` refuses, which no record contains.
pub fn ocsf(record: &Record) -> Result<Value, serde_json::Error> {
    let Class { number, category, activity } = class(record);
    let mut event = Map::new();
    let mut put = |key: &str, value: Value| drop(event.insert(key.to_owned(), value));
    put("class_uid", number.into());
    put("category_uid", category.into());
    put("activity_id", activity.into());
    put("type_uid", (number * 100 + activity).into());
    put("time", milliseconds(record.timestamp).into());
    put("message", record.message.clone().into());
    let failed = record.event.outcome == "failure";
    put("severity_id", severity(record, failed).into());
    put("status_id", if failed { 2 } else { 1 }.into());
    put(
        "metadata",
        json!({
            "version": OCSF,
            "product": {"name": "enforcer", "vendor_name": "enforcer"},
            "log_name": record.event.dataset,
            "sequence": record.event.sequence,
            "event_code": record.event.action,
        }),
    );
    put("device", json!({"hostname": record.host.hostname, "type_id": 0, "boot_uid": record.host.boot.id}));
    if let Some(actor) = actor(record) {
        put("actor", actor);
    }
    match record.enforcer.kind {
        Kind::Verdict => network(record, &mut put),
        Kind::Policy | Kind::Identity | Kind::Quarantine => put("entity", entity(record)),
        Kind::Lifecycle => put("app", json!({"name": "enforcer", "vendor_name": "enforcer"})),
        Kind::Degradation | Kind::Repair | Kind::Log => {}
    }
    put(
        "unmapped",
        json!({"enforcer": record.enforcer, "labels": record.labels, "reason": record.event.reason}),
    );
    Ok(Value::Object(event))
}

fn severity(record: &Record, failed: bool) -> u32 {
    match record.enforcer.kind {
        Kind::Degradation | Kind::Log if failed => 4,
        _ if failed => 2,
        _ => 1,
    }
}

fn actor(record: &Record) -> Option<Value> {
    let process = record.process.as_ref().map(|process| json!({"pid": process.pid, "name": process.name}));
    let user = record.user.as_ref().map(|user| {
        let groups: Vec<Value> = user.group.iter().map(|group| json!({"uid": group.id})).collect();
        json!({"uid": user.id, "groups": groups})
    });
    let known = [("process", process), ("user", user)];
    let known: Map<String, Value> =
        known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    (!known.is_empty()).then_some(Value::Object(known))
}

fn network(record: &Record, put: &mut impl FnMut(&str, Value)) {
    let denied = record.event.types.iter().any(|it| it == "denied");
    // 2: denied; 1: allowed. 2: blocked; 17: logged.
    put("action_id", if denied { 2 } else { 1 }.into());
    put("disposition_id", if denied { 2 } else { 17 }.into());
    put("src_endpoint", endpoint(record.source.as_ref()));
    put("dst_endpoint", endpoint(record.destination.as_ref()));
    if let Some(network) = &record.network {
        let direction = if network.direction == "ingress" { 1 } else { 2 };
        let number = network.iana_number.parse().unwrap_or(0_u32);
        put(
            "connection_info",
            json!({"protocol_num": number, "protocol_name": network.transport, "direction_id": direction}),
        );
    }
    if let Some(rule) = &record.rule {
        put(
            "firewall_rule",
            json!({"uid": rule.id, "name": rule.name, "category": rule.category, "type": rule.ruleset}),
        );
    }
    if let Some(verdicts) = &record.enforcer.verdicts {
        put("count", verdicts.count.into());
    }
    for (key, moment) in [("start_time", record.event.start), ("end_time", record.event.end)] {
        if let Some(moment) = moment {
            put(key, milliseconds(moment).into());
        }
    }
}

fn endpoint(place: Option<&Place>) -> Value {
    let mut known = Map::new();
    if let Some(Place { address, ip, port }) = place {
        for (key, text) in [("name", address), ("ip", ip)] {
            if !text.is_empty() {
                known.insert(key.to_owned(), text.clone().into());
            }
        }
        known.extend(port.map(|port| ("port".to_owned(), port.into())));
    }
    Value::Object(known)
}

fn entity(record: &Record) -> Value {
    let kind = match record.enforcer.kind {
        Kind::Policy => "Policy",
        Kind::Quarantine => "Quarantine",
        _ => "Workload",
    };
    let policy = record.rule.as_ref().map(|rule| rule.ruleset.clone());
    let name = record.enforcer.workload.as_ref().map(|workload| workload.name.clone()).or(policy);
    json!({"type": kind, "name": name.unwrap_or_default()})
}

/// Since 1970, as OCSF counts.
fn milliseconds(moment: Timestamp) -> i64 {
    moment.seconds.saturating_mul(1_000).saturating_add(i64::from(moment.nanos / 1_000_000))
}
