//! How the server is.

use super::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hostel_session::Health;
use serde::Serialize;

/// How the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServerHealth)]
pub(super) struct HealthBody {
    /// `ok`, or `degraded` where something is wrong; `healthy` says whether sessions work all the same.
    status: &'static str,
    /// The version of the program.
    version: &'static str,
    #[serde(flatten)]
    health: Health,
}

/// Whether sessions can be made and work. Needs no token
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, description = "They can, where `status` is `degraded` without something", body = HealthBody),
    (status = 503, description = "They cannot, and why", body = HealthBody),
))]
pub(super) async fn health(State(app): State<App>) -> impl IntoResponse {
    let health = app.host.health().await;
    let code = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let status = if health.healthy && health.problems.is_empty() { "ok" } else { "degraded" };
    (code, Json(HealthBody { status, version: env!("CARGO_PKG_VERSION"), health }))
}

/// Whether the server answers at all. Needs no token
#[utoipa::path(get, path = "/healthz", tag = "health", responses(
    (status = 200, description = "It does", body = String, content_type = "text/plain")
))]
pub(super) async fn alive() -> &'static str {
    "ok"
}
