//! What flows carry is counted for who they are, at both ends.

use enforcer_common::abi::flow::{Latency, Traffic};
use enforcer_tests::direct::{Carried, Counts, Direct};
use enforcer_tests::patience;
use enforcer_tests::puppet::{Fd, Order};
use enforcer_tests::sockaddr;
use enforcer_tests::workload::{Workload, descriptor};
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("connections_at_both_ends", connections_at_both_ends),
    ("a_socket_with_many_peers", a_socket_with_many_peers),
    ("the_same_port_again", the_same_port_again),
];

struct Scene {
    direct: Direct,
    api: Workload,
    client: Workload,
    _world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let mut direct = Direct::start(&world);
        let (api, client) = (world.workload("api"), world.workload("client"));
        direct.bind([&api, &client]);
        Self { direct, api, client, _world: world }
    }

    fn times(&self) -> Times {
        let latency = self.direct.latency();
        let of = |name| {
            let row = latency.get(name).copied().unwrap_or(Latency::NONE);
            (row.handshake.iter().sum(), row.round_trip.iter().sum())
        };
        Times { client: of("client"), api: of("api") }
    }

    /// Opens a connection from a port (0: any) and takes it at the other end.
    fn connection(&self, port: u16, server: Fd, to: u16) -> (Fd, Fd) {
        let ours = self.client.socket(libc::AF_INET, libc::SOCK_STREAM);
        self.client.must(&Order::SetOption {
            fd: ours,
            level: libc::SOL_SOCKET,
            name: libc::SO_REUSEADDR,
            value: 1,
        });
        self.client.must(&Order::Bind { fd: ours, to: at(port) });
        self.client.must(&Order::Connect { fd: ours, to: at(to) });
        (ours, descriptor(&self.api.must(&Order::Accept { fd: server })))
    }
}

/// Handshakes and round trips that were measured.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    client: (u64, u64),
    api: (u64, u64),
}

impl std::ops::Sub for Times {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let less = |(a, b): (u64, u64), (c, d): (u64, u64)| (a - c, b - d);
        Self { client: less(self.client, earlier.client), api: less(self.api, earlier.api) }
    }
}

fn at(port: u16) -> Vec<u8> {
    sockaddr::of(([127, 0, 0, 1], port).into())
}

fn send(workload: &Workload, fd: Fd, to: Option<Vec<u8>>, bytes: usize) {
    workload.must(&Order::Send { fd, to, data: vec![7; bytes], flags: 0, control: Vec::new() });
}

/// The kernel counts the packet that opens a stream, and the one that ends it, as one byte each.
fn is_payload(counted: u64, sent: u64) -> bool {
    (sent..=sent + 2).contains(&counted)
}

fn connections_at_both_ends() {
    const CONNECTIONS: u64 = 5;
    const REQUEST: u64 = 1000;
    const ANSWER: u64 = 300;
    let scene = Scene::new("carried");
    let before = scene.direct.carried_since(&Carried::new());
    let times = scene.times();
    let server = scene.api.open(true, &([127, 0, 0, 1], 0).into());
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let (ours, theirs) = scene.connection(0, server.fd, server.port);
        send(&scene.client, ours, None, 1000);
        send(&scene.api, theirs, None, 300);
        open.push((ours, theirs));
    }
    let (client, api) = (
        format!("client TCP {} client of api", server.port),
        format!("api TCP {} server of client", server.port),
    );
    let opened = Traffic { opened: CONNECTIONS, ..Traffic::NONE };
    let expected = Carried::from([(client.clone(), opened), (api.clone(), opened)]);
    assert_eq!(scene.direct.carried_since(&before), expected, "while they are open");
    for (ours, theirs) in open {
        scene.client.close(ours);
        scene.api.close(theirs);
    }
    // Only the client's end knows when a handshake began; both know the round trips, which are noted last.
    let all = Times { client: (CONNECTIONS, CONNECTIONS), api: (0, CONNECTIONS) };
    patience::until_true("all connections are over", patience::seconds(5), || scene.times() - times == all);
    let carried = scene.direct.carried_since(&before);
    assert!(carried.values().all(|traffic| traffic.closed == CONNECTIONS), "{carried:?}");
    assert_eq!(carried.keys().collect::<Vec<_>>(), [&api, &client]);
    for (row, sent, received) in [(&client, REQUEST, ANSWER), (&api, ANSWER, REQUEST)] {
        let traffic = carried[row];
        assert_eq!((traffic.opened, traffic.retransmits), (CONNECTIONS, 0), "{row}: {traffic:?}");
        assert!(is_payload(traffic.bytes_sent / CONNECTIONS, sent), "{row}: {traffic:?}");
        assert!(is_payload(traffic.bytes_received / CONNECTIONS, received), "{row}: {traffic:?}");
        let packets = traffic.packets_sent.min(traffic.packets_received) / CONNECTIONS;
        assert!((2..=8).contains(&packets), "{row}: {traffic:?}");
    }
}

/// More peers than a socket's own storage has room for.
fn a_socket_with_many_peers() {
    const ROUNDS: u64 = 5;
    /// IP and UDP headers (RFC 791, RFC 768), and one byte.
    const BYTES: u64 = 20 + 8 + 1;
    let scene = Scene::new("peers");
    let servers: Vec<_> = (0..9).map(|_| scene.api.serve(false, "127.0.0.1:0")).collect();
    let before = scene.direct.carried_since(&Carried::new());
    let socket = scene.client.socket(libc::AF_INET, libc::SOCK_DGRAM);
    for _ in 0..ROUNDS {
        for server in &servers {
            send(&scene.client, socket, Some(at(server.port)), 1);
        }
    }
    for server in &servers {
        scene.api.until_served(server, ROUNDS);
    }
    let sent = Traffic { packets_sent: ROUNDS, bytes_sent: ROUNDS * BYTES, ..Traffic::NONE };
    let received = Traffic { packets_received: ROUNDS, bytes_received: ROUNDS * BYTES, ..Traffic::NONE };
    let rows = servers.iter().flat_map(|server| {
        [
            (format!("client UDP {} client of api", server.port), sent),
            (format!("api UDP {} server of client", server.port), received),
        ]
    });
    assert_eq!(scene.direct.carried_since(&before), rows.collect::<Carried>());
}

/// A connection from the address and port of one that ended a moment ago is another one.
fn the_same_port_again() {
    let scene = Scene::new("again");
    let server = scene.api.open(true, &([127, 0, 0, 1], 0).into());
    let (counted, carried) = (scene.direct.counts(), scene.direct.carried_since(&Carried::new()));
    let any = scene.client.socket(libc::AF_INET, libc::SOCK_STREAM);
    scene.client.must(&Order::Bind { fd: any, to: at(0) });
    let port = sockaddr::port(&scene.client.must(&Order::Name { fd: any }).data);
    scene.client.close(any);
    for _ in 0..3 {
        let (ours, theirs) = scene.connection(port, server.fd, server.port);
        // The end that closes first is the one whose port waits for late packets.
        scene.api.close(theirs);
        scene.client.must(&Order::Receive { fd: ours });
        scene.client.close(ours);
    }
    let row = format!("client -> api TCP {}", server.port);
    let expected =
        Counts::from([(format!("{row} egress FORWARDED"), 3), (format!("{row} ingress FORWARDED"), 3)]);
    assert_eq!(scene.direct.counted_since(&counted), expected);
    for (row, traffic) in scene.direct.carried_since(&carried) {
        assert_eq!(traffic.opened, 3, "{row}");
    }
}
