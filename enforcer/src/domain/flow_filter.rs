//! Which flows somebody wants to see. The server of the API and `observe` share it, and the table of conditions too.
//!
//! As in Hubble: values of one condition are alternatives, conditions of different kinds must all hold, and of what is
//! not wanted nothing may hold.

mod conditions;

use std::collections::BTreeMap;

use super::flow::Flow;
use super::timestamp::Timestamp;
use super::unit;

pub use conditions::{CONDITIONS, Condition};

/// What stands before the key of a condition that must not hold.
const NOT: &str = "not_";
/// The condition on the host.
const NODE: &str = "node-name";

/// Conditions on a flow; without any, every flow is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Values by the condition's place in [`CONDITIONS`]; one of each list must hold.
    wanted: BTreeMap<usize, Vec<String>>,
    /// The same; none may hold.
    unwanted: BTreeMap<usize, Vec<String>>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl FlowFilter {
    /// The filter as parameters of a request.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (prefix, conditions) in [("", &self.wanted), (NOT, &self.unwanted)] {
            for (index, values) in conditions {
                let key = CONDITIONS.get(*index).map_or("", |condition| condition.key);
                let key = format!("{prefix}{}", key.replace('-', "_"));
                all.extend(values.iter().map(|value| (key.clone(), value.clone())));
            }
        }
        for (key, time) in [("since", self.since), ("until", self.until)] {
            all.extend(time.map(|time| (key.to_owned(), time.to_string())));
        }
        all
    }

    /// The filter as flags of the command line.
    pub fn flags(&self) -> Vec<String> {
        let flag = |(key, value): (String, String)| {
            let (turned, plain) = match key.strip_prefix(NOT) {
                Some(plain) => (Some("--not".to_owned()), plain),
                None => (None, key.as_str()),
            };
            turned.into_iter().chain([format!("--{}={value}", plain.replace('_', "-"))])
        };
        self.parameters().into_iter().flat_map(flag).collect()
    }

    /// Whether flows of the host of this name can be wanted.
    pub fn takes_node(&self, name: &str) -> bool {
        let Some(index) = node() else { return true };
        let is_meant = |patterns: &Vec<String>| patterns.iter().any(|pattern| unit::matches(pattern, name));
        self.wanted.get(&index).is_none_or(is_meant) && !self.unwanted.get(&index).is_some_and(is_meant)
    }

    /// The same conditions without those on the host.
    #[must_use]
    pub fn on_any_node(&self) -> Self {
        let mut filter = self.clone();
        if let Some(index) = node() {
            filter.wanted.remove(&index);
            filter.unwanted.remove(&index);
        }
        filter
    }

    /// Adds the condition of one parameter. `Ok(false)` if no condition has this name.
    ///
    /// # Errors
    /// Says what values the condition has.
    pub fn add(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let moment = |value: &str| {
            Timestamp::parse(value)
                .ok_or_else(|| format!("{key} `{value}` is no time like 2026-11-22T12:53:39Z"))
        };
        match key {
            "since" => self.since = Some(moment(value)?),
            "until" => self.until = Some(moment(value)?),
            _ => {
                let (conditions, plain) = match key.strip_prefix(NOT) {
                    Some(plain) => (&mut self.unwanted, plain),
                    None => (&mut self.wanted, key),
                };
                let flag = plain.replace('_', "-");
                let Some(index) = CONDITIONS.iter().position(|condition| condition.key == flag) else {
                    return Ok(false);
                };
                let value = (CONDITIONS[index].read)(value).map_err(|problem| format!("{flag} {problem}"))?;
                conditions.entry(index).or_default().push(value);
            }
        }
        Ok(true)
    }

    /// Adds a condition that must hold, or must not, by its place in [`CONDITIONS`].
    ///
    /// # Errors
    /// As [`FlowFilter::add`].
    pub fn want(&mut self, condition: &Condition, holds: bool, value: &str) -> Result<(), String> {
        let key = format!("{}{}", if holds { "" } else { NOT }, condition.key);
        self.add(&key, value).map(|_| ())
    }

    /// Only flows that are not older.
    pub fn since(&mut self, moment: Timestamp) {
        self.since = Some(moment);
    }

    /// The same conditions without those on time.
    #[must_use]
    pub fn whenever(&self) -> Self {
        Self { since: None, until: None, ..self.clone() }
    }

    /// The time of the oldest flow that is wanted.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.since
    }

    /// Only flows that are not younger.
    pub fn until(&mut self, moment: Timestamp) {
        self.until = Some(moment);
    }

    /// Whether the flow meets every condition.
    pub fn matches(&self, flow: &Flow) -> bool {
        let holds = |(index, values): (&usize, &Vec<String>)| {
            CONDITIONS
                .get(*index)
                .is_some_and(|condition| values.iter().any(|value| (condition.holds)(flow, value)))
        };
        self.wanted.iter().all(holds) && !self.unwanted.iter().any(holds) && self.is_in_time(flow)
    }

    /// What has no readable time is not left out for it.
    fn is_in_time(&self, flow: &Flow) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        Timestamp::parse(&flow.time).is_none_or(|time| {
            self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
        })
    }
}

/// The place of the condition on the host.
fn node() -> Option<usize> {
    CONDITIONS.iter().position(|condition| condition.key == NODE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::flow::{FlowEndpoint, FlowIp, FlowL4, FlowProcess, FlowRule};

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
            decided_by: Some(FlowRule {
                namespace: "default".into(),
                name: "db-only".into(),
                kind: "TrafficPolicy".into(),
                rule: "ingress[0]".into(),
            }),
            errno: Some("EPERM".into()),
            hook: "connect4".into(),
            generation: 1,
            socket_cookie: 1,
            process: FlowProcess { pid: 7, uid: 0, comm: "curl".into() },
            node_name: "node-1".into(),
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
            (&[("until", "2026-11-22T12:53:40Z")], true),
            (&[("until", "2026-11-22T12:53:39Z")], false),
            (&[("not_verdict", "DROPPED")], false),
            (&[("not_verdict", "FORWARDED"), ("not_port", "80")], true),
            (&[("verdict", "DROPPED"), ("not_from", "web")], false),
            (&[("workload", "db")], true),
            (&[("workload", "api")], false),
            (&[("namespace", "default")], true),
            (&[("from_namespace", "kube-system")], false),
            (&[("identity", "258")], true),
            (&[("from_identity", "258")], false),
            (&[("to_identity", "world")], false),
            (&[("ip", "127.0.0.0/8")], true),
            (&[("from_ip", "127.0.0.1")], false),
            (&[("ip_version", "4")], true),
            (&[("ip_version", "6")], false),
            (&[("traffic_direction", "ingress")], true),
            (&[("drop_reason_desc", "policy_denied")], true),
            (&[("drop_reason_desc", "NO_POLICY_TABLES")], false),
            (&[("type", "drop")], true),
            (&[("type", "socket-verdict")], false),
            (&[("policy", "db-only")], true),
            (&[("policy", "other/db-only")], false),
            (&[("node_name", "node-1")], true),
            (&[("node_name", "other"), ("node_name", "n*-1")], true),
            (&[("not_node_name", "*")], false),
            (&[("process", "curl")], true),
            (&[("from_port", "5432")], false),
            (&[("to_port", "5432")], true),
        ] {
            let mut filter = FlowFilter::default();
            for (key, value) in conditions {
                assert_eq!(filter.add(key, value), Ok(true));
            }
            assert_eq!(filter.matches(&flow()), expected, "{conditions:?}");
            let mut copy = FlowFilter::default();
            for (key, value) in filter.parameters() {
                assert_eq!(copy.add(&key, &value), Ok(true));
            }
            assert_eq!(copy, filter);
        }
        assert_eq!(FlowFilter::default().add("colour", "red"), Ok(false));
        for (key, value) in [
            ("port", "http"),
            ("from_ip", "somewhere"),
            ("identity", "nobody-at-all"),
            ("ip_version", "5"),
            ("drop_reason_desc", "BAD_LUCK"),
            ("type", "l7"),
            ("not_verdict", "MAYBE"),
        ] {
            assert!(FlowFilter::default().add(key, value).is_err(), "{key} {value}");
        }
        assert!(FlowFilter::default().add("since", "yesterday").is_err());
    }

    #[test]
    fn nodes_are_chosen_by_name() {
        let mut filter = FlowFilter::default();
        filter.add("port", "80").unwrap();
        assert!(filter.takes_node("anybody"));
        filter.add("node_name", "rack1-*").unwrap();
        filter.add("node_name", "n1").unwrap();
        filter.add("not_node_name", "*-7").unwrap();
        let taken: Vec<bool> = ["rack1-6", "rack1-7", "rack2-6", "n1", "n11"]
            .iter()
            .map(|name| filter.takes_node(name))
            .collect();
        assert_eq!(taken, [true, false, false, true, false]);
        assert_eq!(filter.on_any_node().flags(), ["--port=80"]);
    }

    #[test]
    fn flags_say_the_same() {
        let mut filter = FlowFilter::default();
        for (key, value) in
            [("verdict", "DROPPED"), ("not_from_label", "a=b,c=d"), ("since", "2026-11-22T12:53:39Z")]
        {
            filter.add(key, value).unwrap();
        }
        assert_eq!(
            filter.flags(),
            ["--verdict=DROPPED", "--not", "--from-label=a=b,c=d", "--since=2026-11-22T12:53:39.000000000Z"]
        );
    }
}
