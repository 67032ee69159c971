//! Policies: from bytes to a model that is valid by construction, and from there to table entries.

pub mod model;
