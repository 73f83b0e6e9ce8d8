//! What runs in a session: looking at it, and stopping it.

use super::app::App;
use super::input::{Id, Json as Body, Nothing};
use super::problem::{Problem, Result};
use super::sessions::Changed;
use axum::Json;
use axum::extract::State;
use hostel_session::{ActiveTurn, EndReason, Environment, SessionStatus};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long an agent may take to stop where nobody says.
pub(crate) const GRACE_MS: u64 = 5000;
/// The longest that may be waited.
const LONGEST_MS: u64 = 10 * 60 * 1000;

/// How a session is, on each of its axes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    id: String,
    /// What it is to its users.
    status: SessionStatus,
    /// Why it ended, or is in error.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_message: Option<String>,
    /// Its sandbox.
    environment: Environment,
    /// The turn that runs; null without one.
    active_turn: Option<ActiveTurn>,
    /// Whether it is in memory.
    is_loaded: bool,
    /// Messages that wait or run.
    queued: usize,
    /// Readers of its events.
    subscribers: usize,
    /// The number of its last event.
    last_event: u64,
}

/// How a session is
#[utoipa::path(get, path = "/api/sessions/{id}/status", tag = "control", responses(
    (status = 200, description = "On each of its axes", body = Status)
))]
pub(super) async fn status(State(app): State<App>, Id(id): Id) -> Result<Json<Status>> {
    // Before anything else that might change it.
    let is_loaded = app.host.is_loaded(&id);
    let session = app.host.get(&id).await?;
    let queued = if session.status.is_final() { 0 } else { app.host.queue(&id).await?.len() };
    Ok(Json(Status {
        status: session.status,
        reason: session.reason,
        reason_message: session.reason_message,
        environment: session.environment,
        active_turn: session.active_turn,
        is_loaded,
        queued,
        subscribers: app.hub.client_count(&id),
        last_event: session.last_event,
        id: id.into(),
    }))
}

/// How to interrupt.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct InterruptBody {
    /// How long to wait until the turn has ended, in milliseconds; 5000 where absent.
    #[schema(maximum = 600000)]
    wait_ms: Option<u64>,
}

/// Ask the agent to stop its turn
///
/// The session stays. Answers when the turn has ended, or the wait is over.
#[utoipa::path(post, path = "/api/sessions/{id}/interrupt", tag = "control", request_body = InterruptBody, responses(
    (status = 200, description = "The session", body = Changed)
))]
pub(super) async fn interrupt(
    State(app): State<App>,
    Id(id): Id,
    Body(body): Body<InterruptBody>,
) -> Result<Json<Changed>> {
    let session = app.host.interrupt(&id, bounded("waitMs", body.wait_ms)?).await?;
    Ok(Json(Changed { success: true, session }))
}

/// How to stop.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StopBody {
    /// How long the agent may take to stop by itself, in milliseconds; 5000 where absent.
    #[schema(maximum = 600000)]
    grace_ms: Option<u64>,
}

/// Stop the turn, by force where the agent does not in time
///
/// The session stays. When it answers nothing of the turn runs.
#[utoipa::path(post, path = "/api/sessions/{id}/stop", tag = "control", request_body = StopBody, responses(
    (status = 200, description = "The session", body = Changed)
))]
pub(super) async fn stop(
    State(app): State<App>,
    Id(id): Id,
    Body(body): Body<StopBody>,
) -> Result<Json<Changed>> {
    let session = app.host.stop(&id, bounded("graceMs", body.grace_ms)?).await?;
    Ok(Json(Changed { success: true, session }))
}

/// End the agent with everything that it started, at once
///
/// The session stays; the next message starts the agent again.
#[utoipa::path(post, path = "/api/sessions/{id}/force-kill", tag = "control", responses(
    (status = 200, description = "The session", body = Changed)
))]
pub(super) async fn force_kill(
    State(app): State<App>,
    Id(id): Id,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Changed>> {
    Ok(Json(Changed { success: true, session: app.host.kill(&id).await? }))
}

/// A time in milliseconds that somebody waits for.
///
/// # Errors
/// Where it is too long.
pub(super) fn bounded(field: &str, milliseconds: Option<u64>) -> Result<Duration> {
    match milliseconds.unwrap_or(GRACE_MS) {
        time if time <= LONGEST_MS => Ok(Duration::from_millis(time)),
        _ => Err(Problem::invalid(field, format!("must be at most {LONGEST_MS}"))),
    }
}
