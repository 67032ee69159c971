//! Policies: from bytes to a model that is valid by construction, and from there to table entries.

pub mod check;
pub mod compile;
pub mod diagnostic;
pub mod document;
pub mod explain;
mod key;
pub mod model;
mod rules;
mod selector;
