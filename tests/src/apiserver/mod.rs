//! A Kubernetes API server in the process: what the product meets of one, by the protocol and over a real connection.
//!
//! It keeps to what a real server promises, because that is what clients rely on: revisions and conflicts, lists in parts,
//! watches with bookmarks and their end, fields and their managers, status apart from what is asked for, rights. There are
//! no controllers behind it, rules in CEL are not evaluated, and patches are JSON merge patches or applies.
//!
//! [`ApiServer`] is the handle of a test: it puts objects in as a kubelet or a user would have made them, and takes the
//! network away. What is answered is decided in `settle` and `store`, which are values; `http` and `watch` carry it.

pub mod access;
pub mod answer;
pub mod apply;
pub mod defaults;
pub mod definitions;
pub mod events;
pub mod exec;
pub mod faults;
pub mod fields;
pub mod finish;
pub mod http;
pub mod kinds;
pub mod remove;
pub mod request;
pub mod schema;
pub mod selector;
pub mod server;
pub mod settle;
pub mod status;
pub mod store;
#[cfg(test)]
mod tests;
pub mod watch;

pub use access::{Access, Rule, User};
pub use exec::{Executed, Execution, Way};
pub use faults::{Fault, Network};
pub use server::{ApiServer, Asked};
pub use status::Failure;
