//! The pure core: what workloads, identities and policies mean. No I/O, no clock, no async, no kernel.

pub mod account;
pub mod answer;
pub mod audit;
pub mod canary;
pub mod cgroup_path;
pub mod cluster;
pub mod cluster_file;
pub mod cluster_policy;
pub mod command;
pub mod conditions;
pub mod container;
pub mod counted;
pub mod delta;
pub mod edges;
pub mod expectation;
pub mod flow;
pub mod flow_filter;
pub mod history;
pub mod hubble;
pub mod labels;
pub mod names;
pub mod offline;
pub mod policy;
pub mod publication;
pub mod quarantine;
pub mod registry;
pub mod revoke;
pub mod runtime;
pub mod series_label;
pub mod syntax;
pub mod table;
pub mod time;
pub mod timestamp;
pub mod unconfirmed;
pub mod unguarded;
pub mod unit;
pub mod workload;
pub mod workload_file;
pub mod yaml;

/// The numbers of the kernel boundary are values of the domain: the engine computes with them and sees no other part
/// of the boundary.
pub use enforcer_common::{address, id, limits};

pub use enforcer_common::abi::config::{EventLimits, Mode, SocketKind};
pub use enforcer_common::verdict::Direction;
pub use series_label::SeriesLabel;
