//! From sections to rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::abi::policy::{
    F_HYPOTHETICAL, F_SOCKETS, H_ADDRESSES, H_BUCKETS, H_DEFAULT, H_FLAGS, H_GENERATION, H_IDENTITIES,
    H_MAGIC, H_SEED, HAS_PORTS, MAGIC, PORT_ROWS, PROTOCOL_ROW, PROTOCOL_ROWS, Row,
};
use enforcer_common::address::Address;
use enforcer_common::id::Generation;
use enforcer_common::limits::{ADDRESS_STEPS, TABLE_ROWS};
use enforcer_common::verdict::Word;

use super::spare::Spare;
use super::{CompileError, PolicyTable, cuckoo};

/// Entries of the protocol table and identity classes per row.
const HALVES: usize = 16;
/// Address intervals per row.
const INTERVALS: usize = 3;

/// What a table consists of, before it is laid out.
#[derive(Clone, Debug)]
pub struct Sections {
    /// The generation the table is for.
    pub generation: Generation,
    /// Whether there are entries of the hypothetical plane.
    pub hypothetical: bool,
    /// Whether there are entries about creating sockets.
    pub sockets: bool,
    /// The word for a known subject that no entry speaks of.
    pub default: Word,
    /// Port classes of the protocols that some rule names.
    pub protocols: BTreeMap<u8, ProtocolPorts>,
    /// Class of each identity number, 0 for numbers that stand for nobody.
    pub identities: Vec<u32>,
    /// Entries with distinct keys.
    pub entries: Vec<(u64, Word)>,
    /// Address intervals: start and class, ascending. The last one reaches to the end.
    pub addresses: Vec<(Address, u32)>,
}

/// Port classes of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolPorts {
    /// One class for all ports.
    Whole(u16),
    /// First port, last port and class of disjoint ranges; other ports have class 0.
    Ranges(Vec<(u16, u16, u16)>),
}

impl PolicyTable {
    /// Lays the sections out as rows.
    pub fn build(sections: &Sections) -> Result<Self, CompileError> {
        Self::build_with_spare(sections, 0)
    }

    /// The same with room for so many identities that get their numbers later.
    pub fn build_with_spare(sections: &Sections, spare: usize) -> Result<Self, CompileError> {
        let numbers = sections.identities.len() + spare;
        let buckets = cuckoo::place(&sections.entries)?;
        let address_rows = sections.addresses.len().div_ceil(INTERVALS);
        CompileError::check("rows of address intervals", address_rows as u64, 1 << ADDRESS_STEPS)?;
        let port_tables =
            sections.protocols.values().filter(|ports| matches!(ports, ProtocolPorts::Ranges(_))).count();
        let needed = (PROTOCOL_ROW + PROTOCOL_ROWS) as usize
            + port_tables * PORT_ROWS as usize
            + numbers.div_ceil(HALVES)
            + buckets.rows.len()
            + address_rows;
        // Row numbers below are cast to `u32` on the strength of this check.
        CompileError::check("rows", needed as u64, u64::from(TABLE_ROWS))?;

        let mut rows = vec![Row::ZERO; (PROTOCOL_ROW + PROTOCOL_ROWS) as usize];
        rows.reserve_exact(needed - rows.len());
        for (protocol, ports) in &sections.protocols {
            let entry = match ports {
                ProtocolPorts::Whole(class) => u32::from(*class),
                ProtocolPorts::Ranges(ranges) => HAS_PORTS | push_ports(&mut rows, ranges),
            };
            set_half(&mut rows[PROTOCOL_ROW as usize..], usize::from(*protocol), entry);
        }
        let identities = push_identities(&mut rows, &sections.identities, numbers);
        let bucket_section = section(rows.len(), buckets.rows.len() - 1);
        rows.extend_from_slice(&buckets.rows);
        let addresses = section(rows.len(), address_rows);
        push_addresses(&mut rows, &sections.addresses);

        let header = &mut rows[0].words;
        header[H_MAGIC] = MAGIC;
        header[H_GENERATION] = sections.generation.0;
        header[H_FLAGS] = if sections.hypothetical { F_HYPOTHETICAL } else { 0 }
            | if sections.sockets { F_SOCKETS } else { 0 };
        header[H_BUCKETS] = bucket_section;
        header[H_SEED] = buckets.seed;
        header[H_IDENTITIES] = identities;
        header[H_ADDRESSES] = addresses;
        header[H_DEFAULT] = sections.default.0;
        // Lossless: the number of all rows was checked.
        let first = u32::try_from((identities & 0xffff_ffff) as usize + sections.identities.len() / HALVES);
        let spare =
            Spare::new(&rows, first.unwrap_or(TABLE_ROWS), spare.div_ceil(HALVES) + usize::from(spare > 0));
        let (generation, entries) = (sections.generation, sections.entries.len());
        Ok(Self { generation, rows: Arc::from(rows), spare, entries })
    }
}

/// A section as the header names it: first row in the low half, a number in the high half.
fn section(first_row: usize, number: usize) -> u64 {
    first_row as u64 | ((number as u64) << 32)
}

/// Appends a port table and returns its first row.
fn push_ports(rows: &mut Vec<Row>, ranges: &[(u16, u16, u16)]) -> u32 {
    let start = rows.len();
    rows.resize(start + PORT_ROWS as usize, Row::ZERO);
    for (first, last, class) in ranges {
        for port in usize::from(*first)..=usize::from(*last) {
            rows[start + port / 32].words[(port / 4) % 8] |= u64::from(*class) << ((port % 4) * 16);
        }
    }
    u32::try_from(start).unwrap_or(TABLE_ROWS)
}

fn push_identities(rows: &mut Vec<Row>, classes: &[u32], numbers: usize) -> u64 {
    let start = rows.len();
    rows.resize(start + numbers.div_ceil(HALVES), Row::ZERO);
    for (number, class) in classes.iter().enumerate() {
        set_half(&mut rows[start..], number, *class);
    }
    section(start, numbers)
}

fn push_addresses(rows: &mut Vec<Row>, intervals: &[(Address, u32)]) {
    for chunk in intervals.chunks(INTERVALS) {
        // The search takes the last interval that starts at or before an address, so a short row is filled by
        // repeating its last interval.
        let at = |index: usize| chunk[index.min(chunk.len() - 1)];
        let [(a, class_a), (b, class_b), (c, class_c)] = [at(0), at(1), at(2)];
        let classes = u64::from(class_a) | (u64::from(class_b) << 32);
        rows.push(Row { words: [a.high, a.low, b.high, b.low, c.high, c.low, classes, class_c.into()] });
    }
}

fn set_half(rows: &mut [Row], index: usize, value: u32) {
    rows[index / HALVES].words[(index / 2) % 8] |= u64::from(value) << ((index % 2) * 32);
}
