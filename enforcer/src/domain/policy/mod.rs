//! Policies: from bytes to a model that is valid by construction, and from there to table entries.

pub mod check;
pub mod compile;
pub mod diagnostic;
pub mod document;
pub mod explain;
mod key;
mod kubernetes;
pub mod lint;
mod lists;
mod metadata;
pub mod model;
mod peers;
pub mod ports;
mod rules;
pub mod schema;
mod selector;
mod sockets;
mod traffic;
