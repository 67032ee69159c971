//! Events as tests read them.

use enforcer_common::abi::flow::Outcome;
use enforcer_common::reason::{Errno, Reason};

/// An event with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who opens the flow.
    pub from: String,
    /// The server.
    pub to: String,
    /// Its port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// By which rule.
    pub rule: String,
    /// What the application got.
    pub errno: i32,
    /// What the deciding word would tell the application.
    pub would_be: Errno,
    /// Program of the hook.
    pub hook: &'static str,
    /// Who called.
    pub pid: u32,
    /// Where the subject's socket was made.
    pub subject_cgroup: u64,
    /// Where the peer's socket was made.
    pub peer_cgroup: u64,
    /// Identity of a caller who is not the socket's creator.
    pub caller: u32,
}
