//! Recorded texts. `ENFORCER_BLESS=1` records them anew; a reviewer reads the difference.

use std::path::Path;

/// The text is the recorded one.
pub(crate) fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    if std::env::var_os("ENFORCER_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, recorded, "{name} is not as recorded; ENFORCER_BLESS=1 records it");
}
