//! What can be tested without root. The life of the whole agent is the suite's.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;

use super::notify::Notifier;
use super::pins::PinsLock;
use super::supervise::supervise;
use crate::engine::Event;

#[test]
fn one_agent_has_the_pins() {
    let folder = tempfile::tempdir().unwrap();
    PinsLock::take(&folder.path().join("never-made")).unwrap();
    let held = PinsLock::take(folder.path()).unwrap();
    let error = PinsLock::take(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("another instance uses the pins in "), "{error}");
    drop(held);
    PinsLock::take(folder.path()).unwrap();
}

#[test]
fn the_service_manager_is_told_ready_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        manager.recv(&mut buffer).ok().map(|size| String::from_utf8_lossy(&buffer[..size]).into_owned())
    };
    let mut notifier = Notifier::new(Some(path.into_os_string()));
    notifier.readiness(false, "syncing");
    notifier.readiness(true, "enforcing");
    notifier.readiness(false, "a\nb");
    notifier.readiness(true, "enforcing");
    notifier.stopping();
    let all: Vec<String> = std::iter::from_fn(told).collect();
    let expected =
        ["STATUS=syncing", "READY=1\nSTATUS=enforcing", "STATUS=a b", "STATUS=enforcing", "STOPPING=1"];
    assert_eq!(all, expected);
    Notifier::new(None).stopping();
}

#[tokio::test(start_paused = true)]
async fn what_ends_is_told_and_started_again() {
    let (sender, mut events) = mpsc::channel(16);
    let starts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&starts);
    let (_close, closing) = tokio::sync::watch::channel(false);
    let part = supervise("it", sender, closing, move || {
        let start = counted.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            match start {
                0 => Err("no luck".to_owned()),
                1 => panic!("worse luck"),
                2 => {
                    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
                    Err("later".to_owned())
                }
                _ => Ok(()),
            }
        })
    });
    part.await;
    assert_eq!(starts.load(Ordering::Relaxed), 4);
    let mut told = Vec::new();
    while let Some(Event::Part { name: "it", problem }) = events.recv().await {
        told.push(problem.unwrap_or_else(|| "works".to_owned()));
    }
    assert_eq!(told.len(), 4);
    assert!(
        told[0].ends_with("no luck") && told[1].contains("panic") && told[3].ends_with("later"),
        "{told:?}"
    );
    assert_eq!(told[2], "works");
}
