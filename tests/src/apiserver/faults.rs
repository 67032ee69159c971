//! What can go wrong between a server and its clients, on demand.

use std::time::Duration;

use super::status::Failure;

/// How the server stands to the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// It answers.
    #[default]
    Up,
    /// Nobody listens: connections are refused, those that were open are cut.
    Refused,
    /// Connections are taken, and nothing is ever answered or told.
    Hanging,
}

/// Requests that fail though the server is there.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The verb, as roles name it; empty for all.
    pub verb: String,
    /// The resource's plural, with its subresource as in `pods/status`; empty for all.
    pub resource: String,
    /// How many more requests fail.
    pub times: usize,
    /// What they are told.
    pub failure: Failure,
}

/// What goes wrong at the moment.
#[derive(Debug, Default)]
pub struct Faults {
    /// How long each request waits for its answer.
    pub latency: Duration,
    list: Vec<Fault>,
}

impl Faults {
    /// From now on these requests fail.
    pub fn add(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    /// Nothing fails any more.
    pub fn clear(&mut self) {
        self.list.clear();
        self.latency = Duration::ZERO;
    }

    /// What this request is told instead of an answer, once.
    pub fn meet(&mut self, verb: &str, resource: &str) -> Option<Failure> {
        let is_meant = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        let fault = self.list.iter_mut().find(|fault| {
            fault.times > 0 && is_meant(&fault.verb, verb) && is_meant(&fault.resource, resource)
        })?;
        fault.times -= 1;
        Some(fault.failure.clone())
    }
}
