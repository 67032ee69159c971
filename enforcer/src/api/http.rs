//! What monitoring reads over TCP: `/metrics`, `/healthz`, `/readyz`. Nothing else, and nothing that changes anything.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::{Backend, connection};

/// The text exposition format that Prometheus asks for by this name.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `shutdown` ends.
pub async fn serve(
    listener: TcpListener,
    backend: Backend,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    listener.local_addr()?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        // The process is alive if it answers at all; what it waits for is readiness.
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async || (StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz\n"))
        .with_state(backend);
    connection::serve(listener, move |_| (routes.clone(), true), shutdown).await;
    Ok(())
}

async fn metrics(State(backend): State<Backend>) -> Response {
    ([(header::CONTENT_TYPE, EXPOSITION)], (backend.metrics)()).into_response()
}

async fn ready(State(backend): State<Backend>) -> Response {
    let readiness = backend.readiness.borrow().clone();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", readiness.reason)).into_response()
}
