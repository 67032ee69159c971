//! Port classes: ports that the same lists of ports name share a class, across protocols too.

use std::collections::BTreeMap;

use enforcer_common::limits::PORT_CLASSES;

use super::intervals::cut;
use super::lower::ListId;
use crate::domain::table::{CompileError, ProtocolPorts};

/// A list of ports in one form: protocol, first, last; ordered, without repetitions.
pub(super) type List = Vec<(u8, u16, u16)>;

/// Port classes of all rules.
#[derive(Debug)]
pub(super) struct PortClasses {
    protocols: BTreeMap<u8, ProtocolPorts>,
    of_list: Vec<Vec<u16>>,
}

impl PortClasses {
    pub(super) fn new(lists: &BTreeMap<List, ListId>) -> Result<Self, CompileError> {
        let mut ranges: BTreeMap<u8, Vec<_>> = BTreeMap::new();
        // In the order of the lists, not of the rules that have them: a table does not depend on that.
        for ((list, _), set) in lists.iter().zip(0..) {
            for (protocol, first, last) in list {
                ranges.entry(*protocol).or_default().push((set, (u128::from(*first), u128::from(*last))));
            }
        }
        let mut numbers: BTreeMap<Vec<u32>, u32> = BTreeMap::from([(Vec::new(), 0)]);
        let mut protocols = BTreeMap::new();
        for (protocol, ranges) in ranges {
            let intervals = cut(ranges, "overlaps of port ranges")?;
            let mut classes = Vec::with_capacity(intervals.len());
            for (index, (start, members)) in intervals.iter().enumerate() {
                let next = intervals.get(index + 1).map_or(u128::from(u16::MAX), |(start, _)| *start - 1);
                // The interval behind the last port, if there is one, has no number as a port.
                let (Ok(first), Ok(last)) = (u16::try_from(*start), u16::try_from(next)) else { continue };
                let new = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                let number = *numbers.entry(members.clone()).or_insert(new);
                CompileError::check("port classes", number.into(), PORT_CLASSES.into())?;
                classes.push((first, last, u16::try_from(number).unwrap_or(u16::MAX)));
            }
            let ports = match classes.as_slice() {
                [(0, u16::MAX, class)] => ProtocolPorts::Whole(*class),
                _ => ProtocolPorts::Ranges(classes.into_iter().filter(|(_, _, class)| *class != 0).collect()),
            };
            protocols.insert(protocol, ports);
        }
        let mut of_set: Vec<Vec<u16>> = vec![Vec::new(); lists.len()];
        for (members, number) in &numbers {
            for member in members {
                of_set[*member as usize].push(u16::try_from(*number).unwrap_or(u16::MAX));
            }
        }
        let mut of_list = vec![Vec::new(); lists.len()];
        for (id, mut found) in lists.values().zip(of_set) {
            found.sort_unstable();
            of_list[id.0] = found;
        }
        Ok(Self { protocols, of_list })
    }

    /// Classes of the ports of a list; none for an empty list.
    pub(super) fn of(&self, list: ListId) -> &[u16] {
        self.of_list.get(list.0).map_or(&[], Vec::as_slice)
    }

    /// Class of one port, 0 if no list names it.
    pub(super) fn class(&self, protocol: u8, port: u16) -> u16 {
        match self.protocols.get(&protocol) {
            None => 0,
            Some(ProtocolPorts::Whole(class)) => *class,
            Some(ProtocolPorts::Ranges(ranges)) => {
                let behind = ranges.partition_point(|(first, _, _)| *first <= port);
                let last = behind.checked_sub(1).map(|index| ranges[index]);
                last.filter(|(_, last, _)| port <= *last).map_or(0, |(_, _, class)| class)
            }
        }
    }

    pub(super) fn into_protocols(self) -> BTreeMap<u8, ProtocolPorts> {
        self.protocols
    }
}
