//! Rules for protocols beside TCP and UDP: types of ICMP messages, ports of SCTP.

use std::fs;
use std::net::IpAddr;

use enforcer_tests::agent::Agent;
use enforcer_tests::puppet::{Fd, Order};
use enforcer_tests::sockaddr;
use enforcer_tests::workload::{Workload, descriptor};
use enforcer_tests::world::World;

use crate::registry::{Test, skip};

pub(crate) const TESTS: &[Test] = &[
    ("icmp_by_type", icmp_by_type),
    ("echo_requests_from_ping_sockets", echo_requests_from_ping_sockets),
    ("sctp_by_port", sctp_by_port),
];

const OK: i32 = 0;
const EPERM: i32 = libc::EPERM;
const SCTP: i32 = 132;

/// Types of messages (RFC 792, RFC 4443).
const ECHO: [u8; 2] = [8, 128];
const REDIRECT: [u8; 2] = [5, 137];
const TIMESTAMP: u8 = 13;
const UNREACHABLE_V6: u8 = 1;

struct Scene {
    agent: Agent,
    web: Workload,
    // Last, so that everything in it is gone before it goes.
    world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let web = world.workload("web");
        let mut agent = Agent::new(&world);
        let attach = world.relative(&world.guarded());
        agent.configure(&[("attach", &attach), ("allowed-sockets", "[tcp, udp, mptcp, ping, raw, sctp]")]);
        agent.workloads([&web]);
        agent.run();
        Self { agent, web, world }
    }

    fn apply(&self, sections: &str) {
        let text = format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: web}}\n\
             spec:\n  subject: {{matchLabels: {{app: web}}}}\n{sections}"
        );
        self.agent.cli_with(&["policy", "apply", "-f", "-"], &text).expect_ok();
    }

    /// The sum of the verdicts about a protocol and port, whoever was at the other end.
    fn verdicts(&self, protocol: &str, port: u16, verdict: &str) -> f64 {
        let wanted = [
            format!("protocol=\"{protocol}\""),
            format!("port=\"{port}\""),
            format!("action=\"{verdict}\""),
            "direction=\"egress\"".to_owned(),
        ];
        let metrics = self.agent.metrics();
        let is_meant = |name: &str| {
            name.starts_with("enforcer_policy_verdicts_total")
                && wanted.iter().all(|label| name.contains(label))
        };
        metrics.iter().filter(|(name, _)| is_meant(name)).map(|(_, value)| value).sum()
    }
}

/// Both families: the loopback address, and the protocol of its messages.
fn families() -> [(IpAddr, i32); 2] {
    [
        ([127, 0, 0, 1].into(), libc::IPPROTO_ICMP),
        (std::net::Ipv6Addr::LOCALHOST.into(), libc::IPPROTO_ICMPV6),
    ]
}

fn domain(address: IpAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// A message of a type, with a checksum that is right for IPv4; that of IPv6 is the kernel's business.
fn message(kind: u8) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    bytes.resize(20, 0);
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(folded & 0xffff).expect("sixteen bits");
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn send(web: &Workload, fd: Fd, to: IpAddr, kind: u8) -> i32 {
    let to = Some(sockaddr::of((to, 0).into()));
    web.puppet.obey(&Order::Send { fd, to, data: message(kind), flags: 0, control: Vec::new() }).errno
}

const ONLY_ECHO: &str = "  ingress: []
  egress:
    - ports:
        - {protocol: ICMP, types: [echo-request]}
        - {protocol: ICMPv6, types: [128]}
";

fn icmp_by_type() {
    let scene = Scene::new("icmp");
    scene.apply(ONLY_ECHO);
    for (family, (address, protocol)) in families().into_iter().enumerate() {
        let raw = scene.web.socket_of(domain(address), libc::SOCK_RAW, protocol);
        let denied = [REDIRECT[family], if family == 0 { TIMESTAMP } else { UNREACHABLE_V6 }];
        for kind in denied {
            assert_eq!(send(&scene.web, raw, address, kind), EPERM, "type {kind} to {address}");
        }
        assert_eq!(send(&scene.web, raw, address, ECHO[family]), OK, "an echo request to {address}");
        // The socket sees its own request arrive, and the answer, which nothing but the flow lets in.
        for what in ["the request", "the answer"] {
            scene.web.must(&Order::Receive { fd: raw });
            println!("{address}: {what} came");
        }
        scene.web.close(raw);
        let called = ["ICMPv4", "ICMPv6"][family];
        assert!(
            scene.verdicts(called, ECHO[family].into(), "forwarded") > 0.0,
            "{:?}",
            scene.agent.metrics()
        );
        assert!(scene.verdicts(called, denied[0].into(), "dropped") > 0.0);
    }
    // What is open at the level of types is so for each of them.
    scene.apply("  egress:\n    - ports: [{protocol: ICMP}]\n");
    let raw = scene.web.socket_of(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    assert_eq!(send(&scene.web, raw, [127, 0, 0, 1].into(), TIMESTAMP), OK);
    let six = scene.web.socket_of(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6);
    assert_eq!(send(&scene.web, six, std::net::Ipv6Addr::LOCALHOST.into(), ECHO[1]), EPERM);
}

fn echo_requests_from_ping_sockets() {
    let scene = Scene::new("ping");
    scene.world.inside(|| {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
            .expect("open ping sockets to groups");
    });
    let ping = |address: IpAddr, protocol| scene.web.socket_of(domain(address), libc::SOCK_DGRAM, protocol);
    scene.apply(ONLY_ECHO);
    for (family, (address, protocol)) in families().into_iter().enumerate() {
        let fd = ping(address, protocol);
        assert_eq!(send(&scene.web, fd, address, ECHO[family]), OK, "{address}");
        scene.web.must(&Order::Receive { fd });
        // A port means nothing to it, and neither does it to the rule.
        let connected = ping(address, protocol);
        assert_eq!(scene.web.connect_on(connected, sockaddr::of((address, 7).into())).errno, OK, "{address}");
        let order = Order::Send {
            fd: connected,
            to: None,
            data: message(ECHO[family]),
            flags: 0,
            control: Vec::new(),
        };
        scene.web.must(&order);
        scene.web.must(&Order::Receive { fd: connected });
    }
    scene.apply("  egress:\n    - ports: [{protocol: ICMP, types: [timestamp-request]}]\n");
    for (family, (address, protocol)) in families().into_iter().enumerate() {
        let fd = ping(address, protocol);
        let errno = send(&scene.web, fd, address, ECHO[family]);
        // The kernel does not tell a sender of ICMPv6 what became of the packet.
        assert!(errno == EPERM || family == 1, "{address}: {errno}");
        assert!(scene.verdicts(["ICMPv4", "ICMPv6"][family], ECHO[family].into(), "dropped") > 0.0);
    }
}

fn sctp_by_port() {
    let scene = Scene::new("sctp");
    let stream = |kind| Order::Socket { domain: libc::AF_INET, kind, protocol: SCTP };
    let listening = |port: u16| {
        let server = scene.world.host();
        let answer = server.puppet.obey(&stream(libc::SOCK_STREAM));
        if matches!(answer.errno, libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) {
            skip("this kernel has no SCTP; those of `cargo xtask vm` have it as a module");
        }
        assert_eq!(answer.errno, OK);
        let fd = descriptor(&answer);
        server.must(&Order::Bind { fd, to: sockaddr::of(([127, 0, 0, 1], port).into()) });
        server.must(&Order::Listen { fd });
        (server, fd)
    };
    let (server, fd) = listening(5_000);
    scene.apply("  ingress: []\n  egress:\n    - ports: [{protocol: SCTP, port: 5000}]\n");
    let connect = |port: u16| {
        let fd = scene.web.socket_of(libc::AF_INET, libc::SOCK_STREAM, SCTP);
        let errno = scene.web.connect_on(fd, sockaddr::of(([127, 0, 0, 1], port).into())).errno;
        (fd, errno)
    };
    let (client, errno) = connect(5_000);
    assert_eq!(errno, OK, "an association to the port that is open");
    let taken = descriptor(&server.must(&Order::Accept { fd }));
    for (from, from_fd, to, to_fd) in
        [(&scene.web, client, &server, taken), (&server, taken, &scene.web, client)]
    {
        assert_eq!(from.send_on(from_fd, None).errno, OK);
        assert_eq!(to.must(&Order::Receive { fd: to_fd }).value, 1, "{} to {}", from.name, to.name);
    }
    // Nothing tells the call: its packets are refused, and it ends by a time-out.
    let (_, errno) = connect(5_001);
    assert_ne!(errno, OK);
    assert_ne!(errno, libc::ECONNREFUSED, "the packet has reached the other end");
    assert!(scene.verdicts("SCTP", 5_001, "dropped") > 0.0, "{:?}", scene.agent.metrics());
    assert!(scene.verdicts("SCTP", 5_000, "forwarded") > 0.0);
}
