//! Flows that are kept: edges with their counts, per minute or summed over a time.

use serde::{Deserialize, Serialize};

use super::flow::{Flow, FlowEndpoint, FlowIp, FlowL4, FlowProcess, FlowRule};
use super::flow_filter::FlowFilter;
use super::timestamp::Timestamp;

/// Edges that are told at most, unless fewer are asked for.
pub const MOST: usize = 10_000;

/// What somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Conditions on the edge. Its `since` is the first minute.
    pub filter: FlowFilter,
    /// The last minute.
    pub until: Option<Timestamp>,
    /// One record for each minute of an edge, not one for all of them.
    pub per_minute: bool,
    /// The last so many; 0 for [`MOST`].
    pub last: usize,
}

impl HistoryQuery {
    /// As parameters of a request.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let Self { filter, until, per_minute, last } = self;
        let mut all = filter.parameters();
        all.extend(until.map(|until| ("until".to_owned(), until.to_string())));
        all.push(("per_minute".to_owned(), per_minute.to_string()));
        all.push(("last".to_owned(), last.to_string()));
        all
    }

    /// Reads one parameter.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "until" => {
                let until = Timestamp::parse(value);
                self.until = Some(
                    until.ok_or_else(|| format!("until `{value}` is no time like 2026-11-22T12:53:39Z"))?,
                );
            }
            "per_minute" => {
                self.per_minute =
                    value.parse().ok().ok_or_else(|| format!("per_minute `{value}` is no boolean"))?;
            }
            "last" => {
                self.last =
                    value.parse().ok().ok_or_else(|| format!("last `{value}` is no number of edges"))?;
            }
            key => {
                if !self.filter.add(key, value)? {
                    return Err(format!("the history can't be filtered by `{key}`"));
                }
            }
        }
        Ok(())
    }
}

/// What the history answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The edges, those with the newest flows last.
    pub edges: Vec<HistoryEdge>,
    /// Whether older ones match too and were left out.
    pub more: bool,
}

/// An edge with its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEdge {
    /// When its first flow was seen, to within the interval of looks at the counters.
    pub first_seen: String,
    /// The same of its last.
    pub last_seen: String,
    /// `FORWARDED`, `DROPPED` or `AUDIT`.
    pub verdict: String,
    /// Why.
    pub drop_reason_desc: String,
    /// `EGRESS` or `INGRESS`: whose policy decided.
    pub traffic_direction: String,
    /// The end that opens flows.
    pub source: FlowEndpoint,
    /// The end that is called.
    pub destination: FlowEndpoint,
    /// Protocol and port.
    pub l4: FlowL4,
    /// The rule that decided, if any.
    pub decided_by: Option<FlowRule>,
    /// Verdicts; 0 where flows of an earlier time went on.
    pub verdicts: u64,
    /// What they carried, seen by the end whose policy decided. Of an edge with several rules it stands at the first.
    pub traffic: HistoryTraffic,
}

/// What flows carried, seen by one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryTraffic {
    /// Connections that were established.
    pub opened: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Packets that the source sent.
    pub source_packets: u64,
    /// Packets that the destination sent.
    pub destination_packets: u64,
    /// Bytes that the source sent.
    pub source_bytes: u64,
    /// Bytes that the destination sent.
    pub destination_bytes: u64,
}

impl HistoryEdge {
    /// Whether it meets every condition, those on time excepted.
    pub fn matches(&self, filter: &FlowFilter) -> bool {
        let flow = Flow {
            time: self.last_seen.clone(),
            verdict: self.verdict.clone(),
            drop_reason_desc: self.drop_reason_desc.clone(),
            ip: FlowIp::default(),
            l4: self.l4.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            role: String::new(),
            traffic_direction: self.traffic_direction.clone(),
            decided_by: self.decided_by.clone(),
            errno: None,
            hook: String::new(),
            generation: 0,
            socket_cookie: 0,
            process: FlowProcess::default(),
            node_name: String::new(),
        };
        filter.matches(&flow)
    }
}
