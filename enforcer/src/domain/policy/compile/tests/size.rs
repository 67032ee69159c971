//! How large tables are. That they are made in time is measured by `cargo xtask bench policy`.

use std::net::IpAddr;

use super::*;
use crate::domain::cluster::Answering;

/// Apps, each with a policy about what it may call.
const APPS: usize = 20;
const SERVICES: usize = 500;
const PORTS: u16 = 3;

/// Services of three ports each in front of apps by turns; `own` says whether no two have a port in common.
fn services(registry: &mut Registry, own: bool) -> Vec<KnownService> {
    let service = |number: usize| {
        let app = labels(&format!("app=a{}", number % APPS));
        let answering = |port: u16| Answering {
            identity: registry.known(&IdentityKey::new("default", app.clone())).unwrap(),
            address: IpAddr::from([10, 1, 0, u8::try_from(number % APPS).unwrap()]),
            port: 8_080 + port,
        };
        let first = if own { 20_000 + PORTS * u16::try_from(number).unwrap() } else { 80 };
        let ports = (0..PORTS).map(|port| ((6, first + port), [answering(port)].into())).collect();
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        (ports, vec![IpAddr::from([10, 96, high, low])])
    };
    let found: Vec<_> = (0..SERVICES).map(service).collect();
    let known = found.into_iter().enumerate().map(|(number, (ports, addresses))| KnownService {
        identity: registry.identity(&IdentityKey::service("default", format!("s{number}"))),
        addresses,
        ports,
    });
    known.collect()
}

/// Each app may call the next one on one port, and whatever has this block of addresses.
fn policies() -> Vec<Policy> {
    let block = Peers::AnyOf(vec![Peer::Cidr { net: "192.0.2.0/24".parse().unwrap(), except: Vec::new() }]);
    let one = |number: usize| Policy {
        ingress: None,
        egress: Some(vec![
            allow(app(&format!("app=a{}", (number + 1) % APPS)), tcp(&[(8_080, 8_080)])),
            allow(block.clone(), tcp(&[(443, 443)])),
        ]),
        ..policy(&format!("p{number}"), &format!("app=a{number}"), Vec::new())
    };
    (0..APPS).map(one).collect()
}

/// 500 services of three ports each: what is put down grows with what policies say of them, not with their number.
#[test]
fn five_hundred_services_of_three_ports() {
    let apps: Vec<String> = (0..APPS).map(|number| format!("app=a{number}")).collect();
    let mut entries = Vec::new();
    for own in [false, true] {
        let (mut registry, _) = world(&apps.iter().map(String::as_str).collect::<Vec<_>>());
        let services = services(&mut registry, own);
        let scene = Scene { services, ..Scene::default() };
        let table = compile_scene(&policies(), &scene, &mut registry, Generation(1)).unwrap();
        entries.push(table.entries());
        // The services of an app are one class where they have the same ports.
        let client = registry.known(&IdentityKey::new("default", labels("app=a3"))).unwrap();
        let of_service = |number: usize, port: u16| {
            let peer = registry.known(&IdentityKey::service("default", format!("s{number}"))).unwrap();
            let first = if own { 20_000 + PORTS * u16::try_from(number).unwrap() } else { 80 };
            let query = Query { direction: Direction::Egress, ..query(client, peer, first + port) };
            table.decide(&query).enforced.is_deny()
        };
        for number in 0..SERVICES {
            let is_next = number % APPS == 4;
            assert_eq!([0, 1, 2].map(|port| of_service(number, port)), [!is_next, true, true], "s{number}");
        }
    }
    // Of each app its isolation and its two rules, and of who is nobody and of the canary both directions.
    let without = APPS * 3 + 4;
    // Then the services that each app may call, on the one port: as one class, or each for itself. That the others may not be
    // called is said already.
    assert_eq!(entries, [without + APPS, without + SERVICES]);
}
