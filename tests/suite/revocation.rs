//! What was allowed once and is not any more: both ends of the open connection get an error, and nobody else.

use std::os::fd::AsFd as _;

use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::puppet::{Fd, Order};
use enforcer_tests::sockaddr;
use enforcer_tests::workload::{Server, Workload, descriptor};
use enforcer_tests::world::{World, new_namespace};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_push_cuts_what_it_forbids", a_push_cuts_what_it_forbids),
    ("other_labels_cut_what_they_forbid", other_labels_cut_what_they_forbid),
    ("other_namespaces_too", other_namespaces_too),
    ("connected_datagrams_too", connected_datagrams_too),
    ("audit_mode_cuts_nothing", audit_mode_cuts_nothing),
    ("many_at_once", many_at_once),
];

const ABORTED: i32 = libc::ECONNABORTED;
const RESET: i32 = libc::ECONNRESET;
const DB: &str = "127.0.0.1:5432";
const DB6: &str = "[::1]:5432";

/// `db` is for `api` only.
const API_ONLY: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db}
spec:
  subject: {matchLabels: {app: db}}
  ingress: [{from: [{workloads: {matchLabels: {app: api}}}]}]
";

struct Scene {
    agent: Agent,
    web: Workload,
    api: Workload,
    db: Workload,
    /// Last: what is in it goes before it.
    world: World,
}

/// Both ends of an open connection.
struct Connection<'a> {
    ends: [(&'a Workload, Fd); 2],
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
        let mut agent = Agent::new(&world);
        agent.workloads([&web, &api, &db]);
        agent.configure(&[("attach", &world.relative(&world.guarded())), ("log-level", "debug")]);
        agent.run();
        Self { agent, web, api, db, world }
    }

    fn push(&self, text: &str) {
        self.agent.cli_with(&["policy", "apply", "-f", "-"], text).expect_ok();
    }
}

fn open<'a>(client: &'a Workload, owner: &'a Workload, server: Server, at: &str) -> Connection<'a> {
    let domain = if at.starts_with('[') { libc::AF_INET6 } else { libc::AF_INET };
    let fd = client.socket(domain, libc::SOCK_STREAM);
    assert_eq!(client.connect_on(fd, sockaddr::of(at.parse().unwrap())).errno, 0, "{}", client.name);
    let taken = descriptor(&owner.must(&Order::Accept { fd: server.fd }));
    let connection = Connection { ends: [(client, fd), (owner, taken)] };
    connection.expect_alive();
    connection
}

fn server(owner: &Workload, at: &str) -> Server {
    owner.open(true, &at.parse().unwrap())
}

impl Connection<'_> {
    /// What is sent at one end comes out at the other.
    #[track_caller]
    fn expect_alive(&self) {
        let [(client, near), (owner, far)] = self.ends;
        for [(from, out), (to, into)] in [[(client, near), (owner, far)], [(owner, far), (client, near)]] {
            assert_eq!(from.send_on(out, None).errno, 0, "{} sends", from.name);
            assert_eq!(to.must(&Order::Receive { fd: into }).value, 1, "{} receives", to.name);
        }
    }

    /// Both ends learn that it is over: a call that waits ends with an error.
    #[track_caller]
    fn expect_cut(&self) {
        for (who, fd) in self.ends {
            let errno = until_over(who, fd);
            assert!([ABORTED, RESET].contains(&errno), "{}: {errno}", who.name);
        }
    }
}

/// What a call that waits on a socket learns; each waits for some seconds.
fn until_over(who: &Workload, fd: Fd) -> i32 {
    patience::until("the call ends", patience::seconds(10), || {
        let errno = who.puppet.obey(&Order::Receive { fd }).errno;
        (errno != libc::EAGAIN).then_some(errno)
    })
}

fn a_push_cuts_what_it_forbids() {
    let scene = Scene::new("push-cuts");
    let (v4, v6) = (server(&scene.db, DB), server(&scene.db, DB6));
    let forbidden = [open(&scene.web, &scene.db, v4, DB), open(&scene.web, &scene.db, v6, DB6)];
    let allowed = [open(&scene.api, &scene.db, v4, DB), open(&scene.api, &scene.db, v6, DB6)];
    let web_server = server(&scene.web, "127.0.0.1:80");
    let unrelated = open(&scene.api, &scene.web, web_server, "127.0.0.1:80");
    scene.push(API_ONLY);
    forbidden.iter().for_each(Connection::expect_cut);
    allowed.iter().for_each(Connection::expect_alive);
    unrelated.expect_alive();
    let counted = r#"enforcer_sockets_destroyed_total{protocol="TCP",reason="POLICY_DENIED"}"#;
    // The second end of a connection may be gone by the reset of the first.
    patience::until_true("destroyed sockets are counted", patience::seconds(5), || {
        scene.agent.metrics().get(counted).is_some_and(|count| (2.0..=4.0).contains(count))
    });
    let metrics = scene.agent.metrics();
    for kind in ["pass", "namespace", "socket"] {
        assert!(metrics[&format!("enforcer_revocation_failures_total{{kind=\"{kind}\"}}")] < 0.5, "{kind}");
    }
}

fn other_labels_cut_what_they_forbid() {
    let mut scene = Scene::new("label-cuts");
    scene.push(API_ONLY);
    let server = server(&scene.db, DB);
    let twin = scene.world.workload_in("default", "twin", &[("app", "api")]);
    scene.agent.workloads([&scene.web, &scene.api, &scene.db, &twin]);
    patience::until_true("the twin is known", patience::seconds(10), || twin.connect(DB).errno == 0);
    scene.db.must(&Order::Accept { fd: server.fd });
    scene.api.relabel(&[("app", "none")]);
    let (cut, stays) = (open(&scene.api, &scene.db, server, DB), open(&twin, &scene.db, server, DB));
    scene.agent.workloads([&scene.web, &scene.api, &scene.db, &twin]);
    cut.expect_cut();
    stays.expect_alive();
}

fn other_namespaces_too() {
    let scene = Scene::new("netns-cuts");
    // Neither the daemon nor the other workloads are in it.
    let namespace = new_namespace();
    let far = |name| scene.world.workload_at(namespace.as_fd(), name, &[("app", name)]);
    let (web, api, db) = (far("web"), far("api"), far("db"));
    let server = server(&db, DB);
    let (cut, stays) = (open(&web, &db, server, DB), open(&api, &db, server, DB));
    scene.push(API_ONLY);
    cut.expect_cut();
    stays.expect_alive();
}

fn connected_datagrams_too() {
    let scene = Scene::new("udp-cuts");
    let to = || sockaddr::of(DB.parse().unwrap());
    scene.db.serve(false, DB);
    let ask = |who: &Workload| {
        let fd = who.socket(libc::AF_INET, libc::SOCK_DGRAM);
        assert_eq!(who.connect_on(fd, to()).errno, 0);
        fd
    };
    let (web, api) = (ask(&scene.web), ask(&scene.api));
    scene.push(API_ONLY);
    assert_eq!(until_over(&scene.web, web), ABORTED);
    assert_eq!(scene.api.send_on(api, None).errno, 0, "still connected");
}

fn audit_mode_cuts_nothing() {
    let scene = Scene::new("audit-cuts");
    let server = server(&scene.db, DB);
    let connection = open(&scene.web, &scene.db, server, DB);
    scene.push(&API_ONLY.replace("spec:\n", "spec:\n  mode: audit\n"));
    let passes = || scene.agent.metrics()["enforcer_revocations_total"];
    let before = passes();
    // A second change, so that the first was judged in any case.
    scene.push(&API_ONLY.replace("name: db", "name: other").replace("app: db", "app: none"));
    patience::until_true("sockets are judged", patience::seconds(5), || passes() > before);
    connection.expect_alive();
}

fn many_at_once() {
    let scene = Scene::new("many-cuts");
    let count = patience::scaled(1_000, 200);
    let server = server(&scene.db, DB);
    let to = || sockaddr::of(DB.parse().unwrap());
    for who in [&scene.web, &scene.api] {
        // The queue of those that were not taken yet has its limit.
        for part in [count / 2, count - count / 2] {
            who.must(&Order::Hold { count: part, to: to() });
            scene.db.must(&Order::Keep { count: part, fd: server.fd });
        }
    }
    scene.push(API_ONLY);
    let lost = |who: &Workload| who.must(&Order::Lost).tally.values().sum::<u64>();
    patience::until_true("all of one are cut", patience::seconds(10), || {
        lost(&scene.web) == count && lost(&scene.db) == count
    });
    assert_eq!(lost(&scene.api), 0);
    assert_eq!(lost(&scene.db), count, "and none of the other");
}
