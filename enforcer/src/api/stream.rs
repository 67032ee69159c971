//! A stream of flows: newline-delimited JSON, first what is remembered, then what happens.
//!
//! A stream is the number of the flow that it tells next. A reader that does not read holds this number, a few lines on their way
//! and its connection; flows that are forgotten meanwhile are told as lost when it reads again, and counted.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::{FlowLog, LostEvents};
use crate::domain::flow_filter::FlowFilter;

/// Pieces of the answer that wait for the connection.
const QUEUE: usize = 2;
/// Size of a piece in bytes; its last line may be beyond.
const PIECE: usize = 32 << 10;
/// Flows that are put into words at once.
const PAGE: u64 = 256;

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

/// The body of the answer. It holds its place among the streams, and ends when the server does.
pub(super) fn body(
    wish: Wish,
    mut log: FlowLog,
    mut closing: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Body {
    let (pieces, receiver) = mpsc::channel(QUEUE);
    // Now, and not when the task has its turn: what happens once the reader has its answer is told.
    let began = *log.next.borrow_and_update();
    tokio::spawn(async move {
        let mut reading = Reading::new(wish, log, began).await;
        tokio::select! {
            // The reader left: without this a quiet stream would stay until the next flow.
            () = pieces.closed() => {}
            _ = closing.wait_for(|closing| *closing) => {}
            () = reading.tell(&pieces) => {}
        }
        drop(place);
    });
    Body::new(Pieces(receiver))
}

struct Reading {
    wish: Wish,
    log: FlowLog,
    /// Number of the next flow.
    at: u64,
    /// Number that the next flow had when the stream began.
    began: u64,
}

impl Reading {
    async fn new(wish: Wish, log: FlowLog, began: u64) -> Self {
        let oldest = (log.read)(0, 0).next.min(began);
        let at = if wish.filter == FlowFilter::default() {
            let last = u64::try_from(wish.last).unwrap_or(u64::MAX);
            began.saturating_sub(last).max(oldest)
        } else {
            first_of_last(&wish, &log, oldest, began).await
        };
        Self { wish, log, at, began }
    }

    /// Ends when everything asked for was sent, or the reader is gone.
    async fn tell(&mut self, pieces: &mpsc::Sender<Bytes>) {
        let mut end = self.began;
        loop {
            while self.at < end {
                if !self.tell_page(end, pieces).await {
                    return;
                }
            }
            if !self.wish.follow || self.log.next.changed().await.is_err() {
                return;
            }
            end = *self.log.next.borrow_and_update();
        }
    }

    /// Whether somebody reads.
    async fn tell_page(&mut self, end: u64, pieces: &mpsc::Sender<Bytes>) -> bool {
        let most = usize::try_from(PAGE.min(end - self.at)).unwrap_or(usize::MAX);
        let page = (self.log.read)(self.at, most);
        let mut piece = Vec::new();
        // What came after the end of what is asked for may have displaced all of it.
        let lost = page.lost.min(end - self.at);
        if lost > 0 {
            (self.log.missed)(lost);
            add_line(&mut piece, &LostEvents { lost_events: lost });
        }
        self.at = page.next.min(end);
        let asked = page.numbered().take_while(|(number, _)| *number < end).map(|(_, flow)| flow);
        for flow in asked.filter(|flow| self.wish.filter.matches(flow)) {
            add_line(&mut piece, flow);
            if piece.len() >= PIECE && pieces.send(std::mem::take(&mut piece).into()).await.is_err() {
                return false;
            }
        }
        if piece.is_empty() {
            // Where the filter leaves nothing there is nothing to wait for, and others have a turn.
            tokio::task::yield_now().await;
            return true;
        }
        pieces.send(piece.into()).await.is_ok()
    }
}

impl Drop for Reading {
    /// What the reader had not read when it left and nobody can read any more, it was too slow for.
    fn drop(&mut self) {
        let lost = (self.log.read)(self.at, 0).lost;
        if lost > 0 {
            (self.log.missed)(lost);
        }
    }
}

/// The number of the first of the last so many flows that are wanted.
async fn first_of_last(wish: &Wish, log: &FlowLog, oldest: u64, began: u64) -> u64 {
    let mut last = VecDeque::new();
    let mut at = if wish.last == 0 { began } else { oldest };
    while at < began {
        let most = usize::try_from(PAGE.min(began - at)).unwrap_or(usize::MAX);
        let page = (log.read)(at, most);
        for (number, _) in page.numbered().filter(|(_, flow)| wish.filter.matches(flow)) {
            if last.len() == wish.last {
                last.pop_front();
            }
            last.push_back(number);
        }
        at = page.next;
        tokio::task::yield_now().await;
    }
    last.front().copied().unwrap_or(began)
}

fn add_line(piece: &mut Vec<u8>, record: &impl Serialize) {
    let before = piece.len();
    // Neither record has a map with odd keys or a failing `Serialize`, which is all that serde_json can refuse.
    if serde_json::to_writer(&mut *piece, record).is_err() {
        piece.truncate(before);
    } else {
        piece.push(b'\n');
    }
}

struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
