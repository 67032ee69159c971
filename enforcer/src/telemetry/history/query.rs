//! Reading the history, with or without an agent that writes it.

use std::collections::HashMap;
use std::path::Path;

use enforcer_common::abi::flow::Outcome;
use enforcer_common::abi::identity::Role;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Direction;
use rusqlite::{Connection, params};

use super::database;
use crate::domain::flow::{FlowEndpoint, FlowL4, FlowRule, protocol_name};
use crate::domain::flow_filter::FlowFilter;
use crate::domain::history::{History, HistoryEdge, HistoryQuery, HistoryTraffic, MOST};
use crate::domain::timestamp::Timestamp;

/// Rows of traffic that are read at most, the newest first: a query must not cost the agent its memory.
const READ: usize = 200_000;

/// Which traffic belongs to which verdicts: minute (0 where minutes are summed), source, destination, port, protocol,
/// and whether the source's end told it.
type Key = (i64, u32, u32, u16, u8, bool);

/// Answers a query from the database at this place.
///
/// # Errors
/// Says in a sentence why it can't be read.
pub fn query(path: &Path, query: &HistoryQuery) -> Result<History, String> {
    let failed = |error: rusqlite::Error| format!("read the flow history {}: {error}", path.display());
    if !path.exists() {
        return Err(format!("there is no flow history {}", path.display()));
    }
    let connection = database::open_read_only(path).map_err(failed)?;
    answer(&connection, query).map_err(failed)
}

fn answer(connection: &Connection, query: &HistoryQuery) -> rusqlite::Result<History> {
    // All of it from one moment.
    connection.execute_batch("BEGIN")?;
    let ends: HashMap<u32, FlowEndpoint> = texts(connection, "ends")?;
    let rules: HashMap<u32, FlowRule> = texts(connection, "rules")?;
    let minute = |moment: Timestamp| moment.seconds.div_euclid(60);
    let from = query.filter.oldest().map_or(i64::MIN, minute);
    let to = query.until.map_or(i64::MAX, minute);
    let mut carried = carried(connection, query.per_minute, from, to)?;
    let most = if query.last == 0 { MOST } else { query.last.min(MOST) };
    let bucket = if query.per_minute { "minute" } else { "0" };
    let mut statement = connection.prepare(&format!(
        "SELECT {bucket}, subject, peer, rule, port, protocol, reason, direction, outcome, sum(verdicts), min(first), \
         max(last) FROM flows WHERE minute BETWEEN ?1 AND ?2 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY 12 DESC, 10 DESC"
    ))?;
    let mut rows = statement.query(params![from, to])?;
    let mut found =
        Found { edges: Vec::new(), more: false, most, filter: query.filter.whenever(), ends: &ends };
    while let Some(row) = rows.next()? {
        let direction: u8 = row.get(7)?;
        let (subject, peer): (u32, u32) = (row.get(1)?, row.get(2)?);
        let by_source = direction != Direction::Ingress as u8;
        let (source, destination) = if by_source { (subject, peer) } else { (peer, subject) };
        let (port, protocol): (u16, u8) = (row.get(4)?, row.get(5)?);
        let (reason, outcome): (u8, u8) = (row.get(6)?, row.get(8)?);
        let passes = outcome != Outcome::Dropped as u8;
        let key = (row.get(0)?, source, destination, port, protocol, by_source);
        let traffic = if passes { carried.remove(&key) } else { None };
        let edge = HistoryEdge {
            first_seen: time(row.get(10)?),
            last_seen: time(row.get(11)?),
            verdict: Outcome::from_code(outcome)
                .map_or_else(|| outcome.to_string(), |it| it.label().to_owned()),
            drop_reason_desc: Reason::from_code(reason)
                .map_or_else(|| reason.to_string(), |it| it.label().to_owned()),
            decided_by: rules.get(&row.get(3)?).cloned(),
            verdicts: u64::try_from(row.get::<_, i64>(9)?).unwrap_or(0),
            traffic: traffic.map(|(traffic, _, _)| traffic).unwrap_or_default(),
            ..HistoryEdge::default()
        };
        found.take(edge, key);
    }
    // What flows of an earlier time carried has no verdict in this one.
    for (key, (traffic, first, last)) in carried {
        let edge = HistoryEdge {
            first_seen: time(first),
            last_seen: time(last),
            verdict: Outcome::Forwarded.label().to_owned(),
            drop_reason_desc: Reason::None.label().to_owned(),
            traffic,
            ..HistoryEdge::default()
        };
        found.take(edge, key);
    }
    let Found { mut edges, mut more, .. } = found;
    edges.sort_by(|one, other| (&one.last_seen, one.verdicts).cmp(&(&other.last_seen, other.verdicts)));
    if edges.len() > most {
        more = true;
        edges.drain(..edges.len() - most);
    }
    Ok(History { edges, more })
}

struct Found<'a> {
    edges: Vec<HistoryEdge>,
    more: bool,
    most: usize,
    /// Without conditions on time.
    filter: FlowFilter,
    ends: &'a HashMap<u32, FlowEndpoint>,
}

impl Found<'_> {
    fn take(&mut self, mut edge: HistoryEdge, (_, source, destination, port, protocol, by_source): Key) {
        let end = |id: u32| {
            let unnamed = || FlowEndpoint {
                identity: id,
                labels: vec![format!("identity:{id}")],
                ..FlowEndpoint::default()
            };
            self.ends.get(&id).cloned().unwrap_or_else(unnamed)
        };
        (edge.source, edge.destination) = (end(source), end(destination));
        edge.l4 = FlowL4 { protocol: protocol_name(protocol), source_port: 0, destination_port: port };
        let direction = if by_source { "EGRESS" } else { "INGRESS" };
        direction.clone_into(&mut edge.traffic_direction);
        // Minutes were chosen with the rows.
        if !edge.matches(&self.filter) {
            return;
        }
        // Rows come newest first; beyond twice as many as are told, nothing of them would be.
        if self.edges.len() >= 2 * self.most {
            self.more = true;
        } else {
            self.edges.push(edge);
        }
    }
}

/// What was carried, by whom, with the first and last moment.
fn carried(
    connection: &Connection,
    per_minute: bool,
    from: i64,
    to: i64,
) -> rusqlite::Result<HashMap<Key, (HistoryTraffic, i64, i64)>> {
    let bucket = if per_minute { "minute" } else { "0" };
    let mut statement = connection.prepare(&format!(
        "SELECT {bucket}, subject, peer, port, protocol, role, sum(opened), sum(closed), sum(packets_sent), \
         sum(packets_received), sum(bytes_sent), sum(bytes_received), min(first), max(last) FROM traffic \
         WHERE minute BETWEEN ?1 AND ?2 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 14 DESC LIMIT {READ}"
    ))?;
    let mut rows = statement.query(params![from, to])?;
    let mut all = HashMap::new();
    while let Some(row) = rows.next()? {
        let count = |at: usize| row.get::<_, i64>(at).map(|count| u64::try_from(count).unwrap_or(0));
        let (subject, peer): (u32, u32) = (row.get(1)?, row.get(2)?);
        let serves = Role::from_code(row.get::<_, u8>(5)?.into()) == Role::Server;
        let mut traffic = HistoryTraffic {
            opened: count(6)?,
            closed: count(7)?,
            source_packets: count(8)?,
            destination_packets: count(9)?,
            source_bytes: count(10)?,
            destination_bytes: count(11)?,
        };
        let (source, destination) = if serves { (peer, subject) } else { (subject, peer) };
        if serves {
            std::mem::swap(&mut traffic.source_packets, &mut traffic.destination_packets);
            std::mem::swap(&mut traffic.source_bytes, &mut traffic.destination_bytes);
        }
        let key = (row.get(0)?, source, destination, row.get(3)?, row.get(4)?, !serves);
        let (first, last): (i64, i64) = (row.get(12)?, row.get(13)?);
        // Sockets whose role is not known stand with the clients.
        let (sum, begin, end) = all.entry(key).or_insert((HistoryTraffic::default(), first, last));
        add(sum, &traffic);
        (*begin, *end) = ((*begin).min(first), (*end).max(last));
    }
    Ok(all)
}

fn add(sum: &mut HistoryTraffic, more: &HistoryTraffic) {
    sum.opened += more.opened;
    sum.closed += more.closed;
    sum.source_packets += more.source_packets;
    sum.destination_packets += more.destination_packets;
    sum.source_bytes += more.source_bytes;
    sum.destination_bytes += more.destination_bytes;
}

fn texts<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    table: &str,
) -> rusqlite::Result<HashMap<u32, T>> {
    let mut statement = connection.prepare(&format!("SELECT id, text FROM {table}"))?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)))?;
    let mut all = HashMap::new();
    for row in rows {
        let (id, text) = row?;
        all.extend(serde_json::from_str(&text).ok().map(|it| (id, it)));
    }
    Ok(all)
}

fn time(seconds: i64) -> String {
    Timestamp { seconds, nanos: 0 }.to_string()
}
