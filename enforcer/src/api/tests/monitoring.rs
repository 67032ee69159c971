//! Metrics, liveness and readiness over TCP.

use std::io::{Read as _, Write as _};

use tokio::net::TcpListener;

use super::super::{Readiness, http};
use super::World;

#[tokio::test]
async fn what_monitoring_reads() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(http::serve(listener, world.backend.clone(), std::future::pending()));
    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
        .await
        .unwrap()
    };
    let metrics = get("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{metrics}");
    assert!(metrics.ends_with("enforcer_build_info 1\n"), "{metrics}");
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200 "));
    let unready = get("/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503 ") && unready.ends_with("\r\n\r\nsyncing\n"), "{unready}");
    world.readiness.send_replace(Readiness { ready: true, reason: "enforcing".into() });
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200 "));
    assert!(get("/v1/status").await.starts_with("HTTP/1.1 404 "), "nothing of the API is here");
}
