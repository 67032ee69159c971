//! Typed access to the maps. Every map is named here once.

use std::net::{IpAddr, Ipv6Addr};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap};
use enforcer_common::abi::config::{Setting, Stat};
use enforcer_common::abi::flow::{FlowCount, FlowKey, Latency, Traffic, TrafficKey};
use enforcer_common::abi::identity::{AddressEntry, Binding};
use enforcer_common::abi::policy::{H_NEXT, H_UNTIL, Row};
use enforcer_common::address::Address;
use enforcer_common::id::{CgroupId, Generation, IdentityId};
use enforcer_common::limits;
use ipnet::IpNet;

use super::error::Error;
use super::{generation_of, own};
use crate::domain::delta::{Bound, Operation, Tables};
use crate::domain::table::PolicyTable;
use crate::domain::time::BootTime;

/// Every pinned map, by its name in the object, which is also the name of its pin.
pub(super) const NAMES: &[&str] = &[
    "TABLES",
    "CONFIG",
    "BINDINGS",
    "ADDRESSES",
    "OWN_ADDRESSES",
    "SOCKETS",
    "FLOWS",
    "COUNTERS",
    "TRAFFIC",
    "LATENCY",
    "QUOTAS",
    "STATS",
    "EVENTS",
];

/// `BPF_F_INNER_MAP`: tables of different lengths fit one slot.
const INNER_MAP: u32 = 1 << 12;

pub(super) type Table = Array<MapData, Row>;
type Bindings<'a> = HashMap<&'a mut MapData, u64, Binding>;
type Addresses<'a> = LpmTrie<&'a mut MapData, [u8; 16], AddressEntry>;

macro_rules! open {
    ($name:ident -> $type:ty, $map:literal) => {
        pub(super) fn $name(ebpf: &mut Ebpf) -> Result<$type, Error> {
            let map = ebpf.map_mut($map).ok_or(Error::MissingMap($map))?;
            <$type>::try_from(map).map_err(Error::map("open", $map))
        }
    };
}

open!(tables -> ArrayOfMaps<&mut MapData, Table>, "TABLES");
open!(config -> Array<&mut MapData, u64>, "CONFIG");
open!(bindings -> Bindings<'_>, "BINDINGS");
open!(addresses -> Addresses<'_>, "ADDRESSES");

/// Reads one setting.
pub(super) fn setting(ebpf: &mut Ebpf, setting: Setting) -> Result<u64, Error> {
    config(ebpf)?.get(&(setting as u32), 0).map_err(Error::map("read", "CONFIG"))
}

/// Writes one setting.
pub(super) fn set(ebpf: &mut Ebpf, setting: Setting, value: u64) -> Result<(), Error> {
    config(ebpf)?.set(setting as u32, value, 0).map_err(Error::map("write", "CONFIG"))
}

/// Words of the second row of the table in force: when it ends, and in favour of which slot.
fn end_of_table(ebpf: &mut Ebpf) -> Result<(u64, u64), Error> {
    match tables(ebpf)?.get(&0, 0) {
        Ok(table) => {
            let row = table.get(&1, 0).map_err(Error::map("read the header in", "TABLES"))?;
            Ok((row.words[H_UNTIL], row.words[H_NEXT]))
        }
        Err(MapError::KeyNotFound) => Ok((0, 0)),
        Err(source) => Err(Error::map("read", "TABLES")(source)),
    }
}

/// When the table in force ends, in nanoseconds since boot.
pub(super) fn table_ends(ebpf: &mut Ebpf) -> Result<Option<u64>, Error> {
    Ok(Some(end_of_table(ebpf)?.0).filter(|until| *until != 0))
}

/// The first slot of the bank of successors that the table in force does not lead to.
pub(super) fn free_bank(ebpf: &mut Ebpf) -> Result<u32, Error> {
    let bank = u32::try_from(limits::SUCCESSORS).unwrap_or(u32::MAX);
    let (until, next) = end_of_table(ebpf)?;
    Ok(if until != 0 && (1..=u64::from(bank)).contains(&next) { bank + 1 } else { 1 })
}

/// Makes an inner map of exactly the rows of a table, which ends at a time (nanoseconds since boot) in favour of another slot.
pub(super) fn table(content: &PolicyTable, next: Option<(u64, u32)>) -> Result<Table, Error> {
    let length = u32::try_from(content.rows().len()).unwrap_or(u32::MAX);
    let mut table = Table::create(length, INNER_MAP).map_err(Error::map("make a table for", "TABLES"))?;
    for index in 0..length {
        let Some(mut row) = content.row(index).copied() else { continue };
        if let (1, Some((until, slot))) = (index, next) {
            row.words[H_UNTIL] = until;
            row.words[H_NEXT] = slot.into();
        }
        table.set(index, row, 0).map_err(Error::map("fill a table for", "TABLES"))?;
    }
    Ok(table)
}

/// The generation that is enforced, `None` before the first.
pub(super) fn published_generation(ebpf: &mut Ebpf) -> Result<Option<Generation>, Error> {
    match tables(ebpf)?.get(&0, 0) {
        Ok(table) => {
            let header = table.get(&0, 0).map_err(Error::map("read the header in", "TABLES"))?;
            Ok(Some(generation_of(&header)))
        }
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(Error::map("read", "TABLES")(source)),
    }
}

/// Performs one operation on bindings or addresses.
pub(super) fn apply(ebpf: &mut Ebpf, operation: &Operation) -> Result<(), Error> {
    match operation {
        Operation::Bind(cgroup, Bound { identity, until, after }) => {
            let until = until.map_or(u64::MAX, |until| until.0);
            let binding = Binding::new(cgroup.0, identity.0, until, after.0);
            bindings(ebpf)?.insert(cgroup.0, binding, 0).map_err(full_or("BINDINGS", limits::BINDINGS))
        }
        Operation::Unbind(cgroup) => gone(bindings(ebpf)?.remove(&cgroup.0), "BINDINGS"),
        Operation::SetAddress(net, identity) => {
            let (address, prefix) = canonical(net);
            let entry = AddressEntry { high: address.high, low: address.low, prefix, identity: identity.0 };
            let key = Key::new(prefix, address.bytes());
            addresses(ebpf)?.insert(&key, entry, 0).map_err(full_or("ADDRESSES", limits::ADDRESSES))
        }
        Operation::RemoveAddress(net) => {
            let (address, prefix) = canonical(net);
            gone(addresses(ebpf)?.remove(&Key::new(prefix, address.bytes())), "ADDRESSES")
        }
        Operation::SetOwn(address) => own::set(ebpf, *address),
        Operation::RemoveOwn(address) => own::remove(ebpf, *address),
    }
}

/// Bindings and addresses in force.
pub(super) fn identities(ebpf: &mut Ebpf) -> Result<Tables, Error> {
    let mut found = Tables { own: own::all(ebpf)?, ..Tables::default() };
    for entry in &bindings(ebpf)? {
        let (cgroup, binding) = entry.map_err(Error::map("read", "BINDINGS"))?;
        let until = (binding.until != u64::MAX).then_some(BootTime(binding.until));
        let (identity, after) = (IdentityId(binding.identity), IdentityId(binding.after));
        found.bindings.insert_mut(CgroupId(cgroup), Bound { identity, until, after });
    }
    for entry in &addresses(ebpf)? {
        let (key, entry) = entry.map_err(Error::map("read", "ADDRESSES"))?;
        if let Some(net) = network(key.data(), key.prefix_len()) {
            found.addresses.insert_mut(net, IdentityId(entry.identity));
        }
    }
    Ok(found)
}

/// All flow counters, summed over the CPUs.
pub(super) fn counters(ebpf: &Ebpf) -> Result<Vec<(FlowKey, u64)>, Error> {
    let map = ebpf.map("COUNTERS").ok_or(Error::MissingMap("COUNTERS"))?;
    let map =
        PerCpuHashMap::<_, FlowKey, FlowCount>::try_from(map).map_err(Error::map("open", "COUNTERS"))?;
    let mut counters = Vec::new();
    for entry in &map {
        let (key, per_cpu) = entry.map_err(Error::map("read", "COUNTERS"))?;
        counters.push((key, per_cpu.iter().map(|count| count.verdicts).sum()));
    }
    Ok(counters)
}

/// What all flows carried, summed over the CPUs.
pub(super) fn traffic(ebpf: &Ebpf) -> Result<Vec<(TrafficKey, Traffic)>, Error> {
    let map = ebpf.map("TRAFFIC").ok_or(Error::MissingMap("TRAFFIC"))?;
    let map =
        PerCpuHashMap::<_, TrafficKey, Traffic>::try_from(map).map_err(Error::map("open", "TRAFFIC"))?;
    let mut rows = Vec::new();
    for entry in &map {
        let (key, per_cpu) = entry.map_err(Error::map("read", "TRAFFIC"))?;
        let mut sum = Traffic::NONE;
        per_cpu.iter().for_each(|one| sum.add(one));
        rows.push((key, sum));
    }
    Ok(rows)
}

/// How long things took, summed over the CPUs.
pub(super) fn latency(ebpf: &Ebpf) -> Result<Vec<(TrafficKey, Latency)>, Error> {
    let map = ebpf.map("LATENCY").ok_or(Error::MissingMap("LATENCY"))?;
    let map =
        PerCpuHashMap::<_, TrafficKey, Latency>::try_from(map).map_err(Error::map("open", "LATENCY"))?;
    let mut rows = Vec::new();
    for entry in &map {
        let (key, per_cpu) = entry.map_err(Error::map("read", "LATENCY"))?;
        let mut sum = Latency::NONE;
        per_cpu.iter().for_each(|one| sum.add(one));
        rows.push((key, sum));
    }
    Ok(rows)
}

/// All statistics, summed over the CPUs.
pub(super) fn stats(ebpf: &Ebpf) -> Result<[u64; Stat::COUNT], Error> {
    let map = ebpf.map("STATS").ok_or(Error::MissingMap("STATS"))?;
    let map = PerCpuArray::<_, u64>::try_from(map).map_err(Error::map("open", "STATS"))?;
    let mut sums = [0; Stat::COUNT];
    for (index, sum) in (0_u32..).zip(sums.iter_mut()) {
        *sum = map.get(&index, 0).map_err(Error::map("read", "STATS"))?.iter().sum();
    }
    Ok(sums)
}

/// `E2BIG` is a full hash map's word, `ENOSPC` a full trie's.
pub(super) fn full_or(map: &'static str, capacity: usize) -> impl Fn(MapError) -> Error {
    move |source| match &source {
        MapError::SyscallError(error)
            if matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) =>
        {
            Error::Full { map, capacity }
        }
        _ => Error::map("write", map)(source),
    }
}

/// Removing what is not there is done already.
pub(super) fn gone(result: Result<(), MapError>, map: &'static str) -> Result<(), Error> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(source) => Err(Error::map("remove from", map)(source)),
    }
}

/// The prefix in the form the kernel programs use: IPv4 is the mapped form, 96 bits longer.
fn canonical(net: &IpNet) -> (Address, u32) {
    match net {
        IpNet::V4(net) => (Address::v4(net.network().to_bits()), 96 + u32::from(net.prefix_len())),
        IpNet::V6(net) => (Address::v6(net.network().octets()), u32::from(net.prefix_len())),
    }
}

/// The reverse of [`canonical`].
fn network(bytes: [u8; 16], prefix: u32) -> Option<IpNet> {
    let address = Ipv6Addr::from(bytes);
    let prefix = u8::try_from(prefix).ok()?;
    match address.to_ipv4_mapped() {
        Some(v4) if prefix >= 96 => IpNet::new(IpAddr::V4(v4), prefix - 96).ok(),
        _ => IpNet::new(IpAddr::V6(address), prefix).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_round_trip() {
        for text in
            ["192.0.2.0/24", "198.51.100.7/32", "0.0.0.0/0", "2001:db8::/32", "::/0", "2001:db8::1/128"]
        {
            let net: IpNet = text.parse().unwrap();
            let (address, prefix) = canonical(&net);
            assert_eq!(network(address.bytes(), prefix), Some(net), "{text}");
        }
    }
}
