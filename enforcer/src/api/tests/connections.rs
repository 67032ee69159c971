//! Clients that say nothing, half of it, or don't listen: each has its time, and all together have so many places.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::{Instant, sleep};

use super::super::access::Peer;
use super::super::{Access, Backend, http};
use super::World;

/// What comes until the server closes, and when that is.
async fn to_the_end(mut stream: UnixStream) -> (String, Duration) {
    let begin = Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    (String::from_utf8_lossy(&answer).into_owned(), begin.elapsed())
}

#[tokio::test(start_paused = true)]
async fn silence_and_half_a_request_end_after_a_while() {
    let world = World::new();
    for said in ["", "G", "GET /v1/status HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let (answer, time) = to_the_end(stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{said:?}: {answer}");
        assert!((9..12).contains(&time.as_secs()), "{said:?}: {time:?}");
    }
    // Half a body.
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    let half = "POST /v1/policies HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"files\":";
    stream.write_all(half.as_bytes()).await.unwrap();
    let (answer, time) = to_the_end(stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("did not arrive in time"), "{answer}");
    assert!((29..32).contains(&time.as_secs()), "{time:?}");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_cut() {
    /// More than buffers hold.
    const SIZE: usize = 64 << 20;
    let world = World::new();
    let backend = Backend { metrics: Arc::new(|| "x".repeat(SIZE)), ..world.backend.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(http::serve(listener, backend, std::future::pending()));
    let ask = async |waits: Duration| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        sleep(waits).await;
        let (mut all, mut bytes) = (0, vec![0; 1 << 20]);
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            all += count;
        }
        all
    };
    assert!(ask(Duration::ZERO).await > SIZE, "who takes it at once gets all of it");
    // Not before: a paused clock goes on whenever both ends wait for the kernel.
    tokio::time::pause();
    assert!(ask(Duration::from_secs(40)).await < SIZE, "the rest was not kept");
}

#[tokio::test]
async fn readers_leave_places_to_those_who_may_write() {
    let group = Some(Peer { uid: u32::MAX - 1, gid: 77, pid: None });
    let access = Access { readers: Some(77), ..Access::of_this_process(None).unwrap() };
    let world = World::with(access, group, Vec::new());
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(UnixStream::connect(&world.socket).await.unwrap());
    }
    let error = world.client().status().await.unwrap_err().to_string();
    assert!(error.contains("too many connections of readers are open"), "{error}");
    for _ in 0..120 {
        silent.push(UnixStream::connect(&world.socket).await.unwrap());
    }
    *world.stranger.lock().unwrap() = None;
    assert_eq!(world.client().status().await.unwrap().state, "enforcing");
    // As soon as they leave there is room for others.
    *world.stranger.lock().unwrap() = group;
    drop(silent);
    for _ in 0..500 {
        if world.client().status().await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("places of readers that left are not free again");
}
