//! Items of `ports`: the same in the project's own kinds and in `NetworkPolicy`, but for the types of ICMP.
//!
//! ICMP has no ports. The type of a message stands in their place, in the model and in the kernel, so a rule for a type is a
//! rule for a port like others.

use enforcer_common::packet::icmp_type;

use super::diagnostic::{Code, nearest, quote};
use super::model::{PortMatch, PortRange};
use super::rules::MAX_ITEMS;
use crate::domain::syntax::Name;
use crate::domain::yaml::{Mapping, Node, Reader, Value};

/// The protocols whose ports are judged.
pub const PROTOCOLS: [(&str, u8); 3] = [("TCP", TCP), ("UDP", 17), ("SCTP", 132)];
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The protocols of the rules of the project's own kinds.
pub const OWN_PROTOCOLS: [(&str, u8); 5] =
    [PROTOCOLS[0], PROTOCOLS[1], PROTOCOLS[2], ("ICMP", ICMP), ("ICMPv6", ICMPV6)];

/// Types of messages that open a flow, by protocol: RFC 792, 950, 1256, 8335; RFC 4443, 2710, 3810, 4861, 8335.
const TYPES: [(u8, &str, u8); 25] = [
    (ICMP, "destination-unreachable", 3),
    (ICMP, "source-quench", 4),
    (ICMP, "redirect", 5),
    (ICMP, "echo-request", 8),
    (ICMP, "router-advertisement", 9),
    (ICMP, "router-solicitation", 10),
    (ICMP, "time-exceeded", 11),
    (ICMP, "parameter-problem", 12),
    (ICMP, "timestamp-request", 13),
    (ICMP, "information-request", 15),
    (ICMP, "address-mask-request", 17),
    (ICMP, "extended-echo-request", 42),
    (ICMPV6, "destination-unreachable", 1),
    (ICMPV6, "packet-too-big", 2),
    (ICMPV6, "time-exceeded", 3),
    (ICMPV6, "parameter-problem", 4),
    (ICMPV6, "echo-request", 128),
    (ICMPV6, "multicast-listener-query", 130),
    (ICMPV6, "multicast-listener-report", 131),
    (ICMPV6, "router-solicitation", 133),
    (ICMPV6, "router-advertisement", 134),
    (ICMPV6, "neighbor-solicitation", 135),
    (ICMPV6, "neighbor-advertisement", 136),
    (ICMPV6, "redirect", 137),
    (ICMPV6, "extended-echo-request", 160),
];

/// Names of answers, and what is written instead.
const ANSWERS: [(&str, &str); 5] = [
    ("echo-reply", "echo-request"),
    ("timestamp-reply", "timestamp-request"),
    ("information-reply", "information-request"),
    ("address-mask-reply", "address-mask-request"),
    ("extended-echo-reply", "extended-echo-request"),
];

/// The name of a type, if it has one.
pub fn type_name(protocol: u8, kind: u16) -> Option<&'static str> {
    let found = TYPES.iter().find(|(of, _, number)| *of == protocol && u16::from(*number) == kind);
    found.map(|(_, name, _)| *name)
}

/// The type with this name.
pub fn type_number(protocol: u8, name: &str) -> Option<u16> {
    let found = TYPES.iter().find(|(of, known, _)| *of == protocol && *known == name);
    found.map(|(_, _, number)| u16::from(*number))
}

/// Whether it is a protocol whose messages have types in the place of ports.
pub fn has_types(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6)
}

const SOCKETS: &str = "`sockets` of a policy says who may open such sockets, and the setting `allowed-sockets` where no policy does";

/// Names of other protocols, and why no rule can name them.
const OTHERS: [(&str, &str); 8] = [
    (
        "MPTCP",
        "a connection of MPTCP is judged as TCP: write TCP; `sockets` of a policy says who may open such sockets",
    ),
    ("ICMP", "only `ingress` and `egress` of a TrafficPolicy or ClusterTrafficPolicy speak of it"),
    ("ICMPV6", "only `ingress` and `egress` of a TrafficPolicy or ClusterTrafficPolicy speak of it"),
    ("UDPLITE", SOCKETS),
    ("DCCP", SOCKETS),
    ("RAW", SOCKETS),
    ("PING", SOCKETS),
    ("ANY", "leave `ports` out if every protocol and port is meant"),
];

/// What a port with a name and without a `protocol` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// TCP, as in `NetworkPolicy`.
    Tcp,
    /// The protocol that the workload gives the port.
    Declared,
}

/// One item of `ports` of the project's own kinds. Nobody listens for a type of messages.
pub(super) fn own(reader: &mut Reader<'_>, node: &Node, listens: bool) -> Option<Vec<PortMatch>> {
    const FIELDS: [&str; 4] = ["protocol", "port", "endPort", "types"];
    let (fields, known) =
        if listens { (&FIELDS[..3], &PROTOCOLS[..]) } else { (&FIELDS[..], &OWN_PROTOCOLS[..]) };
    let item = reader.mapping(node, WHAT, fields)?;
    let protocol = match item.get("protocol") {
        Some(node) => Some(protocol(reader, node, known)?),
        None => None,
    };
    if let Some(protocol) = protocol.filter(|protocol| has_types(*protocol)) {
        types(reader, &item, protocol)
    } else {
        if let Some(entry) = item.entry("types") {
            reader
                .error(&entry.span, Code::ConflictingFields, "`types` without `protocol: ICMP` or `ICMPv6`")
                .label("of which protocol?")
                .help("only messages of ICMP and ICMPv6 have types; other protocols have `port`");
            return None;
        }
        numbers(reader, node, &item, (protocol, Unnamed::Declared)).map(|found| vec![found])
    }
}

/// One item of `ports` of a `NetworkPolicy`.
pub(super) fn port(reader: &mut Reader<'_>, node: &Node) -> Option<PortMatch> {
    let item = reader.mapping(node, WHAT, &["protocol", "port", "endPort"])?;
    let protocol = match item.get("protocol") {
        Some(node) => Some(protocol(reader, node, &PROTOCOLS)?),
        None => None,
    };
    numbers(reader, node, &item, (protocol, Unnamed::Tcp))
}

const WHAT: &str = "an item of `ports`";

/// The types of messages that an item names; all of them where it names none.
fn types(reader: &mut Reader<'_>, item: &Mapping<'_>, protocol: u8) -> Option<Vec<PortMatch>> {
    let errors = reader.errors();
    for field in ["port", "endPort"] {
        if let Some(entry) = item.entry(field) {
            reader
                .error(&entry.span, Code::ConflictingFields, format!("`{field}` of a protocol without ports"))
                .label("has no ports")
                .help("write `types: [echo-request]`, or leave it out if every type is meant");
        }
    }
    let range = |first, last| PortMatch::Range(PortRange { protocol, first, last });
    let Some(node) = item.get("types") else {
        return (reader.errors() == errors).then(|| vec![range(0, u16::MAX)]);
    };
    let items = reader.list(node, "`types`", MAX_ITEMS)?;
    if items.is_empty() {
        reader
            .error(&node.span, Code::EmptyValue, "`types` is empty, so the item matches nothing")
            .label("no type")
            .help("leave it out if every type is meant");
    }
    let types: Vec<u8> = items.iter().filter_map(|node| one_type(reader, node, protocol)).collect();
    (reader.errors() == errors)
        .then(|| types.into_iter().map(|kind| range(kind.into(), kind.into())).collect())
}

/// A type of messages by its name or number.
fn one_type(reader: &mut Reader<'_>, node: &Node, protocol: u8) -> Option<u8> {
    let called = if protocol == ICMP { "ICMP" } else { "ICMPv6" };
    if let Value::Text(text) = &node.value
        && text.parse::<i64>().is_err()
    {
        let known = TYPES.iter().filter(|(of, ..)| *of == protocol).map(|(_, name, kind)| (*name, *kind));
        if let Some((_, kind)) = known.clone().find(|(name, _)| name == text) {
            return Some(kind);
        }
        let question = ANSWERS.iter().find(|(answer, _)| answer == text).map(|(_, question)| *question);
        let help = match question.or_else(|| nearest(text, known.clone().map(|(name, _)| name))) {
            Some(question) if text.ends_with("-reply") => {
                format!("an answer belongs to the flow of its question: write `{question}`")
            }
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let names: Vec<&str> = known.map(|(name, _)| name).collect();
                format!("it is a number from 0 to 255, or one of {}", names.join(", "))
            }
        };
        let message = format!("{} is no type of {called} messages", quote(text));
        reader.error(&node.span, Code::UnknownValue, message).label("not such a type").help(help);
        return None;
    }
    let number = reader.integer(node, "an item of `types`")?;
    let Ok(kind) = u8::try_from(number) else {
        let message = format!("a type of {called} messages can't be {number}");
        reader.error(&node.span, Code::UnknownValue, message).label("not a type").help("types are 0-255");
        return None;
    };
    let question = icmp_type(protocol, kind);
    if question != kind {
        let message = format!("messages of type {kind} are answers");
        let help = format!("an answer belongs to the flow of its question: write {question}");
        reader.error(&node.span, Code::UnknownValue, message).label("opens no flow").help(help);
        return None;
    }
    Some(kind)
}

/// A port by its name or number, a range, or all of them.
fn numbers(
    reader: &mut Reader<'_>,
    node: &Node,
    item: &Mapping<'_>,
    (protocol, unnamed): (Option<u8>, Unnamed),
) -> Option<PortMatch> {
    let errors = reader.errors();
    if let Some(Node { value: Value::Text(name), span }) = item.get("port")
        && name.parse::<i64>().is_err()
    {
        no_end(reader, item);
        let name = Name::Port
            .read(
                reader,
                &Node { value: Value::Text(name.clone()), span: span.clone() },
                "the name of a port",
            )?
            .to_owned();
        let protocol = protocol.or((unnamed == Unnamed::Tcp).then_some(TCP));
        return (reader.errors() == errors).then_some(PortMatch::Named { protocol, name });
    }
    let first = item.get("port").map(|node| port_number(reader, node, "`port`"));
    let last = item.get("endPort").map(|node| port_number(reader, node, "`endPort`"));
    let (first, last) = match (first, last) {
        (None, None) => (0, u16::MAX),
        (Some(first), None) => (first?, first?),
        (Some(first), Some(last)) => (first?, last?),
        (None, Some(_)) => {
            let place = item.entry("endPort").map_or(node.span.clone(), |entry| entry.span.clone());
            reader
                .error(&place, Code::ConflictingFields, "`endPort` without `port`")
                .label("needs `port`")
                .help("`port` is the first port of the range, `endPort` the last");
            return None;
        }
    };
    if first > last {
        let place = item.get("endPort").map_or(node.span.clone(), |node| node.span.clone());
        let message = format!("the range ends at {last}, before it starts at {first}");
        let help = format!("write `port: {last}` and `endPort: {first}`");
        reader.error(&place, Code::BadPort, message).label("below `port`").help(help);
    }
    let protocol = protocol.unwrap_or(TCP);
    (reader.errors() == errors).then_some(PortMatch::Range(PortRange { protocol, first, last }))
}

/// Reports a range that starts at a name.
fn no_end(reader: &mut Reader<'_>, item: &Mapping<'_>) {
    if let Some(end) = item.entry("endPort") {
        let message = "`endPort` beside the name of a port";
        reader
            .error(&end.span, Code::ConflictingFields, message)
            .label("only with a number")
            .help("a range starts at a number; a name stands for one port");
    }
}

/// A protocol by its name, one of these.
fn protocol(reader: &mut Reader<'_>, node: &Node, known: &[(&str, u8)]) -> Option<u8> {
    let written = node.as_text().map(|text| text.to_uppercase().replace(['-', '_'], ""));
    let is_known = known.iter().any(|(name, _)| node.as_text() == Some(*name));
    let other = OTHERS.iter().find(|(name, _)| !is_known && written.as_deref() == Some(name));
    let right = known.iter().find(|(name, _)| Some(name.to_uppercase()) == written);
    let Some((_, help)) = other.filter(|_| right.is_none()) else {
        return reader.choice(node, "`protocol`", known);
    };
    let message = format!("no rule can speak of the protocol {}", quote(node.as_text().unwrap_or_default()));
    reader.error(&node.span, Code::Unsupported, message).label("has no rules of its own").help(*help);
    None
}

/// A port by its number.
pub fn port_number(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<u16> {
    let number = reader.integer(node, what)?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("{what} can't be {number}");
            let help = if number == 0 && what == "`port`" {
                "leave `port` out if all ports are meant"
            } else {
                "ports are 1-65535"
            };
            reader.error(&node.span, Code::BadPort, message).label("not a port").help(help);
            None
        }
    }
}
