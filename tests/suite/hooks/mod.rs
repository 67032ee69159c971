//! Every hook and every form of an address: allowed and denied by label, three workloads on one shared 127.0.0.1.

mod forms;

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use enforcer_common::abi::config::{Mode, Stat};
use enforcer_common::abi::flow::Outcome;
use enforcer_common::reason::{Errno, Reason};
use enforcer_tests::direct::{Counts, Direct};
use enforcer_tests::puppet::{Fd, Order};
use enforcer_tests::sockaddr::unspecified;
use enforcer_tests::workload::{Seen, Server, Workload};
use enforcer_tests::world::World;

use self::forms::{FORMS, Form, four, with};
use crate::registry::{Test, skip};

pub(crate) const TESTS: &[Test] = &[
    ("three_workloads_on_one_address", three_workloads_on_one_address),
    ("every_form_of_a_destination", every_form_of_a_destination),
    ("every_errno", every_errno),
    ("a_socket_used_again", a_socket_used_again),
    ("a_connected_datagram_socket_sends_elsewhere", a_connected_datagram_socket_sends_elsewhere),
    ("many_messages_in_one_call", many_messages_in_one_call),
    ("a_corked_datagram_goes_to_one_place", a_corked_datagram_goes_to_one_place),
    ("an_own_address_besides_loopback", an_own_address_besides_loopback),
    ("io_uring", io_uring),
    ("mptcp", mptcp),
    ("modes", modes),
    ("a_socket_whose_creator_cannot_be_recorded", a_socket_whose_creator_cannot_be_recorded),
];

/// A denial is a matter of the call itself: nothing is waited for. Of several calls one is not interrupted.
const AT_ONCE: u64 = 50_000;
/// Where nothing answers, TCP tries again after a second.
const WAITED: u64 = 1_000_000;
const EPERM: i32 = 1;

const TIERS: &str = include_str!("../../../policies/three-tier.yaml");

/// `web` may call `api` by every protocol and port, and nobody else.
const WEB_TO_API: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web}
spec:
  subject: {matchLabels: {app: web}}
  egress:
    - to: [{workloads: {matchLabels: {app: api}}}]
";

/// The usual three, with [`WEB_TO_API`].
struct Three {
    direct: Direct,
    web: Workload,
    api: Workload,
    db: Workload,
    // Last, so that everything in it is gone before it goes.
    world: World,
}

impl Three {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let mut direct = Direct::start(&world);
        let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
        direct.policies(WEB_TO_API);
        direct.bind([&web, &api, &db]);
        Self { direct, web, api, db, world }
    }

    /// Checks that what was done moved these counters and no others.
    fn moves<T>(&mut self, rows: &[(&str, u64)], work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.direct.counts();
        let result = work(self);
        assert_eq!(self.direct.counted_since(&before), counts(rows));
        result
    }
}

fn counts(rows: &[(&str, u64)]) -> Counts {
    rows.iter().map(|(row, count)| ((*row).to_owned(), *count)).collect()
}

fn three_workloads_on_one_address() {
    let mut three = Three::new("tiers");
    three.direct.policies(TIERS);
    let api_server = three.api.serve(true, "127.0.0.1:8081");
    let db_server = three.db.serve(true, "127.0.0.1:5432");
    let rows = [
        ("web -> api TCP 8081 egress FORWARDED", 1),
        ("web -> api TCP 8081 ingress FORWARDED", 1),
        ("api -> db TCP 5432 egress FORWARDED", 1),
        ("api -> db TCP 5432 ingress FORWARDED", 1),
        ("web -> db TCP 5432 egress DROPPED", 5),
    ];
    three.moves(&rows, |three| {
        assert_eq!(three.web.connect("127.0.0.1:8081").errno, 0);
        assert_eq!(three.api.connect("127.0.0.1:5432").errno, 0);
        let denied = [(); 5].map(|()| three.web.connect("127.0.0.1:5432"));
        assert!(denied.iter().all(|seen| seen.errno == EPERM), "{denied:?}");
        assert!(denied.iter().any(|seen| seen.micros < AT_ONCE), "{denied:?}");
        three.api.until_served(&api_server, 1);
        three.db.until_served(&db_server, 1);
    });
    let event = three.direct.event("the denial", |event| event.outcome == Outcome::Dropped);
    assert_eq!((event.from.as_str(), event.to.as_str(), event.port), ("web", "db", 5432));
    assert_eq!((event.reason, event.rule.as_str()), (Reason::Isolated, "default/web egress (isolated)"));
    assert_eq!((event.errno, event.hook, event.pid), (EPERM, "connect4", three.web.puppet.pid()));
    assert_eq!((event.subject_cgroup, event.peer_cgroup), (three.web.cgroup_id().0, three.db.cgroup_id().0));
}

fn every_form_of_a_destination() {
    let mut three = Three::new("forms");
    // Once with a socket for each family, once with one for both.
    for (at, api_port, db_port) in [(&["0.0.0.0", "[::1]"][..], 8081, 5432), (&["[::]"][..], 8082, 5433)] {
        let servers = |who: &Workload, stream, port| -> Vec<Server> {
            at.iter().map(|ip| who.serve(stream, &format!("{ip}:{port}"))).collect()
        };
        let api = [servers(&three.api, true, api_port), servers(&three.api, false, api_port)];
        let db = [servers(&three.db, true, db_port), servers(&three.db, false, db_port)];
        let mut expected = [0, 0];
        for form in FORMS {
            let index = usize::from(form.protocol == "UDP");
            one_form(&mut three, form, api_port, db_port);
            expected[index] += 1;
            until_served(&three.api, &api[index], expected[index], form.name);
        }
        for servers in &db {
            until_served(&three.db, servers, 0, "every denied form");
        }
    }
}

fn one_form(three: &mut Three, form: &Form, api_port: u16, db_port: u16) {
    let Form { name, protocol, hook, go } = form;
    let row = |to: &str, port: u16, rest: &str| format!("web -> {to} {protocol} {port} {rest}");
    let egress = row("api", api_port, "egress FORWARDED");
    let ingress = row("api", api_port, "ingress FORWARDED");
    let seen = three.moves(&[(&egress, 1), (&ingress, 1)], |three| go(&three.web, api_port));
    assert_eq!(seen.errno, 0, "{name} to api");
    let dropped = row("db", db_port, "egress DROPPED");
    let seen = three.moves(&[(&dropped, 1)], |three| go(&three.web, db_port));
    assert_eq!(seen.errno, EPERM, "{name} to db");
    assert!(seen.micros < WAITED, "{name} took {seen:?}");
    let event = three.direct.event(name, |event| event.outcome == Outcome::Dropped);
    assert_eq!((event.hook, event.to.as_str(), event.port), (*hook, "db", db_port), "{name}");
}

fn until_served(who: &Workload, servers: &[Server], count: u64, what: &str) {
    let sum = || servers.iter().map(|server| who.served(server)).sum::<u64>();
    let limit = enforcer_tests::patience::seconds(5);
    enforcer_tests::patience::until_true(&format!("{what}: {count} arrived"), limit, || sum() >= count);
    assert_eq!(sum(), count, "{what}");
}

fn every_errno() {
    let mut three = Three::new("errno");
    let mut text = String::from(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: choices}\n\
         spec:\n  subject: {matchLabels: {app: db}}\n  ingress:\n    - {}\n",
    );
    for (port, errno) in (100..).zip(Errno::ALL) {
        let (tcp, udp) = (format!("{{port: {port}}}"), format!("{{protocol: UDP, port: {port}}}"));
        let name = errno.name();
        writeln!(text, "    - {{action: Deny, errno: {name}, ports: [{tcp}, {udp}]}}").unwrap();
    }
    three.direct.policies(&text);
    for (port, errno) in (100..).zip(Errno::ALL) {
        for at in ["0.0.0.0", "[::1]"] {
            three.db.serve(true, &format!("{at}:{port}"));
            three.db.serve(false, &format!("{at}:{port}"));
        }
        for ip in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let to = format!("{ip}:{port}");
            assert_eq!(three.web.connect(&to).errno, errno.number(), "TCP {to}");
            assert_eq!(three.web.send(&to).errno, errno.number(), "UDP {to}");
        }
        let event = three.direct.event(errno.name(), |event| event.port == port);
        assert_eq!(
            (event.errno, event.would_be, event.reason),
            (errno.number(), *errno, Reason::DeniedByRule)
        );
    }
}

fn a_socket_used_again() {
    let mut three = Three::new("again");
    three.api.serve(true, "127.0.0.1:8081");
    let rows = [
        ("web -> api TCP 8081 egress FORWARDED", 1),
        ("web -> api TCP 8081 ingress FORWARDED", 1),
        ("web -> db TCP 5432 egress DROPPED", 1),
    ];
    let db_server = three.db.serve(true, "127.0.0.1:5432");
    three.moves(&rows, |three| {
        let web = &three.web;
        let fd = web.socket(libc::AF_INET, libc::SOCK_STREAM);
        assert_eq!(web.connect_on(fd, local(8081)).errno, 0);
        assert_eq!(web.connect_on(fd, unspecified()).errno, 0, "dissolve");
        assert_eq!(web.connect_on(fd, local(5432)).errno, EPERM, "connect again");
        web.close(fd);
    });
    three.db.until_served(&db_server, 0);
}

fn a_connected_datagram_socket_sends_elsewhere() {
    let mut three = Three::new("elsewhere");
    let api = three.api.serve(false, "127.0.0.1:8081");
    let db = three.db.serve(false, "127.0.0.1:5432");
    let rows = [
        ("web -> api UDP 8081 egress FORWARDED", 1),
        ("web -> api UDP 8081 ingress FORWARDED", 1),
        ("web -> db UDP 5432 egress DROPPED", 2),
    ];
    three.moves(&rows, |three| {
        let web = &three.web;
        let fd = web.socket(libc::AF_INET, libc::SOCK_DGRAM);
        assert_eq!(web.connect_on(fd, local(8081)).errno, 0);
        assert_eq!(web.send_on(fd, Some(local(5432))).errno, EPERM, "elsewhere");
        assert_eq!(web.send_on(fd, None).errno, 0, "where it is connected to");
        assert_eq!(web.connect_on(fd, local(5432)).errno, EPERM, "connect elsewhere");
        web.close(fd);
    });
    three.api.until_served(&api, 1);
    three.db.until_served(&db, 0);
}

fn many_messages_in_one_call() {
    let mut three = Three::new("many");
    let api = three.api.serve(false, "127.0.0.1:8081");
    let db = three.db.serve(false, "127.0.0.1:5432");
    let rows = [
        ("web -> api UDP 8081 egress FORWARDED", 1),
        ("web -> api UDP 8081 ingress FORWARDED", 1),
        ("web -> db UDP 5432 egress DROPPED", 1),
    ];
    three.moves(&rows, |three| {
        let fd = three.web.socket(libc::AF_INET, libc::SOCK_DGRAM);
        let to = vec![local(8081), local(8081), local(5432), local(8081)];
        // The kernel tells how many went before the first that did not.
        assert_eq!(three.web.must(&Order::SendMany { fd, to }).value, 2);
        three.web.close(fd);
    });
    three.api.until_served(&api, 2);
    three.db.until_served(&db, 0);
}

fn a_corked_datagram_goes_to_one_place() {
    let three = Three::new("cork");
    let api = three.api.serve(false, "127.0.0.1:8081");
    let db = three.db.serve(false, "127.0.0.1:5432");
    let fd = three.web.socket(libc::AF_INET, libc::SOCK_DGRAM);
    let part = |port, flags| {
        let to = Some(local(port));
        three.web.puppet.obey(&Order::Send { fd, to, data: vec![1], flags, control: Vec::new() })
    };
    assert_eq!(part(8081, libc::MSG_MORE).errno, 0);
    // Whatever the call says: the datagram has its address already.
    part(5432, 0);
    three.api.until_served(&api, 1);
    three.db.until_served(&db, 0);
}

/// A host's own address leads to the same servers as loopback does, and their policies are asked there, too.
fn an_own_address_besides_loopback() {
    const CLOSED_API: &str = "
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: api}
spec: {subject: {matchLabels: {app: api}}, ingress: []}
";
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    let mut three = Three::new("own");
    three.world.add_address(OWN);
    let api = three.api.serve(true, "0.0.0.0:8081");
    three.direct.policies(&format!("{WEB_TO_API}{CLOSED_API}"));
    // The daemon has not noticed the address yet: the call is let through, and the wall holds.
    assert_ne!(in_vain(&three.db, OWN, 8081), 0);
    let event = three.direct.event("the wall", |event| event.outcome == Outcome::Dropped);
    assert_eq!((event.hook, event.from.as_str(), event.to.as_str()), ("ingress", "api", "db"));
    three.direct.own_address(&three.world, OWN.into());
    let rows = [("web -> api TCP 8081 egress FORWARDED", 1), ("web -> api TCP 8081 ingress DROPPED", 1)];
    three.moves(&rows, |three| assert_eq!(three.web.connect("192.0.2.1:8081").errno, EPERM));
    assert_eq!(three.db.connect("192.0.2.1:8081").errno, EPERM);
    three.api.until_served(&api, 0);
    three.direct.policies(WEB_TO_API);
    assert_eq!(three.web.connect("192.0.2.1:8081").errno, 0);
    three.api.until_served(&api, 1);
}

/// A connection that nobody answers, given up after the second packet.
fn in_vain(who: &Workload, ip: Ipv4Addr, port: u16) -> i32 {
    const SYNCNT: i32 = 7;
    let seen = with(who, libc::AF_INET, libc::SOCK_STREAM, |fd| {
        who.must(&Order::SetOption { fd, level: libc::IPPROTO_TCP, name: SYNCNT, value: 1 });
        who.connect_on(fd, four(ip, port))
    });
    seen.errno
}

fn io_uring() {
    let mut three = Three::new("uring");
    three.api.serve(true, "127.0.0.1:8081");
    three.db.serve(true, "127.0.0.1:5432");
    let ring = |three: &Three, port| {
        with(&three.web, libc::AF_INET, libc::SOCK_STREAM, |fd: Fd| {
            Seen::from(&three.web.puppet.obey(&Order::RingConnect { fd, to: local(port) }))
        })
    };
    match ring(&three, 8081).errno {
        0 => {}
        libc::ENOSYS | libc::EPERM => skip("this kernel has io_uring switched off"),
        errno => panic!("errno {errno}"),
    }
    three.moves(&[("web -> db TCP 5432 egress DROPPED", 1)], |three| {
        assert_eq!(ring(three, 5432).errno, EPERM);
    });
}

fn mptcp() {
    let mut three = Three::new("mptcp");
    let domain = libc::AF_INET;
    let (kind, protocol) = (libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
    let answer = three.web.puppet.obey(&Order::Socket { domain, kind, protocol });
    if matches!(answer.errno, libc::EPROTONOSUPPORT | libc::ENOPROTOOPT | libc::EINVAL) {
        skip("this kernel has no MPTCP");
    }
    assert_eq!(answer.errno, 0);
    let api = three.api.serve(true, "127.0.0.1:8081");
    let db = three.db.serve(true, "127.0.0.1:5432");
    let rows = [
        ("web -> api TCP 8081 egress FORWARDED", 1),
        ("web -> api TCP 8081 ingress FORWARDED", 1),
        ("web -> db TCP 5432 egress DROPPED", 1),
    ];
    three.moves(&rows, |three| {
        for (port, errno) in [(8081, 0), (5432, EPERM)] {
            let fd = three.web.socket_of(domain, kind, protocol);
            assert_eq!(three.web.connect_on(fd, local(port)).errno, errno, "port {port}");
            three.web.close(fd);
        }
    });
    three.api.until_served(&api, 1);
    three.db.until_served(&db, 0);
}

fn modes() {
    let mut three = Three::new("modes");
    let db = three.db.serve(true, "127.0.0.1:5432");
    for (mode, errno, rows, served) in [
        (
            Mode::Audit,
            0,
            &[("web -> db TCP 5432 egress AUDIT", 1), ("web -> db TCP 5432 ingress FORWARDED", 1)][..],
            1,
        ),
        (Mode::Off, 0, &[], 2),
        (Mode::Enforce, EPERM, &[("web -> db TCP 5432 egress DROPPED", 1)], 2),
    ] {
        three.direct.kernel().set_mode(mode).unwrap();
        three.moves(rows, |three| {
            assert_eq!(three.web.connect("127.0.0.1:5432").errno, errno, "{}", mode.name());
        });
        three.db.until_served(&db, served);
    }
}

/// A workload can use up a socket's memory for options; its next socket must then not come into being.
fn a_socket_whose_creator_cannot_be_recorded() {
    const LIMIT: &str = "/proc/sys/net/core/optmem_max";
    let three = Three::new("memory");
    // Its own per namespace since 6.8.
    if three.world.inside(|| std::fs::write(LIMIT, "8")).is_err() {
        skip("this kernel has one limit of option memory for all network namespaces");
    }
    let order = Order::Socket { domain: libc::AF_INET, kind: libc::SOCK_DGRAM, protocol: 0 };
    assert_eq!(three.web.puppet.obey(&order).errno, EPERM);
    assert_eq!(three.direct.stat(Stat::NoSocketStorage), 1);
    three.world.inside(|| std::fs::write(LIMIT, "131072")).unwrap();
    assert_eq!(three.web.puppet.obey(&order).errno, 0);
    assert_eq!(three.direct.stat(Stat::NoSocketStorage), 1);
}

fn local(port: u16) -> Vec<u8> {
    four(Ipv4Addr::LOCALHOST, port)
}
