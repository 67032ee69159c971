//! Answers to datagrams belong to the flow they answer: they pass where it may be, and only there.

use enforcer_tests::direct::{Counts, Direct};
use enforcer_tests::puppet::{Fd, Order};
use enforcer_tests::sockaddr;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("an_answer_passes", an_answer_passes),
    ("an_answer_to_a_connected_socket_passes", an_answer_to_a_connected_socket_passes),
    ("nobody_else_may_answer", nobody_else_may_answer),
    ("answers_end_with_the_permission", answers_end_with_the_permission),
];

const EPERM: i32 = 1;

/// `web` may ask `dns` on one port and take nothing from anybody; `dns` may be asked and open nothing itself.
const MAY_ASK: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web}
spec:
  subject: {matchLabels: {app: web}}
  ingress: []
  egress:
    - to: [{workloads: {matchLabels: {app: dns}}}]
      ports: [{protocol: UDP, port: 53}]
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: dns}
spec:
  subject: {matchLabels: {app: dns}}
  egress: []
  ingress:
    - from: [{workloads: {matchLabels: {app: web}}}]
";

/// As above, but nothing may be asked any more.
const MAY_NOT_ASK: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web}
spec:
  subject: {matchLabels: {app: web}}
  ingress: []
  egress: []
";

struct Scene {
    direct: Direct,
    web: Workload,
    dns: Workload,
    // Last, so that everything in it is gone before it goes.
    world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let mut direct = Direct::start(&world);
        let (web, dns) = (world.workload("web"), world.workload("dns"));
        direct.policies(MAY_ASK);
        direct.bind([&web, &dns]);
        Self { direct, web, dns, world }
    }

    fn counted(&self, before: &Counts, rows: &[(&str, u64)]) {
        let rows: Counts = rows.iter().map(|(row, count)| ((*row).to_owned(), *count)).collect();
        assert_eq!(self.direct.counted_since(before), rows);
    }
}

/// A datagram socket at an address.
fn socket(owner: &Workload, at: &str) -> Fd {
    let domain = if at.starts_with('[') { libc::AF_INET6 } else { libc::AF_INET };
    let fd = owner.socket(domain, libc::SOCK_DGRAM);
    owner.must(&Order::Bind { fd, to: bytes(at) });
    fd
}

fn bytes(at: &str) -> Vec<u8> {
    sockaddr::of(at.parse().expect("an address with a port"))
}

fn send(from: &Workload, fd: Fd, to: &str) -> i32 {
    from.send_on(fd, Some(bytes(to))).errno
}

fn an_answer_passes() {
    let scene = Scene::new("answer");
    // The server listens on one address, on all of them, and on IPv6. An answer comes from where was asked.
    for (asks, serves, at) in [
        ("127.0.0.1:40001", "127.0.0.1:53", "127.0.0.1:53"),
        ("127.0.0.1:40002", "0.0.0.0:53", "127.0.0.1:53"),
        ("[::1]:40003", "[::1]:53", "[::1]:53"),
    ] {
        let (client, server) = (socket(&scene.web, asks), socket(&scene.dns, serves));
        let before = scene.direct.counts();
        assert_eq!(send(&scene.dns, server, asks), EPERM, "nobody has asked: {serves}");
        assert_eq!(send(&scene.web, client, at), 0, "{at}");
        assert_eq!(send(&scene.dns, server, asks), 0, "answer to {asks}");
        assert_eq!(send(&scene.dns, server, asks), 0, "and more of it");
        let unasked = format!("dns -> web UDP {} egress DROPPED", asks.rsplit(':').next().expect("a port"));
        scene.counted(
            &before,
            &[
                (&unasked, 1),
                ("web -> dns UDP 53 egress FORWARDED", 1),
                ("web -> dns UDP 53 ingress FORWARDED", 1),
            ],
        );
        scene.web.close(client);
        scene.dns.close(server);
    }
}

fn an_answer_to_a_connected_socket_passes() {
    let scene = Scene::new("connected");
    let (client, server) = (socket(&scene.web, "127.0.0.1:40001"), socket(&scene.dns, "127.0.0.1:53"));
    assert_eq!(scene.web.connect_on(client, bytes("127.0.0.1:53")).errno, 0);
    assert_eq!(scene.web.send_on(client, None).errno, 0);
    assert_eq!(send(&scene.dns, server, "127.0.0.1:40001"), 0);
}

fn nobody_else_may_answer() {
    let mut scene = Scene::new("else");
    let (client, _server) = (socket(&scene.web, "127.0.0.1:40001"), socket(&scene.dns, "127.0.0.1:53"));
    let spy = scene.world.workload("spy");
    scene.direct.bind([&spy]);
    assert_eq!(send(&scene.web, client, "127.0.0.1:53"), 0);
    let elsewhere = socket(&spy, "127.0.0.1:5353");
    assert_eq!(send(&spy, elsewhere, "127.0.0.1:40001"), EPERM, "from a port that was not asked");
    let beside = socket(&spy, "127.0.0.9:53");
    assert_eq!(send(&spy, beside, "127.0.0.1:40001"), EPERM, "from the port, but not by who was asked");
    let other = socket(&scene.dns, "127.0.0.1:5300");
    assert_eq!(send(&scene.dns, other, "127.0.0.1:40001"), EPERM, "by who was asked, but not from the port");
}

fn answers_end_with_the_permission() {
    let mut scene = Scene::new("revoked");
    let (client, server) = (socket(&scene.web, "127.0.0.1:40001"), socket(&scene.dns, "127.0.0.1:53"));
    assert_eq!(send(&scene.web, client, "127.0.0.1:53"), 0);
    assert_eq!(send(&scene.dns, server, "127.0.0.1:40001"), 0);
    scene.direct.policies(MAY_NOT_ASK);
    let before = scene.direct.counts();
    assert_eq!(send(&scene.dns, server, "127.0.0.1:40001"), EPERM);
    scene.counted(&before, &[("web -> dns UDP 53 egress DROPPED", 1)]);
}
