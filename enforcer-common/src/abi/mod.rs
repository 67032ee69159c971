//! Keys and values of every map, and the event record. Integers only: an enum is made of one with `from_code`
//! where it is read, because a map can hold any bits.

pub mod config;
pub mod flow;
pub mod identity;
pub mod policy;
pub mod probe;

pub use crate::wire::Layout;

/// Version of everything in this module. Maps pinned by another version are refused, never guessed.
pub const VERSION: u32 = 3;

/// The layout of every shared struct; the golden test compares it with `golden/abi.txt`.
pub const LAYOUTS: &[Layout] = &[
    flow::FlowKey::LAYOUT,
    flow::FlowCount::LAYOUT,
    flow::TrafficKey::LAYOUT,
    flow::Traffic::LAYOUT,
    flow::Latency::LAYOUT,
    flow::Quota::LAYOUT,
    flow::FlowEvent::LAYOUT,
    identity::Binding::LAYOUT,
    identity::AddressEntry::LAYOUT,
    identity::SocketIdentity::LAYOUT,
    identity::DecidedFlow::LAYOUT,
    identity::FlowRef::LAYOUT,
    policy::Row::LAYOUT,
    probe::Question::LAYOUT,
    probe::Answer::LAYOUT,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// The ABI changes only on purpose: bump [`VERSION`] and bless with `ENFORCER_BLESS=1`.
    #[test]
    fn layout_is_the_recorded_one() {
        let mut found = format!("version {VERSION}\n");
        for layout in LAYOUTS {
            writeln!(found, "{} {}", layout.name, layout.size).unwrap();
            for (field, offset, size) in layout.fields {
                writeln!(found, "  {offset:>4} {size:>4} {field}").unwrap();
            }
        }
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/abi.txt");
        if std::env::var_os("ENFORCER_BLESS").is_some() {
            std::fs::write(golden, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(golden).unwrap());
    }
}
