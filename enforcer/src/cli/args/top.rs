//! `enforcer top`

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::domain::time::parse_duration;

/// `enforcer top`
#[derive(Args, Debug)]
pub struct Top {
    /// Time between two looks, like 1s or 500ms
    #[arg(short, long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// What is on top
    #[arg(short, long, value_name = "COLUMN", default_value = "flows")]
    pub sort: TopOrder,
    /// So many edges
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rows: usize,
    /// Print tables in place of the live view
    #[arg(short, long)]
    pub batch: bool,
    /// End after so many looks [default: 1 with --batch]
    #[arg(short = 'n', long, value_name = "N")]
    pub iterations: Option<u64>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let millis = text.strip_suffix("ms").and_then(|number| number.parse().ok());
    millis.map_or_else(
        || parse_duration(text).ok_or_else(|| "write a number and a unit, like 500ms, 1s or 1m".to_owned()),
        |millis| Ok(Duration::from_millis(millis)),
    )
}

/// What can be on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopOrder {
    /// Flows per second.
    Flows,
    /// Refusals per second.
    Denied,
    /// Bytes per second.
    Bytes,
    /// Open connections.
    Active,
    /// Round-trip time.
    Rtt,
}
