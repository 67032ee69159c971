//! Every entry of a table is found where the kernel looks, nothing else is, and the sections lie where they should.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use enforcer_common::abi::policy::{
    H_ADDRESSES, H_BUCKETS, H_IDENTITIES, H_SEED, PORT_ROWS, Plane, Row, buckets, key,
};
use enforcer_common::address::Address;
use enforcer_common::id::{Generation, IdentityId, RuleId};
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Direction, Query, Tier, Word};
use proptest::prelude::*;

use super::*;

fn word(rule: u32) -> Word {
    Word::allow(Tier::Allow, Reason::AllowedByRule, RuleId(rule))
}

fn sections() -> Sections {
    Sections {
        generation: Generation(7),
        hypothetical: false,
        sockets: false,
        default: Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE),
        protocols: BTreeMap::new(),
        identities: vec![0, 1, 2],
        entries: Vec::new(),
        addresses: Vec::new(),
    }
}

/// What a reader finds for a key, and in which of its buckets.
fn find(table: &PolicyTable, key: u64) -> Option<Word> {
    let header = &table.rows()[0].words;
    let section = header[H_BUCKETS];
    let (first, second) = buckets(key, header[H_SEED], u32::try_from(section >> 32).unwrap());
    let base = usize::try_from(section & 0xffff_ffff).unwrap();
    [first, second].into_iter().find_map(|bucket| {
        let Row { words } = table.rows()[base + bucket as usize];
        words.chunks(2).find(|slot| slot[0] == key).map(|slot| Word(slot[1]))
    })
}

fn load(table: &PolicyTable) -> f64 {
    let buckets = u32::try_from(table.rows()[0].words[H_BUCKETS] >> 32).unwrap() + 1;
    f64::from(u32::try_from(table.entries()).unwrap()) / f64::from(buckets * 4)
}

proptest! {
    #[test]
    fn every_entry_is_found_and_nothing_else(
        keys in prop::collection::btree_set((any::<bool>(), 1_u32..40, 0_u32..40, 0_u32..6), 0..600),
        others in prop::collection::vec((any::<bool>(), 1_u32..40, 0_u32..40, 0_u32..6), 100),
    ) {
        let pack = |(ingress, subject, peer, port): (bool, u32, u32, u32)| {
            key(Plane::Enforced, ingress, subject, peer, port)
        };
        let keys: BTreeSet<u64> = keys.into_iter().map(pack).collect();
        let entries: Vec<_> = keys.iter().copied().zip((1..).map(word)).collect();
        let table = PolicyTable::build(&Sections { entries: entries.clone(), ..sections() }).unwrap();
        for (key, word) in entries {
            prop_assert_eq!(find(&table, key), Some(word));
        }
        for other in others.into_iter().map(pack).filter(|other| !keys.contains(other)) {
            prop_assert_eq!(find(&table, other), None);
        }
        prop_assert!(load(&table) <= 0.7);
    }
}

#[test]
fn a_hundred_thousand_entries() {
    let mut random = 1_u64;
    let mut keys = BTreeSet::new();
    while keys.len() < 100_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        keys.insert((random >> 8) | (1 << 63));
    }
    let entries: Vec<_> = keys.into_iter().zip((1..).map(word)).collect();
    let sections = Sections { entries, ..sections() };
    let start = Instant::now();
    let table = PolicyTable::build(&sections).unwrap();
    println!("100,000 entries: {:?}, {} rows, load {:.2}", start.elapsed(), table.rows().len(), load(&table));
    for (key, word) in &sections.entries {
        assert_eq!(find(&table, *key), Some(*word));
    }
    assert_eq!(table, PolicyTable::build(&sections).unwrap());
}

#[test]
fn sections_follow_each_other_and_addresses_are_last() {
    for count in 0..8_u64 {
        let addresses: Vec<_> = (0..count).map(|low| (Address { high: 0, low: low * 10 }, 5)).collect();
        let protocols = BTreeMap::from([
            (6, ProtocolPorts::Ranges(vec![(80, 80, 1)])),
            (17, ProtocolPorts::Whole(2)),
            (132, ProtocolPorts::Ranges(vec![(0, 0, 3), (u16::MAX, u16::MAX, 4)])),
        ]);
        let table =
            PolicyTable::build(&Sections { addresses, protocols, identities: vec![1; 257], ..sections() })
                .unwrap();
        let part = |word: usize| {
            let section = table.rows()[0].words[word];
            (section & 0xffff_ffff, section >> 32)
        };
        let identities = 18 + 2 * u64::from(PORT_ROWS);
        assert_eq!(part(H_IDENTITIES), (identities, 257));
        assert_eq!(part(H_BUCKETS), (identities + 17, 0));
        assert_eq!(part(H_ADDRESSES), (identities + 18, count.div_ceil(3)));
        assert_eq!(table.rows().len() as u64, identities + 18 + count.div_ceil(3));
    }
}

#[test]
fn classes_are_read_back_by_decide() {
    let subject = 1;
    // One rule per port class and one per address class; rule number = class.
    let entry = |peer, port, rule| (key(Plane::Enforced, true, subject, peer, port), word(rule));
    let mut entries: Vec<_> = (1..=4).map(|class| entry(0, class, class)).collect();
    entries.extend((5..=12).map(|class| entry(class, 0, class)));
    let starts = [0_u64, 10, 11, 20, 30, 31, 40];
    let table = PolicyTable::build(&Sections {
        protocols: BTreeMap::from([
            (6, ProtocolPorts::Ranges(vec![(80, 81, 1), (443, 443, 2)])),
            (17, ProtocolPorts::Whole(3)),
            (255, ProtocolPorts::Ranges(vec![(0, 0, 4), (u16::MAX, u16::MAX, 4)])),
        ]),
        addresses: starts.iter().map(|low| Address { high: 1, low: *low }).zip(5..).collect(),
        identities: vec![0, subject],
        entries,
        ..sections()
    })
    .unwrap();
    let rule = |protocol, port, high, low| {
        let query = Query {
            subject: IdentityId::HOST,
            peer: IdentityId::UNKNOWN,
            address: Address { high, low },
            port,
            protocol,
            direction: Direction::Ingress,
        };
        table.decide(&query).enforced.rule().0
    };
    for (protocol, port, expect) in [
        (6, 79, 0),
        (6, 80, 1),
        (6, 81, 1),
        (6, 82, 0),
        (6, 443, 2),
        (17, 0, 3),
        (17, u16::MAX, 3),
        (16, 80, 0),
        (18, 80, 0),
        (255, 0, 4),
        (255, 1, 0),
        (255, u16::MAX, 4),
    ] {
        assert_eq!(rule(protocol, port, 0, 0), expect, "{protocol} {port}");
    }
    for (high, low, expect) in
        [(0, u64::MAX, 0), (1, 0, 5), (1, 9, 5), (1, 10, 6), (1, 11, 7), (1, 19, 7), (1, 20, 8), (1, 30, 9)]
    {
        assert_eq!(rule(1, 0, high, low), expect, "{high}:{low}");
    }
    for (high, low, expect) in [(1, 39, 10), (1, 40, 11), (2, 0, 11), (u64::MAX, u64::MAX, 11)] {
        assert_eq!(rule(1, 0, high, low), expect, "{high}:{low}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let check = |sections: Sections, expect: &str| {
        assert_eq!(PolicyTable::build(&sections).unwrap_err().to_string(), expect);
    };
    check(
        Sections { addresses: vec![(Address::LOOPBACK_V6, 1); (3 << 20) + 1], ..sections() },
        "the loaded policies and workloads need 1048577 rows of address intervals, but a policy table holds at \
         most 1048576",
    );
    check(
        Sections { identities: vec![1; 1 << 26], ..sections() },
        "the loaded policies and workloads need 4194323 rows, but a policy table holds at most 4194304",
    );
}

#[test]
fn who_comes_later_is_known_where_there_is_room_and_nowhere_else() {
    for known in [3_usize, 15, 16, 17] {
        let identities: Vec<u32> = (0..).take(known).collect();
        let sections = Sections { identities, ..sections() };
        let made = PolicyTable::build_with_spare(&sections, 20).unwrap();
        let without = PolicyTable::build(&sections).unwrap();
        let id = |number: usize| IdentityId(u32::try_from(number).unwrap());
        let mut table = made.clone();
        for number in known..known + 20 {
            assert_eq!(table.class_of_identity(id(number)), 0);
            table = table.place(id(number), 2).unwrap();
            assert_eq!(table.class_of_identity(id(number)), 2);
            assert_eq!(table.place(id(number), 1), None, "known by now");
            assert_eq!(without.place(id(number), 2), None, "without room");
        }
        assert_eq!(table.place(id(known + 20), 2), None, "beyond");
        assert_eq!(table.place(id(1), 2), None, "known from the start");
        for number in 0..known {
            assert_eq!(table.class_of_identity(id(number)), made.class_of_identity(id(number)));
        }
        // Only rows of classes differ, and each that differs is told.
        let told: BTreeSet<u32> =
            (known..known + 20).map(|number| table.identity_row(id(number)).unwrap().0).collect();
        let rows = u32::try_from(made.rows().len()).unwrap();
        let differ = (0..rows).filter(|row| table.row(*row) != made.row(*row));
        assert_eq!(differ.collect::<BTreeSet<u32>>(), told);
        assert_eq!(table.row(rows), None);
        assert_eq!(made.rows(), table.rows(), "as it was made");
    }
}
