//! The verdict: one function for every hook, for the simulator and for the tests.
//!
//! # Precedence
//! The one list; code and docs cite its numbers. The highest line that speaks of a flow decides.
//!
//! 1. quarantine
//! 2. admin tier, by priority, first match wins (Accept, Deny, Pass)
//! 3. explicit deny of a namespaced policy
//! 4. allow of a namespaced policy (union)
//! 5. isolation: some policy selects the subject in this direction, and nothing above matched: deny
//! 6. baseline tier
//! 7. default of the subject: allow for a known workload and the host, deny for unknown identities
//!
//! A service is judged by those who answer for it: the compiler has looked at the whole list for each of them, so its
//! word stands above the list ([`Tier::Service`]). Where the rule of the admin tier that decides is a Pass, the list is read
//! once more from line 3 on: the entries for that lie in planes of their own.
//!
//! The compiler turns each line into a [`Tier`], the top bits of a [`Word`]. An entry of the table holds the best
//! word for its key, a flow meets at most six keys (peer by identity, by address, any; port by class, any), and the
//! greatest word wins. So precedence is data, and the cost of a verdict does not depend on the number of rules.

use crate::abi::policy::{self, Plane, Row};
use crate::address::Address;
use crate::id::{Generation, IdentityId, RuleId};
use crate::limits::ADDRESS_STEPS;
use crate::reason::{Errno, Reason};

/// Direction of a flow from the subject's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The subject opens the flow.
    Egress = 0,
    /// The subject is the server.
    Ingress = 1,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    /// The direction with this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Egress),
            1 => Some(Self::Ingress),
            _ => None,
        }
    }

    /// `egress` or `ingress`, as in metrics and policies.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// A line of the precedence list. Greater is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tier {
    /// 7
    Default = 1,
    /// 6
    Baseline = 2,
    /// 5
    Isolation = 3,
    /// 4
    Allow = 4,
    /// 3
    Deny = 5,
    /// 2
    Admin = 6,
    /// 1
    Quarantine = 7,
    /// What the whole list says of the backends of a service, taken together.
    Service = 8,
}

/// A verdict in one 64-bit word, made so that the greater of two words is the one that decides.
///
/// From the top: tier (4 bits), priority (16), deny (1), rule (32, complemented so that of two rules that decide alike
/// the older one, with the lower number, is named), errno (3), reason (8). Errno and reason stand below the rule, so
/// they are always those of the rule that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[must_use]
pub struct Word(pub u64);

impl Word {
    /// Says nothing; every other word is greater.
    pub const NONE: Self = Self(0);

    /// An allowing word.
    pub const fn allow(tier: Tier, reason: Reason, rule: RuleId) -> Self {
        Self::pack(tier, false, Errno::Perm, reason, rule)
    }

    /// A denying word.
    pub const fn deny(tier: Tier, errno: Errno, reason: Reason, rule: RuleId) -> Self {
        Self::pack(tier, true, errno, reason, rule)
    }

    /// The same word, stronger than those of its tier with a lower priority. An allowing word of priority 1 beats a
    /// denying one of priority 0.
    pub const fn with_priority(self, priority: u16) -> Self {
        Self(self.0 & !(0xffff << 44) | ((priority as u64) << 44))
    }

    const fn pack(tier: Tier, deny: bool, errno: Errno, reason: Reason, rule: RuleId) -> Self {
        Self(
            ((tier as u64) << 60)
                | ((deny as u64) << 43)
                | ((!rule.0 as u64) << 11)
                | ((errno as u64) << 8)
                | (reason as u64),
        )
    }

    /// Whether this word denies. [`Word::NONE`] does not speak, so it does not deny either.
    #[inline(always)]
    pub const fn is_deny(self) -> bool {
        self.0 & (1 << 43) != 0
    }

    /// Whether this word leaves the flow to what stands beneath the admin tier.
    #[inline(always)]
    pub const fn is_pass(self) -> bool {
        self.reason_code() == Reason::Passed as u8
    }

    /// The same verdict, rule and reason in another tier, with priority 0.
    pub const fn in_tier(self, tier: Tier) -> Self {
        Self(self.0 & !(0xf_ffff << 44) | ((tier as u64) << 60))
    }

    /// The same verdict, errno and rule for another reason.
    pub const fn because(self, reason: Reason) -> Self {
        Self(self.0 & !0xff | reason as u64)
    }

    /// What the application is told if this word denies.
    #[inline(always)]
    pub const fn errno(self) -> Errno {
        Errno::from_code(((self.0 >> 8) & 7) as u8)
    }

    /// Code of the reason, see [`Reason::from_code`].
    #[inline(always)]
    pub const fn reason_code(self) -> u8 {
        self.0 as u8
    }

    /// The rule that this word names.
    #[inline(always)]
    pub const fn rule(self) -> RuleId {
        if self.0 == 0 { RuleId::NONE } else { RuleId(!((self.0 >> 11) as u32)) }
    }

    /// The word of the two that decides.
    #[inline(always)]
    pub const fn max(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }
}

/// Read access to the rows of one table. The kernel's is a map pointer, the simulator's a slice.
pub trait PolicyView: Copy {
    /// The row with this index, if the table is that long.
    fn row(&self, index: u32) -> Option<&Row>;

    /// The same value. The kernel's view hides it from the verifier, which otherwise decides comparisons between
    /// values it knows, must then tell them apart for ever, and walks the rest of the program once for each.
    #[inline(always)]
    fn opaque(self, value: u64) -> u64 {
        value
    }
}

impl PolicyView for &[Row] {
    #[inline]
    fn row(&self, index: u32) -> Option<&Row> {
        self.get(index as usize)
    }
}

/// One question: may `subject` talk with `peer`?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whose policy is asked.
    pub subject: IdentityId,
    /// The other end.
    pub peer: IdentityId,
    /// Address of the other end.
    pub address: Address,
    /// Port of the server side, host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Direction from the subject's point of view.
    pub direction: Direction,
}

/// The answer of one table to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// The word that decides.
    pub enforced: Word,
    /// What would decide if policies in audit mode were enforced; equal to `enforced` where there are none.
    pub hypothetical: Word,
}

impl Verdict {
    const fn both(word: Word) -> Self {
        Self { enforced: word, hypothetical: word }
    }

    /// Whether the flow is let through although a policy in audit mode would deny it.
    #[inline(always)]
    pub const fn is_audited(self) -> bool {
        !self.enforced.is_deny() && self.hypothetical.is_deny()
    }

    /// The word to report: the denial that audit mode held back, else the one that decides.
    #[inline(always)]
    pub const fn reported(self) -> Word {
        if self.is_audited() { self.hypothetical } else { self.enforced }
    }
}

/// A denial without tables: fail closed, and say so.
pub const NO_TABLES: Word = Word::deny(Tier::Default, Errno::Perm, Reason::NoTables, RuleId::NONE);
/// A denial by unreadable tables.
pub const CORRUPT_TABLES: Word = Word::deny(Tier::Default, Errno::Perm, Reason::CorruptTables, RuleId::NONE);
/// A denial of a subject or a peer whose identity has a number that the tables do not know.
pub const INVALID_IDENTITY: Word =
    Word::deny(Tier::Default, Errno::Perm, Reason::InvalidIdentity, RuleId::NONE);

/// The generation of a table.
#[inline(always)]
pub fn generation<V: PolicyView>(view: V) -> Generation {
    match view.row(0) {
        Some(row) => Generation(row.words[policy::H_GENERATION]),
        None => Generation(0),
    }
}

/// Judges one flow in one direction. Always answers; what can't be read denies with its own reason.
#[inline(always)]
pub fn decide<V: PolicyView>(view: V, query: &Query) -> Verdict {
    let Some(header) = view.row(0) else { return Verdict::both(NO_TABLES) };
    let default = Word(header.words[policy::H_DEFAULT]);
    // A table without a default would leave flows unjudged, and an unjudged flow is not denied.
    if header.words[policy::H_MAGIC] != policy::MAGIC || default == Word::NONE {
        return Verdict::both(CORRUPT_TABLES);
    }
    let identities = header.words[policy::H_IDENTITIES];
    let subject = opaque(view, class_of_identity(view, identities, query.subject.0));
    let peer = opaque(view, class_of_identity(view, identities, query.peer.0));
    // A peer with a number is someone, and a deny rule may mean exactly them: a table that is older than the
    // identity can't tell, so it must not answer "any".
    if subject == 0 || (peer == 0 && query.peer.0 != IdentityId::UNKNOWN.0) {
        return Verdict::both(INVALID_IDENTITY);
    }
    let probe = Probe {
        buckets: header.words[policy::H_BUCKETS],
        seed: header.words[policy::H_SEED],
        subject,
        ingress: matches!(query.direction, Direction::Ingress),
        peer,
        address: opaque(view, class_of_address(view, header.words[policy::H_ADDRESSES], query.address)),
        port: opaque(view, class_of_port(view, query.protocol, query.port)),
    };
    let enforced = probe.last(view, Plane::Enforced).max(default);
    let hypothetical = if header.words[policy::H_FLAGS] & policy::F_HYPOTHETICAL == 0 {
        enforced
    } else {
        probe.last(view, Plane::Hypothetical).max(default)
    };
    Verdict { enforced, hypothetical }
}

/// Judges whether `subject` may listen on a port: at most two look-ups in each plane. Always answers, as [`decide`].
///
/// A subject of whom no policy says on which ports it may listen has the default of the table.
#[inline(always)]
pub fn decide_listen<V: PolicyView>(view: V, subject: IdentityId, protocol: u8, port: u16) -> Verdict {
    let Some(header) = view.row(0) else { return Verdict::both(NO_TABLES) };
    let default = Word(header.words[policy::H_DEFAULT]);
    if header.words[policy::H_MAGIC] != policy::MAGIC || default == Word::NONE {
        return Verdict::both(CORRUPT_TABLES);
    }
    let subject = opaque(view, class_of_identity(view, header.words[policy::H_IDENTITIES], subject.0));
    if subject == 0 {
        return Verdict::both(INVALID_IDENTITY);
    }
    let probe = Probe {
        buckets: header.words[policy::H_BUCKETS],
        seed: header.words[policy::H_SEED],
        subject,
        ingress: true,
        peer: 0,
        address: 0,
        port: opaque(view, class_of_port(view, protocol, port)),
    };
    let enforced = probe.last_listen(view, Plane::Enforced).max(default);
    let hypothetical = if header.words[policy::H_FLAGS] & policy::F_HYPOTHETICAL == 0 {
        enforced
    } else {
        probe.last_listen(view, Plane::Hypothetical).max(default)
    };
    Verdict { enforced, hypothetical }
}

/// Whether some policy speaks of creating sockets. Where none does, the configuration is all there is to ask.
#[inline(always)]
pub fn speaks_of_sockets<V: PolicyView>(view: V) -> bool {
    view.row(0).is_some_and(|header| header.words[policy::H_FLAGS] & policy::F_SOCKETS != 0)
}

/// Judges whether `subject` may create a socket of a kind, by its [class](crate::abi::config::SocketKind::class): at most two
/// look-ups in each plane. Always answers, as [`decide`].
///
/// `otherwise` is what the configuration says of this kind: it decides where no rule does, of which nobody is isolated.
#[inline(always)]
pub fn decide_socket<V: PolicyView>(view: V, subject: IdentityId, class: u16, otherwise: Word) -> Verdict {
    let Some(header) = view.row(0) else { return Verdict::both(NO_TABLES) };
    if header.words[policy::H_MAGIC] != policy::MAGIC {
        return Verdict::both(CORRUPT_TABLES);
    }
    let subject = opaque(view, class_of_identity(view, header.words[policy::H_IDENTITIES], subject.0));
    if subject == 0 {
        return Verdict::both(INVALID_IDENTITY);
    }
    let probe = Probe {
        buckets: header.words[policy::H_BUCKETS],
        seed: header.words[policy::H_SEED],
        subject,
        ingress: true,
        peer: 0,
        address: 0,
        port: class.into(),
    };
    let enforced = probe.last_socket(view, Plane::Enforced).max(otherwise);
    let hypothetical = if header.words[policy::H_FLAGS] & policy::F_HYPOTHETICAL == 0 {
        enforced
    } else {
        probe.last_socket(view, Plane::Hypothetical).max(otherwise)
    };
    Verdict { enforced, hypothetical }
}

/// The word of the configuration for creating a socket of a kind that it allows, or not.
#[inline(always)]
pub const fn configured_socket(allowed: bool) -> Word {
    if allowed {
        Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE)
    } else {
        Word::deny(Tier::Default, Errno::Perm, Reason::SocketKind, RuleId::NONE)
    }
}

/// Whether it depends on its address who may call this subject. While the address is not known, such a question has no answer.
#[inline(always)]
pub fn depends_on_address<V: PolicyView>(view: V, subject: IdentityId) -> bool {
    let Some(header) = view.row(0) else { return false };
    let subject = opaque(view, class_of_identity(view, header.words[policy::H_IDENTITIES], subject.0));
    // The plane of all policies, where there is one.
    let plane = if header.words[policy::H_FLAGS] & policy::F_HYPOTHETICAL == 0 {
        Plane::Enforced
    } else {
        Plane::Hypothetical
    };
    let key = policy::key(plane, true, subject, policy::BY_ADDRESS, 0);
    lookup(view, key, header.words[policy::H_BUCKETS], header.words[policy::H_SEED]) != 0
}

#[inline(always)]
fn opaque<V: PolicyView>(view: V, class: u32) -> u32 {
    view.opaque(u64::from(class)) as u32
}

/// A question in terms of classes.
struct Probe {
    buckets: u64,
    seed: u64,
    subject: u32,
    peer: u32,
    address: u32,
    port: u32,
    ingress: bool,
}

impl Probe {
    /// The word that decides: where it passes, the one beneath.
    #[inline(always)]
    fn last<V: PolicyView>(&self, view: V, plane: Plane) -> Word {
        let best = self.best(view, plane);
        if best.is_pass() { self.best(view, plane.beneath()) } else { best }
    }

    /// As [`Probe::last`], of listening.
    #[inline(always)]
    fn last_listen<V: PolicyView>(&self, view: V, plane: Plane) -> Word {
        let best = self.ports(view, plane, policy::LISTEN);
        if best.is_pass() { self.ports(view, plane.beneath(), policy::LISTEN) } else { best }
    }

    /// As [`Probe::last`], of creating a socket. Beneath a rule of the baseline tier that passes there is only the configuration,
    /// which is not in the table.
    #[inline(always)]
    fn last_socket<V: PolicyView>(&self, view: V, plane: Plane) -> Word {
        let best = self.ports(view, plane, policy::SOCKET);
        if !best.is_pass() {
            return best;
        }
        let beneath = self.ports(view, plane.beneath(), policy::SOCKET);
        if beneath.is_pass() { Word::NONE } else { beneath }
    }

    /// The greatest of the at most six words that speak of the flow.
    #[inline(always)]
    fn best<V: PolicyView>(&self, view: V, plane: Plane) -> Word {
        let mut best = self.ports(view, plane, 0);
        if self.peer != 0 {
            best = best.max(self.ports(view, plane, self.peer));
        }
        if self.address != 0 {
            best = best.max(self.ports(view, plane, self.address));
        }
        best
    }

    #[inline(always)]
    fn ports<V: PolicyView>(&self, view: V, plane: Plane, peer: u32) -> Word {
        let any = policy::key(plane, self.ingress, self.subject, peer, 0);
        let mut best = Word(lookup(view, any, self.buckets, self.seed));
        if self.port != 0 {
            best = best.max(Word(lookup(view, any | u64::from(self.port), self.buckets, self.seed)));
        }
        best
    }
}

/// The word of one key, or 0. Not inlined: one BPF subprogram with scalar arguments, verified on its own.
///
/// Both buckets are read and all eight slots compared without a branch: the verifier follows every path of every
/// call, and most look-ups miss, so an early exit would save little.
#[inline(never)]
fn lookup<V: PolicyView>(view: V, key: u64, buckets: u64, seed: u64) -> u64 {
    let (first, second) = policy::buckets(key, seed, (buckets >> 32) as u32);
    let base = buckets as u32;
    let mut word = 0;
    if let Some(row) = view.row(base.wrapping_add(first)) {
        word |= in_bucket(row, key);
    }
    if let Some(row) = view.row(base.wrapping_add(second)) {
        word |= in_bucket(row, key);
    }
    view.opaque(word)
}

/// The word of one key in one bucket, or 0. A key stands in at most one slot of a table.
#[inline(always)]
fn in_bucket(bucket: &Row, key: u64) -> u64 {
    let Row { words: [k0, w0, k1, w1, k2, w2, k3, w3] } = bucket;
    (w0 & all_ones_if_zero(k0 ^ key))
        | (w1 & all_ones_if_zero(k1 ^ key))
        | (w2 & all_ones_if_zero(k2 ^ key))
        | (w3 & all_ones_if_zero(k3 ^ key))
}

#[inline(always)]
const fn all_ones_if_zero(x: u64) -> u64 {
    ((x | x.wrapping_neg()) >> 63).wrapping_sub(1)
}

/// Class of an identity in a table, 0 if it knows no such number.
pub fn identity_class<V: PolicyView>(view: V, identity: IdentityId) -> u32 {
    view.row(0).map_or(0, |header| class_of_identity(view, header.words[policy::H_IDENTITIES], identity.0))
}

/// Class of an address in a table, 0 if no block has it.
pub fn address_class<V: PolicyView>(view: V, address: Address) -> u32 {
    view.row(0).map_or(0, |header| class_of_address(view, header.words[policy::H_ADDRESSES], address))
}

/// Class of an identity number, 0 if the table has none.
#[inline(always)]
fn class_of_identity<V: PolicyView>(view: V, section: u64, identity: u32) -> u32 {
    if u64::from(identity) >= section >> 32 {
        return 0;
    }
    let Some(row) = view.row((section as u32).wrapping_add(identity >> 4)) else { return 0 };
    half(row.words[((identity >> 1) & 7) as usize], identity)
}

/// Port class of a protocol and port, 0 if no rule names any.
#[inline(always)]
fn class_of_port<V: PolicyView>(view: V, protocol: u8, port: u16) -> u32 {
    let protocol = u32::from(protocol);
    let Some(row) = view.row(policy::PROTOCOL_ROW + (protocol >> 4)) else { return 0 };
    let entry = half(row.words[((protocol >> 1) & 7) as usize], protocol);
    if entry & policy::HAS_PORTS == 0 {
        return entry & 0xffff;
    }
    let port = u32::from(port);
    let Some(row) = view.row((entry & !policy::HAS_PORTS) + (port >> 5)) else { return 0 };
    ((row.words[((port >> 2) & 7) as usize] >> ((port & 3) * 16)) & 0xffff) as u32
}

#[inline(always)]
fn half(word: u64, index: u32) -> u32 {
    (word >> ((index & 1) * 32)) as u32
}

/// Class of an address: the last interval that starts at or before it.
///
/// Binary search without data-dependent branches on the position, in a fixed number of steps, so that the verifier
/// follows one path. The section is the last one, so probing beyond it finds no row.
#[inline(never)]
fn class_of_address<V: PolicyView>(view: V, section: u64, address: Address) -> u32 {
    let Address { high, low } = address;
    let rows = (section >> 32) as u32;
    if rows == 0 {
        return 0;
    }
    let mut position = section as u32;
    let mut step = 1_u32 << (ADDRESS_STEPS - 1);
    while step > 0 {
        if let Some(row) = view.row(position.wrapping_add(step)) {
            let after = starts_after(row.words[0], row.words[1], high, low);
            position = position.wrapping_add(step * u32::from(!after));
        }
        step >>= 1;
    }
    let Some(Row { words: [h0, l0, h1, l1, h2, l2, classes, last] }) = view.row(position) else { return 0 };
    if !starts_after(*h2, *l2, high, low) {
        *last as u32
    } else if !starts_after(*h1, *l1, high, low) {
        half(*classes, 1)
    } else if !starts_after(*h0, *l0, high, low) {
        half(*classes, 0)
    } else {
        0
    }
}

#[inline(always)]
fn starts_after(start_high: u64, start_low: u64, high: u64, low: u64) -> bool {
    start_high > high || (start_high == high && start_low > low)
}

#[cfg(test)]
mod tests;
