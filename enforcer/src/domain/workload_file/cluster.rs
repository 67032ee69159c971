//! Namespaces, services and named ports of a workload file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{MAX_ADDRESSES, claim, labels};
use crate::domain::cluster::{Backend, Namespace, Service, ServiceKey, ServicePort};
use crate::domain::policy::diagnostic::{Code, Location};
use crate::domain::syntax::{Name, cidr};
use crate::domain::workload::{DEFAULT_NAMESPACE, NamedPort, NamedPorts};
use crate::domain::yaml::{Mapping, Node, Reader};

/// Most namespaces of one file.
const MAX_NAMESPACES: usize = 10_000;
/// Most services of one file.
const MAX_SERVICES: usize = 20_000;
/// Most ports of one workload or service.
const MAX_PORTS: usize = 1_000;
/// Most backends of one port.
const MAX_BACKENDS: usize = 5_000;

const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];

/// What is taken already, and where.
#[derive(Default)]
pub(in crate::domain) struct Seen {
    namespaces: BTreeMap<String, Location>,
    services: BTreeMap<ServiceKey, Location>,
    addresses: BTreeMap<IpAddr, Location>,
}

/// The `namespaces` of a document.
pub(in crate::domain) fn namespaces(
    reader: &mut Reader<'_>,
    root: &Mapping<'_>,
    seen: &mut Seen,
) -> Vec<Namespace> {
    let list = root.get("namespaces").and_then(|node| reader.list(node, "`namespaces`", MAX_NAMESPACES));
    let items = list.unwrap_or_default().iter();
    items.filter_map(|node| namespace(reader, node, seen)).collect()
}

fn namespace(reader: &mut Reader<'_>, node: &Node, seen: &mut Seen) -> Option<Namespace> {
    let what = "a namespace";
    let item = reader.mapping(node, what, &["name", "labels"])?;
    let labels = labels(reader, &item);
    let place = reader.required(&item, what, "name", None)?;
    let name = Name::Label.read(reader, place, what)?.to_owned();
    let message = format!("the namespace `{name}` is described twice");
    claim(reader, &mut seen.namespaces, &name, place, message);
    Some(Namespace { name, labels: labels? })
}

/// The `services` of a document.
pub(super) fn services(reader: &mut Reader<'_>, root: &Mapping<'_>, seen: &mut Seen) -> Vec<Service> {
    let list = root.get("services").and_then(|node| reader.list(node, "`services`", MAX_SERVICES));
    let items = list.unwrap_or_default().iter();
    items.filter_map(|node| service(reader, node, seen)).collect()
}

fn service(reader: &mut Reader<'_>, node: &Node, seen: &mut Seen) -> Option<Service> {
    let what = "a service";
    let errors = reader.errors();
    let item = reader.mapping(node, what, &["name", "namespace", "addresses", "ports"])?;
    let place = reader.required(&item, what, "name", None);
    let name = place.and_then(|node| Name::Subdomain.read(reader, node, "the name of a service"));
    let namespace = match item.get("namespace") {
        Some(node) => Name::Label.read(reader, node, "a namespace"),
        None => Some(DEFAULT_NAMESPACE),
    };
    let key = name.zip(namespace);
    let key = key.map(|(name, namespace)| ServiceKey { namespace: namespace.into(), name: name.into() });
    if let Some((key, place)) = key.as_ref().zip(place) {
        let message = format!("the service `{key}` is defined twice");
        claim(reader, &mut seen.services, key, place, message);
    }
    let mut addresses = Vec::new();
    let list = item.get("addresses").and_then(|node| reader.list(node, "`addresses`", MAX_ADDRESSES));
    for node in list.unwrap_or_default() {
        let Some(address) = address(reader, node) else { continue };
        let message = format!("the address `{address}` belongs to two services");
        claim(reader, &mut seen.addresses, &address, node, message);
        addresses.push(address);
    }
    let list = item.get("ports").and_then(|node| reader.list(node, "`ports`", MAX_PORTS));
    let ports = list.unwrap_or_default().iter().filter_map(|node| service_port(reader, node)).collect();
    let ServiceKey { namespace, name } = key?;
    (reader.errors() == errors).then_some(Service { namespace, name, addresses, ports })
}

fn service_port(reader: &mut Reader<'_>, node: &Node) -> Option<ServicePort> {
    let what = "a port of a service";
    let item = reader.mapping(node, what, &["protocol", "port", "backends"])?;
    let protocol = protocol(reader, &item);
    let port = port(reader, &item, what);
    let list = item.get("backends").and_then(|node| reader.list(node, "`backends`", MAX_BACKENDS));
    let backend = |node| {
        let what = "a backend";
        let item = reader.mapping(node, what, &["address", "port"])?;
        let place = reader.required(&item, what, "address", None);
        let address = place.and_then(|node| address(reader, node));
        let port = self::port(reader, &item, what);
        Some(Backend { address: address?, port: port? })
    };
    let backends = list.unwrap_or_default().iter().filter_map(backend).collect();
    Some(ServicePort { protocol: protocol?, port: port?, backends })
}

/// The `ports` of a workload: those that have names.
pub(in crate::domain) fn named_ports(reader: &mut Reader<'_>, item: &Mapping<'_>) -> NamedPorts {
    let what = "a port of a workload";
    let mut ports = NamedPorts::new();
    let mut seen = BTreeMap::new();
    let list = item.get("ports").and_then(|node| reader.list(node, "`ports`", MAX_PORTS));
    for node in list.unwrap_or_default() {
        let Some(item) = reader.mapping(node, what, &["name", "protocol", "port"]) else { continue };
        let place = reader.required(&item, what, "name", Some("ports without names need not be listed"));
        let name = place.and_then(|node| Name::Label.read(reader, node, "the name of a port"));
        if let Some((name, place)) = name.zip(place) {
            let message = format!("two ports of a workload have the name `{name}`");
            claim(reader, &mut seen, &name.to_owned(), place, message);
        }
        let (protocol, port) = (protocol(reader, &item), port(reader, &item, what));
        if let (Some(name), Some(protocol), Some(port)) = (name, protocol, port) {
            ports.insert(name.to_owned(), NamedPort { protocol, port });
        }
    }
    ports
}

/// One address, without a prefix.
fn address(reader: &mut Reader<'_>, node: &Node) -> Option<IpAddr> {
    let net = cidr(reader, node, "an address", true)?;
    if net.prefix_len() == net.max_prefix_len() {
        return Some(net.addr());
    }
    let message = format!("`{net}` is a block of addresses, where one address is needed");
    reader.error(&node.span, Code::BadAddress, message).label("more than one address");
    None
}

fn protocol(reader: &mut Reader<'_>, item: &Mapping<'_>) -> Option<u8> {
    match item.get("protocol") {
        Some(node) => reader.choice(node, "`protocol`", &PROTOCOLS),
        None => Some(PROTOCOLS[0].1),
    }
}

fn port(reader: &mut Reader<'_>, item: &Mapping<'_>, what: &str) -> Option<u16> {
    let node = reader.required(item, what, "port", None)?;
    let number = reader.integer(node, "`port`")?;
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        let message = format!("`port` can't be {number}");
        reader.error(&node.span, Code::BadPort, message).label("not a port").help("ports are 1-65535");
    }
    port
}
