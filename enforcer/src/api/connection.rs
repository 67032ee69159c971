//! The loop that both servers share: accept, bound, serve one request, close.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// A client has so long to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After the end was announced, running requests have so long.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown` ends, then lets running requests finish (see [`DRAIN`]).
///
/// `router` makes the routes for one connection, e.g. with what is known of its peer.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    router: impl Fn(&L::Io) -> Router,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Every connection holds a receiver: `closed` below waits for the last of them.
    let (abandon, abandoned) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, (io, _)) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        let service = TowerToHyperService::new(router(&io));
        let mut abandoned = abandoned.clone();
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            // One request a connection: an idle one would hold its place.
            builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            tokio::select! {
                result = builder.serve_connection(TokioIo::new(io), service) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection ended early");
                    }
                }
                _ = abandoned.wait_for(|abandon| *abandon) => {}
            }
            drop(place);
        });
    }
    drop(listener);
    drop(abandoned);
    if tokio::time::timeout(DRAIN, abandon.closed()).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
        abandon.send_replace(true);
    }
}
