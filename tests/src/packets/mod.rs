//! Packets for the parser of the packet hooks, and what another parser reads in them.

pub mod forge;
pub mod reference;

#[cfg(test)]
mod properties;
