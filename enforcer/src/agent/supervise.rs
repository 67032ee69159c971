//! Parts that must not end: what ends is a problem, and is started again with growing pauses.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::engine::Event;

/// Pause before the first restart of a part.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between restarts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A part that ran for so long after a restart counts as working again.
const WORKING: Duration = Duration::from_secs(10);

/// Keeps a part running until it ends by itself without an error, which means that nobody needs it any more. A panic
/// inside is an error like others.
pub(super) async fn supervise(
    name: &'static str,
    events: mpsc::Sender<Event>,
    closing: watch::Receiver<bool>,
    mut start: impl FnMut() -> JoinHandle<Result<(), String>>,
) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let mut part = start();
        let mut ended = tokio::time::timeout(WORKING, &mut part).await.ok();
        if ended.is_none() && std::mem::take(&mut told) {
            pause = FIRST_PAUSE;
            tell(&events, name, None).await;
        }
        let ended = match ended.take() {
            Some(ended) => ended,
            None => part.await,
        };
        let problem = match ended {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(panic) => panic.to_string(),
        };
        told = true;
        tell(&events, name, Some(format!("{name} ended and is started again: {problem}"))).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = closed(closing.clone()) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until the agent ends.
pub(super) async fn closed(mut closing: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end too.
    closing.wait_for(|closing| *closing).await.ok();
}

async fn tell(events: &mpsc::Sender<Event>, name: &'static str, problem: Option<String>) {
    // Nobody listens any more when the agent ends.
    events.send(Event::Part { name, problem }).await.ok();
}
