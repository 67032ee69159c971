//! Telemetry: what happened, in words and in numbers. No arrow leads back: nothing here changes what is enforced.
//!
//! ```text
//!   event ring --> pipeline: the last few thousand <-- readers, each at its own pace (numbers become words)
//!   per-CPU counters --> metrics, at the moment of the scrape
//!                   \--> audit log and flow history, every few seconds, each in a thread of its own
//! ```
//!
//! Invariants:
//! * Counters are exact, events are the story. A lost event never changes a counter.
//! * The reader of the ring never waits for anyone: a reader that is too slow loses flows and is told how many.
//! * What nobody reads is not put into words.
//! * What was read adds up: `enforcer_events_read_total` = flows told + undecodable events, and what the ring had no
//!   room for is counted in the kernel.

pub mod audit;
mod edges;
pub mod history;
pub mod log;
pub mod metrics;
mod names;
mod pipeline;
mod words;

#[cfg(test)]
mod tests;

pub use edges::edges;
pub use pipeline::{HISTORY, Pipeline, ReadCounts};
