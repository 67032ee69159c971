//! Workloads that talk, try and fail, so that there is something of everything that dashboards show.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::agent::Agent;
use crate::apiserver::ApiServer;
use crate::bypass::outside::Outside;
use crate::bypass::{Family, TCP, UDP};
use crate::puppet::Order;
use crate::sockaddr;
use crate::workload::Workload;
use crate::world::World;

const API: &str = "127.0.0.1:8081";
const ADMIN: &str = "127.0.0.1:9000";
const DB: &str = "127.0.0.1:5432";
/// Connections that are open when they are forbidden.
pub(super) const HELD: u64 = 3;
/// Time between rounds.
const PAUSE: Duration = Duration::from_millis(25);

/// `web` may call `api` and the world, nobody may use the admin port, only `api` may call `db`; `batch` is only audited.
pub(super) const FIRST: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web, namespace: shop}
spec:
  subject: {matchLabels: {app: web}}
  egress:
    - to: [{workloads: {matchLabels: {app: api}}}]
    - name: partners
      to: [{entity: world}]
      ports: [{port: 7001}, {protocol: UDP, port: 7002}]
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: api, namespace: shop}
spec:
  subject: {matchLabels: {app: api}}
  ingress:
    - name: no-admin
      action: Deny
      ports: [{port: 9000}]
    - from: [{workloads: {}, namespaces: ['*']}, {entity: world}]
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db, namespace: data}
spec:
  subject: {matchLabels: {app: db}}
  ingress:
    - from: [{workloads: {matchLabels: {app: api}}, namespaces: [shop]}]
---
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: batch, namespace: jobs}
spec:
  mode: audit
  subject: {matchLabels: {app: batch}}
  egress: []
";

/// The node that the daemon is on.
const NODE: &str = "n1";

/// One policy more.
pub(super) const SECOND: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: later, namespace: jobs}
spec:
  subject: {matchLabels: {app: batch}}
  ingress: []
";

/// See the module. Fields go in this order: the daemon first, the world with everything else last.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) agent: Agent,
    web: Workload,
    api: Workload,
    db: Workload,
    batch: Workload,
    outside: Outside,
    /// An empty cluster, so that there is something to be told of one.
    _cluster: ApiServer,
    pub(super) world: World,
}

/// How often what was done.
#[derive(Debug, Default)]
pub(super) struct Calls {
    rounds: u64,
    from_outside: u64,
}

impl Stage {
    pub(super) fn new() -> Self {
        let world = World::new("telemetry");
        let (outside, _) = Outside::new(world.namespace());
        let workload = |namespace, name| world.workload_in(namespace, name, &[("app", name)]);
        let (web, api) = (workload("shop", "web"), workload("shop", "api"));
        let (db, batch) = (workload("data", "db"), workload("jobs", "batch"));
        for at in ["0.0.0.0:8081", ADMIN] {
            api.serve(true, at);
        }
        api.serve(false, API);
        let cluster = world.inside(ApiServer::start);
        cluster.put_all(
            [("Namespace", "enforcer-system"), ("Node", NODE)].map(
                |(kind, name)| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } }),
            ),
        );
        fs::write(kubeconfig(&world), cluster.kubeconfig("")).expect("a client's configuration");
        let agent = Agent::new(&world);
        configure(&agent, &world, &[]);
        agent.workloads([&web, &api, &db, &batch]);
        Self { agent, web, api, db, batch, outside, _cluster: cluster, world }
    }

    /// Ends the daemon and starts another with these settings.
    pub(super) fn restart(&mut self, settings: &[(&str, &str)]) {
        self.agent.terminate();
        configure(&self.agent, &self.world, settings);
        self.agent.run();
    }

    /// Opens connections that policies will forbid.
    pub(super) fn hold(&self) {
        let server = self.db.open(true, &DB.parse().expect("an address"));
        let to = sockaddr::of(DB.parse().expect("an address"));
        self.web.must(&Order::Hold { count: HELD, to });
        self.db.must(&Order::Keep { count: HELD, fd: server.fd });
        self.db.must(&Order::Serve { fd: server.fd, stream: true });
    }

    /// How many of those connections have failed.
    pub(super) fn lost(&self) -> u64 {
        self.web.must(&Order::Lost).tally.values().sum()
    }

    /// `batch` is no workload any more.
    pub(super) fn leave(&self) {
        self.agent.workloads([&self.web, &self.api, &self.db]);
    }

    /// Applies policies.
    pub(super) fn apply(&self, policies: &str) {
        self.agent.cli_with(&["policy", "apply", "-f", "-"], policies).expect_ok();
    }

    /// Goes on until told to stop; how often what was done.
    pub(super) fn load(&self, done: &AtomicBool) -> Calls {
        let allowed = Family::V4.allowed();
        let (stream, datagrams) = (format!("{allowed}:{TCP}"), format!("{allowed}:{UDP}"));
        let mut calls = Calls::default();
        while !done.load(Ordering::SeqCst) {
            self.web.connect(API);
            self.web.connect(ADMIN);
            self.web.connect(DB);
            self.web.send(API);
            self.api.connect(DB);
            self.batch.connect(API);
            self.web.connect(&stream);
            self.web.send(&datagrams);
            // Nobody allows this one.
            self.web.connect(&format!("{}:443", Family::V4.forbidden()));
            calls.rounds += 1;
            if calls.rounds.is_multiple_of(4) {
                let reached = self.outside.reaches(allowed, (Family::V4.own(), 8081));
                calls.from_outside += u64::from(reached);
            }
            std::thread::sleep(PAUSE);
        }
        calls
    }
}

fn kubeconfig(world: &World) -> PathBuf {
    world.folder().join("kubeconfig")
}

fn configure(agent: &Agent, world: &World, settings: &[(&str, &str)]) {
    let attach = world.relative(&world.guarded());
    // The programs' own cost is part of what is shown.
    let kubeconfig = kubeconfig(world).display().to_string();
    let usual = [
        ("attach", attach.as_str()),
        ("program-statistics", "true"),
        ("kubernetes", "\"on\""),
        ("kubeconfig", kubeconfig.as_str()),
        ("node-name", NODE),
    ];
    agent.configure(&[&usual, settings].concat());
}

impl Calls {
    /// How often each call was made.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// What was done, how Prometheus is asked for it, how often it was done.
    pub(super) fn expected(&self) -> Vec<(&'static str, String, u64)> {
        let verdicts = |labels: &str| format!("sum(enforcer_policy_verdicts_total{{{labels}}})");
        let egress = |action: &str, from: &str, to: &str| {
            verdicts(&format!(r#"direction="egress",action="{action}",protocol="TCP",source="{from}",{to}"#))
        };
        let at = |name: &str, port: u16| format!(r#"destination="{name}",port="{port}""#);
        vec![
            ("web -> api            allowed", egress("forwarded", "web", &at("api", 8081)), self.rounds),
            ("api -> db             allowed", egress("forwarded", "api", &at("db", 5432)), self.rounds),
            ("web -> db             refused", egress("dropped", "web", &at("db", 5432)), self.rounds),
            (
                "web -> the world      allowed",
                egress("forwarded", "web", &at("reserved:world", TCP)),
                self.rounds,
            ),
            (
                "web -> the world      refused",
                egress("dropped", "web", &at("reserved:world", 443)),
                self.rounds,
            ),
            ("batch -> api          audited", egress("audit", "batch", &at("api", 8081)), self.rounds),
            (
                "web -> api:9000       refused",
                verdicts(
                    r#"direction="ingress",action="dropped",source="web",destination="api",port="9000""#,
                ),
                self.rounds,
            ),
            (
                "the world -> api      allowed",
                verdicts(
                    r#"direction="ingress",action="forwarded",source="reserved:world",destination="api""#,
                ),
                self.from_outside,
            ),
            (
                "handshakes with db",
                r#"sum(enforcer_handshake_seconds_count{destination="db",role="client"})"#.to_owned(),
                self.rounds + HELD,
            ),
        ]
    }
}
