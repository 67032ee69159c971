//! Flows in the JSON shape of Hubble, so that recipes and tools written for its records work on ours.
//!
//! The names are those of `flow.proto` in the JSON form of protocol buffers, as `hubble observe -o json` prints them. What
//! Hubble has no field for stands in `enforcer`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::flow::{Flow, FlowEndpoint, FlowIp, FlowL4, FlowProcess, FlowRule};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The flow.
    pub flow: Record,
    /// Name of the host, again.
    #[serde(default)]
    pub node_name: String,
    /// The time, again.
    #[serde(default)]
    pub time: String,
}

/// A flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    time: String,
    verdict: String,
    drop_reason_desc: String,
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    ip: Option<FlowIp>,
    /// By the name of the protocol.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    l4: BTreeMap<String, Ports>,
    source: Endpoint,
    destination: Endpoint,
    #[serde(rename = "Type")]
    kind: String,
    node_name: String,
    event_type: EventType,
    traffic_direction: String,
    socket_cookie: String,
    is_reply: bool,
    #[serde(rename = "Summary")]
    summary: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    egress_allowed_by: Vec<Rule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ingress_allowed_by: Vec<Rule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    egress_denied_by: Vec<Rule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ingress_denied_by: Vec<Rule>,
    /// What Hubble has no field for.
    enforcer: Own,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ports {
    #[serde(default, skip_serializing_if = "is_zero")]
    source_port: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    destination_port: u16,
    /// Of ICMP, which has no ports.
    #[serde(default, rename = "type", skip_serializing_if = "is_zero")]
    kind: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Endpoint {
    identity: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    labels: Vec<String>,
    /// Where one workload only can be meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pod_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workloads: Vec<Workload>,
    /// 64 bits are text in the JSON form.
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Workload {
    name: String,
}

/// Numbers of Cilium's monitor: 1 is a drop, 5 a verdict of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct EventType {
    #[serde(rename = "type", default)]
    number: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Rule {
    name: String,
    namespace: String,
    kind: String,
    /// Generation of the tables, as text.
    revision: String,
    /// The rule's place in the policy.
    #[serde(rename = "rule")]
    place: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Own {
    role: String,
    hook: String,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<FlowRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<FlowProcess>,
}

const DROP: u32 = 1;
const POLICY_VERDICT: u32 = 5;

impl From<&Flow> for Line {
    fn from(flow: &Flow) -> Self {
        let mut record = Record {
            time: flow.time.clone(),
            verdict: flow.verdict.clone(),
            drop_reason_desc: flow.drop_reason_desc.clone(),
            ip: (flow.ip != FlowIp::default()).then(|| flow.ip.clone()),
            l4: ports(&flow.l4),
            source: (&flow.source).into(),
            destination: (&flow.destination).into(),
            kind: "L3_L4".to_owned(),
            node_name: flow.node_name.clone(),
            event_type: EventType { number: if flow.is_about_a_socket() { DROP } else { POLICY_VERDICT } },
            traffic_direction: flow.traffic_direction.clone(),
            socket_cookie: flow.socket_cookie.to_string(),
            summary: flow.l4.protocol.clone(),
            enforcer: Own {
                role: flow.role.clone(),
                hook: flow.hook.clone(),
                generation: flow.generation,
                errno: flow.errno.clone(),
                decided_by: flow.decided_by.clone(),
                process: (flow.process != FlowProcess::default()).then(|| flow.process.clone()),
            },
            ..Record::default()
        };
        let rules: Vec<Rule> = flow.decided_by.iter().map(|rule| named(rule, flow.generation)).collect();
        let place = match (flow.traffic_direction.as_str(), flow.verdict.as_str()) {
            ("INGRESS", "FORWARDED") => &mut record.ingress_allowed_by,
            ("INGRESS", _) => &mut record.ingress_denied_by,
            (_, "FORWARDED") => &mut record.egress_allowed_by,
            _ => &mut record.egress_denied_by,
        };
        *place = rules;
        Self { flow: record, node_name: flow.node_name.clone(), time: flow.time.clone() }
    }
}

impl From<Line> for Flow {
    fn from(line: Line) -> Self {
        let Record { enforcer: own, l4, .. } = line.flow;
        let l4 = l4.into_iter().next();
        let (protocol, ports) = l4.unwrap_or_default();
        Self {
            time: if line.flow.time.is_empty() { line.time } else { line.flow.time },
            verdict: line.flow.verdict,
            drop_reason_desc: line.flow.drop_reason_desc,
            ip: line.flow.ip.unwrap_or_default(),
            l4: FlowL4 {
                protocol,
                source_port: ports.source_port,
                destination_port: ports.destination_port.max(ports.kind),
            },
            source: line.flow.source.into(),
            destination: line.flow.destination.into(),
            role: own.role,
            traffic_direction: line.flow.traffic_direction,
            decided_by: own.decided_by,
            errno: own.errno,
            hook: own.hook,
            generation: own.generation,
            socket_cookie: line.flow.socket_cookie.parse().unwrap_or(0),
            process: own.process.unwrap_or_default(),
            node_name: if line.node_name.is_empty() { line.flow.node_name } else { line.node_name },
        }
    }
}

fn ports(l4: &FlowL4) -> BTreeMap<String, Ports> {
    if l4.protocol.is_empty() {
        return BTreeMap::new();
    }
    let ports = if l4.protocol.starts_with("ICMP") {
        Ports { kind: l4.destination_port, ..Ports::default() }
    } else {
        Ports { source_port: l4.source_port, destination_port: l4.destination_port, kind: 0 }
    };
    BTreeMap::from([(l4.protocol.clone(), ports)])
}

fn named(rule: &FlowRule, generation: u64) -> Rule {
    Rule {
        name: rule.name.clone(),
        namespace: rule.namespace.clone(),
        kind: rule.kind.clone(),
        revision: generation.to_string(),
        place: rule.rule.clone(),
    }
}

impl From<&FlowEndpoint> for Endpoint {
    fn from(end: &FlowEndpoint) -> Self {
        let pod_name = match end.workloads.as_slice() {
            [one] => one.split_once('/').map_or(one.as_str(), |(pod, _container)| pod).to_owned(),
            _ => String::new(),
        };
        Self {
            identity: end.identity,
            namespace: end.namespace.clone(),
            labels: end.labels.clone(),
            pod_name,
            workloads: end.workloads.iter().map(|name| Workload { name: name.clone() }).collect(),
            cgroup_id: (end.cgroup_id != 0).then(|| end.cgroup_id.to_string()),
        }
    }
}

impl From<Endpoint> for FlowEndpoint {
    fn from(end: Endpoint) -> Self {
        Self {
            identity: end.identity,
            namespace: end.namespace,
            labels: end.labels,
            workloads: end.workloads.into_iter().map(|workload| workload.name).collect(),
            cgroup_id: end.cgroup_id.and_then(|id| id.parse().ok()).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way() {
        let end = |identity, workloads: &[&str]| FlowEndpoint {
            identity,
            namespace: "default".into(),
            labels: vec!["app=web".into()],
            workloads: workloads.iter().map(|name| (*name).to_owned()).collect(),
            cgroup_id: u64::MAX,
        };
        let flow = Flow {
            time: "2026-11-22T12:53:39.168000000Z".into(),
            verdict: "DROPPED".into(),
            drop_reason_desc: "POLICY_DENIED".into(),
            ip: FlowIp { destination: "127.0.0.1".into(), version: "IPv4".into(), ..FlowIp::default() },
            l4: FlowL4 { protocol: "TCP".into(), source_port: 0, destination_port: 5432 },
            source: end(256, &["web"]),
            destination: end(258, &["a", "b"]),
            role: "client".into(),
            traffic_direction: "INGRESS".into(),
            decided_by: Some(FlowRule {
                namespace: "default".into(),
                name: "db".into(),
                kind: "TrafficPolicy".into(),
                rule: "ingress (isolated)".into(),
            }),
            errno: Some("EPERM".into()),
            hook: "connect4".into(),
            generation: 7,
            socket_cookie: u64::MAX,
            process: FlowProcess { pid: 3, uid: 1000, comm: "curl".into() },
            node_name: "node-1".into(),
        };
        let line = Line::from(&flow);
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(json["flow"]["l4"]["TCP"]["destination_port"], 5432);
        assert_eq!(json["flow"]["source"]["pod_name"], "web");
        assert_eq!(json["flow"]["destination"]["pod_name"], serde_json::Value::Null);
        assert_eq!(json["flow"]["destination"]["workloads"][1]["name"], "b");
        assert_eq!(json["flow"]["ingress_denied_by"][0]["name"], "db");
        assert_eq!(json["flow"]["egress_denied_by"], serde_json::Value::Null);
        assert_eq!(json["node_name"], "node-1");
        let back: Line = serde_json::from_value(json).unwrap();
        assert_eq!(Flow::from(back), flow);

        let l4 = FlowL4 { protocol: "ICMPv4".into(), source_port: 0, destination_port: 8 };
        let ping = Flow { l4, ..flow };
        let json = serde_json::to_value(Line::from(&ping)).unwrap();
        assert_eq!(json["flow"]["l4"], serde_json::json!({"ICMPv4": {"type": 8}}));
        assert_eq!(Flow::from(serde_json::from_value::<Line>(json).unwrap()), ping);
    }

    /// A record as Hubble's own documentation has it, shortened.
    #[test]
    fn a_record_of_hubble_is_read() {
        let text = r#"{"flow":{"time":"2023-03-23T22:35:16.365272245Z","uuid":"00f0cb9d","verdict":"DROPPED",
            "ethernet":{"source":"aa"},"IP":{"source":"10.0.1.12","destination":"10.0.1.5","ipVersion":"IPv4"},
            "l4":{"TCP":{"source_port":44916,"destination_port":80,"flags":{"SYN":true}}},
            "source":{"ID":1,"identity":9,"namespace":"default","labels":["k8s:app=web"],"pod_name":"xwing"},
            "destination":{"identity":8,"workloads":[{"name":"deathstar","kind":"Deployment"}]},
            "Type":"L3_L4","node_name":"node-1","event_type":{"type":5},"drop_reason_desc":"POLICY_DENIED"},
            "node_name":"node-1","time":"2023-03-23T22:35:16.365272245Z"}"#;
        let flow = Flow::from(serde_json::from_str::<Line>(text).unwrap());
        assert_eq!((flow.l4.destination_port, flow.l4.protocol.as_str()), (80, "TCP"));
        assert_eq!((flow.source.identity, flow.destination.workloads.len()), (9, 1));
    }
}
