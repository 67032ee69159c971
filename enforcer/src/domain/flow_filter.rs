//! Which flows somebody wants to see. The server of the API and `observe` share it.
//!
//! As in Hubble: values of one condition are alternatives, conditions of different kinds must all hold.

use super::flow::{Flow, FlowEndpoint, protocol_name};
use super::timestamp::Timestamp;
use super::workload::DEFAULT_NAMESPACE;

/// Conditions on a flow; empty ones hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// `FORWARDED`, `DROPPED`, `AUDIT`.
    pub verdict: Vec<String>,
    /// `key=value[,key=value...]`: all of them on the source.
    pub from_label: Vec<String>,
    /// The same on the destination.
    pub to_label: Vec<String>,
    /// The same on either end.
    pub label: Vec<String>,
    /// Workload `[namespace/]name` of the source; `namespace/` is all of a namespace.
    pub from: Vec<String>,
    /// The same of the destination.
    pub to: Vec<String>,
    /// Destination port.
    pub port: Vec<u16>,
    /// Name or number of a protocol.
    pub protocol: Vec<String>,
    /// Not older than this.
    pub since: Option<Timestamp>,
}

/// The verdicts a flow can have.
pub const VERDICTS: [&str; 3] = ["FORWARDED", "DROPPED", "AUDIT"];

impl FlowFilter {
    /// The filter as parameters of a request.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let Self { verdict, from_label, to_label, label, from, to, port, protocol, since } = self;
        let texts = [
            ("verdict", verdict),
            ("from_label", from_label),
            ("to_label", to_label),
            ("label", label),
            ("from", from),
            ("to", to),
            ("protocol", protocol),
        ];
        let mut all: Vec<_> = texts
            .into_iter()
            .flat_map(|(key, values)| values.iter().map(move |value| (key, value.clone())))
            .collect();
        all.extend(port.iter().map(|port| ("port", port.to_string())));
        all.extend(since.iter().map(|since| ("since", since.to_string())));
        all
    }

    /// Adds the condition of one parameter. `Ok(false)` if no condition has this name.
    pub fn add(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "verdict" => {
                let verdict = value.to_ascii_uppercase();
                if !VERDICTS.contains(&verdict.as_str()) {
                    return Err(format!("verdict `{value}` is none of {}", VERDICTS.join(", ")));
                }
                self.verdict.push(verdict);
            }
            "from_label" => self.from_label.push(value.to_owned()),
            "to_label" => self.to_label.push(value.to_owned()),
            "label" => self.label.push(value.to_owned()),
            "from" => self.from.push(value.to_owned()),
            "to" => self.to.push(value.to_owned()),
            "protocol" => self.protocol.push(value.to_ascii_uppercase()),
            "port" => {
                let port = value
                    .parse()
                    .ok()
                    .ok_or_else(|| format!("port `{value}` is no number from 0 to 65535"))?;
                self.port.push(port);
            }
            "since" => {
                let since = Timestamp::parse(value)
                    .ok_or_else(|| format!("since `{value}` is no time like 2026-11-22T12:53:39Z"))?;
                self.since = Some(since);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the flow meets every condition.
    pub fn matches(&self, flow: &Flow) -> bool {
        let Self { verdict, from_label, to_label, label, from, to, port, protocol, since } = self;
        let any_label =
            |wanted: &str| has_labels(&flow.source, wanted) || has_labels(&flow.destination, wanted);
        one_of(verdict, |wanted| flow.verdict == wanted)
            && one_of(protocol, |wanted| is_protocol(&flow.l4.protocol, wanted))
            && (port.is_empty() || port.contains(&flow.l4.destination_port))
            && one_of(from_label, |wanted| has_labels(&flow.source, wanted))
            && one_of(to_label, |wanted| has_labels(&flow.destination, wanted))
            && one_of(label, any_label)
            && one_of(from, |wanted| is_workload(&flow.source, wanted))
            && one_of(to, |wanted| is_workload(&flow.destination, wanted))
            && since.is_none_or(|since| Timestamp::parse(&flow.time).is_none_or(|time| time >= since))
    }
}

fn one_of(wanted: &[String], holds: impl Fn(&str) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| holds(wanted))
}

/// By name or by number, whichever the flow has.
fn is_protocol(protocol: &str, wanted: &str) -> bool {
    protocol.eq_ignore_ascii_case(wanted)
        || wanted.parse().is_ok_and(|number: u8| number != 0 && protocol == protocol_name(number))
}

fn has_labels(end: &FlowEndpoint, wanted: &str) -> bool {
    wanted.split(',').map(str::trim).all(|wanted| end.labels.iter().any(|label| label == wanted))
}

fn is_workload(end: &FlowEndpoint, wanted: &str) -> bool {
    let (namespace, name) = wanted.split_once('/').unwrap_or((DEFAULT_NAMESPACE, wanted));
    end.namespace == namespace && (name.is_empty() || end.workloads.iter().any(|workload| workload == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::flow::{FlowIp, FlowL4, FlowProcess};

    fn flow() -> Flow {
        let end = |identity, name: &str| FlowEndpoint {
            identity,
            namespace: "default".into(),
            labels: vec![format!("app={name}"), "tier=demo".into()],
            workloads: vec![name.into()],
            cgroup_id: 1,
        };
        Flow {
            time: "2026-11-22T12:53:39.168000000Z".into(),
            verdict: "DROPPED".into(),
            drop_reason_desc: "POLICY_DENIED".into(),
            ip: FlowIp { destination: "127.0.0.1".into(), version: "IPv4".into(), ..FlowIp::default() },
            l4: FlowL4 { protocol: "TCP".into(), source_port: 0, destination_port: 5432 },
            source: end(256, "web"),
            destination: end(258, "db"),
            role: "client".into(),
            traffic_direction: "INGRESS".into(),
            decided_by: None,
            errno: Some("EPERM".into()),
            hook: "connect4".into(),
            generation: 1,
            socket_cookie: 1,
            process: FlowProcess::default(),
            node_name: "node".into(),
        }
    }

    #[test]
    fn conditions() {
        for (conditions, expected) in [
            (&[][..], true),
            (&[("verdict", "dropped")][..], true),
            (&[("verdict", "audit")], false),
            (&[("verdict", "audit"), ("verdict", "DROPPED")], true),
            (&[("from", "web")], true),
            (&[("from", "default/"), ("to", "default/db")], true),
            (&[("from", "other/web")], false),
            (&[("to", "web")], false),
            (&[("label", "app=db")], true),
            (&[("from_label", "app=db")], false),
            (&[("to_label", "app=db,tier=demo")], true),
            (&[("to_label", "app=db,tier=prod")], false),
            (&[("port", "5432"), ("protocol", "tcp")], true),
            (&[("port", "5432"), ("protocol", "udp")], false),
            (&[("protocol", "6")], true),
            (&[("protocol", "17")], false),
            (&[("protocol", "0")], false),
            (&[("since", "2026-11-22T12:53:39Z")], true),
            (&[("since", "2026-11-22T12:53:40Z")], false),
        ] {
            let mut filter = FlowFilter::default();
            for (key, value) in conditions {
                assert_eq!(filter.add(key, value), Ok(true));
            }
            assert_eq!(filter.matches(&flow()), expected, "{conditions:?}");
            let mut copy = FlowFilter::default();
            for (key, value) in filter.parameters() {
                assert_eq!(copy.add(key, &value), Ok(true));
            }
            assert_eq!(copy, filter);
        }
        assert_eq!(FlowFilter::default().add("colour", "red"), Ok(false));
        assert!(FlowFilter::default().add("port", "http").is_err());
        assert!(FlowFilter::default().add("since", "yesterday").is_err());
    }
}
