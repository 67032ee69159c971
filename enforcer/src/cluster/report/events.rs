//! Events on policy objects that are refused, or hidden by something else of the same name.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;

use super::{Counts, Settings, within};
use crate::domain::cluster_policy::ClusterPolicyInfo;
use crate::domain::policy::model::{PolicyKey, PolicyKind};

/// Events that may come at once.
const BURST: u32 = 10;
/// Between events, beyond that.
const EACH: Duration = Duration::from_secs(10);
/// Where events on objects of the whole cluster are.
const DEFAULT: &str = "default";
/// Who writes them.
const CONTROLLER: &str = "enforcer.dev/agent";
/// Longest note, and longest name of a reporter, that the API server takes. In bytes.
const NOTE: usize = 1024;
const INSTANCE: usize = 128;
/// Of the name of its object, the first of it is part of an event's, which may have 253 bytes with the time behind it.
const NAME: usize = 200;

/// Tells what is wrong with policy objects, once for each version of an object.
pub(super) struct Events {
    client: Client,
    /// This node, as far as there is room for it.
    instance: String,
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
        Self {
            client,
            instance: beginning(&settings.node, INSTANCE).to_owned(),
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
            let event = event(info, (reason, &note), &self.instance);
            let namespace = event.metadata.namespace.as_deref().unwrap_or(DEFAULT);
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            match within(api.create(&PostParams::default(), &event)).await {
                Ok(_) => {
                    counts.count("event", "done");
                    self.told.insert(info.key.clone(), new);
                }
                Err(kube::Error::Api(status)) if is_of_this_one(&status) => {
                    counts.count("event", "failed");
                    tracing::warn!("an event on {} is refused: {}", info.key, status.message);
                    self.told.insert(info.key.clone(), new);
                }
                Err(error) => {
                    counts.count("event", "failed");
                    tracing::debug!("an event on {} is not written: {error}", info.key);
                    // The others would fail as well, and all are tried again.
                    self.left += 1;
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

/// The first bytes of a text, as far as they are whole letters.
fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Whether a refusal is about this event alone, and others may well be taken. A right that is missing is missing for all; that
/// nothing is made any more in a namespace that is being deleted comes with the same code.
fn is_of_this_one(status: &kube::core::Status) -> bool {
    match status.code {
        403 => !status.message.contains("cannot create resource"),
        401 | 408 | 429 => false,
        code => (400..500).contains(&code),
    }
}

/// The event; its namespace is that of its object, or [`DEFAULT`].
fn event(info: &ClusterPolicyInfo, (reason, note): (&str, &str), instance: &str) -> Event {
    let PolicyKey { kind, namespace, name } = &info.key;
    let namespace = Some(namespace.clone()).filter(|namespace| !namespace.is_empty());
    let regarding = ObjectReference {
        api_version: Some(api_version(*kind).to_owned()),
        kind: Some(kind.label().to_owned()),
        name: Some(name.clone()),
        namespace: namespace.clone(),
        uid: Some(info.object.uid.clone()),
        ..ObjectReference::default()
    };
    let now = Timestamp::now();
    // Behind the point begins another part of the name, before which there can't be these.
    let of_object = beginning(name, NAME).trim_end_matches(['-', '.']);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{of_object}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.unwrap_or_else(|| DEFAULT.to_owned())),
            ..ObjectMeta::default()
        },
        action: Some(format!("LoadGeneration{}", info.object.generation)),
        event_time: Some(MicroTime(now)),
        note: Some(beginning(note, NOTE).to_owned()),
        reason: Some(reason.to_owned()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}
