//! Policies and nodes of a cluster, for whoever sits at a command line: with their own rights, by the API server.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::client::explain;
use super::report::lease::node_of;
use crate::domain::cluster_policy::ObjectVersion;
use crate::domain::fleet::{LABEL, Node};
use crate::domain::policy::model::{PolicyKey, PolicyKind};

/// Who the fields of an applied policy belong to.
pub const MANAGER: &str = "enforcer-cli";
/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others own fields that would change.
    #[error(
        "{key} has fields that belong to others: {message}; leave those fields to them, or take them with \
         --force-conflicts"
    )]
    Conflict {
        /// The policy.
        key: PolicyKey,
        /// Who owns which.
        message: String,
    },
    /// The API server finds the object wrong.
    #[error("the API server refuses {key}: {message}")]
    Refused {
        /// The policy.
        key: PolicyKey,
        /// Why.
        message: String,
    },
    /// There is no such policy.
    #[error("the cluster has no policy {0}; `kubectl get {kind} -A` shows what there is", kind = plural(.0.kind))]
    Absent(PolicyKey),
    /// Its namespace is missing.
    #[error("{key} can't be written: {message}; `kubectl create namespace {namespace}` makes it", namespace = .key.namespace)]
    NoNamespace {
        /// The policy.
        key: PolicyKey,
        /// What the server says.
        message: String,
    },
    /// The kind is not installed.
    #[error("the cluster does not have the kind {}: `{}` installs it", .0.label(), install(*.0))]
    NotInstalled(PolicyKind),
    /// The right is missing.
    #[error(
        "{what}: the server does not allow it (403): {message}; ask for the verb `{verb}` on `{resource}`"
    )]
    Forbidden {
        /// What was to be done.
        what: String,
        /// What the server says.
        message: String,
        /// The verb that is missing.
        verb: &'static str,
        /// On what.
        resource: String,
    },
    /// Anything else.
    #[error("{what}: {problem}")]
    Failed {
        /// What was to be done.
        what: String,
        /// What came of it, and what to do.
        problem: String,
    },
}

impl Error {
    /// Whether this is an answer, and not a failure to get one.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. } | Self::Refused { .. } | Self::Absent(_) | Self::NoNamespace { .. }
        )
    }
}

const fn group(kind: PolicyKind) -> (&'static str, &'static str) {
    match kind {
        PolicyKind::TrafficPolicy | PolicyKind::ClusterTrafficPolicy => ("enforcer.dev", "v1alpha1"),
        PolicyKind::NetworkPolicy => ("networking.k8s.io", "v1"),
        PolicyKind::ClusterNetworkPolicy => ("policy.networking.k8s.io", "v1alpha2"),
    }
}

const fn plural(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::TrafficPolicy => "trafficpolicies",
        PolicyKind::ClusterTrafficPolicy => "clustertrafficpolicies",
        PolicyKind::NetworkPolicy => "networkpolicies",
        PolicyKind::ClusterNetworkPolicy => "clusternetworkpolicies",
    }
}

const fn install(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::ClusterNetworkPolicy => "kubectl apply -f CRDs of kubernetes-sigs/network-policy-api",
        _ => "enforcer policy crd | kubectl apply -f -",
    }
}

/// What became of an object that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Which.
    pub key: PolicyKey,
    /// Its version now.
    pub object: ObjectVersion,
    /// `created`, `configured` or `unchanged`.
    pub change: &'static str,
}

/// A cluster, with the rights of whoever asks.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// The namespace of Leases.
    namespace: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// What is seen while policies are waited for.
#[derive(Debug)]
pub enum Sight<'a> {
    /// The nodes, as they are now, by the names of their Leases.
    Nodes(&'a BTreeMap<String, Node>),
    /// The API server is away; why.
    Away(String),
}

impl Cluster {
    /// The cluster behind a client; `namespace` is where nodes have their Leases.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    fn api(&self, key: &PolicyKey) -> Api<DynamicObject> {
        let (group, version) = group(key.kind);
        let kind = GroupVersionKind::gvk(group, version, key.kind.label());
        let resource = ApiResource::from_gvk_with_plural(&kind, plural(key.kind));
        if key.kind.is_namespaced() {
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    /// Applies a document. With `dry_run`, the server does everything but keep it.
    ///
    /// # Errors
    /// Who owns what would change, what the server finds wrong, which right is missing, or what failed.
    pub async fn apply(
        &self,
        key: &PolicyKey,
        document: &Value,
        (dry_run, force): (bool, bool),
    ) -> Result<Applied, Error> {
        let api = self.api(key);
        let before = match within(api.get_opt(&key.name)).await {
            Ok(before) => before.map(|object| object.metadata),
            // Who may write and not read is not told what has changed.
            Err(kube::Error::Api(status)) if status.code == 403 => None,
            Err(error) => return Err(Self::failed(key, "get", &error)),
        };
        let params = PatchParams { dry_run, force, ..PatchParams::apply(MANAGER) };
        let done = within(api.patch(&key.name, &params, &Patch::Apply(document))).await;
        let after = done.map_err(|error| Self::failed(key, "patch", &error))?.metadata;
        let change = match &before {
            None => "created",
            Some(before) if before.generation == after.generation => "unchanged",
            Some(_) => "configured",
        };
        Ok(Applied { key: key.clone(), object: version(&after), change })
    }

    /// A policy, as the server has it.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn get(&self, key: &PolicyKey) -> Result<Value, Error> {
        let found = within(self.api(key).get_opt(&key.name)).await;
        let found = found
            .map_err(|error| Self::failed(key, "get", &error))?
            .ok_or_else(|| Error::Absent(key.clone()))?;
        Ok(serde_json::to_value(found).unwrap_or_default())
    }

    /// The version of a policy.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn version(&self, key: &PolicyKey) -> Result<ObjectVersion, Error> {
        let object = self.get(key).await?;
        Ok(ObjectVersion {
            uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            generation: object["metadata"]["generation"].as_i64().unwrap_or(0),
        })
    }

    /// Deletes a policy.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn delete(&self, key: &PolicyKey) -> Result<(), Error> {
        match within(self.api(key).delete(&key.name, &DeleteParams::default())).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status))
                if status.code == 404
                    && status.message.contains("not found")
                    && status.reason == "NotFound" =>
            {
                Err(Error::Absent(key.clone()))
            }
            Err(error) => Err(Self::failed(key, "delete", &error)),
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn lease_error(&self, verb: &'static str, error: &kube::Error) -> Error {
        let what = format!("read what the nodes say (Leases in {})", self.namespace);
        match error {
            kube::Error::Api(status) if status.code == 403 => Error::Forbidden {
                what,
                message: status.message.clone(),
                verb,
                resource: "leases.coordination.k8s.io".to_owned(),
            },
            error => Error::Failed { what, problem: explain(error) },
        }
    }

    /// What the nodes say of themselves, by name.
    ///
    /// # Errors
    /// Which right is missing, or what failed.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let selector = format!("{}={}", LABEL.0, LABEL.1);
        let mut nodes = Vec::new();
        let mut params = ListParams::default().labels(&selector).limit(500);
        loop {
            let page = within(self.leases().list(&params)).await;
            let page = page.map_err(|error| self.lease_error("list", &error))?;
            nodes.extend(page.items.iter().filter_map(node_of));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// Shows the nodes as they change, until `look` says that it has seen enough or the time is over; whether it has. An API
    /// server that is away meanwhile is waited for.
    ///
    /// # Errors
    /// Which right is missing, unless the nodes were seen before.
    pub async fn follow(
        &self,
        until: Option<Instant>,
        mut look: impl FnMut(Sight<'_>) -> bool,
    ) -> Result<bool, Error> {
        let selector = format!("{}={}", LABEL.0, LABEL.1);
        let config = watcher::Config::default().labels(&selector).timeout(60);
        let mut stream = pin!(watcher(self.leases(), config).default_backoff());
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        let mut fresh: BTreeMap<String, Node> = BTreeMap::new();
        let mut complete = false;
        let until = until.unwrap_or_else(|| Instant::now() + Duration::from_hours(8760));
        loop {
            let Ok(event) = timeout_at(until, stream.next()).await else { return Ok(false) };
            match event {
                Some(Ok(Event::Init)) => fresh.clear(),
                Some(Ok(Event::InitApply(lease))) => {
                    drop(node_of(&lease).map(|it| fresh.insert(lease.name_any(), it)));
                }
                Some(Ok(Event::InitDone)) => (nodes, complete) = (std::mem::take(&mut fresh), true),
                Some(Ok(Event::Apply(lease))) => {
                    drop(node_of(&lease).map(|it| nodes.insert(lease.name_any(), it)));
                }
                Some(Ok(Event::Delete(lease))) => drop(nodes.remove(&lease.name_any())),
                Some(Err(error)) => {
                    let (verb, error) = match &error {
                        watcher::Error::InitialListFailed(error) => ("list", error),
                        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                            ("watch", error)
                        }
                        // The server ended the watch; it begins again.
                        _ => continue,
                    };
                    // A server that has just started knows of no roles yet, so that what was allowed before is allowed again.
                    let is_refused =
                        matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403));
                    if is_refused && !complete {
                        return Err(self.lease_error(verb, error));
                    }
                    look(Sight::Away(explain(error)));
                    continue;
                }
                None => return Ok(false),
            }
            if complete && look(Sight::Nodes(&nodes)) {
                return Ok(true);
            }
        }
    }

    fn failed(key: &PolicyKey, verb: &'static str, error: &kube::Error) -> Error {
        let what = format!("{verb} {key}");
        let kube::Error::Api(status) = error else {
            return Error::Failed { what, problem: explain(error) };
        };
        let message = status.message.clone();
        let key = key.clone();
        match (status.code, status.reason.as_str()) {
            (409, _) => Error::Conflict { key, message },
            (400 | 422, _) if verb == "patch" => Error::Refused { key, message },
            // It has no better code for an object that the kind does not fit.
            (500, _) if message.starts_with("failed to create typed patch object") => {
                Error::Refused { key, message }
            }
            (403, _) => match right_missing(&message, verb) {
                Some(verb) => {
                    let resource = format!("{}.{}", plural(key.kind), group(key.kind).0);
                    Error::Forbidden { what, message, verb, resource }
                }
                None => Error::Refused { key, message },
            },
            (404, "NotFound") if message.starts_with("namespaces ") => Error::NoNamespace { key, message },
            // What is no answer to a question for an object is that nobody knows the path.
            (404, _) => Error::NotInstalled(key.kind),
            _ => Error::Failed { what, problem: explain(error) },
        }
    }
}

/// The right that a refusal with 403 is about; none where it is not about rights, but e.g. about a quota, or a namespace that is
/// being deleted. To apply what is not there yet, `create` is asked for besides `patch`.
fn right_missing(message: &str, tried: &'static str) -> Option<&'static str> {
    ["create", tried].into_iter().find(|verb| message.contains(&format!("cannot {verb} resource")))
}

fn version(metadata: &kube::api::ObjectMeta) -> ObjectVersion {
    ObjectVersion {
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or(0),
    }
}

/// An answer, or the end of patience.
pub(super) async fn within<T>(
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service("timed out: no answer within 30 seconds".into())),
    }
}
