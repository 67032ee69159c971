//! A stream of flows: newline-delimited JSON, first what is remembered, then what happens.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};

use super::LostEvents;
use crate::domain::flow::Flow;
use crate::domain::flow_filter::FlowFilter;

/// Lines between the agent and one reader; what is more waits in the reader's share of the broadcast, and is lost
/// there when that overflows.
const QUEUE: usize = 64;

/// What a reader asked for.
#[derive(Debug)]
pub(super) struct Wish {
    /// So many of the remembered flows, the last ones.
    pub(super) last: usize,
    /// Then those that happen.
    pub(super) follow: bool,
    /// Only these.
    pub(super) filter: FlowFilter,
}

/// What a stream reads from.
pub(super) struct Source {
    /// All remembered flows, oldest first; taken *after* `live` was subscribed to, so that none falls between.
    pub(super) recent: Vec<Arc<Flow>>,
    /// Flows as they happen.
    pub(super) live: broadcast::Receiver<Arc<Flow>>,
    /// True when the server ends.
    pub(super) closing: watch::Receiver<bool>,
    /// The stream's place among the streams.
    pub(super) place: OwnedSemaphorePermit,
}

/// The body of the answer.
pub(super) fn body(wish: Wish, source: Source) -> Body {
    let (lines, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let Source { recent, live, mut closing, place } = source;
        tokio::select! {
            // The reader left: without this a quiet stream would stay until the next flow.
            () = lines.closed() => {}
            _ = closing.wait_for(|closing| *closing) => {}
            () = pump(&wish, recent, live, &lines) => {}
        }
        drop(place);
    });
    Body::new(Lines(receiver))
}

/// Ends when everything asked for was sent, or the reader is gone.
async fn pump(
    wish: &Wish,
    recent: Vec<Arc<Flow>>,
    mut live: broadcast::Receiver<Arc<Flow>>,
    lines: &mpsc::Sender<Bytes>,
) {
    // Live flows that are among the remembered ones too, by their place in memory: `recent` holds them, so that no
    // other flow can have it.
    let place = |flow: &Arc<Flow>| Arc::as_ptr(flow).addr();
    let mut known: HashSet<usize> = recent.iter().map(place).collect();
    let matching: Vec<_> = recent.iter().filter(|flow| wish.filter.matches(flow)).collect();
    for flow in &matching[matching.len().saturating_sub(wish.last)..] {
        if lines.send(line(flow.as_ref())).await.is_err() {
            return;
        }
    }
    drop(matching);
    if !wish.follow {
        return;
    }
    let mut held = Some(recent);
    loop {
        let sent = match live.recv().await {
            Ok(flow) if known.contains(&place(&flow)) => continue,
            Ok(flow) => {
                // Flows are remembered before they are broadcast: from the first unknown one on, all are.
                if held.take().is_some() {
                    known = HashSet::new();
                }
                if !wish.filter.matches(&flow) {
                    continue;
                }
                lines.send(line(flow.as_ref())).await
            }
            Err(RecvError::Lagged(lost_events)) => lines.send(line(&LostEvents { lost_events })).await,
            Err(RecvError::Closed) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn line(record: &impl Serialize) -> Bytes {
    // Neither record has a map with odd keys or a failing `Serialize`, which is all that serde_json can refuse.
    let mut text = serde_json::to_vec(record).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

struct Lines(mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
