//! What the demo is made of: a world, a daemon, three processes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use enforcer_common::reason::Errno;

use crate::agent::{self, Agent, Metrics};
use crate::residue;
use crate::workload::{Server, Workload};
use crate::world::World;

/// Where `api` listens.
pub(super) const API: &str = "127.0.0.1:8081";
/// Where `db` listens.
pub(super) const DB: &str = "127.0.0.1:5432";
/// The policies that are applied.
pub(super) const POLICIES: &str = "three-tier.yaml";

/// See the module. Fields go in this order: the daemon first, the world with everything else last.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) agent: Agent,
    pub(super) web: Workload,
    pub(super) api: Workload,
    pub(super) db: Workload,
    pub(super) api_server: Server,
    pub(super) db_server: Server,
    /// Calls that were made since the policies came, by flow.
    pub(super) sent: BTreeMap<&'static str, u64>,
    pub(super) world: World,
}

/// A call from one workload to another, and what became of it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) flow: &'static str,
    pub(super) address: &'static str,
    pub(super) errno: i32,
    pub(super) micros: u64,
}

impl Stage {
    pub(super) fn new() -> Self {
        let world = World::with_prefix(residue::DEMO, "three-tier");
        let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
        let (api_server, db_server) = (api.serve(true, API), db.serve(true, DB));
        let agent = Agent::new(&world);
        agent.workloads([&web, &api, &db]);
        Self { agent, web, api, db, api_server, db_server, sent: BTreeMap::new(), world }
    }

    /// The file of the policies, for people as they would name it.
    pub(super) fn policies() -> PathBuf {
        agent::policies().join(POLICIES)
    }

    /// Makes one of the three calls of the story.
    pub(super) fn call(&mut self, flow: &'static str) -> Call {
        let (from, address) = match flow {
            "web -> api" => (&self.web, API),
            "api -> db" => (&self.api, DB),
            _ => (&self.web, DB),
        };
        let seen = from.connect(address);
        *self.sent.entry(flow).or_default() += 1;
        Call { flow, address, errno: seen.errno, micros: seen.micros }
    }

    /// The rule that refused the last call to the database, as `enforcer observe` tells it.
    pub(super) fn refused_by(&self) -> Option<String> {
        let arguments = ["observe", "--verdict", "DROPPED", "--to", "db", "--last", "1", "-o", "json"];
        let output = self.agent.cli(&arguments);
        let flow: serde_json::Value = serde_json::from_str(output.stdout.lines().last()?).ok()?;
        let rule = flow.get("flow")?.get("enforcer")?.get("decided_by")?;
        let text = |key: &str| rule.get(key).and_then(serde_json::Value::as_str);
        Some(format!("{}/{} {}", text("namespace")?, text("name")?, text("rule")?))
    }
}

/// The sum of the verdicts about one flow in the metrics, as its subject's policy gave them.
pub(super) fn counted(metrics: &Metrics, flow: &str, action: &str) -> u64 {
    let (from, to) = flow.split_once(" -> ").unwrap_or_default();
    let marks = [
        format!("action=\"{action}\""),
        "direction=\"egress\"".to_owned(),
        format!("source=\"{from}\""),
        format!("destination=\"{to}\""),
    ];
    let rows = metrics.iter().filter(|(name, _)| name.starts_with("enforcer_policy_verdicts_total"));
    let sum: f64 =
        rows.filter(|(name, _)| marks.iter().all(|mark| name.contains(mark))).map(|(_, value)| value).sum();
    // Counters are whole numbers; anything else is no number of ours.
    format!("{sum}").parse().unwrap_or(0)
}

/// The name of an errno, as manuals have it.
pub(super) fn errno_name(number: i32) -> String {
    if number == 0 {
        return String::new();
    }
    let known = Errno::ALL.iter().find(|errno| errno.number() == number);
    known.map_or_else(|| format!("errno {number}"), |errno| errno.name().to_owned())
}
