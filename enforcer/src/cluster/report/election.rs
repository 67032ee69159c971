//! Who reports for all: whoever holds a Lease, by the rules that Kubernetes' own components keep.
//!
//! The API server is the judge: of two that write the same version of the Lease, one is told of a conflict. A holder that
//! is not heard of for its term loses it, by the clock of whoever looks, so clocks that differ do no harm. Two that report
//! at the same time for a moment write the same.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::lease::{micro_time, now};
use super::{Settings, within};

/// The Lease's name.
pub const LEASE: &str = "enforcer-reporter";

/// What was seen of the Lease last, and when that was new.
#[derive(Debug, Default)]
pub(super) struct Election {
    seen: Option<(Value, Instant)>,
}

impl Election {
    /// Takes or keeps the office, if that is possible; whether this node has it.
    pub(super) async fn stand(&mut self, settings: &Settings, client: &Client) -> Result<bool, kube::Error> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
        let params = PostParams { field_manager: Some(LEASE.to_owned()), ..PostParams::default() };
        let Some(found) = within(leases.get_opt(LEASE)).await? else {
            let lease = wanted(settings, None);
            return won(within(leases.create(&params, &lease)).await);
        };
        let holder = found.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder != settings.node && !holder.is_empty() && !self.is_over(settings, &found) {
            return Ok(false);
        }
        let lease = wanted(settings, Some(&found));
        won(within(leases.replace(LEASE, &params, &lease)).await)
    }

    /// Whether the holder has not been heard of for its term.
    fn is_over(&mut self, settings: &Settings, found: &Lease) -> bool {
        let spec = serde_json::to_value(&found.spec).unwrap_or_default();
        match &self.seen {
            Some((seen, at)) if *seen == spec => at.elapsed() > settings.pace.office,
            _ => {
                self.seen = Some((spec, Instant::now()));
                false
            }
        }
    }
}

fn wanted(settings: &Settings, found: Option<&Lease>) -> Lease {
    let mut lease = found.cloned().unwrap_or_default();
    lease.metadata.name = Some(LEASE.to_owned());
    let before = lease.spec.take().unwrap_or_default();
    let is_new = before.holder_identity.as_deref() != Some(&settings.node);
    let changes = before.lease_transitions.unwrap_or(0) + i32::from(is_new && found.is_some());
    let now = micro_time(now());
    let acquired = if is_new { json!(now) } else { json!(before.acquire_time) };
    let spec = json!({
        "holderIdentity": settings.node,
        "leaseDurationSeconds": settings.pace.office.as_secs().max(1),
        "acquireTime": acquired,
        "renewTime": now,
        "leaseTransitions": changes,
    });
    lease.spec = serde_json::from_value(spec).ok();
    lease
}

/// A conflict is an answer too.
fn won(done: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
