//! Flows: the compact line and the table of Hubble, so that eyes and scripts trained on it feel at home.

use std::borrow::Cow;

use serde::Serialize;

use super::table::Columns;
use super::{Paint, clean};
use crate::api::LostEvents;
use crate::api::client::Record;
use crate::domain::flow::{Flow, FlowEndpoint};
use crate::domain::hubble;
use crate::domain::timestamp::Timestamp;

/// `Nov 22 12:53:39.168: default/web (ID:256) <> 127.0.0.1:5432 default/db (ID:258) policy-verdict:INGRESS DENIED
/// (TCP) by default/db-only-from-api ingress (isolated) EPERM [curl/1234]`, on one line. Of a socket that was refused:
/// `default/web (ID:256) <> - socket-verdict:sock_create DENIED (RAW) reason SOCKET_KIND EPERM [ping/1234]`.
pub fn compact(flow: &Flow, node_name: bool, color: bool) -> String {
    let (word, paint) = outcome(flow);
    // A refused flow has no direction to speak of: nothing went anywhere.
    let arrow = if flow.verdict == "DROPPED" { "<>" } else { "->" };
    let line = format!(
        "{time}{node}: {source} {arrow} {destination} {kind} {word} ({protocol}) {why}",
        time = time(flow),
        node = if node_name { format!(" [{}]", clean(&flow.node_name)) } else { String::new() },
        source = source(flow),
        destination = destination(flow),
        kind = kind(flow),
        word = paint.on(word, color),
        protocol = protocol(flow),
        why = why(flow),
    );
    format!("{}\n", line.trim_end())
}

/// The table, which grows as flows come.
#[derive(Debug)]
pub struct FlowTable {
    columns: Columns,
    node_name: bool,
    begun: bool,
}

const HEADER: [&str; 6] = ["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"];
const NODE: &str = "NODE";
const VERDICT: usize = 4;

impl FlowTable {
    /// A table, with the name of the host in the first column if that is wanted.
    pub fn new(node_name: bool) -> Self {
        // Room for usual values, so that few lines push the columns apart.
        let widths = [
            "xxxxxxxxxxxxxxxx",
            "Nov 22 12:53:39.168",
            &"x".repeat(24),
            &"x".repeat(40),
            "policy-verdict:INGRESS",
            "FORWARDED",
            "",
        ];
        Self { columns: Columns::new(&widths[usize::from(!node_name)..]), node_name, begun: false }
    }

    /// The flow's line; the first brings the header along.
    pub fn line(&mut self, flow: &Flow, color: bool) -> String {
        let (_, paint) = outcome(flow);
        let with_node = |node: &str, rest: [String; 6]| -> Vec<String> {
            self.node_name.then(|| node.to_owned()).into_iter().chain(rest).collect()
        };
        let cells = with_node(&clean(&flow.node_name), fields(flow));
        let header = with_node(NODE, HEADER.map(str::to_owned));
        let verdict = VERDICT + usize::from(self.node_name);
        self.columns.fit(&cells);
        let line = self.columns.line(&cells, |index, cell| paint.on(cell, color && index == verdict));
        if std::mem::replace(&mut self.begun, true) {
            return line;
        }
        self.columns.line(&header, |_, cell| cell.to_owned()) + &line
    }
}

/// What stands in the columns of [`HEADER`].
fn fields(flow: &Flow) -> [String; 6] {
    let summary = format!("{} {}", protocol(flow), why(flow));
    [time(flow), source(flow), destination(flow), kind(flow), flow.verdict.clone(), summary]
}

/// One line a field, and one that ends the flow.
pub fn dict(flow: &Flow, node_name: bool, color: bool) -> String {
    let (_, paint) = outcome(flow);
    let node = node_name.then(|| (NODE, clean(&flow.node_name).into_owned()));
    let lines = node.into_iter().chain(HEADER.into_iter().zip(fields(flow))).map(|(name, value)| {
        let value = if name == HEADER[VERDICT] { paint.on(&value, color) } else { value };
        format!("{name:>11}: {value}\n")
    });
    lines.chain(["------------\n".to_owned()]).collect()
}

/// What a node did not tell.
#[derive(Serialize)]
struct LostAt<'a> {
    #[serde(flatten)]
    lost: LostEvents,
    #[serde(skip_serializing_if = "str::is_empty")]
    node_name: &'a str,
}

/// One JSON object a line, in the shape of Hubble's flow record. What was lost names its node unless that is this one.
pub fn json(record: &Record, node_name: &str) -> serde_json::Result<String> {
    let mut line = match record {
        Record::Flow(flow) => serde_json::to_string(&hubble::Line::from(flow.as_ref()))?,
        Record::Lost(lost_events) => {
            serde_json::to_string(&LostAt { lost: LostEvents { lost_events: *lost_events }, node_name })?
        }
    };
    line.push('\n');
    Ok(line)
}

fn outcome(flow: &Flow) -> (&'static str, Paint) {
    match flow.verdict.as_str() {
        "FORWARDED" => ("ALLOWED", Paint::Green),
        "AUDIT" => ("AUDITED", Paint::Yellow),
        _ => ("DENIED", Paint::Red),
    }
}

/// `Nov 22 12:53:39.168`, UTC. What is no time is shown as it is.
fn time(flow: &Flow) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(moment) = Timestamp::parse(&flow.time) else { return clean(&flow.time).into_owned() };
    let civil = moment.civil();
    let month = usize::try_from(civil.month - 1).ok().and_then(|index| MONTHS.get(index)).unwrap_or(&"-");
    let millis = moment.nanos / 1_000_000;
    format!("{month} {:>2} {:02}:{:02}:{:02}.{millis:03}", civil.day, civil.hour, civil.minute, civil.second)
}

/// Whose policy gave the verdict, or which call a socket was refused in: no policy speaks of those.
fn kind(flow: &Flow) -> String {
    if flow.is_about_a_socket() {
        format!("socket-verdict:{}", flow.hook)
    } else {
        format!("policy-verdict:{}", clean(&flow.traffic_direction))
    }
}

fn protocol(flow: &Flow) -> Cow<'_, str> {
    if flow.l4.protocol.is_empty() { Cow::Borrowed("-") } else { clean(&flow.l4.protocol) }
}

fn source(flow: &Flow) -> String {
    at(&flow.ip.source, flow.l4.source_port, &flow.source)
}

fn destination(flow: &Flow) -> String {
    at(&flow.ip.destination, flow.l4.destination_port, &flow.destination)
}

/// `127.0.0.1:5432 default/db (ID:258)`, without what is not known; `-` for nobody.
fn at(address: &str, port: u16, who: &FlowEndpoint) -> String {
    if address.is_empty() && port == 0 {
        return if *who == FlowEndpoint::default() { "-".to_owned() } else { end(who) };
    }
    let address = clean(address);
    let address = if address.contains(':') { Cow::Owned(format!("[{address}]")) } else { address };
    if port == 0 { format!("{address} {}", end(who)) } else { format!("{address}:{port} {}", end(who)) }
}

/// `default/web (ID:256)`; `reserved:world (ID:2)`; the labels where several workloads share an identity.
fn end(end: &FlowEndpoint) -> String {
    let name = match (end.workloads.as_slice(), end.labels.as_slice()) {
        ([name], _) => name.clone(),
        (_, []) => "-".to_owned(),
        (_, labels) => labels.join(","),
    };
    let name = if end.namespace.is_empty() { name } else { format!("{}/{name}", end.namespace) };
    format!("{} (ID:{})", clean(&name), end.identity)
}

/// Who decided, what the application was told, and which process it was.
fn why(flow: &Flow) -> String {
    let mut parts = Vec::new();
    parts.push(match &flow.decided_by {
        Some(rule) => format!("by {}/{} {}", clean(&rule.namespace), clean(&rule.name), clean(&rule.rule)),
        None => format!("reason {}", clean(&flow.drop_reason_desc)),
    });
    parts.extend(flow.errno.iter().map(|errno| clean(errno).into_owned()));
    if flow.process.pid != 0 {
        parts.push(format!("[{}/{}]", clean(&flow.process.comm), flow.process.pid));
    }
    parts.join(" ")
}
