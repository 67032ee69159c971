//! Events in words: when somebody reads them, and not before.

use std::collections::HashMap;
use std::sync::Arc;

use enforcer_common::abi;
use enforcer_common::abi::flow::{FlowEvent, Outcome};
use enforcer_common::abi::identity::Role;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Direction, Word};

use super::names;
use crate::domain::flow::{Flow, FlowEndpoint, FlowIp, FlowL4, FlowProcess, FlowRule, protocol_name};
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// Ends and rules that are looked up once and remembered, of each so many.
const RESOLVED: usize = 16_384;

/// What the codes of an event stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codes {
    direction: Direction,
    hook: Hook,
    outcome: Outcome,
    reason: Reason,
    word: Word,
}

impl Codes {
    /// `None` if the event has a code that this version does not know.
    pub(super) fn of(event: &FlowEvent) -> Option<Self> {
        if u32::from(event.version) != abi::VERSION {
            return None;
        }
        let direction = Direction::from_code(event.direction)?;
        let word = match direction {
            Direction::Egress => Word(event.egress),
            Direction::Ingress => Word(event.ingress),
        };
        let (hook, outcome) = (Hook::from_code(event.hook)?, Outcome::from_code(event.outcome)?);
        Some(Self { direction, hook, outcome, reason: Reason::from_code(word.reason_code())?, word })
    }
}

/// A flow before it is put into words: what the kernel told, and whom its numbers stood for at that time.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    event: FlowEvent,
    codes: Codes,
    /// Nanoseconds from boot time to wall-clock time.
    offset: i64,
    subject: Arc<FlowEndpoint>,
    peer: Arc<FlowEndpoint>,
    rule: Option<Arc<FlowRule>>,
}

/// Ends and rules in words, as long as the names stay the same: a thousand events a second are about the same few.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    names: Arc<Names>,
    ends: HashMap<(u32, u64), Arc<FlowEndpoint>>,
    rules: HashMap<u32, Option<Arc<FlowRule>>>,
    nobody: Arc<FlowEndpoint>,
}

impl Resolver {
    /// From now on these names are valid.
    pub(super) fn names(&mut self, names: Arc<Names>) {
        if !Arc::ptr_eq(&self.names, &names) {
            *self = Self { names, ..Self::default() };
        }
    }

    /// What is to be remembered of an event.
    pub(super) fn remember(&mut self, event: &FlowEvent, codes: Codes, offset: i64) -> Remembered {
        let subject = self.end(event.subject, event.subject_cgroup);
        let peer = if has_peer(codes.hook) {
            self.end(event.peer, event.peer_cgroup)
        } else {
            Arc::clone(&self.nobody)
        };
        Remembered { event: *event, codes, offset, subject, peer, rule: self.rule(codes.word) }
    }

    fn end(&mut self, identity: u32, cgroup: u64) -> Arc<FlowEndpoint> {
        if self.ends.len() >= RESOLVED {
            self.ends.clear();
        }
        let end = || Arc::new(names::endpoint(&self.names, identity, cgroup));
        Arc::clone(self.ends.entry((identity, cgroup)).or_insert_with(end))
    }

    fn rule(&mut self, word: Word) -> Option<Arc<FlowRule>> {
        if self.rules.len() >= RESOLVED {
            self.rules.clear();
        }
        let rule = || names::rule(&self.names, word.rule()).map(Arc::new);
        self.rules.entry(word.rule().0).or_insert_with(rule).clone()
    }
}

impl Remembered {
    /// In words, as told by the host of this name.
    pub(super) fn flow(&self, node: &str) -> Flow {
        let Self { event, codes, offset, subject, peer, rule } = self;
        let serves = Role::from_code(event.role.into()) == Role::Server;
        let (source, destination) = if serves { (peer, subject) } else { (subject, peer) };
        Flow {
            time: wall_clock(event.time, *offset).to_string(),
            verdict: codes.outcome.label().to_owned(),
            drop_reason_desc: codes.reason.label().to_owned(),
            ip: addresses(event, codes.hook, serves),
            l4: FlowL4 {
                protocol: protocol_name(event.protocol),
                source_port: event.client_port,
                destination_port: event.port,
            },
            source: FlowEndpoint::clone(source),
            destination: FlowEndpoint::clone(destination),
            role: if serves { Role::Server } else { Role::Client }.label().to_owned(),
            traffic_direction: codes.direction.label().to_ascii_uppercase(),
            decided_by: rule.as_deref().cloned(),
            errno: errno(event.errno, codes.hook, codes.reason),
            hook: codes.hook.program().to_owned(),
            generation: event.generation,
            socket_cookie: event.cookie,
            process: FlowProcess { pid: event.pid, uid: event.uid, comm: comm(event.comm) },
            node_name: node.to_owned(),
        }
    }
}

/// Whether there is another end: who is called, or who owns the port that is asked for. A socket that is refused, or that
/// listens, has called nobody yet.
fn has_peer(hook: Hook) -> bool {
    !matches!(
        hook,
        Hook::SockCreate | Hook::Setsockopt | Hook::SocketCreate | Hook::PostBind4 | Hook::PostBind6
    )
}

/// The address of the other end, at its place.
fn addresses(event: &FlowEvent, hook: Hook, serves: bool) -> FlowIp {
    let address = Address { high: event.address_high, low: event.address_low };
    // All zero is an address for `bind` only; elsewhere it says that none was found.
    let binds = matches!(hook, Hook::Bind4 | Hook::Bind6);
    if address == (Address { high: 0, low: 0 }) && !binds {
        return FlowIp::default();
    }
    let text = std::net::Ipv6Addr::from(address.bytes()).to_canonical().to_string();
    let version = if address.is_v4() { "IPv4" } else { "IPv6" }.to_owned();
    let (source, destination) = if serves { (text, String::new()) } else { (String::new(), text) };
    FlowIp { source, destination, version }
}

fn wall_clock(boot: u64, offset: i64) -> Timestamp {
    const SECOND: i128 = 1_000_000_000;
    let nanoseconds = i128::from(boot) + i128::from(offset);
    Timestamp {
        seconds: i64::try_from(nanoseconds.div_euclid(SECOND)).unwrap_or(i64::MAX),
        nanos: u32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or(0),
    }
}

/// What the call ended with.
fn errno(number: u16, hook: Hook, reason: Reason) -> Option<String> {
    match (number, hook) {
        (0, _) | (_, Hook::Egress | Hook::Ingress) => None,
        // `bind` answers as the kernel itself would, and a verdict has no word for that.
        _ if reason == Reason::PortTaken => Some("EADDRINUSE".to_owned()),
        _ => {
            let known = Errno::ALL.iter().find(|errno| errno.number() == i32::from(number));
            Some(known.map_or_else(|| number.to_string(), |errno| errno.name().to_owned()))
        }
    }
}

/// A command name is whatever the process says, not always text.
fn comm(bytes: [u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
