//! `policy explain` asks the running agent, and what it says is what sockets meet.

use std::collections::BTreeMap;
use std::fs;

use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use serde_json::Value;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("what_it_says_is_what_sockets_meet", what_it_says_is_what_sockets_meet),
    ("a_service_is_explained_by_its_backends", a_service_is_explained_by_its_backends),
];

const TIERS: &str = include_str!("../../policies/three-tier.yaml");
const UNREACHABLE: i32 = libc::ENETUNREACH;
/// Servers by their ports; nothing allows the last one.
const SERVERS: [(&str, u16); 4] = [("web", 8080), ("api", 8081), ("db", 5432), ("db", 5433)];

struct Scene {
    agent: Agent,
    workloads: BTreeMap<&'static str, Workload>,
    _world: World,
}

impl Scene {
    /// Three tiers, somebody of no policy, and the host. Services as in the file of workloads.
    fn new(name: &str, services: &str) -> Self {
        let world = World::new(name);
        let mut workloads: BTreeMap<&str, Workload> =
            ["api", "db", "other", "web"].map(|name| (name, world.workload(name))).into();
        let mut agent = Agent::new(&world);
        let item = |(name, at): (&&str, usize)| {
            let cgroup = world.relative(&workloads[name].cgroup);
            format!(
                "- {{name: {name}, labels: {{app: {name}}}, cgroup: {cgroup}, addresses: [192.0.2.{at}]}}\n"
            )
        };
        let items: String = workloads.keys().zip(1..).map(item).collect();
        let text = format!("workloads:\n{items}services: {services}\n");
        fs::write(world.folder().join("workloads.yaml"), text).unwrap();
        fs::write(agent.policies().join("tiers.yaml"), TIERS).unwrap();
        agent.run();
        for (server, port) in SERVERS {
            workloads[server].serve(true, &format!("127.0.0.1:{port}"));
        }
        workloads.insert("host", world.host());
        Self { agent, workloads, _world: world }
    }

    fn explain(&self, from: &str, to: &str) -> Value {
        let told = self.agent.cli(&["policy", "explain", "--from", from, "--to", to, "-o", "json"]);
        serde_json::from_str(&told.clone().expect_ok()).unwrap_or_else(|error| panic!("{error}: {told:#?}"))
    }

    /// The last flow that the agent told of this pair and port.
    fn observed(&self, from: &str, to: &str, port: u16) -> Option<Value> {
        let mut arguments = vec!["observe", "--last", "1", "-o", "json", "--to", to];
        let port = port.to_string();
        arguments.extend(["--port", &port]);
        arguments.extend(match from {
            "host" => ["--from-label", "reserved:host"],
            from => ["--from", from],
        });
        let told = self.agent.cli(&arguments).expect_ok();
        told.lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap()["flow"].take())
    }

    /// Every pair: errno, reason and rule are those of the real connection.
    fn compare(&self) -> BTreeMap<String, u32> {
        let mut verdicts = BTreeMap::new();
        for (from, client) in &self.workloads {
            for (to, port) in SERVERS.into_iter().filter(|(to, _)| to != from) {
                let seen = client.connect(&format!("127.0.0.1:{port}")).errno;
                let said = self.explain(from, &format!("{to}:{port}"));
                let ends = said["ends"].as_array().unwrap();
                let verdict = said["verdict"].as_str().unwrap();
                *verdicts.entry(verdict.to_owned()).or_default() += 1;
                let errno = match ends.iter().find(|end| end["verdict"] == "DROPPED") {
                    Some(end) => number(end["errno"].as_str().unwrap()),
                    None => 0,
                };
                let pair = format!("{from} -> {to}:{port}: {said:#}");
                assert_eq!(errno, seen, "{pair}");
                assert_eq!(verdict == "DROPPED", seen != 0, "{pair}");
                if *from == "host" && seen == 0 {
                    continue;
                }
                self.compare_with_flow(from, to, port, ends, &pair);
            }
        }
        verdicts
    }

    /// The end that the kernel's event names gives the same reason and rule here.
    fn compare_with_flow(&self, from: &str, to: &str, port: u16, ends: &[Value], pair: &str) {
        let is_ours = |flow: &Value, end: &Value| {
            let decided = &flow["enforcer"]["decided_by"];
            let rule = match &decided["rule"] {
                Value::String(rule) => {
                    let place = rule.split(" (from-").next().unwrap().split(" (to-").next().unwrap();
                    format!("default/{} {place}", decided["name"].as_str().unwrap())
                }
                _ => String::new(),
            };
            end["reason"] == flow["drop_reason_desc"] && end["rule"].as_str().unwrap_or_default() == rule
        };
        patience::until_true(&format!("the flow of {pair}"), patience::seconds(5), || {
            let Some(flow) = self.observed(from, to, port) else { return false };
            let direction = flow["traffic_direction"].as_str().unwrap().to_lowercase();
            ends.iter().any(|end| end["direction"] == direction.as_str() && is_ours(&flow, end))
        });
    }
}

fn number(errno: &str) -> i32 {
    match errno {
        "EPERM" => libc::EPERM,
        "ECONNREFUSED" => libc::ECONNREFUSED,
        "EHOSTUNREACH" => libc::EHOSTUNREACH,
        other => panic!("{other}"),
    }
}

fn what_it_says_is_what_sockets_meet() {
    let scene = Scene::new("explain", "[]");
    let verdicts = scene.compare();
    assert_eq!(verdicts.keys().collect::<Vec<_>>(), ["DROPPED", "FORWARDED"], "{verdicts:?}");
    let generation = scene.agent.status().generation;
    // Default deny, attributed, with what came closest.
    let denied = scene.explain("default/api", "default/db:5433");
    assert_eq!(denied["generation"], generation);
    let miss = denied["ends"][0]["nearest_miss"].as_str().unwrap();
    assert!(miss.contains("matched the peer, but allows TCP 5432, not TCP 5433"), "{miss}");
    assert_eq!(denied["ends"][0]["isolated_by"], serde_json::json!(["default/api"]));
    let text = scene.agent.cli(&["policy", "explain", "--from", "api", "--to", "db:5433"]).expect_ok();
    assert!(text.contains("nearest miss:") && text.contains("precedence 5"), "{text}");

    let quarantined = |name: &str| format!("default/{name}");
    scene.agent.cli(&["quarantine", "add", &quarantined("api")]).expect_ok();
    let said = scene.explain("web", "api:8081");
    assert_eq!(said["verdict"], "DROPPED");
    assert!(
        said["ends"]
            .as_array()
            .unwrap()
            .iter()
            .any(|end| end["reason"] == "QUARANTINED" && end["precedence"] == 1)
    );
    scene.compare();
    scene.agent.cli(&["quarantine", "release", &quarantined("api")]).expect_ok();
    assert_eq!(scene.compare(), verdicts);

    let wrong = scene.agent.cli(&["policy", "explain", "--from", "wbe", "--to", "db:1"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("did you mean `default/web`?"), "{wrong:#?}");
}

fn a_service_is_explained_by_its_backends() {
    let port = |address: &str, backends: &str| {
        format!(
            "{{name: s{}, addresses: [{address}], ports: [{{port: 80, backends: [{backends}]}}]}}",
            address.len()
        )
    };
    let (api, db) = ("{address: 192.0.2.1, port: 8081}", "{address: 192.0.2.2, port: 5432}");
    let services = format!(
        "[{}, {}, {}]",
        port("192.0.2.100", &format!("{api}, {db}")).replace("s11", "mixed"),
        port("192.0.2.101", api).replace("s11", "open"),
        port("192.0.2.102", db).replace("s11", "shut"),
    );
    let scene = Scene::new("explain-services", &services);
    let web = &scene.workloads["web"];
    for (name, address, verdict, reason) in [
        ("mixed", "192.0.2.100", "DROPPED", "MIXED_BACKENDS"),
        ("open", "192.0.2.101", "FORWARDED", "ALLOWED_BY_RULE"),
        ("shut", "192.0.2.102", "DROPPED", "POLICY_DENIED"),
    ] {
        for to in [format!("{name}:80"), format!("{address}:80")] {
            let said = scene.explain("web", &to);
            assert_eq!(
                (&said["verdict"], &said["ends"][0]["reason"]),
                (&verdict.into(), &reason.into()),
                "{said:#}"
            );
        }
        let seen = web.connect(&format!("{address}:80")).errno;
        let said = scene.explain("web", &format!("{name}:80"));
        // Nobody translates addresses here: what is let through finds no way.
        let expected = said["ends"][0]["errno"].as_str().map_or(UNREACHABLE, number);
        assert_eq!(seen, expected, "{said:#}");
    }
    let said = scene.explain("web", "mixed:80");
    let backends = said["backends"].as_array().unwrap();
    let each: Vec<_> =
        backends.iter().map(|it| format!("{} {} {}", it["to"], it["port"], it["verdict"])).collect();
    assert_eq!(
        each,
        [r#""default/api" "TCP/8081" "FORWARDED""#, r#""default/db" "TCP/5432" "DROPPED""#],
        "{said:#}"
    );
}
