//! What the test of reads under change knows on both sides: the word of every question in every generation, and the
//! identity that each binding and address may have. Nothing of the product depends on it.
//!
//! The words name generation, subject, peer, port and direction, and classes are numbered differently in each
//! generation: an answer that takes one part from another table, or from another key, can't be the expected one.

use crate::id::RuleId;
use crate::reason::{Errno, Reason};
use crate::verdict::{Tier, Word};
use crate::wire::wire;

/// Identities that take part, and addresses: a power of two.
pub const MEMBERS: u32 = 16;
/// The ports that take part.
pub const PORTS: [u16; 2] = [80, 443];
/// Bindings that take part, and prefixes: a power of two. Those with an even number are there all the time, but change;
/// the others come and go.
pub const KEYS: u32 = 256;
/// The cgroup of the first binding: far above every id that a kernel gives.
pub const FIRST_CGROUP: u64 = 0xc0de_0000_0000_0000;
/// First 64 bits of the prefixes (2001:db8::/32, RFC 3849); the last 64 are the number.
pub const PREFIX: u64 = 0x2001_0db8_0000_0000;

wire! {
    /// What the program `churn` is given at the start of the packet, and gives back in its place.
    pub struct Churn {
        /// State of the random numbers; not 0.
        pub random: u64,
        /// Questions to ask in this run.
        pub questions: u64,
        /// Newest generation seen.
        pub generation: u64,
        /// Times that a generation was followed by an older one.
        pub backwards: u64,
        /// Verdicts asked for.
        pub asked: u64,
        /// Questions before and after which the published table was not the same.
        pub swapped: u64,
        /// No table, or none that speaks of the question.
        pub missing: u64,
        /// Verdicts of another generation than the table's.
        pub mixed: u64,
        /// Verdicts whose two words do not belong together.
        pub torn: u64,
        /// Verdicts of another key.
        pub wrong: u64,
        /// Bindings looked up and found.
        pub bound: u64,
        /// Bindings that should be there and were not found.
        pub unbound: u64,
        /// Bindings with an identity that is another's.
        pub misbound: u64,
        /// Bindings that were refused because the map returned another key's value twice.
        pub refused: u64,
        /// Addresses looked up and found.
        pub placed: u64,
        /// Addresses that should be there and were not found.
        pub unplaced: u64,
        /// Addresses with an identity that is another's.
        pub misplaced: u64,
        /// The first bad verdict, for the report: random number, generation of the table, both words.
        pub sample: [u64; 4],
    }
}

/// What a question is about, drawn from a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Number of the subject.
    pub subject: u32,
    /// Number of the peer: an identity below [`MEMBERS`], an address from there on.
    pub peer: u32,
    /// Index of the port.
    pub port: u32,
    /// 1 for ingress.
    pub ingress: u32,
    /// Number of a binding.
    pub binding: u32,
    /// Number of a prefix.
    pub prefix: u32,
}

impl Draw {
    /// Takes a random number apart.
    #[inline(always)]
    pub const fn new(random: u64) -> Self {
        Self {
            subject: (random >> 8) as u32 & (MEMBERS - 1),
            peer: (random >> 16) as u32 & (2 * MEMBERS - 1),
            port: (random >> 24) as u32 & 1,
            ingress: (random >> 25) as u32 & 1,
            binding: (random >> 32) as u32 & (KEYS - 1),
            prefix: (random >> 44) as u32 & (KEYS - 1),
        }
    }
}

/// The next random number (xorshift, period 2^64 - 1).
#[inline(always)]
pub const fn next(random: u64) -> u64 {
    let mut x = random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^ (x << 17)
}

/// Class of a subject or of a peer in a generation.
pub const fn class(generation: u64, number: u32) -> u32 {
    let turned = (number % MEMBERS + generation as u32) % MEMBERS;
    1 + turned + number / MEMBERS * MEMBERS
}

/// Class of a port, given by its index.
pub const fn port_class(generation: u64, port: u32) -> u16 {
    1 + ((port as u64 + generation) & 1) as u16
}

/// The word of a question in a generation. Each generation turns what is allowed and denied round.
#[inline(always)]
pub const fn word(generation: u64, draw: &Draw, hypothetical: bool) -> Word {
    let rule = ((generation & 0xffff) << 16) as u32
        | draw.subject << 10
        | draw.peer << 4
        | draw.port << 2
        | draw.ingress << 1
        | hypothetical as u32;
    if (generation as u32 ^ draw.subject ^ draw.peer ^ draw.port) & 1 == 0 {
        Word::allow(Tier::Allow, Reason::AllowedByRule, RuleId(rule))
    } else {
        Word::deny(Tier::Deny, Errno::Access, Reason::DeniedByRule, RuleId(rule))
    }
}

/// An identity that the binding or prefix with this number may have, in one of its versions.
#[inline(always)]
pub const fn identity(number: u32, version: u32) -> u32 {
    0x1000_0000 | number << 16 | version & 0xffff
}

/// Whether an identity is one of those that [`identity`] gives this number.
#[inline(always)]
pub const fn is_of(identity: u32, number: u32) -> bool {
    identity >> 16 == 0x1000 | number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws() -> impl Iterator<Item = Draw> {
        (0..MEMBERS).flat_map(|subject| {
            (0..2 * MEMBERS).flat_map(move |peer| {
                (0..4).map(move |n| Draw {
                    subject,
                    peer,
                    port: n & 1,
                    ingress: n >> 1,
                    binding: 0,
                    prefix: 0,
                })
            })
        })
    }

    #[test]
    fn every_key_of_every_generation_has_a_word_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for generation in 1..20 {
            for draw in draws() {
                for hypothetical in [false, true] {
                    assert!(seen.insert(word(generation, &draw, hypothetical)), "{generation} {draw:?}");
                }
                let next = word(generation + 1, &draw, false);
                assert_ne!(word(generation, &draw, false).is_deny(), next.is_deny());
            }
        }
    }

    #[test]
    fn classes_differ_between_generations_and_never_within() {
        for generation in 0..40 {
            let classes: std::collections::BTreeSet<_> =
                (0..2 * MEMBERS).map(|number| class(generation, number)).collect();
            assert_eq!(classes, (1..=2 * MEMBERS).collect());
            assert!((0..2 * MEMBERS).all(|n| class(generation, n) != class(generation + 1, n)));
            assert_ne!(port_class(generation, 0), port_class(generation, 1));
        }
    }

    #[test]
    fn identities_carry_their_number() {
        for number in 0..KEYS {
            assert!(is_of(identity(number, 0), number) && is_of(identity(number, 0x1_ffff), number));
            assert!(!is_of(identity((number + 1) % KEYS, 7), number));
        }
    }
}
