//! Address classes: addresses inside the same blocks share a class.

use std::collections::BTreeMap;

use enforcer_common::address::Address;
use enforcer_common::limits::PEER_CLASSES;
use ipnet::IpNet;

use super::intervals::{Range, cut, without};
use super::lower::BlockId;
use crate::domain::table::CompileError;

/// The IPv4-mapped addresses, `::ffff:0:0/96`: the canonical form of IPv4.
const MAPPED: Range = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// A block as rules write it.
pub(super) type Block = (IpNet, Vec<IpNet>);

/// Address classes of all rules.
#[derive(Debug)]
pub(super) struct AddressClasses {
    intervals: Vec<(Address, u32)>,
    of_block: Vec<Vec<u32>>,
}

impl AddressClasses {
    /// Numbers classes from `next` on, because they share one number space with the classes of identities.
    pub(super) fn new(blocks: &BTreeMap<Block, BlockId>, next: u32) -> Result<Self, CompileError> {
        if blocks.is_empty() {
            return Ok(Self { intervals: Vec::new(), of_block: Vec::new() });
        }
        let ranges = blocks
            .keys()
            .zip(0..)
            .flat_map(|((net, except), set)| ranges(*net, except).into_iter().map(move |range| (set, range)));
        let cuts = cut(ranges, "overlaps of address blocks")?;
        let mut numbers: BTreeMap<Vec<u32>, u32> = BTreeMap::from([(Vec::new(), 0)]);
        let mut intervals = Vec::with_capacity(cuts.len());
        let mut of_set: Vec<Vec<u32>> = vec![Vec::new(); blocks.len()];
        let mut new = next;
        for (start, members) in cuts {
            let number = if let Some(number) = numbers.get(&members) {
                *number
            } else {
                CompileError::check("peer classes", new.into(), PEER_CLASSES.into())?;
                for member in &members {
                    of_set[*member as usize].push(new);
                }
                numbers.insert(members, new);
                new += 1;
                new - 1
            };
            intervals.push((Address::v6(start.to_be_bytes()), number));
        }
        let mut of_block = vec![Vec::new(); blocks.len()];
        for (id, found) in blocks.values().zip(of_set) {
            of_block[id.0] = found;
        }
        Ok(Self { intervals, of_block })
    }

    /// Classes inside a block.
    pub(super) fn of(&self, block: BlockId) -> &[u32] {
        self.of_block.get(block.0).map_or(&[], Vec::as_slice)
    }

    /// Class of one address, 0 if no block has it.
    pub(super) fn class(&self, address: Address) -> u32 {
        let behind = self.intervals.partition_point(|(start, _)| *start <= address);
        behind.checked_sub(1).map_or(0, |index| self.intervals[index].1)
    }

    pub(super) fn into_intervals(self) -> Vec<(Address, u32)> {
        self.intervals
    }
}

/// Whether a block contains an address.
pub(in crate::domain::policy) fn is_inside(address: Address, net: IpNet, except: &[IpNet]) -> bool {
    let number = u128::from_be_bytes(address.bytes());
    ranges(net, except).iter().any(|(first, last)| (*first..=*last).contains(&number))
}

/// The canonical numbers of a block.
fn ranges(net: IpNet, except: &[IpNet]) -> Vec<Range> {
    let mut ranges = whole(net);
    for hole in except.iter().flat_map(|except| whole(*except)) {
        ranges = without(&ranges, hole);
    }
    ranges
}

/// A net without exceptions. `::/0` does not mean IPv4, although the canonical form of IPv4 lies inside: a net that
/// is wider than the mapped block leaves that out. A net within the mapped block means the IPv4 net it maps.
fn whole(net: IpNet) -> Vec<Range> {
    match net {
        IpNet::V4(net) => {
            let canonical = |address: std::net::Ipv4Addr| u128::from(address.to_ipv6_mapped());
            vec![(canonical(net.network()), canonical(net.broadcast()))]
        }
        IpNet::V6(net) => {
            let range = (u128::from(net.network()), u128::from(net.broadcast()));
            if range.0 >= MAPPED.0 && range.1 <= MAPPED.1 { vec![range] } else { without(&[range], MAPPED) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(net: &str, except: &[&str], expect: &[Range]) {
        let except: Vec<IpNet> = except.iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(ranges(net.parse().unwrap(), &except), expect, "{net} except {except:?}");
    }

    #[test]
    fn blocks_as_numbers() {
        let (first, last) = MAPPED;
        check("0.0.0.0/0", &[], &[MAPPED]);
        check("10.1.2.3/32", &[], &[(first | 0x0a01_0203, first | 0x0a01_0203)]);
        // Host bits do not count.
        check("10.1.2.3/8", &[], &[(first | 0x0a00_0000, first | 0x0aff_ffff)]);
        check("10.0.0.0/8", &["10.0.0.0/9"], &[(first | 0x0a80_0000, first | 0x0aff_ffff)]);
        check("10.0.0.0/8", &["0.0.0.0/0"], &[]);
        check("10.0.0.0/8", &["11.0.0.0/8", "::/0"], &[(first | 0x0a00_0000, first | 0x0aff_ffff)]);
        check("::/0", &[], &[(0, first - 1), (last + 1, u128::MAX)]);
        check("::/0", &["8000::/1"], &[(0, first - 1), (last + 1, u128::MAX >> 1)]);
        check("::ffff:10.0.0.0/104", &[], &[(first | 0x0a00_0000, first | 0x0aff_ffff)]);
        check("::ffff:0:0/96", &["10.0.0.0/8"], &[(first, first | 0x09ff_ffff), (first | 0x0b00_0000, last)]);
        check("ffff::/16", &[], &[(0xffff << 112, u128::MAX)]);
    }
}
