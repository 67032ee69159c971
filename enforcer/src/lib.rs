//! `enforcer`: the agent and the command line in one library, with one thin binary around it.
//!
//! Rooms, from the pure core outwards (the edges between them are checked by `cargo xtask tidy`):
//! `domain` computes; `config` is typed settings; `engine` decides what should happen; the adapters `kernel`,
//! `sources`, `store`, `telemetry`, `cluster` and `api` make it happen and never see each other; `agent` wires them;
//! `cli` is the command line.

#[macro_use]
pub mod fail;

pub mod agent;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod domain;
pub mod engine;
pub mod kernel;
pub mod sources;
pub mod store;
pub mod telemetry;
