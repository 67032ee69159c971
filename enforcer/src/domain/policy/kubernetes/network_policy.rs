//! `networking.k8s.io/v1 NetworkPolicy`. Facts: kubernetes/api networking/v1/types.go; what is refused:
//! kubernetes/kubernetes pkg/apis/networking/validation.

use enforcer_common::reason::Errno;

use super::{everyone_if_empty, selector_or_all};
use crate::domain::Direction;
use crate::domain::policy::diagnostic::Code;
use crate::domain::policy::model::{
    Action, Layer, Namespaces, Peer, Policy, PolicyKey, PolicyMode, Ports, Rule, Subject,
};
use crate::domain::policy::peers::{exceptions, labelled};
use crate::domain::policy::ports;
use crate::domain::policy::rules::{MAX_ITEMS, MAX_RULES};
use crate::domain::policy::selector::selector;
use crate::domain::syntax::loose_cidr;
use crate::domain::yaml::{Mapping, Node, Reader};

/// The policy, still without its name. Every field may be missing, `spec` too: then it selects the whole namespace and
/// lets nobody in.
pub(in crate::domain::policy) fn read(reader: &mut Reader<'_>, document: &Mapping<'_>) -> Option<Policy> {
    let Some(node) = document.get("spec") else {
        return Some(policy(Subject::default(), Some(Vec::new()), None));
    };
    let spec = reader.mapping(node, "`spec`", &["podSelector", "policyTypes", "ingress", "egress"])?;
    let selector = selector_or_all(reader, &spec, "podSelector");
    let types = types(reader, &spec);
    let ingress = rules(reader, &spec, Direction::Ingress);
    let egress = rules(reader, &spec, Direction::Egress);
    let (types, ingress, egress) = (types?, ingress?, egress?);
    // The API's default: ingress, and egress where there are rules for it.
    let isolates = |direction| match (types.is_empty(), direction) {
        (true, Direction::Ingress) => true,
        (true, Direction::Egress) => !egress.is_empty(),
        (false, direction) => types.contains(&direction),
    };
    for (direction, rules) in [(Direction::Ingress, &ingress), (Direction::Egress, &egress)] {
        let Some(entry) = spec.entry(direction.label()).filter(|_| !rules.is_empty()) else { continue };
        if !isolates(direction) {
            let message = format!("`{}` has rules, but `policyTypes` leaves the direction out", entry.key);
            reader
                .warning(&entry.span, Code::NoEffect, message)
                .label("does nothing")
                .help("name the direction in `policyTypes`, or remove the rules");
        }
    }
    let (has_ingress, has_egress) = (isolates(Direction::Ingress), isolates(Direction::Egress));
    Some(policy(Subject::own(selector?), has_ingress.then_some(ingress), has_egress.then_some(egress)))
}

fn policy(subject: Subject, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    Policy {
        key: PolicyKey::default(),
        layer: Layer::Namespaced,
        mode: PolicyMode::Enforce,
        errno: Errno::default(),
        subject,
        ingress,
        egress,
        listen: None,
        sockets: None,
        expires: None,
    }
}

/// `policyTypes`; empty if missing.
fn types(reader: &mut Reader<'_>, spec: &Mapping<'_>) -> Option<Vec<Direction>> {
    const TYPES: [(&str, Direction); 2] = [("Ingress", Direction::Ingress), ("Egress", Direction::Egress)];
    let Some(node) = spec.get("policyTypes") else { return Some(Vec::new()) };
    let items = reader.list(node, "`policyTypes`", TYPES.len())?;
    let types: Vec<_> = items.iter().map(|item| reader.choice(item, "a policy type", &TYPES)).collect();
    types.into_iter().collect()
}

fn rules(reader: &mut Reader<'_>, spec: &Mapping<'_>, direction: Direction) -> Option<Vec<Rule>> {
    let Some(node) = spec.get(direction.label()) else { return Some(Vec::new()) };
    let items = reader.list(node, &format!("`{}`", direction.label()), MAX_RULES)?;
    let rules: Vec<_> = items.iter().map(|item| rule(reader, item, direction)).collect();
    rules.into_iter().collect()
}

fn rule(reader: &mut Reader<'_>, node: &Node, direction: Direction) -> Option<Rule> {
    let (what, field) = match direction {
        Direction::Ingress => ("an ingress rule", "from"),
        Direction::Egress => ("an egress rule", "to"),
    };
    let rule = reader.mapping(node, what, &[field, "ports"])?;
    let peers = list(reader, &rule, field, peer);
    let ports = list(reader, &rule, "ports", ports::port);
    let ports = ports?;
    Some(Rule {
        name: None,
        action: Action::Allow,
        peers: everyone_if_empty(peers?),
        ports: if ports.is_empty() { Ports::All } else { Ports::AnyOf(ports) },
        errno: None,
        expires: None,
    })
}

/// The items of a list; none if it is missing.
fn list<T>(
    reader: &mut Reader<'_>,
    of: &Mapping<'_>,
    field: &str,
    read: impl Fn(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(node) = of.get(field) else { return Some(Vec::new()) };
    let items = reader.list(node, &format!("`{field}`"), MAX_ITEMS)?;
    let found: Vec<_> = items.iter().map(|item| read(reader, item)).collect();
    found.into_iter().collect()
}

fn peer(reader: &mut Reader<'_>, node: &Node) -> Option<Peer> {
    let errors = reader.errors();
    let peer = reader.mapping(node, "a peer", &["podSelector", "namespaceSelector", "ipBlock"])?;
    if let Some(block) = peer.entry("ipBlock") {
        if let Some(other) = peer.entry("podSelector").or_else(|| peer.entry("namespaceSelector")) {
            let message = format!("a peer has both `ipBlock` and `{}`", other.key);
            let place = reader.location(&block.span);
            reader
                .error(&other.span, Code::ConflictingFields, message)
                .label("not beside `ipBlock`")
                .related(place, "here")
                .help("make them two items of the list: a flow has to match one of them");
        }
        let found = ip_block(reader, &block.value);
        return found.filter(|_| reader.errors() == errors);
    }
    let by_namespace = peer.get("namespaceSelector");
    if by_namespace.is_none() && peer.get("podSelector").is_none() {
        if reader.errors() == errors {
            let message = "a peer has none of `podSelector`, `namespaceSelector` and `ipBlock`";
            reader
                .error(&node.span, Code::MissingField, message)
                .label("matches nothing")
                .help("leave the whole list out if everyone is meant, write `podSelector: {}` for every pod of the namespace");
        }
        return None;
    }
    let selector = selector_or_all(reader, &peer, "podSelector");
    let namespaces = match by_namespace {
        Some(node) => self::selector(reader, node, "`namespaceSelector`").map(labelled),
        None => Some(Namespaces::Own),
    };
    let found = Peer::Workloads { namespaces: namespaces?, selector: selector?, account: None };
    (reader.errors() == errors).then_some(found)
}

fn ip_block(reader: &mut Reader<'_>, node: &Node) -> Option<Peer> {
    let block = reader.mapping(node, "`ipBlock`", &["cidr", "except"])?;
    let cidr = reader.required(&block, "`ipBlock`", "cidr", None);
    let net = cidr.and_then(|node| Some((loose_cidr(reader, node, "`cidr`")?, node)));
    let except = match block.get("except") {
        Some(node) => exceptions(reader, node, net, loose_cidr),
        None => Some(Vec::new()),
    };
    Some(Peer::Cidr { net: net?.0, except: except? })
}
