//! Peers of the project's own kinds.

use std::collections::BTreeSet;

use super::diagnostic::{Code, quote};
use super::model::{Entity, Namespaces, Peer};
use super::rules::MAX_ITEMS;
use super::selector::{self, selector};
use crate::domain::account::AccountPattern;
use crate::domain::container;
use crate::domain::labels::Selector;
use crate::domain::syntax::{Name, cidr};
use crate::domain::yaml::{Mapping, Node, Reader, Value};

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// A policy of a namespace: that is what is meant where a peer names none.
    Namespace,
    /// A policy of the cluster: its peers say which namespaces they mean.
    Cluster,
}

const ENTITIES: [(&str, Entity); 4] = [
    ("host", Entity::Host),
    ("world", Entity::World),
    ("cluster", Entity::Cluster),
    ("unmanaged", Entity::Unmanaged),
];

pub(super) const FIELDS: [&str; 8] =
    ["workloads", "serviceAccount", "spiffe", "cidr", "entity", "namespaces", "namespaceSelector", "except"];

/// What kind of peer a field makes it; the three kinds of workloads can stand together.
fn kind(field: &str) -> Option<&'static str> {
    match field {
        "workloads" | "serviceAccount" | "spiffe" => Some("workloads"),
        "cidr" => Some("cidr"),
        "entity" => Some("entity"),
        _ => None,
    }
}

pub(super) fn peer(reader: &mut Reader<'_>, node: &Node, scope: Scope) -> Option<Peer> {
    let errors = reader.errors();
    let peer = reader.mapping(node, "a peer", &FIELDS)?;
    let mut kinds = peer.entries().iter().filter(|entry| kind(&entry.key).is_some());
    let first = kinds.next();
    if let Some(first) = first
        && let Some(second) = kinds.find(|entry| kind(&entry.key) != kind(&first.key))
    {
        let message = format!("a peer has both `{}` and `{}`", first.key, second.key);
        let first = reader.location(&first.span);
        reader
            .error(&second.span, Code::ConflictingFields, message)
            .label("second kind of peer")
            .related(first, "first kind of peer")
            .help("make them two items of the list: a flow has to match one of them");
    }
    let workloads = &["workloads", "serviceAccount"][..];
    let help = "write `workloads: {}` if every workload there is meant";
    needs(reader, &peer, "namespaces", workloads, help);
    needs(reader, &peer, "namespaceSelector", workloads, help);
    needs(reader, &peer, "except", &["cidr"], "only a `cidr` can have exceptions");
    if first.is_none() && reader.errors() == errors {
        let message = "a peer has none of `workloads`, `serviceAccount`, `spiffe`, `cidr` and `entity`";
        reader
            .error(&node.span, Code::MissingField, message)
            .label("matches nothing")
            .help("leave the whole list out if everyone is meant");
    }
    let found = match kind(&first?.key)? {
        "cidr" => cidr_peer(reader, peer.get("cidr")?, peer.get("except"))?,
        "entity" => Peer::Entity(reader.choice(peer.get("entity")?, "`entity`", &ENTITIES)?),
        _ => workload_peer(reader, &peer, scope)?,
    };
    (reader.errors() == errors).then_some(found)
}

/// Reports a server that is a container: a client knows it by the address of its pod.
pub(super) fn check_server(reader: &mut Reader<'_>, node: &Node, peer: Option<&Peer>) {
    let Some(Peer::Workloads { selector, .. }) = peer else { return };
    let Some(name) = container::named(selector) else { return };
    reader
        .error(&node.span, Code::Unsupported, format!("the container {} as a server", quote(name)))
        .label("known by its pod's address")
        .help(
            "select the pod and name the port, or write an ingress policy whose `subject` is the container",
        );
}

/// Reports a field that makes sense only beside one of others.
fn needs(reader: &mut Reader<'_>, peer: &Mapping<'_>, field: &str, others: &[&str], help: &str) {
    let Some(entry) = peer.entry(field) else { return };
    if others.iter().any(|other| peer.entry(other).is_some()) || peer.entry("spiffe").is_some() {
        return;
    }
    let other = others[0];
    let message = format!("a peer has `{field}` without `{other}`");
    let label = format!("needs `{other}`");
    reader.error(&entry.span, Code::ConflictingFields, message).label(label).help(help);
}

fn workload_peer(reader: &mut Reader<'_>, peer: &Mapping<'_>, scope: Scope) -> Option<Peer> {
    let selector = match peer.get("workloads") {
        Some(node) => selector::workloads(reader, node, "`workloads`"),
        None => Some(Selector::default()),
    };
    let namespaces = namespaces_of(reader, peer, "a peer");
    let account = account(reader, peer);
    let mut namespaces = namespaces?;
    if peer.get("spiffe").is_some() {
        // The ID says in which namespace.
        namespaces = Namespaces::All;
    } else if namespaces == Namespaces::Own && scope == Scope::Cluster {
        let message = "a peer of a ClusterTrafficPolicy has neither `namespaces` nor `namespaceSelector`";
        reader
            .error(&peer.place(), Code::MissingField, message)
            .label("in which namespaces?")
            .help("write `namespaces: [\"*\"]` for all of them");
        return None;
    }
    Some(Peer::Workloads { namespaces, selector: selector?, account: account? })
}

/// `serviceAccount` or `spiffe`.
#[expect(clippy::option_option, reason = "nothing wanted, and nothing that could be read")]
fn account(reader: &mut Reader<'_>, peer: &Mapping<'_>) -> Option<Option<AccountPattern>> {
    let Some(entry) = peer.entry("spiffe") else {
        let Some(node) = peer.get("serviceAccount") else { return Some(None) };
        let name = Name::Subdomain.read(reader, node, "a service account")?;
        return Some(Some(AccountPattern {
            trust_domain: None,
            namespace: None,
            account: Some(name.to_owned()),
        }));
    };
    for other in ["serviceAccount", "namespaces", "namespaceSelector"] {
        let Some(other) = peer.entry(other) else { continue };
        let place = reader.location(&entry.span);
        let message = format!("a peer has both `spiffe` and `{}`", other.key);
        reader
            .error(&other.span, Code::ConflictingFields, message)
            .label("the SPIFFE ID says it already")
            .related(place, "here");
    }
    let text = reader.text(&entry.value, "`spiffe`")?;
    match text.parse() {
        Ok(pattern) => Some(Some(pattern)),
        Err(problem) => {
            let message = format!("{} is not a SPIFFE ID of a service account", quote(text));
            let help = format!(
                "{problem}; write it like `spiffe://cluster.local/ns/shop/sa/api` or `spiffe://*/ns/shop/sa/*`"
            );
            reader.error(&entry.value.span, Code::BadName, message).label("not such an ID").help(help);
            None
        }
    }
}

/// `namespaces` or `namespaceSelector`; [`Namespaces::Own`] where both are missing.
pub(super) fn namespaces_of(reader: &mut Reader<'_>, of: &Mapping<'_>, what: &str) -> Option<Namespaces> {
    let by_label = of.entry("namespaceSelector");
    let by_name = of.entry("namespaces");
    if let (Some(first), Some(second)) = (by_name, by_label) {
        let place = reader.location(&first.span);
        let message = format!("{what} has both `namespaces` and `namespaceSelector`");
        reader
            .error(&second.span, Code::ConflictingFields, message)
            .label("second")
            .related(place, "first")
            .help("select by `kubernetes.io/metadata.name` beside other labels, or make two items of it");
        return None;
    }
    if let Some(entry) = by_label {
        return Some(labelled(selector(reader, &entry.value, "`namespaceSelector`")?));
    }
    by_name.map_or(Some(Namespaces::Own), |entry| named(reader, &entry.value))
}

/// Namespaces by label; a selector without conditions is every namespace.
pub(super) fn labelled(selector: Selector) -> Namespaces {
    if selector.requirements.is_empty() { Namespaces::All } else { Namespaces::Labelled(selector) }
}

fn named(reader: &mut Reader<'_>, node: &Node) -> Option<Namespaces> {
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
    let parts = except.map_or(Some(Vec::new()), |except| {
        exceptions(reader, except, net.map(|net| (net, node)), |reader, item, what| {
            cidr(reader, item, what, false)
        })
    });
    Some(Peer::Cidr { net: net?, except: parts? })
}

/// The parts of a block that are not meant: smaller blocks inside it.
pub(super) fn exceptions(
    reader: &mut Reader<'_>,
    node: &Node,
    of: Option<(ipnet::IpNet, &Node)>,
    read: impl Fn(&mut Reader<'_>, &Node, &str) -> Option<ipnet::IpNet>,
) -> Option<Vec<ipnet::IpNet>> {
    let items = reader.list(node, "`except`", MAX_ITEMS)?;
    let mut nets = Vec::with_capacity(items.len());
    for item in items {
        let Some(part) = read(reader, item, "an item of `except`") else { continue };
        if let Some((net, node)) = of
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
    (nets.len() == items.len()).then_some(nets)
}
