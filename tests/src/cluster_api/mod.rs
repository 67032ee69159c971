//! What the product says to an API server, and asks of it: against the one in the process.

mod agents;
mod commands;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use enforcer::cluster::client::explain;
use enforcer::cluster::report::{Counts, Facts, Pace, Settings, run};
use enforcer::domain::cluster_policy::{ClusterPolicyInfo, ObjectVersion};
use enforcer::domain::fleet::{self, NodeReport};
use enforcer::domain::policy::model::PolicyKey;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::apiserver::ApiServer;

const POLICIES: &str = "trafficpolicies.enforcer.dev";
const LEASES: &str = "leases.coordination.k8s.io";
const NAMESPACE: &str = "enforcer-system";

fn cluster() -> ApiServer {
    let server = ApiServer::start();
    server.install_definitions();
    server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }));
    server
}

fn client(url: &str, token: &str) -> Client {
    let mut config = Config::new(url.parse().unwrap());
    if !token.is_empty() {
        config.auth_info.token = Some(token.to_owned().into());
    }
    Client::try_from(config).unwrap()
}

fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "enforcer.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "subject": {}, "ingress": [] },
    })
}

/// How an agent sees a policy object.
fn seen(object: &Value, standing: &str) -> ClusterPolicyInfo {
    let metadata = &object["metadata"];
    let version = ObjectVersion {
        uid: metadata["uid"].as_str().unwrap().to_owned(),
        generation: metadata["generation"].as_i64().unwrap(),
    };
    ClusterPolicyInfo {
        key: PolicyKey::traffic("default", metadata["name"].as_str().unwrap()),
        object: version.clone(),
        problems: Vec::new(),
        in_force: Some(version),
        hidden_by: None,
        standing: standing.to_owned(),
    }
}

fn facts(objects: &[ClusterPolicyInfo]) -> Facts {
    let standings = objects.iter().map(|info| (fleet::mark(&info.object), fleet::standing(info))).collect();
    let report = NodeReport {
        version: "0.1.0".into(),
        phase: "enforcing".into(),
        generation: 1,
        problems: Vec::new(),
        standings,
    };
    Facts { report, objects: objects.to_vec() }
}

/// The part of an agent that reports.
struct Reporting {
    facts: watch::Sender<Facts>,
    counts: Arc<Counts>,
    task: JoinHandle<Result<(), String>>,
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn reporting(server: &ApiServer, node: &str, first: Facts) -> Reporting {
    reporting_as(server, node, "", first)
}

fn reporting_as(server: &ApiServer, node: &str, token: &str, first: Facts) -> Reporting {
    let (url, token) = (server.url(), token.to_owned());
    let milliseconds = Duration::from_millis;
    let settings = Settings {
        node: node.to_owned(),
        namespace: NAMESPACE.to_owned(),
        connect: Arc::new(move || {
            let client = client(&url, &token);
            Box::pin(async move { Ok(client) })
        }),
        explain,
        pace: Pace {
            beat: milliseconds(500),
            news: milliseconds(20),
            lasts: Duration::from_mins(2),
            election: milliseconds(100),
            office: milliseconds(600),
            status: milliseconds(50),
        },
    };
    let (facts, told) = watch::channel(first);
    let counts = Arc::new(Counts::default());
    let task = tokio::spawn(run(settings, told, Arc::clone(&counts)));
    Reporting { facts, counts, task }
}

/// Waits for something that the server shows.
async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} does not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A condition of a policy: its status and its message.
fn condition(server: &ApiServer, name: &str, kind: &str) -> Option<(String, String)> {
    let object = server.get(POLICIES, "default", name)?;
    let found = object["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)?.clone();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("message")))
}
