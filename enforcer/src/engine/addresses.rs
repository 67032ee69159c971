//! Who has which address in the kernel's tables, for questions.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::domain::delta::Tables;
use crate::domain::id::IdentityId;

/// Who has which address, as the kernel finds it.
pub(super) struct Addresses<'a> {
    tables: &'a Tables,
    /// Prefix lengths, longest first: of IPv4, and of IPv6.
    lengths: [Vec<u8>; 2],
}

impl<'a> Addresses<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        let mut lengths = [vec![false; 33], vec![false; 129]];
        for net in tables.addresses.keys() {
            lengths[usize::from(matches!(net, IpNet::V6(_)))][usize::from(net.prefix_len())] = true;
        }
        let longest_first = |there: Vec<bool>| {
            let lengths = (0_u8..=128).zip(there).filter(|(_, there)| *there).map(|(length, _)| length);
            lengths.rev().collect()
        };
        Self { tables, lengths: lengths.map(longest_first) }
    }

    pub(super) fn has(&self, address: IpAddr) -> IdentityId {
        let address = address.to_canonical();
        if self.tables.own.contains(&address) {
            return IdentityId::HOST;
        }
        self.block(address).map_or(IdentityId::WORLD, |(_, identity)| identity)
    }

    /// The narrowest block that has an address, and who that is.
    pub(super) fn block(&self, address: IpAddr) -> Option<(IpNet, IdentityId)> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        let mut nets = lengths.iter().filter_map(|length| Some(IpNet::new(address, *length).ok()?.trunc()));
        nets.find_map(|net| Some((net, *self.tables.addresses.get(&net)?)))
    }
}
