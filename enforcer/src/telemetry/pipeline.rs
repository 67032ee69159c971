//! From events of the kernel to flows with names.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enforcer_common::abi;
use enforcer_common::abi::flow::{FlowEvent, Outcome};
use enforcer_common::abi::identity::Role;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Direction, Word};
use tokio::sync::{broadcast, watch};

use super::names;
use crate::domain::canary;
use crate::domain::flow::{Flow, FlowEndpoint, FlowIp, FlowL4, FlowProcess, protocol_name};
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// Flows that are remembered.
pub const HISTORY: usize = 4_096;
/// Flows that a follower may be behind before it loses some.
const FOLLOW: usize = 1_024;

/// What became of the events that were read from the ring. The first is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Events read.
    pub read: u64,
    /// Flows told.
    pub told: u64,
    /// Events with a code that this version does not know; they are lost.
    pub undecodable: u64,
    /// Events about the canary, which nobody asked for; they are no flows.
    pub canary: u64,
}

/// Turns events into flows, remembers the last of them and tells them to followers.
#[derive(Debug)]
pub struct Pipeline {
    names: watch::Receiver<Arc<Names>>,
    node: String,
    /// Nanoseconds from boot time to wall-clock time.
    offset: AtomicI64,
    history: Mutex<VecDeque<Arc<Flow>>>,
    live: broadcast::Sender<Arc<Flow>>,
    told: AtomicU64,
    undecodable: AtomicU64,
    canary: AtomicU64,
}

impl Pipeline {
    /// A pipeline that knows these names; `node` is the name of this host.
    pub fn new(names: watch::Receiver<Arc<Names>>, node: String) -> Self {
        Self {
            names,
            node,
            offset: AtomicI64::new(0),
            history: Mutex::new(VecDeque::with_capacity(HISTORY)),
            live: broadcast::Sender::new(FOLLOW),
            told: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            canary: AtomicU64::new(0),
        }
    }

    /// Sets what has to be added to a time since boot to get wall-clock time, in nanoseconds. It changes when the
    /// clock is set, so the agent sets it again and again.
    pub fn set_clock_offset(&self, nanoseconds: i64) {
        self.offset.store(nanoseconds, Ordering::Relaxed);
    }

    /// Takes what was read from the ring. Waits for nobody.
    pub fn record(&self, events: &[FlowEvent]) {
        let names = Arc::clone(&self.names.borrow());
        let offset = self.offset.load(Ordering::Relaxed);
        let is_canary = |event: &FlowEvent| canary::is_one_of(event.subject, event.peer);
        let canary = events.iter().filter(|event| is_canary(event)).count();
        let flows: Vec<Arc<Flow>> = events
            .iter()
            .filter(|event| !is_canary(event))
            .filter_map(|event| flow(event, &names, offset, &self.node))
            .map(Arc::new)
            .collect();
        self.canary.fetch_add(canary as u64, Ordering::Relaxed);
        {
            let mut history = self.history();
            let room = HISTORY.saturating_sub(flows.len());
            let excess = history.len().saturating_sub(room);
            history.drain(..excess);
            history.extend(flows.iter().skip(flows.len().saturating_sub(HISTORY)).cloned());
        }
        self.told.fetch_add(flows.len() as u64, Ordering::Relaxed);
        self.undecodable.fetch_add((events.len() - canary - flows.len()) as u64, Ordering::Relaxed);
        for flow in flows {
            // Without followers there is nobody to tell, which is no loss.
            self.live.send(flow).ok();
        }
    }

    /// The last flows, oldest first, at most `count`.
    pub fn recent(&self, count: usize) -> Vec<Arc<Flow>> {
        let history = self.history();
        history.iter().skip(history.len().saturating_sub(count)).cloned().collect()
    }

    /// Where flows are told as they happen.
    pub fn live(&self) -> broadcast::Sender<Arc<Flow>> {
        self.live.clone()
    }

    /// What became of the events.
    pub fn counts(&self) -> ReadCounts {
        let [told, undecodable, canary] =
            [&self.told, &self.undecodable, &self.canary].map(|count| count.load(Ordering::Relaxed));
        ReadCounts { read: told + undecodable + canary, told, undecodable, canary }
    }

    /// The history is whole whatever a panicking thread was doing: it holds flows that were made before.
    fn history(&self) -> MutexGuard<'_, VecDeque<Arc<Flow>>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event in words, or `None` if it has a code that this version does not know.
fn flow(event: &FlowEvent, names: &Names, offset: i64, node: &str) -> Option<Flow> {
    if event.version != u16::try_from(abi::VERSION).ok()? {
        return None;
    }
    let direction = Direction::from_code(event.direction)?;
    let word = match direction {
        Direction::Egress => Word(event.egress),
        Direction::Ingress => Word(event.ingress),
    };
    let hook = Hook::from_code(event.hook)?;
    let reason = Reason::from_code(word.reason_code())?;
    let serves = Role::from_code(event.role.into()) == Role::Server;
    let subject = names::endpoint(names, event.subject, event.subject_cgroup);
    let peer = if has_peer(hook) {
        names::endpoint(names, event.peer, event.peer_cgroup)
    } else {
        FlowEndpoint::default()
    };
    let (source, destination) = if serves { (peer, subject) } else { (subject, peer) };
    Some(Flow {
        time: wall_clock(event.time, offset).to_string(),
        verdict: Outcome::from_code(event.outcome)?.label().to_owned(),
        drop_reason_desc: reason.label().to_owned(),
        ip: addresses(event, hook, serves),
        l4: FlowL4 {
            protocol: protocol_name(event.protocol),
            source_port: event.client_port,
            destination_port: event.port,
        },
        source,
        destination,
        role: if serves { Role::Server } else { Role::Client }.label().to_owned(),
        traffic_direction: direction.label().to_ascii_uppercase(),
        decided_by: names::rule(names, word.rule()),
        errno: errno(event.errno, hook, reason),
        hook: hook.program().to_owned(),
        generation: event.generation,
        socket_cookie: event.cookie,
        process: FlowProcess { pid: event.pid, uid: event.uid, comm: comm(event.comm) },
        node_name: node.to_owned(),
    })
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
