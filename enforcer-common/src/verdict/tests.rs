//! The order of words, and that every broken table denies.

use super::*;

const ANY: Query = Query {
    subject: IdentityId::HOST,
    peer: IdentityId::UNKNOWN,
    address: Address::LOOPBACK_V4,
    port: 80,
    protocol: 6,
    direction: Direction::Ingress,
};

#[test]
fn a_word_gives_back_what_was_packed() {
    for rule in [RuleId::NONE, RuleId(1), RuleId(0x8000_0001), RuleId(u32::MAX)] {
        for errno in Errno::ALL {
            let word = Word::deny(Tier::Deny, *errno, Reason::DeniedByRule, rule);
            assert!(word.is_deny());
            assert_eq!((word.errno(), word.rule()), (*errno, rule));
            assert_eq!(Reason::from_code(word.reason_code()), Some(Reason::DeniedByRule));
        }
        let word = Word::allow(Tier::Allow, Reason::AllowedByRule, rule);
        assert!(!word.is_deny() && word.rule() == rule);
        assert!(word > Word::NONE);
    }
    assert!(!Word::NONE.is_deny() && Word::NONE.rule() == RuleId::NONE);
}

#[test]
fn the_order_of_words_is_the_precedence() {
    let isolated = |rule, errno| Word::deny(Tier::Isolation, errno, Reason::Isolated, RuleId(rule));
    let denied = |rule, errno| Word::deny(Tier::Deny, errno, Reason::DeniedByRule, RuleId(rule));
    let allowed = |rule| Word::allow(Tier::Allow, Reason::AllowedByRule, RuleId(rule));
    let default = Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE);
    let unmanaged = Word::deny(Tier::Default, Errno::Perm, Reason::Unmanaged, RuleId::NONE);
    for (weaker, stronger) in [
        (default, unmanaged),
        (unmanaged, isolated(9, Errno::Perm)),
        (isolated(1, Errno::Access), allowed(9)),
        (allowed(1), denied(9, Errno::Perm)),
        // The older rule is named, and the errno is its own, however "large" the other's is.
        (denied(2, Errno::Access), denied(1, Errno::Perm)),
        (isolated(2, Errno::Perm), isolated(1, Errno::Access)),
        (allowed(2), allowed(1)),
        // Within a tier a priority outranks the denial, and never leaves the tier.
        (denied(1, Errno::Perm), Word::allow(Tier::Deny, Reason::AllowedByRule, RuleId(9)).with_priority(1)),
        (denied(1, Errno::Perm).with_priority(1), denied(9, Errno::Perm).with_priority(2)),
        (allowed(1).with_priority(u16::MAX), denied(9, Errno::Perm)),
    ] {
        assert!(weaker < stronger, "{weaker:?} {stronger:?}");
        assert_eq!(weaker.max(stronger), stronger.max(weaker));
    }
}

#[test]
fn no_table_and_no_identity_deny_with_their_own_reason() {
    let none: &[Row] = &[];
    assert_eq!(decide(none, &ANY), Verdict::both(NO_TABLES));
    let zero = [Row::ZERO; 4];
    assert_eq!(decide(zero.as_slice(), &ANY), Verdict::both(CORRUPT_TABLES));
    let mut empty = zero;
    empty[0].words[policy::H_MAGIC] = policy::MAGIC;
    assert_eq!(decide(empty.as_slice(), &ANY), Verdict::both(CORRUPT_TABLES), "without a default");
    empty[0].words[policy::H_DEFAULT] = Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE).0;
    assert_eq!(decide(empty.as_slice(), &ANY), Verdict::both(INVALID_IDENTITY));
}

#[test]
fn a_peer_whose_number_the_table_does_not_know_is_denied() {
    let mut rows = [Row::ZERO; 19];
    let allow = Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE);
    rows[0].words[policy::H_MAGIC] = policy::MAGIC;
    rows[0].words[policy::H_DEFAULT] = allow.0;
    // Four identities, in row 18.
    rows[0].words[policy::H_IDENTITIES] = 0x4_0000_0012;
    rows[18].words[0] = 1 << 32;
    assert_eq!(decide(rows.as_slice(), &ANY), Verdict::both(allow));
    for peer in [3, 4, 300, u32::MAX] {
        let query = Query { peer: IdentityId(peer), ..ANY };
        assert_eq!(decide(rows.as_slice(), &query), Verdict::both(INVALID_IDENTITY));
    }
}

#[test]
fn listening_fails_closed_and_has_keys_of_its_own() {
    let none: &[Row] = &[];
    let ask = |rows: &[Row], subject| decide_listen(rows, IdentityId(subject), 6, 80);
    assert_eq!(ask(none, 1), Verdict::both(NO_TABLES));
    // A header, the protocol table, one row of identities (0 is nobody, 1 has class 1), one bucket.
    let mut rows = [Row::ZERO; 20];
    assert_eq!(ask(&rows, 1), Verdict::both(CORRUPT_TABLES));
    rows[0].words[policy::H_MAGIC] = policy::MAGIC;
    assert_eq!(ask(&rows, 1), Verdict::both(CORRUPT_TABLES), "without a default");
    let default = Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE);
    rows[0].words[policy::H_DEFAULT] = default.0;
    rows[0].words[policy::H_IDENTITIES] = 0x2_0000_0012;
    rows[0].words[policy::H_BUCKETS] = 19;
    rows[18].words[0] = 1 << 32;
    for stranger in [0, 2, 300, u32::MAX] {
        assert_eq!(ask(&rows, stranger), Verdict::both(INVALID_IDENTITY), "{stranger}");
    }
    assert_eq!(ask(&rows, 1), Verdict::both(default));
    // A word for every flow in the same direction does not speak of listening, and the other way round.
    let deny = Word::deny(Tier::Isolation, Errno::Access, Reason::Isolated, RuleId(7));
    rows[19].words[..2].copy_from_slice(&[policy::key(Plane::Enforced, true, 1, 0, 0), deny.0]);
    assert_eq!(ask(&rows, 1), Verdict::both(default));
    assert_eq!(decide(rows.as_slice(), &ANY), Verdict::both(deny));
    rows[19].words[0] = policy::key(Plane::Enforced, true, 1, policy::LISTEN, 0);
    assert_eq!(ask(&rows, 1), Verdict::both(deny));
    assert_eq!(decide(rows.as_slice(), &ANY), Verdict::both(default));
    // In audit mode it would be denied.
    rows[0].words[policy::H_FLAGS] = policy::F_HYPOTHETICAL;
    rows[19].words[0] = policy::key(Plane::Hypothetical, true, 1, policy::LISTEN, 0);
    assert_eq!(ask(&rows, 1), Verdict { enforced: default, hypothetical: deny });
}
