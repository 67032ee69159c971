//! The event ring: bytes become [`FlowEvent`]s here, with length and version checked.

use std::io;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use enforcer_common::abi;
use enforcer_common::abi::flow::FlowEvent;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::Error;

/// Most events that one call returns, so that the caller gets a turn.
const BATCH: usize = 1024;
/// The ring is looked at this often even without a wake-up: allowed flows do not wake the reader, because a wake-up
/// costs a thousand times what the record does.
const INTERVAL: Duration = Duration::from_millis(50);

/// The reader of the event ring.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Faults that the programs write down in words, a few per kind and CPU. They go to the log.
    faults: EbpfLogger<&'static dyn log::Log>,
    malformed: u64,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("malformed", &self.malformed).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let faults = EbpfLogger::init(ebpf).map_err(|error| Error::Io {
            operation: "open the log of the kernel programs, map",
            path: "AYA_LOGS".into(),
            source: io::Error::other(error),
        })?;
        let map = ebpf.take_map("EVENTS").ok_or(Error::MissingMap("EVENTS"))?;
        let ring = RingBuf::try_from(map).map_err(Error::map("open", "EVENTS"))?;
        // SAFETY: the ring owns its descriptor and never closes or replaces it while it lives, and it lives inside the
        // `AsyncFd` until that is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(|error| {
            Error::Io { operation: "watch the ring of map", path: "EVENTS".into(), source: error.into() }
        })?;
        Ok(Self { ring, faults, malformed: 0 })
    }

    /// Waits for events and appends them, at least one and at most a batch.
    pub async fn next(&mut self, batch: &mut Vec<FlowEvent>) -> io::Result<()> {
        loop {
            if self.drain(batch) > 0 {
                return Ok(());
            }
            // A timeout is as good as a wake-up: both mean "look again".
            if let Ok(ready) = tokio::time::timeout(INTERVAL, self.ring.readable_mut()).await {
                ready?.clear_ready();
            }
        }
    }

    /// Records that were not of this version or size, since the start. They are lost.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    fn drain(&mut self, batch: &mut Vec<FlowEvent>) -> usize {
        self.faults.flush();
        let mut count = 0;
        while count < BATCH
            && let Some(record) = self.ring.get_mut().next()
        {
            match decode(&record) {
                Some(event) => {
                    batch.push(event);
                    count += 1;
                }
                None => self.malformed += 1,
            }
        }
        count
    }
}

/// Copies a record out of the ring; `None` if it is not of this version and size.
pub fn decode(record: &[u8]) -> Option<FlowEvent> {
    if record.len() != size_of::<FlowEvent>() {
        return None;
    }
    // SAFETY: as many bytes as the type has were checked to be there; the type is made of integers, so any bytes are
    // a valid value; the read is unaligned.
    let event = unsafe { std::ptr::read_unaligned(record.as_ptr().cast::<FlowEvent>()) };
    (u32::from(event.version) == abi::VERSION && usize::from(event.size) == record.len()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_this_version_and_size_are_events() {
        let mut record = vec![0_u8; size_of::<FlowEvent>()];
        assert_eq!(decode(&record), None, "version 0");
        record[0] = u8::try_from(abi::VERSION).unwrap();
        assert_eq!(decode(&record), None, "size 0");
        record[2] = u8::try_from(record.len()).unwrap();
        assert!(decode(&record).is_some());
        assert_eq!(decode(&record[1..]), None);
        record.push(0);
        assert_eq!(decode(&record), None);
    }
}
