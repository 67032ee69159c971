//! What talks to the API server of a Kubernetes cluster, besides the source of workloads and policies.

pub mod agents;
pub mod client;
pub mod policies;
pub mod report;
