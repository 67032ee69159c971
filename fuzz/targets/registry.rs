//! The file of numbers that a restart reads.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use std::path::Path;

use enforcer::domain::labels::LabelSet;
use enforcer::domain::policy::model::{PolicyKey, RuleDirection, RuleKey};
use enforcer::domain::registry::IdentityKey;
use enforcer::store::{decode_registry, encode_registry};
use enforcer_common::id::{IdentityId, RuleId};

fuzz_target!(|data: &[u8]| {
    let path = Path::new("registry.json");
    let registry = match decode_registry(path, data) {
        Ok(registry) => registry,
        Err(error) => return assert!(error.to_string().contains("registry.json"), "{error}"),
    };
    let text = encode_registry(&registry).expect("a registry is JSON");
    assert_eq!(decode_registry(path, &text).expect("that can be read again"), registry);

    // What is new gets a number that nothing had.
    let mut grown = registry.clone();
    let key = IdentityKey::new("not a name", LabelSet::default());
    if !registry.identities().any(|(known, _)| *known == key) {
        let id = grown.identity(&key);
        assert!(id >= IdentityId::FIRST_WORKLOAD && registry.identities().all(|(_, known)| known != id));
    }
    let policy = PolicyKey::traffic("not a name", "");
    let rule = RuleKey { policy, direction: RuleDirection::Ingress, index: None };
    if !registry.rules().any(|(known, _)| *known == rule) {
        let id = grown.rule(&rule);
        assert!(id != RuleId::NONE && registry.rules().all(|(_, known)| known != id));
    }
});
