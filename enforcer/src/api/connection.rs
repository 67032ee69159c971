//! The loop that both servers share: accept, bound, serve one request, close.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep};

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// Of these, so many at most are of peers that are not trusted.
const STRANGERS: usize = 80;
/// So many more of them are told that they are too many, if they ask quickly; the rest is cut.
const REFUSED: usize = 16;
/// What they have to send their request's head.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A client has so long to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client has so long to take an answer, once it does not take it at once. A stream is no answer: see [`Unhurried`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// After the end was announced, running requests have so long. Whoever answers them has ended by then.
const DRAIN: Duration = Duration::from_secs(2);
/// Bytes of a connection that wait for its client to read them.
const WAITING: usize = 64 << 10;

/// What whoever finds no place is told.
const BUSY: &str = r#"{"message":"too many connections of readers are open; close some of them","diagnostics":[],"not_found":false}"#;

/// The places that there are.
struct Places {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

impl Places {
    fn new() -> Self {
        let [all, strangers, refused] =
            [CONNECTIONS, STRANGERS, REFUSED].map(|places| Arc::new(Semaphore::new(places)));
        Self { all, strangers, refused }
    }

    /// What becomes of a connection: routes, time to ask, and what it holds of the places of strangers.
    fn of(
        &self,
        (routes, is_trusted): (Router, bool),
    ) -> Option<(Router, Duration, Option<OwnedSemaphorePermit>)> {
        if is_trusted {
            return Some((routes, HEAD_TIMEOUT, None));
        }
        if let Ok(place) = Arc::clone(&self.strangers).try_acquire_owned() {
            return Some((routes, HEAD_TIMEOUT, Some(place)));
        }
        let place = Arc::clone(&self.refused).try_acquire_owned().ok()?;
        let refusal = Router::new().fallback(async || {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "application/json")], BUSY)
        });
        Some((refusal, REFUSAL_TIMEOUT, Some(place)))
    }
}

/// Serves until `shutdown` ends, then lets running requests finish (see [`DRAIN`]).
///
/// `known` makes the routes for one connection, e.g. with what is known of its peer, and says whether the peer is trusted: places
/// are kept for those who are.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    known: impl Fn(&L::Io) -> (Router, bool),
    shutdown: impl Future<Output = ()>,
) {
    let places = Places::new();
    // Every connection holds a receiver: `closed` below waits for the last of them.
    let (abandon, abandoned) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&places.all).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, (io, _)) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        let Some((routes, head_timeout, strange)) = places.of(known(&io)) else { continue };
        let unhurried = Unhurried::default();
        let service = TowerToHyperService::new(routes.layer(Extension(unhurried.clone())));
        let io = TokioIo::new(Hurried { io, unhurried, waits: None });
        let mut abandoned = abandoned.clone();
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            // One request a connection: an idle one would hold its place.
            builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(head_timeout);
            builder.max_buf_size(WAITING);
            tokio::select! {
                result = builder.serve_connection(io, service) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection ended early");
                    }
                }
                _ = abandoned.wait_for(|abandon| *abandon) => {}
            }
            drop((place, strange));
        });
    }
    drop(listener);
    drop(abandoned);
    if tokio::time::timeout(DRAIN, abandon.closed()).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
        abandon.send_replace(true);
    }
}

/// Whether the answer of a connection may be read as slowly as its client likes.
#[derive(Clone, Debug, Default)]
pub(super) struct Unhurried(Arc<AtomicBool>);

impl Unhurried {
    /// From now on it may.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection whose client has [`ANSWER_TIMEOUT`] to take what is written.
struct Hurried<S> {
    io: S,
    unhurried: Unhurried,
    /// Ends when the client has had its time; there since it did not take something at once.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Hurried<S> {
    /// What was tried: that the client does not take it is an error after a while.
    fn in_time<T>(&mut self, context: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() || self.unhurried.0.load(Ordering::Relaxed) {
            return tried;
        }
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(ANSWER_TIMEOUT)));
        waits.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hurried<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hurried<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.io).poll_write(context, bytes);
        self.in_time(context, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.in_time(context, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.io).poll_flush(context);
        self.in_time(context, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.io).poll_shutdown(context);
        self.in_time(context, tried)
    }
}
