//! Everything that crosses the boundary between the kernel programs and user space, and nothing else.
//!
//! Invariants of this crate:
//! * no allocation, no dependency, no map and no context: it builds for the BPF target and the host alike;
//! * every struct that is shared is declared with [`wire!`], which refuses padding at compile time;
//! * a verdict is computed here and nowhere else ([`verdict::decide`]): the kernel programs, the offline
//!   simulator and the tests call the very same function.
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]
#![allow(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    reason = "the BPF verifier wants small functions folded into their caller, and taking a part of a word is this crate's trade"
)]

pub mod abi;
pub mod address;
pub mod churn;
pub mod flow_id;
pub mod hook;
pub mod id;
pub mod limits;
pub mod packet;
pub mod reason;
pub mod verdict;
mod wire;
