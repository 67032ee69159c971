//! Rules about kinds of sockets: who may create which, on one host.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use enforcer::domain::timestamp::Timestamp;
use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::puppet::{Order, Puppet};
use enforcer_tests::workload::{Workload, descriptor};
use enforcer_tests::world::World;
use serde_json::Value;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("rules_open_and_close_kinds", rules_open_and_close_kinds),
    ("an_audited_rule_lets_through_and_counts", an_audited_rule_lets_through_and_counts),
    ("what_a_rule_allows_ends_and_is_not_for_everybody", what_a_rule_allows_ends_and_is_not_for_everybody),
];

const OK: i32 = 0;
const EPERM: i32 = libc::EPERM;
const EACCES: i32 = libc::EACCES;
const ECONNREFUSED: i32 = libc::ECONNREFUSED;
const IPPROTO_MPTCP: i32 = 262;
const IPPROTO_UDPLITE: i32 = 136;

/// Type and protocol of a kind.
type Kind = (&'static str, i32, i32);

const TCP: Kind = ("tcp", libc::SOCK_STREAM, libc::IPPROTO_TCP);
const UDP: Kind = ("udp", libc::SOCK_DGRAM, libc::IPPROTO_UDP);
const MPTCP: Kind = ("mptcp", libc::SOCK_STREAM, IPPROTO_MPTCP);
const PING: Kind = ("ping", libc::SOCK_DGRAM, libc::IPPROTO_ICMP);
const RAW: Kind = ("raw", libc::SOCK_RAW, libc::IPPROTO_ICMP);
const UDPLITE: Kind = ("udplite", libc::SOCK_DGRAM, IPPROTO_UDPLITE);

struct Scene {
    agent: Agent,
    web: Workload,
    db: Workload,
    // Last, so that everything in it is gone before it goes.
    world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let (web, db) = (world.workload("web"), world.workload("db"));
        world.inside(|| {
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
                .expect("open ping sockets to groups");
        });
        let mut agent = Agent::new(&world);
        let managed = format!("[{}]", world.relative(&world.directory("managed")));
        agent.configure(&[("attach", &world.relative(&world.guarded())), ("managed", &managed)]);
        agent.workloads([&web, &db]);
        agent.run();
        Self { agent, web, db, world }
    }

    fn apply(&self, text: &str) {
        self.agent.cli_with(&["policy", "apply", "-f", "-"], text).expect_ok();
    }

    /// Whether this kernel has a kind; says so where it has not.
    fn has(&self, kind: Kind) -> bool {
        let errno = create(&self.world.host().puppet, kind);
        if errno != OK {
            assert!(
                [libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT, libc::ENOPROTOOPT].contains(&errno),
                "{errno}"
            );
            println!("this kernel has no sockets of the kind {}: not tried", kind.0);
        }
        errno == OK
    }

    /// The last refused or audited socket of a workload, as flows tell it.
    fn told(&self, from: &str, verdict: &str) -> Value {
        let arguments = ["observe", "--last", "1", "-o", "json", "--from", from, "--verdict", verdict];
        // What is let through wakes nobody, so it is read a moment later.
        patience::until("a flow is told", patience::seconds(10), || {
            let told = self.agent.cli(&arguments).expect_ok();
            let line = told.lines().next()?;
            Some(serde_json::from_str::<Value>(line).expect("a line of JSON")["flow"].take())
        })
    }

    /// The sum of the verdicts of a policy with this outcome.
    fn verdicts(&self, policy: &str, action: &str) -> f64 {
        let wanted = [format!("policy=\"{policy}\""), format!("action=\"{action}\"")];
        let metrics = self.agent.metrics();
        let is_meant = |name: &str| {
            name.starts_with("enforcer_policy_verdicts_total")
                && wanted.iter().all(|label| name.contains(label))
        };
        metrics.iter().filter(|(name, _)| is_meant(name)).map(|(_, value)| value).sum()
    }
}

/// What becomes of `socket(2)`.
fn create(puppet: &Puppet, (_, kind, protocol): Kind) -> i32 {
    let answer = puppet.obey(&Order::Socket { domain: libc::AF_INET, kind, protocol });
    if answer.errno == OK {
        puppet.obey(&Order::Close { fd: descriptor(&answer) });
    }
    answer.errno
}

#[track_caller]
fn check(who: &Workload, expected: &[(Kind, i32)]) {
    for (kind, errno) in expected {
        assert_eq!(create(&who.puppet, *kind), *errno, "{} creates {}", who.name, kind.0);
    }
}

/// A policy of the cluster for `web`.
fn of_cluster(rest: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: ClusterTrafficPolicy\nmetadata: {{name: diagnosis}}\nspec:\n  \
         subject: {{namespaces: [default], workloads: {{matchLabels: {{app: web}}}}}}\n{rest}---\n"
    )
}

/// A policy of the namespace for a workload.
fn of_namespace(app: &str, rest: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: kinds}}\nspec:\n  subject: \
         {{matchLabels: {{app: {app}}}}}\n{rest}---\n"
    )
}

fn rules_open_and_close_kinds() {
    let mut scene = Scene::new("kinds");
    let by_setting = [(TCP, OK), (UDP, OK), (PING, EPERM), (RAW, EPERM)];
    check(&scene.web, &by_setting);
    assert_eq!(scene.told("web", "DROPPED")["drop_reason_desc"], "SOCKET_KIND");
    scene.apply(&of_cluster("  sockets: [{name: by-hand, kinds: [ping, raw]}]\n"));
    check(&scene.web, &[(PING, OK), (RAW, OK), (TCP, OK), (UDP, OK)]);
    check(&scene.db, &by_setting);
    // Allowing a kind isolates from nothing, and neither does isolation keep anybody from a kind.
    let server = scene.db.serve(true, "127.0.0.1:5432");
    assert_eq!(scene.web.connect("127.0.0.1:5432").errno, OK);
    scene.db.until_served(&server, 1);

    let (mptcp, udplite) = (scene.has(MPTCP), scene.has(UDPLITE));
    let denied = "  sockets:
    - {name: no-mptcp, kinds: [mptcp], action: Deny, errno: EACCES}
    - {kinds: [udplite, raw, udp], action: Deny, errno: ECONNREFUSED}
";
    scene.apply(
        &(of_namespace("web", denied) + &of_namespace("db", "  ingress: []\n").replace("kinds", "closed")),
    );
    let now = |scene: &Scene| {
        // A deny beats the allow, and what the setting allows.
        check(&scene.web, &[(PING, OK), (RAW, ECONNREFUSED), (UDP, ECONNREFUSED), (TCP, OK)]);
        check(&scene.db, &by_setting);
        if mptcp {
            check(&scene.web, &[(MPTCP, EACCES)]);
            check(&scene.db, &[(MPTCP, OK)]);
        }
        if udplite {
            check(&scene.web, &[(UDPLITE, ECONNREFUSED)]);
            check(&scene.db, &[(UDPLITE, EPERM)]);
        }
    };
    now(&scene);
    let said = |kind: &str| {
        let arguments = ["policy", "explain", "--from", "web", "--socket-kind", kind];
        scene.agent.cli(&arguments).expect_ok()
    };
    assert!(said("raw").contains("decided by default/kinds sockets[1], precedence 3"), "{}", said("raw"));
    assert!(said("ping").contains("clustertrafficpolicy/diagnosis sockets[0] (by-hand)"), "{}", said("ping"));
    assert!(said("sctp").contains("DROPPED, SOCKET_KIND"), "{}", said("sctp"));
    patience::until_true("status names what the policy opens", patience::seconds(30), || {
        let open = scene.agent.status().unguarded;
        open.iter()
            .any(|it| it.vector == "socket_raw" && it.reason.contains("clustertrafficpolicy/diagnosis"))
    });
    check(&scene.web, &[(RAW, ECONNREFUSED)]);
    let told = scene.told("web", "DROPPED");
    assert_eq!(told["drop_reason_desc"], "POLICY_DENY", "{told}");
    let by = &told["enforcer"];
    assert_eq!(by["decided_by"]["name"], "kinds", "{told}");
    assert_eq!(by["decided_by"]["rule"], "sockets[1]", "{told}");
    assert_eq!((by["errno"].as_str(), by["hook"].as_str()), (Some("ECONNREFUSED"), Some("sock_create")));
    assert!(scene.verdicts("default/kinds", "dropped") > 0.0, "{:?}", scene.agent.metrics());

    // What is said holds without the daemon, and with the next one.
    scene.agent.kill9();
    now(&scene);
    scene.agent.run();
    now(&scene);
    scene.agent.cli(&["policy", "delete", "default/kinds", "clustertrafficpolicy/diagnosis"]).expect_ok();
    check(&scene.web, &by_setting);
}

fn an_audited_rule_lets_through_and_counts() {
    let scene = Scene::new("kinds-audit");
    let audited = "  mode: audit\n  sockets: [{name: no-udp, kinds: [udp], action: Deny}]\n";
    scene.apply(&of_namespace("web", audited));
    check(&scene.web, &[(UDP, OK), (TCP, OK), (PING, EPERM)]);
    check(&scene.db, &[(UDP, OK)]);
    let told = scene.told("web", "AUDIT");
    assert_eq!(
        (told["drop_reason_desc"].as_str(), told["enforcer"]["decided_by"]["rule"].as_str()),
        (Some("POLICY_DENY"), Some("sockets[0] (no-udp)")),
        "{told}"
    );
    assert!(scene.verdicts("default/kinds", "audit") > 0.0, "{:?}", scene.agent.metrics());
    // In audit mode nothing is opened either.
    scene.apply(&of_cluster("  mode: audit\n  sockets: [{kinds: [ping]}]\n"));
    check(&scene.web, &[(PING, EPERM)]);
}

fn what_a_rule_allows_ends_and_is_not_for_everybody() {
    let scene = Scene::new("kinds-ends");
    // Long enough for a push on a machine with other work.
    let lasts = Duration::from_secs(10);
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lasts;
    let over = Instant::now() + lasts;
    let expires = Timestamp { seconds: i64::try_from(end.as_secs()).unwrap(), nanos: end.subsec_nanos() };
    let rules =
        format!("  sockets:\n    - {{kinds: [ping], expiresAt: \"{expires}\"}}\n    - {{kinds: [raw]}}\n");
    scene.apply(&of_cluster(&rules));
    check(&scene.web, &[(PING, OK), (RAW, OK)]);
    // The host may all, and processes of no workload what the setting says.
    let host = scene.world.host();
    check(&host, &[(PING, OK), (RAW, OK)]);
    let stranger = scene.world.puppet(&scene.world.directory("managed/stranger"));
    for (kind, errno) in [(TCP, OK), (PING, EPERM), (RAW, EPERM)] {
        assert_eq!(create(&stranger, kind), errno, "a process of no workload creates {}", kind.0);
    }
    // No rule gives who is in quarantine more than the setting.
    scene.agent.cli(&["quarantine", "add", "web"]).expect_ok();
    check(&scene.web, &[(RAW, EPERM), (TCP, OK)]);
    scene.agent.cli(&["quarantine", "release", "web"]).expect_ok();
    check(&scene.web, &[(RAW, OK)]);
    std::thread::sleep((over + Duration::from_millis(300)).saturating_duration_since(Instant::now()));
    check(&scene.web, &[(PING, EPERM), (RAW, OK)]);
}
