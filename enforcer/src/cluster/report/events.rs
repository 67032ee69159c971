//! Events on policy objects that are refused, or hidden by something else of the same name.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::Instant;

use super::{Counts, Settings, within};
use crate::domain::cluster_policy::ClusterPolicyInfo;
use crate::domain::policy::model::{PolicyKey, PolicyKind};

/// Events that may come at once.
const BURST: u32 = 10;
/// Between events, beyond that.
const EACH: Duration = Duration::from_secs(10);
/// An event's message may have 1 kB.
const LETTERS: usize = 900;

/// Tells what is wrong with policy objects, once for each version of an object.
pub(super) struct Events {
    recorder: Recorder,
    told: BTreeMap<PolicyKey, (String, String)>,
    left: u32,
    since: Instant,
}

const fn api_version(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::TrafficPolicy | PolicyKind::ClusterTrafficPolicy => "enforcer.dev/v1alpha1",
        PolicyKind::NetworkPolicy => "networking.k8s.io/v1",
        PolicyKind::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
    }
}

impl Events {
    pub(super) fn new(settings: &Settings, client: Client) -> Self {
        let reporter =
            Reporter { controller: "enforcer.dev/agent".into(), instance: Some(settings.node.clone()) };
        Self {
            recorder: Recorder::new(client, reporter),
            told: BTreeMap::new(),
            left: BURST,
            since: Instant::now(),
        }
    }

    /// Tells of objects about which there is something new to tell.
    pub(super) async fn tell(&mut self, objects: &[ClusterPolicyInfo], counts: &Counts) {
        self.told.retain(|key, _| objects.iter().any(|info| info.key == *key));
        for info in objects {
            let Some((reason, note)) = note(info) else {
                self.told.remove(&info.key);
                continue;
            };
            let new = (crate::domain::fleet::mark(&info.object), note.clone());
            if self.told.get(&info.key) == Some(&new) {
                continue;
            }
            if !self.may() {
                counts.count("event", "dropped");
                self.told.insert(info.key.clone(), new);
                continue;
            }
            let event = Event {
                type_: EventType::Warning,
                reason: reason.to_owned(),
                note: Some(note.chars().take(LETTERS).collect()),
                // Part of what tells events apart, so that another version is another event.
                action: format!("LoadGeneration{}", info.object.generation),
                secondary: None,
            };
            match within(self.recorder.publish(&event, &reference(info))).await {
                Ok(()) => {
                    counts.count("event", "done");
                    self.told.insert(info.key.clone(), new);
                }
                Err(error) => {
                    counts.count("event", "failed");
                    tracing::debug!("an event on {} is not written: {error}", info.key);
                    // The others would fail as well.
                    return;
                }
            }
        }
    }

    fn may(&mut self) -> bool {
        let earned = self.since.elapsed().as_secs() / EACH.as_secs();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)).min(BURST);
            self.since = Instant::now();
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

fn note(info: &ClusterPolicyInfo) -> Option<(&'static str, String)> {
    if !info.problems.is_empty() {
        return Some(("PolicyRefused", info.problems.join(" | ")));
    }
    let by = info.hidden_by.as_ref()?;
    Some(("PolicyHidden", format!("a policy of the same name comes before it on this node: {by}")))
}

fn reference(info: &ClusterPolicyInfo) -> ObjectReference {
    let PolicyKey { kind, namespace, name } = &info.key;
    ObjectReference {
        api_version: Some(api_version(*kind).to_owned()),
        kind: Some(kind.label().to_owned()),
        name: Some(name.clone()),
        namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
        uid: Some(info.object.uid.clone()),
        ..ObjectReference::default()
    }
}
