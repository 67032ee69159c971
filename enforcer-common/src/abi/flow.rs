//! Counters (the truth) and events (the story).

use crate::wire::wire;

wire! {
    /// Key of the per-CPU map `COUNTERS`.
    pub struct FlowKey {
        /// Identity of the subject: the workload whose policy was judged.
        pub subject: u32,
        /// Identity of the other end.
        pub peer: u32,
        /// The rule that decided, or 0.
        pub rule: u32,
        /// Port of the server side, host byte order.
        pub port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// A [`crate::reason::Reason`] code.
        pub reason: u8,
        /// A [`crate::verdict::Direction`] code, from the subject's point of view.
        pub direction: u8,
        /// An [`Outcome`] code.
        pub outcome: u8,
        /// Always zero.
        pub reserved: u16,
    }
}

wire! {
    /// Value of the per-CPU map `COUNTERS`.
    pub struct FlowCount {
        /// Verdicts given: one for each flow that is opened, each end of it, and each refusal. A flow that goes on
        /// under changed policies is judged again without being counted again, unless it is refused.
        pub verdicts: u64,
    }
}

wire! {
    /// Key of the per-CPU map `TRAFFIC`.
    pub struct TrafficKey {
        /// Identity of the workload whose socket it is.
        pub subject: u32,
        /// Identity of the other end.
        pub peer: u32,
        /// Port of the server side, host byte order.
        pub port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// A [`crate::abi::identity::Role`] code of the subject.
        pub role: u8,
        /// Always zero.
        pub reserved: u32,
    }
}

wire! {
    /// Value of the per-CPU map `TRAFFIC`. Streams add when they open and when they close, datagrams one by one.
    pub struct Traffic {
        /// Connections that were established.
        pub opened: u64,
        /// Established connections that ended.
        pub closed: u64,
        /// Packets sent; of streams, segments.
        pub packets_sent: u64,
        /// Packets received; of streams, segments.
        pub packets_received: u64,
        /// Bytes sent: of streams, payload that the other end acknowledged; of datagrams, with the IP header.
        pub bytes_sent: u64,
        /// Bytes received: of streams, payload; of datagrams, with the IP header.
        pub bytes_received: u64,
        /// Segments sent again.
        pub retransmits: u64,
        /// Sum of the smoothed round-trip times at the end of the `closed` connections, in microseconds.
        pub rtt_microseconds: u64,
    }
}

impl Traffic {
    /// Nothing yet.
    pub const NONE: Self = Self {
        opened: 0,
        closed: 0,
        packets_sent: 0,
        packets_received: 0,
        bytes_sent: 0,
        bytes_received: 0,
        retransmits: 0,
        rtt_microseconds: 0,
    };

    /// Adds another row, field by field.
    pub const fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.packets_sent += other.packets_sent;
        self.packets_received += other.packets_received;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.retransmits += other.retransmits;
        self.rtt_microseconds += other.rtt_microseconds;
    }

    /// Takes an earlier state of the same row away, field by field.
    pub const fn subtract(&mut self, earlier: &Self) {
        self.opened -= earlier.opened;
        self.closed -= earlier.closed;
        self.packets_sent -= earlier.packets_sent;
        self.packets_received -= earlier.packets_received;
        self.bytes_sent -= earlier.bytes_sent;
        self.bytes_received -= earlier.bytes_received;
        self.retransmits -= earlier.retransmits;
        self.rtt_microseconds -= earlier.rtt_microseconds;
    }
}

/// Buckets of a [`Latency`]: the one at `i` counts what took more than 2^(i-1) and at most 2^i microseconds, the last what
/// took longer than 2^25 (33.6 seconds).
pub const LATENCY_BUCKETS: usize = 27;

/// The bucket of a time in microseconds.
#[inline(always)]
pub const fn latency_bucket(microseconds: u64) -> usize {
    if microseconds <= 1 {
        return 0;
    }
    let bucket = u64::BITS - (microseconds - 1).leading_zeros();
    if bucket as usize >= LATENCY_BUCKETS { LATENCY_BUCKETS - 1 } else { bucket as usize }
}

wire! {
    /// Value of the per-CPU map `LATENCY`, whose key is a [`TrafficKey`]: how long things took, of TCP connections.
    pub struct Latency {
        /// Handshakes, from the first SYN to the other end's answer, repeated SYNs included; the client's end only.
        pub handshake: [u64; LATENCY_BUCKETS],
        /// Sum of the same, in microseconds.
        pub handshake_microseconds: u64,
        /// Smoothed round-trip times at the end of connections.
        pub round_trip: [u64; LATENCY_BUCKETS],
        /// Sum of the same, in microseconds.
        pub round_trip_microseconds: u64,
    }
}

impl Latency {
    /// Nothing yet.
    pub const NONE: Self = Self {
        handshake: [0; LATENCY_BUCKETS],
        handshake_microseconds: 0,
        round_trip: [0; LATENCY_BUCKETS],
        round_trip_microseconds: 0,
    };

    /// Adds another row, field by field.
    pub fn add(&mut self, other: &Self) {
        self.handshake.iter_mut().zip(other.handshake).for_each(|(sum, one)| *sum += one);
        self.round_trip.iter_mut().zip(other.round_trip).for_each(|(sum, one)| *sum += one);
        self.handshake_microseconds += other.handshake_microseconds;
        self.round_trip_microseconds += other.round_trip_microseconds;
    }
}

wire! {
    /// Value of the map `QUOTAS`, keyed by identity: what was told in this window of flows that this identity opened.
    pub struct Quota {
        /// Nanoseconds since boot, in units of 2^[`EVENT_WINDOW`](crate::abi::config::EVENT_WINDOW).
        pub window: u64,
        /// Allowed flows.
        pub allowed: u64,
        /// Denied and audited flows.
        pub denied: u64,
    }
}

/// What became of a flow. Names as in Hubble's verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Allowed.
    Forwarded = 0,
    /// Denied.
    Dropped = 1,
    /// Would have been denied; let through because the policy (or everything) is in audit mode.
    Audit = 2,
}

impl Outcome {
    /// Every outcome, in the order of its code.
    pub const ALL: &'static [Self] = &[Self::Forwarded, Self::Dropped, Self::Audit];

    /// The outcome with this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Forwarded),
            1 => Some(Self::Dropped),
            2 => Some(Self::Audit),
            _ => None,
        }
    }

    /// The name in flow records and `--verdict`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Forwarded => "FORWARDED",
            Self::Dropped => "DROPPED",
            Self::Audit => "AUDIT",
        }
    }
}

wire! {
    /// One record of the event ring: a new flow, or a denial. `version` and `size` come first so that a reader
    /// of another version can tell.
    pub struct FlowEvent {
        /// [`crate::abi::VERSION`].
        pub version: u16,
        /// Size of this record in bytes.
        pub size: u16,
        /// A [`crate::hook::Hook`] code.
        pub hook: u8,
        /// IP protocol number.
        pub protocol: u8,
        /// Port of the server side, host byte order.
        pub port: u16,
        /// Nanoseconds since boot (`CLOCK_BOOTTIME`).
        pub time: u64,
        /// Generation of the tables that judged.
        pub generation: u64,
        /// Socket cookie, unique while the host is up.
        pub cookie: u64,
        /// Cgroup in which the subject's socket was created.
        pub subject_cgroup: u64,
        /// Cgroup in which the peer's socket was created; 0 where the peer was not found by its socket.
        pub peer_cgroup: u64,
        /// Address of the other end, see [`crate::address::Address`]: first 64 bits.
        pub address_high: u64,
        /// Address of the other end: last 64 bits.
        pub address_low: u64,
        /// [`crate::verdict::Word`] of the client's egress; 0 where it was not judged here.
        pub egress: u64,
        /// [`crate::verdict::Word`] of the server's ingress; 0 where it was not judged here.
        pub ingress: u64,
        /// Identity of the subject.
        pub subject: u32,
        /// Identity of the peer.
        pub peer: u32,
        /// Process (thread group) id of the caller; 0 where a packet was judged.
        pub pid: u32,
        /// User id of the caller; 0 where a packet was judged.
        pub uid: u32,
        /// The [`crate::verdict::Direction`] whose policy decided the outcome.
        pub direction: u8,
        /// An [`Outcome`] code.
        pub outcome: u8,
        /// The errno the caller got (positive), 0 when let through.
        pub errno: u16,
        /// Identity of the calling process where it differs from the socket's, else 0.
        pub caller: u32,
        /// Command name of the caller, NUL padded; empty where a packet was judged.
        pub comm: [u8; 16],
        /// A [`crate::abi::identity::Role`] code of the subject. As a server, the peer is the one who opened the flow.
        pub role: u8,
        /// Always zero.
        pub reserved: u8,
        /// Port of the client side where it is known, host byte order.
        pub client_port: u16,
        /// Always zero.
        pub reserved2: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_powers_of_two() {
        let expected = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 25, 25), ((1 << 25) + 1, 26)];
        for (microseconds, bucket) in expected {
            assert_eq!(latency_bucket(microseconds), bucket, "{microseconds}");
        }
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BUCKETS - 1);
        for bucket in 0..LATENCY_BUCKETS - 1 {
            assert_eq!(latency_bucket(1 << bucket), bucket);
            assert_eq!(latency_bucket((1 << bucket) + 1), bucket + 1);
        }
    }
}
