//! Streams of flows: what is remembered, what happens, what is lost, and the end.

use std::sync::Arc;
use std::time::Duration;

use super::super::client::Record;
use super::{World, flow};
use crate::domain::flow_filter::FlowFilter;

fn port(record: Option<Record>) -> u16 {
    match record {
        Some(Record::Flow(flow)) => flow.l4.destination_port,
        other => panic!("no flow: {other:?}"),
    }
}

#[tokio::test]
async fn the_last_flows_and_then_the_end() {
    let remembered = vec![flow(1, "DROPPED"), flow(2, "FORWARDED"), flow(3, "DROPPED"), flow(4, "FORWARDED")];
    let world = World::remembering(remembered);
    let mut flows = world.client().flows(2, false, &FlowFilter::default()).await.unwrap();
    assert_eq!((port(flows.next().await.unwrap()), port(flows.next().await.unwrap())), (3, 4));
    assert_eq!(flows.next().await.unwrap(), None);
    let mut filter = FlowFilter::default();
    assert_eq!(filter.add("verdict", "DROPPED"), Ok(true));
    let mut flows = world.client().flows(2, false, &filter).await.unwrap();
    assert_eq!((port(flows.next().await.unwrap()), port(flows.next().await.unwrap())), (1, 3));
    assert_eq!(flows.next().await.unwrap(), None);
    let answer = world.get("/v1/flows?last=1").await;
    assert!(answer.contains("content-type: application/x-ndjson"), "{answer}");
}

#[tokio::test]
async fn following_tells_each_flow_once_until_the_server_ends() {
    let remembered = vec![flow(1, "DROPPED"), flow(2, "DROPPED")];
    let mut world = World::remembering(remembered.clone());
    let mut flows = world.client().flows(10, true, &FlowFilter::default()).await.unwrap();
    assert_eq!(port(flows.next().await.unwrap()), 1);
    assert_eq!(port(flows.next().await.unwrap()), 2);
    // What fell between subscribing and looking back arrives on both ways.
    world.live.send(Arc::clone(&remembered[1])).unwrap();
    world.live.send(flow(3, "DROPPED")).unwrap();
    assert_eq!(port(flows.next().await.unwrap()), 3);
    world.stop.take().unwrap().send(()).unwrap();
    assert_eq!(flows.next().await.unwrap(), None, "the stream ends whole");
    world.server.await.unwrap().unwrap();
    assert!(matches!(world.backend.live.receiver_count(), 0), "nothing keeps listening");
}

/// Far more than all buffers on the way hold.
const SENT: u16 = 4000;

#[tokio::test]
async fn a_slow_reader_is_told_what_it_lost() {
    let world = World::new();
    let mut flows = world.client().flows(0, true, &FlowFilter::default()).await.unwrap();
    for number in 0..SENT {
        world.live.send(flow(number, "DROPPED")).unwrap();
        if number % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    world.live.send(flow(u16::MAX, "FORWARDED")).unwrap();
    let (mut got, mut lost) = (0, 0);
    loop {
        match flows.next().await.unwrap().unwrap() {
            Record::Lost(number) => lost += number,
            Record::Flow(flow) if flow.l4.destination_port == u16::MAX => break,
            Record::Flow(_) => got += 1,
        }
    }
    assert!(lost > 0, "the test sent too little to overflow");
    assert_eq!(got + lost, u64::from(SENT), "seen and lost add up");
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_place() {
    let world = World::new();
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(world.client().flows(0, true, &FlowFilter::default()).await.unwrap());
    }
    let error = world.client().flows(0, true, &FlowFilter::default()).await.unwrap_err();
    assert!(error.to_string().contains("32 streams of flows are open"), "{error}");
    assert_eq!(world.client().status().await.unwrap().state, "enforcing", "streams don't lock others out");
    drop(open);
    for _ in 0..200 {
        if world.live.receiver_count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(world.client().flows(0, true, &FlowFilter::default()).await.is_ok());
}
