//! Streams of flows: what is remembered, what happens, what is lost, and the end.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::super::Access;
use super::super::access::Peer;
use super::super::client::Record;
use super::{KEPT, World, flow};
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
    let mut world = World::remembering(remembered);
    let mut flows = world.client().flows(10, true, &FlowFilter::default()).await.unwrap();
    assert_eq!(port(flows.next().await.unwrap()), 1);
    assert_eq!(port(flows.next().await.unwrap()), 2);
    world.log.tell(flow(3, "DROPPED"));
    assert_eq!(port(flows.next().await.unwrap()), 3);
    world.stop.take().unwrap().send(()).unwrap();
    assert_eq!(flows.next().await.unwrap(), None, "the stream ends whole");
    world.server.await.unwrap().unwrap();
}

/// Far more than all buffers on the way hold.
const SENT: u16 = 4000;

#[tokio::test]
async fn a_slow_reader_is_told_what_it_lost() {
    let world = World::new();
    let mut flows = world.client().flows(0, true, &FlowFilter::default()).await.unwrap();
    for number in 0..SENT {
        world.log.tell(flow(number, "DROPPED"));
        if number % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    world.log.tell(flow(u16::MAX, "FORWARDED"));
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
    assert_eq!(world.log.missed(), lost, "what was lost is counted");
}

/// Follows flows and reads nothing.
async fn stuck(world: &World) -> UnixStream {
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    stream.write_all(b"GET /v1/flows?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Its first byte says that it follows.
    stream.read_exact(&mut [0]).await.unwrap();
    stream
}

#[tokio::test(start_paused = true)]
async fn readers_that_never_read_hold_nobody() {
    let mut world = World::new();
    let mut all = Vec::new();
    for _ in 0..31 {
        all.push(stuck(&world).await);
    }
    let mut reader = world.client().flows(0, true, &FlowFilter::default()).await.unwrap();
    for number in 0..SENT {
        world.log.tell(flow(number, "DROPPED"));
        assert_eq!(port(reader.next().await.unwrap()), number, "who reads loses nothing");
    }
    // Longer than an answer may take: a stream is none.
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.client().status().await.unwrap().state, "enforcing");
    world.log.tell(flow(SENT, "DROPPED"));
    assert_eq!(port(reader.next().await.unwrap()), SENT);
    // One of them reads again, and is told; one leaves, and what it had lost is counted.
    assert_eq!(world.log.missed(), 0, "nobody knows yet");
    let mut text = String::new();
    let mut one = all.pop().unwrap();
    let until = format!("\"destination_port\":{SENT}}}");
    while !text.contains(&until) {
        let mut bytes = vec![0; 1 << 16];
        let count = one.read(&mut bytes).await.unwrap();
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    let lost = text.split_once("{\"lost_events\":").and_then(|(_, rest)| rest.split_once('}')).unwrap().0;
    let lost: u64 = lost.parse().unwrap();
    let got = text.matches("\"node_name\"").count() as u64;
    assert_eq!(got + lost, u64::from(SENT) + 1);
    assert_eq!(world.log.missed(), lost);
    drop(all.pop());
    while world.log.missed() == lost {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(world.log.missed() - lost <= u64::from(SENT) + 1 - KEPT as u64);
    // They don't hold up the end either.
    let begin = tokio::time::Instant::now();
    world.stop.take().unwrap().send(()).unwrap();
    assert_eq!(reader.next().await.unwrap(), None, "the stream ends whole");
    world.server.await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn readers_leave_streams_to_those_who_may_write() {
    let group = Some(Peer { uid: u32::MAX - 1, gid: 77, pid: None });
    let access = Access { readers: Some(77), ..Access::of_this_process(None).unwrap() };
    let world = World::with(access, group, Vec::new());
    let mut open = Vec::new();
    for _ in 0..24 {
        open.push(world.client().flows(0, true, &FlowFilter::default()).await.unwrap());
    }
    let error = world.client().flows(0, true, &FlowFilter::default()).await.unwrap_err();
    assert!(error.to_string().contains("streams of flows are open"), "{error}");
    *world.stranger.lock().unwrap() = None;
    assert!(world.client().flows(0, true, &FlowFilter::default()).await.is_ok());
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
        if world.client().flows(0, true, &FlowFilter::default()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("places of readers that left are not free again");
}
