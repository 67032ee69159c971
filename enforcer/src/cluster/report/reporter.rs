//! The node that reports for all: status of policies from the Leases of all nodes, and events.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event as Watched, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::election::{Election, LEASE};
use super::events::Events;
use super::lease::{node_of, now};
use super::status::{plural, status};
use super::{Backoff, Counts, Facts, Settings, within};
use crate::domain::cluster_policy::ClusterPolicyInfo;
use crate::domain::fleet::{LABEL, Node};
use crate::domain::policy::model::PolicyKey;

/// Status objects that are written in one go; the rest waits for the next.
const AT_ONCE: usize = 20;

/// Stands for the office, and reports while it has it.
pub(super) async fn run(
    settings: &Settings,
    client: Client,
    facts: watch::Receiver<Facts>,
    counts: &Arc<Counts>,
) -> Result<(), String> {
    let mut election = Election::default();
    let mut backoff = Backoff::new();
    loop {
        match election.stand(settings, &client).await {
            Ok(true) => {
                counts.count("election", "done");
                backoff.reset();
                tracing::info!("this node writes the status of policies");
                lead(settings, &client, &facts, counts, &mut election).await?;
                tracing::info!("another node writes the status of policies");
            }
            Ok(false) => backoff.reset(),
            Err(error) => {
                counts.count("election", "failed");
                tracing::debug!("who reports is not known: {}", (settings.explain)(&error));
                sleep(backoff.next()).await;
                continue;
            }
        }
        sleep(settings.pace.election).await;
    }
}

/// Reports until the office is lost.
async fn lead(
    settings: &Settings,
    client: &Client,
    facts: &watch::Receiver<Facts>,
    counts: &Arc<Counts>,
    election: &mut Election,
) -> Result<(), String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
    let selector = format!("{}={}", LABEL.0, LABEL.1);
    let config = watcher::Config::default().labels(&selector).timeout(60);
    let mut stream = pin!(watcher(leases, config).default_backoff());
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let mut fresh: BTreeMap<String, Node> = BTreeMap::new();
    let mut complete = false;
    let mut writer = Writer::default();
    let mut events = Events::new(settings, client.clone());
    let mut tick = interval(settings.pace.status);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    let mut facts = facts.clone();
    // When the status of all policies was what it should be.
    let mut worked_out: Option<Instant> = None;
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(Watched::Init)) => fresh.clear(),
                Some(Ok(Watched::InitApply(lease))) => {
                    note(&mut fresh, &lease);
                }
                Some(Ok(Watched::InitDone)) => {
                    (nodes, complete) = (std::mem::take(&mut fresh), true);
                    worked_out = None;
                }
                Some(Ok(Watched::Apply(lease))) => if note(&mut nodes, &lease) { worked_out = None },
                Some(Ok(Watched::Delete(lease))) => {
                    nodes.remove(&lease.name_any());
                    worked_out = None;
                }
                Some(Err(error)) => tracing::debug!("the nodes' Leases are not seen: {error}"),
                None => return Err("the watch of Leases ended".to_owned()),
            },
            _ = tick.tick() => {
                if renewed.elapsed() >= settings.pace.election {
                    match election.stand(settings, client).await {
                        Ok(true) => renewed = Instant::now(),
                        Err(_) if renewed.elapsed() < settings.pace.office => counts.count("election", "failed"),
                        Ok(false) | Err(_) => return Ok(()),
                    }
                }
                let is_news = facts.has_changed().unwrap_or(true);
                // A heartbeat that says nothing new changes no status; that one is missing does, some time.
                let is_due = worked_out.is_none_or(|at: Instant| at.elapsed() >= settings.pace.beat);
                if complete && (is_news || is_due) {
                    let told = facts.borrow_and_update().clone();
                    let is_whole = writer.write(client, &told.objects, &nodes, settings, counts).await;
                    worked_out = is_whole.then(Instant::now);
                    events.tell(&told.objects, counts).await;
                }
            }
        }
    }
}

/// Takes a Lease in; whether it says something new.
fn note(nodes: &mut BTreeMap<String, Node>, lease: &Lease) -> bool {
    let Some(node) = node_of(lease) else { return false };
    let name = lease.name_any();
    let is_new = nodes.get(&name).is_none_or(|before| before.report != node.report);
    nodes.insert(name, node);
    is_new
}

/// Writes the status of policies, where it is not what it should be.
#[derive(Debug, Default)]
struct Writer {
    /// What the status is, by policy and UID.
    known: BTreeMap<(PolicyKey, String), Value>,
    problem: String,
}

impl Writer {
    /// Whether all of it is done.
    async fn write(
        &mut self,
        client: &Client,
        objects: &[ClusterPolicyInfo],
        nodes: &BTreeMap<String, Node>,
        settings: &Settings,
        counts: &Counts,
    ) -> bool {
        self.known.retain(|(key, uid), _| objects.iter().any(|it| it.key == *key && it.object.uid == *uid));
        let mut written = 0;
        for info in objects {
            let Some(api) = api(client, &info.key) else { continue };
            let at = (info.key.clone(), info.object.uid.clone());
            let done = async {
                let before = match self.known.get(&at) {
                    Some(before) => before.clone(),
                    None => match within(api.get_opt(&info.key.name)).await? {
                        Some(object) => object.data["status"].clone(),
                        None => return Ok(None),
                    },
                };
                let wanted = status(info, nodes, &before, now());
                let is_new = wanted != before;
                if is_new {
                    let document = json!({
                        "apiVersion": "enforcer.dev/v1alpha1", "kind": info.key.kind.label(),
                        "metadata": { "name": info.key.name }, "status": wanted,
                    });
                    // One name for whoever writes it, so that fields don't change hands with the office.
                    let params = PatchParams::apply(LEASE).force();
                    within(api.patch_status(&info.key.name, &params, &Patch::Apply(&document))).await?;
                }
                Ok(Some((wanted, is_new)))
            };
            let done: Result<_, kube::Error> = done.await;
            match done {
                Ok(Some((status, is_new))) => {
                    self.known.insert(at, status);
                    self.problem.clear();
                    if is_new {
                        counts.count("status", "done");
                        written += 1;
                    }
                }
                Ok(None) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    counts.count("status", "failed");
                    let said = (settings.explain)(&error);
                    if said != self.problem {
                        tracing::warn!("the status of {} is not written: {said}", info.key);
                        self.problem = said;
                    }
                    return false;
                }
            }
            if written == AT_ONCE {
                return false;
            }
        }
        true
    }
}

/// Where a policy object is; nothing for kinds whose status is not ours.
fn api(client: &Client, key: &PolicyKey) -> Option<Api<DynamicObject>> {
    let kind = GroupVersionKind::gvk("enforcer.dev", "v1alpha1", key.kind.label());
    let resource = ApiResource::from_gvk_with_plural(&kind, plural(key.kind)?);
    Some(if key.kind.is_namespaced() {
        Api::namespaced_with(client.clone(), &key.namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    })
}
