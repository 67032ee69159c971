//! `policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy`. Facts and limits: kubernetes-sigs/network-policy-api
//! `apis/v1alpha2/clusternetworkpolicy_types.go`.

use enforcer_common::reason::Errno;

use super::exactly_one;
use crate::domain::Direction;
use crate::domain::policy::diagnostic::{Code, quote};
use crate::domain::policy::model::{
    Action, Namespaces, Peer, Peers, Pending, Policy, PolicyKey, PolicyMode, PortMatch, PortRange, Ports,
    Rule, Subject,
};
use crate::domain::policy::peers::labelled;
use crate::domain::policy::ports::port_number;
use crate::domain::policy::rules::warn_unreached;
use crate::domain::policy::selector::selector;
use crate::domain::policy::traffic;
use crate::domain::syntax::{Name, loose_cidr};
use crate::domain::yaml::{Entry, Mapping, Node, Reader};

/// Most items of each list of this kind.
const MAX: usize = 25;
/// Longest name of a rule, in characters.
const MAX_NAME: usize = 100;

/// The policy, still without its name.
pub(in crate::domain::policy) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Policy> {
    let errors = reader.errors();
    let spec = reader.mapping(node, "`spec`", &["tier", "priority", "subject", "ingress", "egress"])?;
    let layer = reader
        .required(&spec, "`spec`", "tier", Some("write `tier: Admin` or `tier: Baseline`"))
        .and_then(|node| traffic::tier(reader, &spec, node));
    let help = "write `subject: {namespaces: {}}` if every pod of the cluster is meant";
    let subject = reader.required(&spec, "`spec`", "subject", Some(help));
    let subject = subject.and_then(|node| subject_of(reader, node));
    let ingress = rules(reader, &spec, Direction::Ingress);
    let egress = rules(reader, &spec, Direction::Egress);
    if let (Some(ingress), Some(egress)) = (&ingress, &egress)
        && ingress.is_empty()
        && egress.is_empty()
        && reader.errors() == errors
    {
        reader
            .warning(&spec.place(), Code::NoEffect, "the policy has no rules, and a tier isolates nobody")
            .label("does nothing");
    }
    // No rules and no section are the same here.
    let some = |rules: Vec<Rule>| (!rules.is_empty()).then_some(rules);
    Some(Policy {
        key: PolicyKey::default(),
        layer: layer?,
        mode: PolicyMode::Enforce,
        errno: Errno::default(),
        subject: subject?,
        ingress: some(ingress?),
        egress: some(egress?),
        listen: None,
        sockets: None,
        expires: None,
    })
}

fn subject_of(reader: &mut Reader<'_>, node: &Node) -> Option<Subject> {
    let subject = reader.mapping(node, "`subject`", &["namespaces", "pods"])?;
    if !exactly_one(reader, &subject, "`subject`", "`namespaces` and `pods`") {
        return None;
    }
    let (namespaces, selector) = pods(reader, subject.entries().first()?)?;
    Some(Subject { namespaces, selector })
}

/// `namespaces` or `pods`: pods by the labels of their namespaces, and by their own.
fn pods(reader: &mut Reader<'_>, entry: &Entry) -> Option<(Namespaces, crate::domain::labels::Selector)> {
    if entry.key == "namespaces" {
        let namespaces = selector(reader, &entry.value, "`namespaces`")?;
        return Some((labelled(namespaces), crate::domain::labels::Selector::default()));
    }
    let pods = reader.mapping(&entry.value, "`pods`", &["namespaceSelector", "podSelector"])?;
    let namespaces = match pods.get("namespaceSelector") {
        Some(node) => selector(reader, node, "`namespaceSelector`").map(labelled),
        None => Some(Namespaces::All),
    };
    let help = "write `podSelector: {}` for every pod of these namespaces";
    let pods = reader.required(&pods, "`pods`", "podSelector", Some(help));
    let pods = pods.and_then(|node| selector(reader, node, "`podSelector`"));
    Some((namespaces?, pods?))
}

fn rules(reader: &mut Reader<'_>, spec: &Mapping<'_>, direction: Direction) -> Option<Vec<Rule>> {
    let Some(node) = spec.get(direction.label()) else { return Some(Vec::new()) };
    let items = reader.list(node, &format!("`{}`", direction.label()), MAX)?;
    let rules: Vec<_> = items.iter().map(|item| rule(reader, item, direction)).collect();
    let rules: Vec<_> = rules.into_iter().collect::<Option<_>>()?;
    let places: Vec<_> = rules.iter().zip(items).collect();
    warn_unreached(reader, &places);
    Some(rules)
}

fn rule(reader: &mut Reader<'_>, node: &Node, direction: Direction) -> Option<Rule> {
    const ACTIONS: [(&str, Action); 3] =
        [("Accept", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)];
    let (what, field) = match direction {
        Direction::Ingress => ("an ingress rule", "from"),
        Direction::Egress => ("an egress rule", "to"),
    };
    let errors = reader.errors();
    let rule = reader.mapping(node, what, &["name", "action", field, "protocols"])?;
    let name = rule.get("name").map(|node| name(reader, node));
    let action = reader.required(&rule, what, "action", Some("one of Accept, Deny, Pass"));
    let action = action.and_then(|node| reader.choice(node, "`action`", &ACTIONS));
    let help =
        "name the peers: nobody is meant by leaving them out, and everyone is `namespaces: {}` or a network";
    let peers = reader.required(&rule, what, field, Some(help));
    let peers = peers.and_then(|node| {
        let items = not_empty(reader, node, &format!("`{field}`"))?;
        let mut peers = Vec::new();
        for item in items {
            peer(reader, item, direction, action, &mut peers);
        }
        Some(peers)
    });
    let ports = match rule.get("protocols") {
        Some(node) => {
            let items = not_empty(reader, node, "`protocols`");
            let ports: Option<Vec<_>> =
                items.map(|items| items.iter().filter_map(|item| protocol(reader, item)).collect());
            ports.map(Ports::AnyOf)
        }
        None => Some(Ports::All),
    };
    if let (Some(Ports::AnyOf(ports)), Some(peers)) = (&ports, &peers) {
        let is_named = ports.iter().any(|port| matches!(port, PortMatch::Named { .. }));
        let is_elsewhere = |peer: &Peer| !matches!(peer, Peer::Workloads { .. });
        if is_named && peers.iter().any(is_elsewhere) {
            let message = "`destinationNamedPort` in a rule with peers that have no named ports";
            reader.error(&rule.place(), Code::ConflictingFields, message).label("in this rule").help(
                "only pods have named ports: put networks, nodes and domain names into a rule of their own",
            );
        }
    }
    let rule = Rule {
        name: name.unwrap_or(Some(None))?,
        action: action?,
        peers: Peers::AnyOf(peers?),
        ports: ports?,
        errno: None,
        expires: None,
    };
    (reader.errors() == errors).then_some(rule)
}

/// The name of a rule; an empty one is none.
#[expect(clippy::option_option, reason = "no name, and a name that could not be read")]
fn name(reader: &mut Reader<'_>, node: &Node) -> Option<Option<String>> {
    let text = reader.text(node, "the name of a rule")?;
    if text.chars().count() > MAX_NAME {
        let message = format!("the name of a rule has more than {MAX_NAME} characters");
        reader.error(&node.span, Code::BadName, message).label("too long");
        return None;
    }
    Some((!text.is_empty()).then(|| text.to_owned()))
}

/// The items of a list that must have some: here an empty list means neither everyone nor nobody.
fn not_empty<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str) -> Option<&'n [Node]> {
    let items = reader.list(node, what, MAX)?;
    if items.is_empty() {
        let message = format!("{what} is empty");
        reader
            .error(&node.span, Code::EmptyValue, message)
            .label("no item")
            .help("the API refuses it too: write an item, or remove what it is for");
        return None;
    }
    Some(items)
}

/// Adds what one item means.
fn peer(
    reader: &mut Reader<'_>,
    node: &Node,
    direction: Direction,
    action: Option<Action>,
    peers: &mut Vec<Peer>,
) {
    let (fields, names) = match direction {
        Direction::Ingress => (&["namespaces", "pods"][..], "`namespaces` and `pods`"),
        Direction::Egress => (
            &["namespaces", "pods", "nodes", "networks", "domainNames"][..],
            "`namespaces`, `pods`, `nodes`, `networks` and `domainNames`",
        ),
    };
    let errors = reader.errors();
    let Some(peer) = reader.mapping(node, "a peer", fields) else { return };
    if reader.errors() > errors || !exactly_one(reader, &peer, "a peer", names) {
        return;
    }
    let Some(entry) = peer.entries().first() else { return };
    match entry.key.as_str() {
        "networks" => {
            let items = not_empty(reader, &entry.value, "`networks`").unwrap_or_default();
            let nets = items.iter().filter_map(|item| loose_cidr(reader, item, "a network"));
            peers.extend(nets.map(|net| Peer::Cidr { net, except: Vec::new() }));
        }
        "nodes" => peers.extend(nodes(reader, entry)),
        "domainNames" => peers.extend(domains(reader, entry, action)),
        _ => peers.extend(pods(reader, entry).map(|(namespaces, selector)| Peer::Workloads {
            namespaces,
            selector,
            account: None,
        })),
    }
}

fn nodes(reader: &mut Reader<'_>, entry: &Entry) -> Option<Peer> {
    let found = selector(reader, &entry.value, "`nodes`")?;
    reader
        .warning(&entry.span, Code::Pending, "`nodes` is accepted, and matches nobody until nodes are known")
        .label("pending")
        .help("the agent knows no nodes in this version: until then name their addresses in `networks`");
    Some(Peer::Pending(Pending::Nodes(found)))
}

fn domains(reader: &mut Reader<'_>, entry: &Entry, action: Option<Action>) -> Option<Peer> {
    let items = not_empty(reader, &entry.value, "`domainNames`")?;
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = reader.text(item, "a domain name") else { continue };
        // The API takes capitals and a dot at the end, which mean the same.
        let plain = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let bare = plain.strip_prefix("*.").unwrap_or(&plain);
        if bare.contains('.') && Name::Subdomain.accepts(&bare.replace('_', "-")) {
            names.push(plain);
            continue;
        }
        let message = format!("{} is not a domain name", quote(text));
        reader
            .error(&item.span, Code::BadName, message)
            .label("not a domain name")
            .help("write it like `example.com`, or `*.example.com` for every name below it");
    }
    if let Some(action @ (Action::Deny | Action::Pass)) = action {
        let word = if action == Action::Deny { "Deny" } else { "Pass" };
        let message = format!("`domainNames` in a rule with `action: {word}`");
        reader
            .error(&entry.span, Code::ConflictingFields, message)
            .label("only with `action: Accept`")
            .help("accept the names, and deny what is left with a rule behind it");
        return None;
    }
    reader
        .warning(&entry.span, Code::Pending, "`domainNames` is accepted, and matches nobody yet")
        .label("pending")
        .help(
            "this version can't tell by which addresses a name is known: until then name them in `networks`",
        );
    (names.len() == items.len()).then_some(Peer::Pending(Pending::Domains(names)))
}

fn protocol(reader: &mut Reader<'_>, node: &Node) -> Option<PortMatch> {
    const FIELDS: [&str; 4] = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let errors = reader.errors();
    let item = reader.mapping(node, "an item of `protocols`", &FIELDS)?;
    let names = "`tcp`, `udp`, `sctp` and `destinationNamedPort`";
    if reader.errors() > errors || !exactly_one(reader, &item, "an item of `protocols`", names) {
        return None;
    }
    let entry = item.entries().first()?;
    let protocol = match entry.key.as_str() {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        _ => {
            let name = Name::Port.read(reader, &entry.value, "the name of a port")?;
            return Some(PortMatch::Named { protocol: None, name: name.to_owned() });
        }
    };
    let what = format!("`{}`", entry.key);
    let item = reader.mapping(&entry.value, &what, &["destinationPort"])?;
    let help = "write `destinationPort: {range: {start: 1, end: 65535}}` if every port is meant";
    let port = reader.required(&item, &what, "destinationPort", Some(help))?;
    let what = "`destinationPort`";
    let port = reader.mapping(port, what, &["number", "range"])?;
    if reader.errors() > errors || !exactly_one(reader, &port, what, "`number` and `range`") {
        return None;
    }
    if let Some(node) = port.get("number") {
        let number = port_number(reader, node, "`number`")?;
        return Some(PortMatch::Range(PortRange { protocol, first: number, last: number }));
    }
    let what = "`range`";
    let range = reader.mapping(port.get("range")?, what, &["start", "end"])?;
    let start = reader.required(&range, what, "start", None);
    let end = reader.required(&range, what, "end", None);
    let first = start.and_then(|node| port_number(reader, node, "`start`"));
    let last = end.and_then(|node| port_number(reader, node, "`end`"));
    let (first, last) = (first?, last?);
    if first >= last {
        let message = format!("the range ends at {last}, which is not behind its start at {first}");
        let help = if first == last {
            format!("write `number: {first}`")
        } else {
            format!("write `start: {last}` and `end: {first}`")
        };
        let place = end.map_or_else(|| range.place(), |node| node.span.clone());
        reader.error(&place, Code::BadPort, message).label("not behind `start`").help(help);
        return None;
    }
    Some(PortMatch::Range(PortRange { protocol, first, last }))
}
