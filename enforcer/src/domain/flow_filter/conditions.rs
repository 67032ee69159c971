//! The one table of conditions: names of parameters, names of flags, their documentation and what they mean.

use std::net::IpAddr;

use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use ipnet::IpNet;

use crate::domain::flow::{Flow, FlowEndpoint, protocol_name};
use crate::domain::unit;
use crate::domain::workload::DEFAULT_NAMESPACE;

/// One kind of condition.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// The flag; with `_` for `-` the parameter of the API.
    pub key: &'static str,
    /// The short flag.
    pub short: Option<char>,
    /// Other names of the flag, which users of Hubble know.
    pub aliases: &'static [&'static str],
    /// What stands for the value in help texts.
    pub value_name: &'static str,
    /// Whether commas separate alternatives; where they belong to a value, the flag is repeated.
    pub list: bool,
    /// One sentence.
    pub doc: &'static str,
    /// The value in the one form that `holds` takes, or what is wrong with it.
    pub(super) read: fn(&str) -> Result<String, String>,
    /// Whether a flow has the value.
    pub(super) holds: fn(&Flow, &str) -> bool,
}

macro_rules! conditions {
    ($($key:literal $($short:literal)? [$($alias:literal)*] $value:literal $list:literal $doc:literal: $read:expr, $holds:expr;)*) => {
        /// Every condition, in the order of the help text.
        pub const CONDITIONS: &[Condition] = &[$(Condition {
            key: $key,
            short: conditions!(@short $($short)?),
            aliases: &[$($alias),*],
            value_name: $value,
            list: $list,
            doc: $doc,
            read: $read,
            holds: $holds,
        },)*];
    };
    (@short) => { None };
    (@short $short:literal) => { Some($short) };
}

conditions! {
    "verdict" [] "VERDICT" true "What became of the flow: FORWARDED, DROPPED or AUDIT": verdict, |flow, it| flow.verdict == it;
    "type" 't' [] "TYPE" true "drop, policy-verdict or socket-verdict": kind, |flow, it| is_kind(flow, it);
    "drop-reason-desc" [] "REASON" true "Why: POLICY_DENIED, INVALID_IDENTITY, QUARANTINED, ...": reason, |flow, it| flow.drop_reason_desc == it;
    "traffic-direction" [] "DIRECTION" true "Whose policy decided: ingress or egress": direction, |flow, it| flow.traffic_direction == it;
    "policy" [] "POLICY" true "The policy that decided, `[namespace/]name`": text, by_policy;
    "from" ["from-workload" "from-pod"] "WORKLOAD" true "Workload of the source, `[namespace/]name`; `namespace/` means all of it": text, |flow, it| is_workload(&flow.source, it);
    "to" ["to-workload" "to-pod"] "WORKLOAD" true "Workload of the destination": text, |flow, it| is_workload(&flow.destination, it);
    "workload" ["pod"] "WORKLOAD" true "Workload of either end": text, |flow, it| either(flow, |end| is_workload(end, it));
    "from-label" [] "LABELS" false "Labels of the source, `key=value[,key=value]`: all of them": text, |flow, it| has_labels(&flow.source, it);
    "to-label" [] "LABELS" false "Labels of the destination": text, |flow, it| has_labels(&flow.destination, it);
    "label" 'l' [] "LABELS" false "Labels of either end": text, |flow, it| either(flow, |end| has_labels(end, it));
    "from-namespace" [] "NAMESPACE" true "Namespace of the source": text, |flow, it| flow.source.namespace == it;
    "to-namespace" [] "NAMESPACE" true "Namespace of the destination": text, |flow, it| flow.destination.namespace == it;
    "namespace" 'n' [] "NAMESPACE" true "Namespace of either end": text, |flow, it| either(flow, |end| end.namespace == it);
    "from-identity" [] "IDENTITY" true "Identity of the source: a number, or host, world, unmanaged, ...": identity, |flow, it| is_identity(&flow.source, it);
    "to-identity" [] "IDENTITY" true "Identity of the destination": identity, |flow, it| is_identity(&flow.destination, it);
    "identity" [] "IDENTITY" true "Identity of either end": identity, |flow, it| either(flow, |end| is_identity(end, it));
    "from-ip" [] "ADDRESS" true "Address of the source, or a block of them": network, |flow, it| is_within(&flow.ip.source, it);
    "to-ip" [] "ADDRESS" true "Address of the destination": network, |flow, it| is_within(&flow.ip.destination, it);
    "ip" [] "ADDRESS" true "Address of either end": network, |flow, it| is_within(&flow.ip.source, it) || is_within(&flow.ip.destination, it);
    "ip-version" [] "VERSION" true "4 or 6": version, |flow, it| flow.ip.version == it;
    "from-port" [] "PORT" true "Port of the source": port, |flow, it| flow.l4.source_port.to_string() == it;
    "to-port" [] "PORT" true "Port of the destination": port, |flow, it| flow.l4.destination_port.to_string() == it;
    "port" [] "PORT" true "Port of either end": port, |flow, it| flow.l4.source_port.to_string() == it || flow.l4.destination_port.to_string() == it;
    "protocol" [] "PROTOCOL" true "TCP, UDP or another name that flows show, or a protocol number": upper, |flow, it| is_protocol(&flow.l4.protocol, it);
    "process" [] "COMMAND" true "Command name of the calling process": text, |flow, it| flow.process.comm == it;
    "node-name" [] "NODE" true "Name of the host; `*` stands for any text": text, |flow, it| unit::matches(it, &flow.node_name);
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all readers")]
fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all readers")]
fn upper(value: &str) -> Result<String, String> {
    Ok(value.to_ascii_uppercase())
}

fn one_of<'a>(value: &str, known: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
    let known: Vec<&str> = known.into_iter().collect();
    let found = known.iter().find(|known| known.eq_ignore_ascii_case(value));
    found.map(|known| (*known).to_owned()).ok_or_else(|| format!("`{value}` is none of {}", known.join(", ")))
}

fn verdict(value: &str) -> Result<String, String> {
    one_of(value, ["FORWARDED", "DROPPED", "AUDIT"])
}

fn kind(value: &str) -> Result<String, String> {
    one_of(value, ["drop", "policy-verdict", "socket-verdict"])
}

fn reason(value: &str) -> Result<String, String> {
    one_of(value, Reason::ALL.iter().map(|reason| reason.label()))
}

fn direction(value: &str) -> Result<String, String> {
    one_of(value, ["INGRESS", "EGRESS"])
}

fn version(value: &str) -> Result<String, String> {
    match value.trim_start_matches(['v', 'V']) {
        "4" | "IPv4" => Ok("IPv4".to_owned()),
        "6" | "IPv6" => Ok("IPv6".to_owned()),
        _ => Err(format!("`{value}` is none of 4, 6")),
    }
}

fn port(value: &str) -> Result<String, String> {
    let port: Option<u16> = value.parse().ok();
    port.map(|port| port.to_string()).ok_or_else(|| format!("`{value}` is no number from 0 to 65535"))
}

fn network(value: &str) -> Result<String, String> {
    let address = value.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| value.parse::<IpNet>()).ok();
    network
        .map(|network| network.trunc().to_string())
        .ok_or_else(|| format!("`{value}` is no address like 192.0.2.1, and no block like 192.0.2.0/24"))
}

/// The number, whatever was given.
fn identity(value: &str) -> Result<String, String> {
    if let Ok(number) = value.parse::<u32>() {
        return Ok(number.to_string());
    }
    let name = value.strip_prefix("reserved:").unwrap_or(value);
    let reserved = (0..IdentityId::FIRST_WORKLOAD.0).map(IdentityId);
    let mut named = reserved.filter_map(|id| Some((id.reserved_name()?, id)));
    named
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, id)| id.0.to_string())
        .ok_or_else(|| format!("`{value}` is neither a number nor the name of a reserved identity"))
}

fn either(flow: &Flow, holds: impl Fn(&FlowEndpoint) -> bool) -> bool {
    holds(&flow.source) || holds(&flow.destination)
}

fn is_kind(flow: &Flow, wanted: &str) -> bool {
    match wanted {
        "drop" => flow.verdict == "DROPPED",
        "socket-verdict" => flow.is_about_a_socket(),
        _ => !flow.is_about_a_socket(),
    }
}

fn by_policy(flow: &Flow, wanted: &str) -> bool {
    flow.decided_by.as_ref().is_some_and(|rule| match wanted.split_once('/') {
        Some((namespace, name)) => rule.namespace == namespace && rule.name == name,
        None => rule.name == wanted,
    })
}

fn is_identity(end: &FlowEndpoint, wanted: &str) -> bool {
    wanted.parse() == Ok(end.identity)
}

fn is_within(address: &str, wanted: &str) -> bool {
    let (Ok(address), Ok(network)) = (address.parse::<IpAddr>(), wanted.parse::<IpNet>()) else {
        return false;
    };
    network.contains(&address)
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
    // A pod's name means its containers too.
    let is_it = |workload: &String| {
        workload.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    end.namespace == namespace && (name.is_empty() || end.workloads.iter().any(is_it))
}
