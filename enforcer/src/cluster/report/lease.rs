//! A node's Lease: that it is there, and where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Backoff, Counts, Facts, Pace, Settings, within};
use crate::domain::fleet::{LABEL, LEASE_PREFIX, Node, NodeReport};
use crate::domain::timestamp::Timestamp;

/// What the wall clock says.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

/// As Leases have times.
pub(super) fn micro_time(time: Timestamp) -> String {
    let seconds = time.whole_seconds();
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), time.nanos / 1000)
}

/// Reads what a node says of itself from its Lease; nothing from one that is not a node's.
pub fn node_of(lease: &Lease) -> Option<Node> {
    let spec = lease.spec.as_ref()?;
    let name = spec.holder_identity.clone()?;
    let heard = spec.renew_time.as_ref()?.0;
    Some(Node {
        name,
        report: NodeReport::read(lease.annotations()),
        heard: Timestamp { seconds: heard.as_second(), nanos: 0 },
        lasts: i64::from(spec.lease_duration_seconds.unwrap_or(0)),
    })
}

/// The Lease of a node. Where its Node object is known the Lease goes with it, as the kubelet's own does.
fn document(settings: &Settings, report: &NodeReport, owner: Option<&Value>) -> Value {
    let name = format!("{LEASE_PREFIX}{}", settings.node);
    let (label, value) = LABEL;
    let labels: BTreeMap<&str, &str> = [(label, value), ("app.kubernetes.io/name", "enforcer")].into();
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": labels,
            "annotations": report.annotations(),
        },
        "spec": {
            "holderIdentity": settings.node,
            "leaseDurationSeconds": settings.pace.lasts.as_secs(),
            "renewTime": micro_time(now()),
        },
    });
    if let Some(owner) = owner {
        lease["metadata"]["ownerReferences"] = json!([owner]);
    }
    lease
}

/// The node's own object, as an owner.
async fn owner(client: &Client, node: &str) -> Option<Value> {
    let nodes: Api<KubeNode> = Api::all(client.clone());
    let uid = within(nodes.get_opt(node)).await.ok()??.metadata.uid?;
    Some(json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid }))
}

/// Keeps the Lease as the facts are.
pub(super) async fn run(
    settings: &Settings,
    client: Client,
    mut facts: watch::Receiver<Facts>,
    counts: &Arc<Counts>,
) -> Result<(), String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
    let name = format!("{LEASE_PREFIX}{}", settings.node);
    let manager = format!("enforcer/{}", settings.node).chars().take(128).collect::<String>();
    // The Lease is nobody else's.
    let params = PatchParams::apply(&manager).force();
    let mut known: Option<Value> = None;
    let mut written: Option<String> = None;
    let mut backoff = Backoff::new();
    let mut problem = String::new();
    loop {
        if known.is_none() {
            known = owner(&client, &settings.node).await;
        }
        let report = facts.borrow_and_update().report.clone();
        let lease = document(settings, &report, known.as_ref());
        match within(leases.patch(&name, &params, &Patch::Apply(&lease))).await {
            Ok(lease) => {
                counts.count("lease", "done");
                backoff.reset();
                let before = std::mem::replace(&mut written, lease.metadata.uid);
                // Another Lease than before: the one that was written went, as it does with its owner. Whoever joins the
                // cluster again has a new Node object, and what belongs to the old one is removed again and again.
                if before.is_some() && before != written && known.take().is_some() {
                    continue;
                }
                if !std::mem::take(&mut problem).is_empty() {
                    tracing::info!("the cluster hears of this node again");
                }
                due(&mut facts, &report, settings.pace).await?;
            }
            Err(error) => {
                counts.count("lease", "failed");
                let said = (settings.explain)(&error);
                // The same again and again says nothing new.
                if said != problem {
                    tracing::warn!("the Lease {}/{name} is not written: {said}", settings.namespace);
                    problem = said;
                }
                sleep(backoff.next()).await;
            }
        }
    }
}

/// Waits for the next heartbeat, or for news since what was told.
async fn due(facts: &mut watch::Receiver<Facts>, told: &NodeReport, pace: Pace) -> Result<(), String> {
    let begin = Instant::now();
    let beat = begin + pace.beat;
    loop {
        if facts.borrow_and_update().report != *told {
            sleep_until(beat.min(begin + pace.news)).await;
            return Ok(());
        }
        tokio::select! {
            changed = facts.changed() => changed.map_err(|_gone| "nobody says what is so".to_owned())?,
            () = sleep_until(beat) => return Ok(()),
        }
    }
}
