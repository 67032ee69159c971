//! Which sockets go, on tables compiled from policies.

use enforcer_common::id::{CgroupId, Generation};
use enforcer_common::reason::Reason;

use super::*;
use crate::domain::command::PolicyFile;
use crate::domain::delta::Bound;
use crate::domain::labels::LabelSet;
use crate::domain::policy::check::check;
use crate::domain::policy::compile::compile;
use crate::domain::registry::{IdentityKey, Registry};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Directories of the workloads; the host's is bound to nothing.
const WEB: u64 = 10;
const API: u64 = 11;
const DB: u64 = 12;
const HOST: u64 = 13;
const STRAY: u64 = 14;

/// `db` is for `api` only, and `api` opens nothing but that.
const TIERS: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db}
spec:
  subject: {matchLabels: {app: db}}
  ingress: [{from: [{workloads: {matchLabels: {app: api}}}], ports: [{protocol: TCP, port: 5432}]}]
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: api}
spec:
  subject: {matchLabels: {app: api}}
  egress: [{to: [{workloads: {matchLabels: {app: db}}}]}]
";

fn in_force(policies: &str) -> InForce {
    let mut registry = Registry::default();
    let mut tables = Tables::default();
    for (cgroup, app) in [(WEB, "web"), (API, "api"), (DB, "db")] {
        let labels = LabelSet([("app".to_owned(), app.to_owned())].into());
        let identity = registry.identity(&IdentityKey::new("default", labels));
        tables.bindings.insert_mut(CgroupId(cgroup), Bound::always(identity));
        tables.addresses.insert_mut(format!("192.0.2.{cgroup}/32").parse().unwrap(), identity);
    }
    tables.bindings.insert_mut(CgroupId(STRAY), Bound::always(IdentityId::UNMANAGED));
    let file = PolicyFile { name: "test".into(), text: policies.into() };
    let checked = check(&[file]);
    let policies: Vec<_> = checked.policies.into_iter().map(|checked| checked.policy).collect();
    let table = compile(&policies, &mut registry, Generation(1)).unwrap();
    InForce::new(Arc::new(table), tables)
}

fn end(text: &str) -> Endpoint {
    let at: std::net::SocketAddr = text.parse().unwrap();
    let address = match at.ip() {
        std::net::IpAddr::V4(address) => Address::v4(address.to_bits()),
        std::net::IpAddr::V6(address) => Address::v6(address.octets()),
    };
    Endpoint { address, port: at.port() }
}

fn creator(cgroup: u64, role: Role) -> Creator {
    let mut cgroups = [0; CGROUP_DEPTH];
    // Bound is the second level; what is below inherits.
    cgroups[..3].copy_from_slice(&[1, cgroup, 999]);
    Creator { cgroups, role }
}

fn server(protocol: u8, owner: u64, local: &str) -> Socket {
    let remote = if local.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let creator = Some(creator(owner, Role::Unknown));
    Socket { protocol, local: end(local), remote: end(remote), connected: false, creator }
}

fn client(protocol: u8, owner: u64, role: Role, local: &str, remote: &str) -> Socket {
    let creator = Some(creator(owner, role));
    Socket { protocol, local: end(local), remote: end(remote), connected: true, creator }
}

/// What a server accepted: nothing is recorded of it.
fn accepted(local: &str, remote: &str) -> Socket {
    Socket { creator: None, ..client(TCP, 0, Role::Unknown, local, remote) }
}

/// Both ends of a connection to a server at a loopback address.
fn pair(owner: u64, port: u16, server: &str) -> [Socket; 2] {
    let from = format!("127.0.0.1:{port}");
    [client(TCP, owner, Role::Unknown, &from, server), accepted(server, &from)]
}

fn revoked(rules: &InForce, sockets: &[Socket]) -> (Vec<usize>, usize) {
    let judged = rules.judge(sockets, 0);
    (judged.revoked.iter().map(|revoked| revoked.index).collect(), judged.undecided)
}

#[test]
fn both_ends_of_a_forbidden_connection_go_and_no_others() {
    let rules = in_force(TIERS);
    let mut sockets = vec![server(TCP, DB, "127.0.0.1:5432"), server(TCP, WEB, "0.0.0.0:80")];
    sockets.extend(pair(API, 40_000, "127.0.0.1:5432"));
    sockets.extend(pair(WEB, 40_001, "127.0.0.1:5432"));
    sockets.extend(pair(HOST, 40_002, "127.0.0.1:5432"));
    sockets.extend(pair(HOST, 40_003, "127.0.0.1:80"));
    sockets.extend(pair(API, 40_004, "127.0.0.1:80"));
    sockets.extend(pair(STRAY, 40_005, "127.0.0.1:80"));
    assert_eq!(revoked(&rules, &sockets), (vec![4, 5, 6, 7, 10, 11, 12, 13], 0));
    let judged = rules.judge(&sockets, 0);
    let reasons: Vec<_> = judged.revoked.iter().map(|it| Reason::from_code(it.word.reason_code())).collect();
    assert_eq!(reasons[0], Some(Reason::Isolated));
    assert_eq!(reasons[6], Some(Reason::Unmanaged));
    // Without policies only unmanaged processes are refused.
    assert_eq!(revoked(&in_force(""), &sockets).0, [12, 13]);
}

#[test]
fn peers_elsewhere_are_known_by_address() {
    let rules = in_force(TIERS);
    let sockets = [
        server(TCP, DB, "192.0.2.12:5432"),
        accepted("192.0.2.12:5432", "192.0.2.11:40000"),
        accepted("192.0.2.12:5432", "192.0.2.10:40000"),
        accepted("192.0.2.12:5432", "198.51.100.1:40000"),
        client(TCP, API, Role::Client, "192.0.2.11:40000", "192.0.2.12:5432"),
        client(TCP, API, Role::Client, "192.0.2.11:40001", "198.51.100.1:443"),
        // Allowed by the client's policies, and refused by the server's, who is known.
        client(TCP, WEB, Role::Client, "192.0.2.10:40001", "192.0.2.12:5432"),
        client(TCP, WEB, Role::Client, "192.0.2.10:40002", "198.51.100.1:443"),
        client(TCP, HOST, Role::Client, "192.0.2.1:40002", "198.51.100.1:443"),
    ];
    assert_eq!(revoked(&rules, &sockets), (vec![2, 3, 5, 6], 0));
}

#[test]
fn the_recorded_role_counts_more_than_who_listens() {
    let rules = in_force(TIERS);
    // From the port of its own server, `api` opens a connection to `db`.
    let from_port = |role| {
        [
            server(TCP, API, "127.0.0.1:7000"),
            server(TCP, DB, "127.0.0.1:5432"),
            client(TCP, API, role, "127.0.0.1:7000", "127.0.0.1:5432"),
            client(TCP, DB, Role::Server, "127.0.0.1:5432", "127.0.0.1:7000"),
        ]
    };
    assert_eq!(revoked(&rules, &from_port(Role::Client)), (vec![], 0));
    // A server's end is judged as one: `db` opens nothing here, and `api` may take what it gets.
    let sockets = [client(TCP, API, Role::Server, "192.0.2.11:1", "198.51.100.1:2")];
    assert_eq!(revoked(&rules, &sockets), (vec![], 0));
}

#[test]
fn datagrams_too() {
    let rules = in_force(TIERS);
    let sockets = [
        server(UDP, WEB, "127.0.0.1:53"),
        server(UDP, DB, "[::]:5432"),
        client(UDP, API, Role::Unknown, "127.0.0.1:40000", "127.0.0.1:53"),
        client(UDP, HOST, Role::Unknown, "127.0.0.1:40001", "127.0.0.1:53"),
        client(UDP, API, Role::Unknown, "127.0.0.1:40002", "127.0.0.1:5432"),
        client(UDP, WEB, Role::Unknown, "[::1]:40002", "[::1]:53"),
    ];
    // The server itself takes from many and stays. Who takes datagrams at the last one's destination nobody knows.
    assert_eq!(revoked(&rules, &sockets), (vec![2, 4], 1));
}

#[test]
fn who_is_not_known_stays() {
    let rules = in_force(TIERS);
    let mut unknown = client(TCP, WEB, Role::Unknown, "127.0.0.1:40000", "127.0.0.1:5432");
    unknown.creator = None;
    let sockets = [
        unknown,
        // The other end is on this host and has gone already.
        client(TCP, API, Role::Client, "127.0.0.1:40001", "127.0.0.1:80"),
        accepted("127.0.0.1:5432", "127.0.0.1:40002"),
        // Its server listens no more, and nothing tells which end it is.
        client(TCP, DB, Role::Unknown, "192.0.2.12:5432", "198.51.100.1:40000"),
    ];
    assert_eq!(revoked(&rules, &sockets), (vec![], 4));
}

#[test]
fn kernel_time_changes_who_is_who() {
    let rules = in_force(TIERS);
    let identity = |cgroup| rules.tables.bindings[&CgroupId(cgroup)].identity;
    let until = Some(BootTime(1_000));
    let bindings = [
        (CgroupId(API), Bound { identity: identity(API), until, after: identity(WEB) }),
        (CgroupId(DB), Bound::always(identity(DB))),
    ];
    let tables = Tables { bindings: bindings.into_iter().collect(), ..Tables::default() };
    let timed = InForce::new(Arc::clone(&rules.table), tables);
    let mut sockets = vec![server(TCP, DB, "127.0.0.1:5432")];
    sockets.extend(pair(API, 40_000, "127.0.0.1:5432"));
    assert_eq!(timed.judge(&sockets, 999).revoked, []);
    assert_eq!(timed.judge(&sockets, 1_000).revoked.len(), 2);
    assert_eq!((timed.changes_at(999), timed.changes_at(1_000)), (Some(1_000), None));
}

#[test]
fn the_longest_prefix_counts() {
    let mut rules = in_force("");
    let addresses = [("192.0.2.0/24", 300), ("192.0.2.128/25", 301), ("2001:db8::/32", 302), ("::/0", 303)]
        .map(|(net, identity)| (net.parse().unwrap(), IdentityId(identity)));
    let tables = Tables { addresses: addresses.into_iter().collect(), ..Tables::default() };
    rules = InForce::new(rules.table, tables);
    for (address, identity) in [
        ("192.0.2.127:0", 300),
        ("192.0.2.128:0", 301),
        ("[2001:db8::1]:0", 302),
        ("[::ffff:192.0.2.200]:0", 301),
        ("198.51.100.1:0", 303),
    ] {
        assert_eq!(rules.identity_at(end(address).address), IdentityId(identity), "{address}");
    }
}
