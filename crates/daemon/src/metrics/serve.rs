//! `GET /metrics`, on an address of its own.

use super::collect::Now;
use crate::error::{Error, Result};
use crate::sandboxes::Sandboxes;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// OpenMetrics 1.0, which Prometheus asks for and every tool of it reads.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    let registry = Arc::new(registry);
    let router = Router::new().route("/metrics", get(move || scrape(Arc::clone(&registry))));
    let stop = sandboxes.stopping().clone();
    sandboxes.tasks().spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "metrics are served no longer");
        }
    });
    tracing::info!(address = %bound, "serving metrics at /metrics");
    Ok(bound)
}

async fn scrape(registry: Arc<Registry>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    ([(CONTENT_TYPE, FORMAT)], text)
}
