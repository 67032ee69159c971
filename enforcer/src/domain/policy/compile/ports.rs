//! Port classes: ports that the same lists of ports name share a class, across protocols too.

use std::collections::BTreeMap;

use enforcer_common::limits::PORT_CLASSES;

use super::ANY_PORT;
use super::intervals::cut;
use crate::domain::policy::model::{Policy, PortMatch, Ports};
use crate::domain::table::{CompileError, ProtocolPorts};

/// A list of ports in one form: protocol, first, last; ordered, without repetitions.
type List = Vec<(u8, u16, u16)>;

/// Port classes of all rules.
#[derive(Debug)]
pub(super) struct PortClasses {
    protocols: BTreeMap<u8, ProtocolPorts>,
    lists: BTreeMap<List, Vec<u16>>,
}

impl PortClasses {
    pub(super) fn new(policies: &[&Policy]) -> Result<Self, CompileError> {
        let rules = policies.iter().flat_map(|policy| policy.sections()).flat_map(|(_, rules)| rules);
        let mut lists: BTreeMap<List, Vec<u16>> = rules
            .filter_map(|rule| match &rule.ports {
                Ports::All => None,
                Ports::AnyOf(ranges) => Some((list(ranges), Vec::new())),
            })
            .collect();
        let mut ranges: BTreeMap<u8, Vec<_>> = BTreeMap::new();
        for (list, set) in lists.keys().zip(0..) {
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
        let mut of_list: Vec<Vec<u16>> = vec![Vec::new(); lists.len()];
        for (members, number) in &numbers {
            for member in members {
                of_list[*member as usize].push(u16::try_from(*number).unwrap_or(u16::MAX));
            }
        }
        for (classes, mut found) in lists.values_mut().zip(of_list) {
            found.sort_unstable();
            *classes = found;
        }
        Ok(Self { protocols, lists })
    }

    /// Classes of the ports of a rule; none for an empty list.
    pub(super) fn of(&self, ports: &Ports) -> Vec<u16> {
        match ports {
            Ports::All => ANY_PORT.to_vec(),
            Ports::AnyOf(ranges) => self.lists.get(&list(ranges)).cloned().unwrap_or_default(),
        }
    }

    pub(super) fn into_protocols(self) -> BTreeMap<u8, ProtocolPorts> {
        self.protocols
    }
}

fn list(items: &[PortMatch]) -> List {
    let ranges = items.iter().filter_map(|item| match item {
        PortMatch::Range(range) => Some((range.protocol, range.first, range.last)),
        PortMatch::Named { .. } => None,
    });
    let mut list: List = ranges.collect();
    list.sort_unstable();
    list.dedup();
    list
}
