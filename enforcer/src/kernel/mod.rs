//! The kernel room.

pub mod probe;
