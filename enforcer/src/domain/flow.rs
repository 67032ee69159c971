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
    /// The end that is called; nobody where a socket was refused before it could call anyone.
    pub destination: FlowEndpoint,
    /// Which end's socket it was: `client` (the source) or `server` (the destination).
    pub role: String,
    /// `EGRESS` or `INGRESS`: whose policy decided.
    pub traffic_direction: String,
    /// The rule that decided, if any.
    pub decided_by: Option<FlowRule>,
    /// Name of the errno that the call ended with; none where a packet was judged, because nobody waits for it.
    pub errno: Option<String>,
    /// Program of the hook that saw the flow.
    pub hook: String,
    /// Generation of the tables that judged.
    pub generation: u64,
    /// Socket cookie.
    pub socket_cookie: u64,
    /// The process that made the call; nobody where a packet was judged.
    pub process: FlowProcess,
    /// Name of the host.
    pub node_name: String,
}

impl Flow {
    /// Whether it tells of a socket that was refused, in a call of which no policy speaks.
    pub fn is_about_a_socket(&self) -> bool {
        matches!(self.hook.as_str(), "sock_create" | "socket_create" | "setsockopt" | "bind4" | "bind6")
    }
}

/// Some of the flows that are remembered, one after the other. Flows have numbers; the first that was told has 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowPage {
    /// Flows from the number on that was asked for which are not remembered any more.
    pub lost: u64,
    /// Those after them.
    pub flows: Vec<Flow>,
    /// Number of the one after all of these.
    pub next: u64,
}

impl FlowPage {
    /// The flows, each with its number.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &Flow)> {
        (self.next - self.flows.len() as u64..).zip(&self.flows)
    }
}

/// Addresses of a flow. The end whose socket it was knows the address of the other; what is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowIp {
    /// Source address, where the server's end saw the flow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Destination address, where the client's end saw the flow. Of a refused `bind`: the address that was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// `IPv4` or `IPv6`.
    #[serde(default, rename = "ipVersion", skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// Transport part of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowL4 {
    /// See [`protocol_name`].
    pub protocol: String,
    /// Source port, left out where it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// Protocols that have a name here; the first three are those that policies may name.
const PROTOCOLS: [(u8, &str); 7] =
    [(6, "TCP"), (17, "UDP"), (132, "SCTP"), (1, "ICMPv4"), (58, "ICMPv6"), (136, "UDP-Lite"), (255, "RAW")];

/// `TCP`, `UDP`, `ICMPv4` and so on, or the number; empty for 0, which stands for "not known".
pub fn protocol_name(number: u8) -> String {
    if number == 0 {
        return String::new();
    }
    let known = PROTOCOLS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
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
