//! Reading the counters through handles of one's own, so that neither the owner nor a scrape waits for it.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuHashMap};
use enforcer_common::abi::flow::{FlowCount, FlowKey, Traffic, TrafficKey};

use super::error::Error;

/// The maps `COUNTERS` and `TRAFFIC`.
pub struct Counters {
    verdicts: PerCpuHashMap<MapData, FlowKey, FlowCount>,
    traffic: PerCpuHashMap<MapData, TrafficKey, Traffic>,
    /// Numbers of the maps.
    ids: (u32, u32),
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").field("ids", &self.ids).finish_non_exhaustive()
    }
}

impl Counters {
    /// By the pins of a kernel room that has started. The handles stay good when the pins are removed.
    ///
    /// # Errors
    /// If a pin can't be opened.
    pub fn new(pins: &Path) -> Result<Self, Error> {
        let open = |name: &'static str| -> Result<(Map, u32), Error> {
            let data = MapData::from_pin(pins.join(name)).map_err(Error::map("open the pin of", name))?;
            let id = data.info().map_err(Error::map("ask for the number of", name))?.id();
            Ok((Map::PerCpuHashMap(data), id))
        };
        let (verdicts, verdicts_id) = open("COUNTERS")?;
        let (traffic, traffic_id) = open("TRAFFIC")?;
        Ok(Self {
            verdicts: verdicts.try_into().map_err(Error::map("open", "COUNTERS"))?,
            traffic: traffic.try_into().map_err(Error::map("open", "TRAFFIC"))?,
            ids: (verdicts_id, traffic_id),
        })
    }

    /// Number of the map of verdicts, unique while the host is up.
    pub fn verdicts_id(&self) -> u32 {
        self.ids.0
    }

    /// Number of the map of traffic, unique while the host is up.
    pub fn traffic_id(&self) -> u32 {
        self.ids.1
    }

    /// All verdicts, summed over the CPUs.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn verdicts(&self) -> Result<Vec<(FlowKey, u64)>, Error> {
        let rows = self.verdicts.iter().map(|entry| {
            let (key, per_cpu) = entry.map_err(Error::map("read", "COUNTERS"))?;
            Ok((key, per_cpu.iter().map(|count| count.verdicts).sum()))
        });
        rows.collect()
    }

    /// What all flows carried, summed over the CPUs.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn traffic(&self) -> Result<Vec<(TrafficKey, Traffic)>, Error> {
        let rows = self.traffic.iter().map(|entry| {
            let (key, per_cpu) = entry.map_err(Error::map("read", "TRAFFIC"))?;
            let mut sum = Traffic::NONE;
            per_cpu.iter().for_each(|one| sum.add(one));
            Ok((key, sum))
        });
        rows.collect()
    }
}
