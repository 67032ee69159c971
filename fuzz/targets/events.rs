//! Records of the event ring: from bytes to what the terminal shows.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use std::sync::Arc;

use enforcer::cli::render::flow::{FlowTable, compact};
use enforcer::domain::canary;
use enforcer::domain::flow::Flow;
use enforcer::domain::flow_filter::FlowFilter;
use enforcer::domain::names::Names;
use enforcer::kernel::decode;
use enforcer::telemetry::Pipeline;
use enforcer_common::abi;
use enforcer_common::abi::flow::FlowEvent;
use tokio::sync::watch;

fuzz_target!(|data: &[u8]| {
    let Some((choice, record)) = data.split_first() else { return };
    let mut record = record.to_vec();
    // Every other record is of the right version and size, so that what comes after is reached.
    if choice & 1 == 1 {
        record.resize(size_of::<FlowEvent>(), 0);
        let version = u16::try_from(abi::VERSION).expect("a small number");
        let size = u16::try_from(record.len()).expect("a small number");
        record[..2].copy_from_slice(&version.to_ne_bytes());
        record[2..4].copy_from_slice(&size.to_ne_bytes());
    }
    let Some(event) = decode(&record) else {
        return assert_eq!(choice & 1, 0, "a record of this version and size is no event");
    };
    let (_names, names) = watch::channel(Arc::new(Names::default()));
    let pipeline = Pipeline::new(names, "node".to_owned());
    pipeline.set_clock_offset(if choice & 2 == 0 { 0 } else { i64::MAX });
    let is_canary = canary::is_one_of(event.subject, event.peer);
    pipeline.record(&[event]);
    let counts = pipeline.counts();
    assert_eq!((counts.read, counts.told + counts.undecodable + counts.canary), (1, 1));
    assert_eq!(counts.canary, u64::from(is_canary));
    let Some(flow) = pipeline.page(0, 1).flows.pop() else { return assert_eq!(counts.told, 0) };
    let text = serde_json::to_string(&flow).expect("a flow is JSON");
    assert_eq!(serde_json::from_str::<Flow>(&text).expect("that can be read again"), flow);
    assert!(FlowFilter::default().matches(&flow));
    for line in [compact(&flow, true, false), FlowTable::new(false).line(&flow, false)] {
        assert!(line.chars().all(|letter| letter == '\n' || !letter.is_control()), "{line:?}");
    }
});
