//! `GET /metrics`, on an address of its own.

use super::collect::Now;
use crate::error::{Error, Result};
use crate::sandboxes::Sandboxes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// OpenMetrics 1.0, which Prometheus asks for and every tool of it reads.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at a time; more wait in the kernel until one ends.
const CONNECTIONS: usize = 16;
/// How long one may take to ask and to read the answer. Each is for one scrape.
const SCRAPE: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, most often for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens there and serves until the daemon stops.
///
/// # Errors
/// Where nobody can listen there.
pub(crate) async fn serve(sandboxes: &Sandboxes, address: SocketAddr) -> Result<SocketAddr> {
    let failed = |error: std::io::Error| Error::Listen {
        address: format!("{address} for metrics"),
        detail: error.to_string(),
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let mut registry = Registry::with_prefix("hostel");
    sandboxes.metrics().register(&mut registry);
    registry.register_collector(Box::new(Now(sandboxes.clone())));
    let (registry, stop) = (Arc::new(registry), sandboxes.stopping().clone());
    let work = accept(sandboxes.clone(), listener, registry);
    sandboxes.tasks().spawn(async move {
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
    tracing::info!(address = %bound, "serving metrics at /metrics");
    Ok(bound)
}

async fn accept(sandboxes: Sandboxes, listener: TcpListener, registry: Arc<Registry>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // It is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (registry, stop) = (Arc::clone(&registry), sandboxes.stopping().clone());
        sandboxes.tasks().spawn(async move {
            let _place = place;
            tokio::select! {
                _ = tokio::time::timeout(SCRAPE, converse(stream, &registry)) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Answers one request. Whoever breaks off has broken off.
async fn converse(stream: TcpStream, registry: &Registry) {
    let service =
        service_fn(
            |request: Request<Incoming>| async move { Ok::<_, Infallible>(answer(&request, registry)) },
        );
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for metrics broke");
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<String> {
    let mut response = Response::new(String::new());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    } else {
        // Writing to a string does not fail.
        let _ = encode(response.body_mut(), registry);
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(FORMAT));
    }
    response
}
