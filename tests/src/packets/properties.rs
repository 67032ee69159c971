//! What must hold of every packet: two parsers that share no line of code read the same in it.

use std::collections::BTreeMap;

use enforcer_common::packet::Fragment;
use proptest::test_runner::TestRunner;

use super::forge::Forge;
use super::reference::{Reading, ours, theirs};
use crate::properties::requested;

type Form = fn(&Reading) -> bool;

/// Forms of packets that must all be met often.
const FORMS: [(&str, Form); 13] = [
    ("IPv4", |reading| reading.source.to_ipv4_mapped().is_some()),
    ("IPv6", |reading| reading.source.to_ipv4_mapped().is_none()),
    ("TCP", |reading| reading.protocol == 6),
    ("UDP", |reading| reading.protocol == 17),
    ("UDP-Lite", |reading| reading.protocol == 136),
    ("SCTP", |reading| reading.protocol == 132),
    ("DCCP", |reading| reading.protocol == 33),
    ("ICMP", |reading| matches!(reading.protocol, 1 | 58)),
    ("options", |reading| reading.options),
    ("routed", |reading| reading.routed),
    ("first fragment", |reading| reading.fragment == Fragment::First),
    ("later fragment", |reading| reading.fragment == Fragment::Later),
    ("a whole packet of IPv6 behind three headers", |reading| {
        reading.source.to_ipv4_mapped().is_none()
            && reading.payload_offset >= 64
            && reading.protocol == 17
            && reading.fragment == Fragment::Whole
    }),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn two_parsers_read_the_same() {
    let packets = requested() * 10;
    let mut forge = Forge(TestRunner::default().new_rng());
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..packets {
        let (packet, family) = forge.packet();
        let (ours, theirs) = (ours(&packet, family), theirs(&packet, family));
        assert_eq!(ours, theirs, "{family:?} packet {}", hex(&packet));
        match ours {
            None => *met.entry("malformed").or_default() += 1,
            Some(reading) => {
                for (name, is) in FORMS {
                    *met.entry(name).or_default() += usize::from(is(&reading));
                }
                *met.entry("too long for the length field").or_default() +=
                    usize::from(reading.length > 0xffff + 40);
            }
        }
    }
    println!("{packets} packets, of which {met:?}");
    if packets >= 1_000_000 {
        for name in FORMS.iter().map(|(name, _)| *name).chain(["malformed"]) {
            assert!(met[name] >= packets / 500, "{name} is hardly met: {met:?}");
        }
        assert!(met["too long for the length field"] > 0);
    }
}

#[test]
fn less_than_all_of_a_packet_is_malformed_and_more_says_nothing() {
    let mut forge = Forge(TestRunner::default().new_rng());
    let mut cut = 0;
    while cut < 200_000 {
        let (mut packet, family) = forge.packet();
        let Some(reading) = ours(&packet, family).filter(|reading| reading.length < 400) else { continue };
        packet.truncate(reading.length);
        assert_eq!(ours(&packet, family), Some(reading), "{family:?} packet {}", hex(&packet));
        for length in 0..packet.len() {
            assert_eq!(ours(&packet[..length], family), None, "{length} bytes of {}", hex(&packet));
            cut += 1;
        }
    }
}
