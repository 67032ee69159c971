//! The harness of the live suite: a world of real cgroups, processes and sockets, and what should become of them.
//!
//! Nouns: a [`world::World`] owns everything a test makes; a [`workload::Workload`] is a cgroup with a process in it
//! that does what it is told; [`direct::Direct`] enforces with the kernel room alone, [`agent::Agent`] with the real
//! daemon. Everything is named so that [`residue`] finds what a killed run leaves behind.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness panics where it stands: the line number is the message"
)]

pub mod agent;
pub mod apiserver;
pub mod bench;
pub mod bpf;
pub mod bypass;
pub mod churn;
pub mod cluster;
pub mod conformance;
pub mod demo;
pub mod direct;
pub mod expect;
pub mod first;
pub mod foreign;
pub mod generate;
pub mod hammer;
pub mod numbers;
pub mod oracle;
pub mod packets;
pub mod patience;
pub mod puppet;
pub mod residue;
pub mod runtimes;
pub mod sockaddr;
pub mod telemetry;
pub mod told;
pub mod workload;
pub mod world;

#[cfg(test)]
mod properties;
