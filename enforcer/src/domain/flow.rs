//! Flows with names: what an event or a counter means to people and tools.
//!
//! The JSON shape follows Hubble's flow record, so that recipes written for it work here.

use serde::{Deserialize, Serialize};

/// A flow as `observe` prints it and the API streams it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Wall-clock time, RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// `FORWARDED`, `DROPPED` or `AUDIT`.
    pub verdict: String,
    /// Label of the [`Reason`](enforcer_common::reason::Reason) of the deciding direction.
    pub drop_reason_desc: String,
    /// Addresses.
    #[serde(rename = "IP")]
    pub ip: FlowIp,
    /// Transport protocol and port.
    pub l4: FlowL4,
    /// The end that opens the flow.
    pub source: FlowEndpoint,
    /// The end that is called.
    pub destination: FlowEndpoint,
    /// `EGRESS` or `INGRESS`: whose policy decided.
    pub traffic_direction: String,
    /// The rule that decided, if any.
    pub decided_by: Option<FlowRule>,
    /// Name of the errno the application got, if any.
    pub errno: Option<String>,
    /// Program of the hook that saw the flow.
    pub hook: String,
    /// Generation of the tables that judged.
    pub generation: u64,
    /// Socket cookie.
    pub socket_cookie: u64,
    /// The process that made the call.
    pub process: FlowProcess,
    /// Name of the host.
    pub node_name: String,
}

/// Addresses of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowIp {
    /// Destination address.
    pub destination: String,
    /// `IPv4` or `IPv6`.
    #[serde(rename = "ipVersion")]
    pub version: String,
}

/// Transport part of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowL4 {
    /// `TCP`, `UDP`, or the protocol number.
    pub protocol: String,
    /// Destination port.
    pub destination_port: u16,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEndpoint {
    /// Identity number.
    pub identity: u32,
    /// Namespace of a workload, empty for reserved identities.
    pub namespace: String,
    /// `key=value` labels, or `reserved:NAME`.
    pub labels: Vec<String>,
    /// Names of the workload (`namespace/name` without the namespace).
    pub workloads: Vec<String>,
    /// Cgroup id of the socket's creator, 0 if not known.
    pub cgroup_id: u64,
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRule {
    /// Policy namespace.
    pub namespace: String,
    /// Policy name.
    pub name: String,
    /// Policy kind.
    pub kind: String,
    /// Where in the policy, e.g. `ingress[0]` or `ingress (isolated)`.
    pub rule: String,
}

/// The process that made the call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowProcess {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// User id in the host's user namespace.
    pub uid: u32,
    /// Command name, at most 15 bytes.
    pub comm: String,
}
