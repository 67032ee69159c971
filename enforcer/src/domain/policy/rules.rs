//! Rules, peers and ports of a document.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::diagnostic::{Code, quote};
use super::model::{Action, Entity, Namespaces, Peer, Peers, PortMatch, PortRange, Ports, Rule};
use super::selector::selector;
use crate::domain::syntax::{ERRNOS, Name, cidr};
use crate::domain::timestamp::Timestamp;
use crate::domain::yaml::{Mapping, Node, Reader, Value};

/// Most rules of one direction of a policy.
pub(super) const MAX_RULES: usize = 1_000;
/// Most items of any list inside a rule or selector.
pub(super) const MAX_ITEMS: usize = 1_000;

/// What the two directions call things.
#[derive(Debug)]
pub(super) struct Words {
    direction: &'static str,
    rule: &'static str,
    /// Nothing where rules have no peers.
    peers: Option<&'static str>,
}

pub(super) const INGRESS: Words =
    Words { direction: "`ingress`", rule: "an ingress rule", peers: Some("from") };
pub(super) const EGRESS: Words = Words { direction: "`egress`", rule: "an egress rule", peers: Some("to") };
pub(super) const LISTEN: Words = Words { direction: "`listen`", rule: "a listen rule", peers: None };

const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];
const ACTIONS: [(&str, Action); 2] = [("Allow", Action::Allow), ("Deny", Action::Deny)];
const ENTITIES: [(&str, Entity); 2] = [("host", Entity::Host), ("world", Entity::World)];

/// The rules of one direction.
pub(super) fn direction(reader: &mut Reader<'_>, node: &Node, words: &Words) -> Option<Vec<Rule>> {
    let items = reader.list(node, words.direction, MAX_RULES)?;
    let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        let Some((rule, name)) = rule(reader, item, words) else { continue };
        if let Some((name, place)) = name {
            if let Some(first) = names.get(name) {
                let first = reader.location(first);
                let message = format!("two rules of {} are named {}", words.direction, quote(name));
                reader.error(&place, Code::Duplicate, message).label("second").related(first, "first");
            } else {
                names.insert(name, place);
            }
        }
        rules.push((rule, item));
    }
    warn_shadowed(reader, &rules);
    (rules.len() == items.len()).then(|| rules.into_iter().map(|(rule, _)| rule).collect())
}

type Named<'n> = Option<(&'n str, Range<usize>)>;

fn rule<'n>(reader: &mut Reader<'_>, node: &'n Node, words: &Words) -> Option<(Rule, Named<'n>)> {
    let errors = reader.errors();
    let mut fields = vec!["name", "action", "errno"];
    fields.extend(words.peers);
    fields.extend(["ports", "expiresAt"]);
    let rule = reader.mapping(node, words.rule, &fields)?;
    let name = rule.get("name").and_then(|node| {
        Name::Word.read(reader, node, "the name of a rule").map(|name| (name, node.span.clone()))
    });
    let action = match rule.get("action") {
        Some(node) => reader.choice(node, "`action`", &ACTIONS),
        None => Some(Action::default()),
    };
    let errno = rule.get("errno").and_then(|node| reader.choice(node, "`errno`", &ERRNOS));
    if let (Some(entry), Some(Action::Allow)) = (rule.entry("errno"), action) {
        reader
            .error(
                &entry.span,
                Code::ConflictingFields,
                "an allow rule refuses nothing, so it has no `errno`",
            )
            .label("only with `action: Deny`")
            .help("remove it, add `action: Deny`, or set `spec.errno` for what no rule allows");
    }
    let peers = match words.peers.and_then(|field| Some((format!("`{field}`"), rule.get(field)?))) {
        Some((what, node)) => reader.list(node, &what, MAX_ITEMS).and_then(|items| {
            let peers: Vec<_> = items.iter().map(|item| peer(reader, item)).collect();
            peers.into_iter().collect::<Option<Vec<_>>>()
        }),
        None => Some(Vec::new()),
    };
    let ports = match rule.get("ports") {
        Some(node) => reader.list(node, "`ports`", MAX_ITEMS).and_then(|items| {
            let ports: Vec<_> = items.iter().map(|item| port(reader, item)).collect();
            ports.into_iter().collect::<Option<Vec<_>>>()
        }),
        None => Some(Vec::new()),
    };
    let expires = rule.get("expiresAt").map(|node| expiry(reader, node, "this rule"));
    if reader.errors() > errors {
        return None;
    }
    let (peers, ports) = (peers?, ports?);
    let rule = Rule {
        name: name.as_ref().map(|(name, _)| (*name).to_owned()),
        action: action?,
        // Missing and empty mean the same, as in NetworkPolicy.
        peers: if peers.is_empty() { Peers::Everyone } else { Peers::AnyOf(peers) },
        ports: if ports.is_empty() {
            Ports::All
        } else {
            Ports::AnyOf(ports.into_iter().map(PortMatch::Range).collect())
        },
        errno,
        expires: expires.flatten(),
    };
    Some((rule, name))
}

/// The moment from which on something is over. Warns if that was before.
pub(super) fn expiry(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Timestamp> {
    let text = reader.text(node, "`expiresAt`")?;
    let Some(moment) = Timestamp::parse(text) else {
        let message = format!("{} is no time", quote(text));
        reader
            .error(&node.span, Code::BadTime, message)
            .label("not a time")
            .help("write it as 2026-11-22T12:53:39Z, or with an offset as 2026-11-22T13:53:39+01:00");
        return None;
    };
    if moment <= reader.now() {
        let message = format!("{what} has expired and is left out");
        reader
            .warning(&node.span, Code::Expired, message)
            .label("in the past")
            .help("remove it, or give it a later time");
    }
    Some(moment)
}

fn peer(reader: &mut Reader<'_>, node: &Node) -> Option<Peer> {
    let errors = reader.errors();
    let peer = reader.mapping(node, "a peer", &["workloads", "namespaces", "cidr", "except", "entity"])?;
    let mut kinds =
        peer.entries().iter().filter(|entry| matches!(entry.key.as_str(), "workloads" | "cidr" | "entity"));
    let kind = kinds.next();
    if let (Some(first), Some(second)) = (kind, kinds.next()) {
        let message = format!("a peer has both `{}` and `{}`", first.key, second.key);
        let first = reader.location(&first.span);
        reader
            .error(&second.span, Code::ConflictingFields, message)
            .label("second kind of peer")
            .related(first, "first kind of peer")
            .help("make them two items of the list: a flow has to match one of them");
    }
    needs(reader, &peer, "namespaces", "workloads", "write `workloads: {}` if every workload there is meant");
    needs(reader, &peer, "except", "cidr", "only a `cidr` can have exceptions");
    if kind.is_none() && reader.errors() == errors {
        reader
            .error(&node.span, Code::MissingField, "a peer has none of `workloads`, `cidr` and `entity`")
            .label("matches nothing")
            .help("leave the whole list out if everyone is meant");
    }
    let kind = kind?;
    let found = match kind.key.as_str() {
        "workloads" => {
            let namespaces = match peer.get("namespaces") {
                Some(node) => namespaces(reader, node),
                None => Some(Namespaces::Own),
            };
            let selector = selector(reader, &kind.value, "`workloads`");
            Peer::Workloads { namespaces: namespaces?, selector: selector?, account: None }
        }
        "cidr" => cidr_peer(reader, &kind.value, peer.get("except"))?,
        _ => Peer::Entity(reader.choice(&kind.value, "`entity`", &ENTITIES)?),
    };
    (reader.errors() == errors).then_some(found)
}

/// Reports a field that makes sense only beside another one.
fn needs(reader: &mut Reader<'_>, peer: &Mapping<'_>, field: &str, other: &str, help: &str) {
    if let (Some(entry), None) = (peer.entry(field), peer.entry(other)) {
        let message = format!("a peer has `{field}` without `{other}`");
        let label = format!("needs `{other}`");
        reader.error(&entry.span, Code::ConflictingFields, message).label(label).help(help);
    }
}

fn namespaces(reader: &mut Reader<'_>, node: &Node) -> Option<Namespaces> {
    let items = reader.list(node, "`namespaces`", MAX_ITEMS)?;
    if items.is_empty() {
        reader
            .error(&node.span, Code::EmptyValue, "`namespaces` is empty, so the peer matches nothing")
            .label("no namespace")
            .help("write [\"*\"] for all of them; leave it out for the policy's own");
        return None;
    }
    let star = items.iter().find(|item| item.value == Value::Text("*".into()));
    if let Some(star) = star {
        if items.len() == 1 {
            return Some(Namespaces::All);
        }
        reader
            .error(&star.span, Code::ConflictingFields, "`*` means every namespace and must stand alone")
            .label("beside other names")
            .help("write [\"*\"], or only the names");
        return None;
    }
    let names: Vec<_> = items.iter().map(|item| Name::Label.read(reader, item, "a namespace")).collect();
    let names: BTreeSet<_> = names.into_iter().collect::<Option<_>>()?;
    Some(Namespaces::Named(names.into_iter().map(str::to_owned).collect()))
}

fn cidr_peer(reader: &mut Reader<'_>, node: &Node, except: Option<&Node>) -> Option<Peer> {
    let net = cidr(reader, node, "`cidr`", false);
    let Some(except) = except else { return Some(Peer::Cidr { net: net?, except: Vec::new() }) };
    let items = reader.list(except, "`except`", MAX_ITEMS)?;
    let mut nets = Vec::with_capacity(items.len());
    for item in items {
        let Some(part) = cidr(reader, item, "an item of `except`", false) else { continue };
        if let Some(net) = net
            && (!net.contains(&part) || net == part)
        {
            let whole = reader.location(&node.span);
            let message = format!("`{part}` is not a smaller part of `{net}`");
            reader
                .error(&item.span, Code::ExceptOutside, message)
                .label("not inside")
                .related(whole, "the block it should be part of");
        }
        nets.push(part);
    }
    Some(Peer::Cidr { net: net?, except: nets })
}

fn port(reader: &mut Reader<'_>, node: &Node) -> Option<PortRange> {
    let errors = reader.errors();
    let item = reader.mapping(node, "an item of `ports`", &["protocol", "port", "endPort"])?;
    let protocol = match item.get("protocol") {
        Some(node) => reader.choice(node, "`protocol`", &PROTOCOLS),
        None => Some(PROTOCOLS[0].1),
    };
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
    let protocol = protocol?;
    (reader.errors() == errors).then_some(PortRange { protocol, first, last })
}

fn port_number(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<u16> {
    if let Value::Text(name) = &node.value
        && name.parse::<i64>().is_err()
    {
        let message = format!("named ports are not supported yet by this version: {}", quote(name));
        reader.error(&node.span, Code::Unsupported, message).label("not a number").help("write the number");
        return None;
    }
    let number = reader.integer(node, what)?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("{what} can't be {number}");
            let help =
                if number == 0 { "leave `port` out if all ports are meant" } else { "ports are 1-65535" };
            reader.error(&node.span, Code::BadPort, message).label("not a port").help(help);
            None
        }
    }
}

/// Warns of an allow rule for exactly what a deny rule of the same list denies, or for a part of all.
fn warn_shadowed(reader: &mut Reader<'_>, rules: &[(Rule, &Node)]) {
    let covers = |deny: &Rule, allow: &Rule| {
        (deny.peers == Peers::Everyone || deny.peers == allow.peers)
            && (deny.ports == Ports::All || deny.ports == allow.ports)
            // A deny rule that ends first leaves the allow rule its time.
            && deny.expires.is_none_or(|end| allow.expires.is_some_and(|allow| allow <= end))
    };
    // At most as many comparisons as a bomb may cost.
    let denies: Vec<_> = rules.iter().filter(|(rule, _)| rule.action == Action::Deny).take(100).collect();
    for (allow, node) in rules.iter().filter(|(rule, _)| rule.action == Action::Allow) {
        let Some((_, deny)) = denies.iter().find(|(deny, _)| covers(deny, allow)) else { continue };
        let deny = reader.location(&first_line(reader, deny));
        let place = first_line(reader, node);
        reader
            .warning(&place, Code::ShadowedRule, "this allow rule has no effect: a deny rule covers it")
            .label("never decides")
            .related(deny, "a deny always beats an allow");
    }
}

/// The first line of a node: a whole rule would bury the message.
fn first_line(reader: &Reader<'_>, node: &Node) -> Range<usize> {
    let text = reader.source().text().get(node.span.clone()).unwrap_or_default();
    node.span.start..node.span.start + text.lines().next().map_or(0, str::len)
}
