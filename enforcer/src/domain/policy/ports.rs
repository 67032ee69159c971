//! Items of `ports`: the same in the project's own kinds and in `NetworkPolicy`.

use super::diagnostic::{Code, quote};
use super::model::{PortMatch, PortRange};
use crate::domain::syntax::Name;
use crate::domain::yaml::{Mapping, Node, Reader, Value};

/// The protocols whose ports are judged.
pub const PROTOCOLS: [(&str, u8); 3] = [("TCP", TCP), ("UDP", 17), ("SCTP", 132)];
const TCP: u8 = 6;

/// Names of other protocols, and why no rule can name them.
const OTHERS: [(&str, &str); 7] = [
    ("MPTCP", "a connection of MPTCP is judged as TCP: write TCP"),
    ("ICMP", "the setting `allowed-sockets` says who may open such sockets"),
    ("ICMPV6", "the setting `allowed-sockets` says who may open such sockets"),
    ("UDPLITE", "the setting `allowed-sockets` says who may open such sockets"),
    ("DCCP", "the setting `allowed-sockets` says who may open such sockets"),
    ("RAW", "the setting `allowed-sockets` says who may open such sockets"),
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

/// One item of `ports`.
pub(super) fn port(reader: &mut Reader<'_>, node: &Node, unnamed: Unnamed) -> Option<PortMatch> {
    let errors = reader.errors();
    let item = reader.mapping(node, "an item of `ports`", &["protocol", "port", "endPort"])?;
    let protocol = match item.get("protocol") {
        Some(node) => protocol(reader, node).map(Some),
        None => Some(None),
    };
    if let Some(Node { value: Value::Text(name), span }) = item.get("port")
        && name.parse::<i64>().is_err()
    {
        no_end(reader, &item);
        let name = Name::Port
            .read(
                reader,
                &Node { value: Value::Text(name.clone()), span: span.clone() },
                "the name of a port",
            )?
            .to_owned();
        let protocol = protocol?.or((unnamed == Unnamed::Tcp).then_some(TCP));
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
    let protocol = protocol?.unwrap_or(TCP);
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

/// A protocol by its name.
pub fn protocol(reader: &mut Reader<'_>, node: &Node) -> Option<u8> {
    let known = node.as_text().map(|text| text.to_uppercase().replace(['-', '_'], ""));
    let other = OTHERS.iter().find(|(name, _)| known.as_deref() == Some(name));
    let Some((_, help)) = other else { return reader.choice(node, "`protocol`", &PROTOCOLS) };
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
