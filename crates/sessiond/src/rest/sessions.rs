//! Sessions: making, listing, changing, ending.

use super::app::App;
use super::input::{Id, Json as Body, Nothing, Query, idempotency_key};
use super::problem::{Problem, Result};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use hostel_session::{
    CreateSession, EndReason, ListSessions, Pattern, Session, SessionPage, SessionStatus, Start, Statistics,
    UpdateSession,
};
use serde::{Deserialize, Serialize};

/// Which sessions to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only this pattern.
    #[param(value_type = Option<Pattern>)]
    pattern: Option<String>,
    /// Only this status.
    #[param(value_type = Option<SessionStatus>)]
    status: Option<String>,
    /// Only this user's.
    user_id: Option<String>,
    /// Only with any of these tags, with commas between.
    tags: Option<String>,
    /// Which page, from 1.
    #[param(minimum = 1, maximum = 1000000)]
    page: Option<u64>,
    /// How many on a page; 50 where absent.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u64>,
}

impl Filters {
    fn list(self) -> Result<ListSessions> {
        let default = ListSessions::default();
        // The names of the parameters, not of the types.
        let pattern = self.pattern.map(|word| word.parse::<Pattern>()).transpose();
        let status = self.status.map(|word| word.parse::<SessionStatus>()).transpose();
        let (page, page_size) = (self.page.unwrap_or(1), self.page_size.unwrap_or(default.page_size));
        if !(1..=1_000_000).contains(&page) {
            return Err(Problem::invalid("page", "must be 1 to 1000000"));
        }
        if !(1..=1000).contains(&page_size) {
            return Err(Problem::invalid("pageSize", "must be 1 to 1000"));
        }
        let tags = self.tags.unwrap_or_default();
        Ok(ListSessions {
            pattern: pattern.map_err(|error| renamed("pattern", error))?,
            status: status.map_err(|error| renamed("status", error))?,
            user_id: self.user_id,
            tags: tags
                .split(',')
                .map(str::trim)
                .filter(|tag| !tag.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
            start: Start::Page(page),
            page_size,
        })
    }
}

fn renamed(field: &str, error: hostel_session::Error) -> Problem {
    match error {
        hostel_session::Error::Invalid { problem, .. } => Problem::invalid(field, problem),
        other => other.into(),
    }
}

/// Refuses what databases and the clients' languages cannot count, and OpenAPI has no name for: the upper half of
/// unsigned numbers.
fn countable<N, S: TryFrom<N> + std::fmt::Display>(field: &str, number: Option<N>, most: S) -> Result<()> {
    match number.map(S::try_from) {
        Some(Err(_)) => Err(Problem::invalid(field, format!("must be at most {most}"))),
        _ => Ok(()),
    }
}

/// Create a session
///
/// Its sandbox is made with the first message. With an `Idempotency-Key` the call can be repeated.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", request_body = CreateSession, responses(
    (status = 201, description = "The session", body = Session)
))]
pub(super) async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    Body(mut create): Body<CreateSession>,
) -> Result<impl IntoResponse> {
    countable("maxIdleTimeMs", create.max_idle_time_ms, i64::MAX)?;
    countable("maxLifetimeMs", create.max_lifetime_ms, i64::MAX)?;
    countable("maxTurns", create.max_turns, i64::MAX)?;
    countable("config.maxTurns", create.config.max_turns, i32::MAX)?;
    countable("config.maxThinkingTokens", create.config.max_thinking_tokens, i32::MAX)?;
    create.idempotency_key = idempotency_key(&headers)?;
    let created = app.host.create(create).await?;
    let location = format!("/api/sessions/{}", created.session.id);
    let headers = [("location", location), ("idempotency-replayed", created.replayed.to_string())];
    Ok((StatusCode::CREATED, headers, Json(created.session)))
}

/// List sessions, newest first
#[utoipa::path(get, path = "/api/sessions", tag = "sessions", params(Filters), responses(
    (status = 200, description = "A page of them", body = SessionPage)
))]
pub(super) async fn list(
    State(app): State<App>,
    Query(filters): Query<Filters>,
) -> Result<Json<SessionPage>> {
    Ok(Json(app.host.list(&filters.list()?).await?))
}

/// Figures over all sessions
#[utoipa::path(get, path = "/api/sessions/stats/summary", tag = "sessions", responses(
    (status = 200, description = "The figures", body = Statistics)
))]
pub(super) async fn statistics(State(app): State<App>) -> Result<Json<Statistics>> {
    Ok(Json(app.host.statistics().await?))
}

/// Get a session
#[utoipa::path(get, path = "/api/sessions/{id}", tag = "sessions", responses(
    (status = 200, description = "The session", body = Session)
))]
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Result<Json<Session>> {
    Ok(Json(app.host.get(&id).await?))
}

/// Change what may be changed of a session
#[utoipa::path(patch, path = "/api/sessions/{id}", tag = "sessions", request_body = UpdateSession, responses(
    (status = 200, description = "The session", body = Session)
))]
pub(super) async fn update(
    State(app): State<App>,
    Id(id): Id,
    Body(update): Body<UpdateSession>,
) -> Result<Json<Session>> {
    countable("maxIdleTimeMs", update.max_idle_time_ms.value().copied(), i64::MAX)?;
    countable("maxLifetimeMs", update.max_lifetime_ms.value().copied(), i64::MAX)?;
    countable("maxTurns", update.max_turns.value().copied(), i64::MAX)?;
    Ok(Json(app.host.update(&id, update).await?))
}

/// That a session is deleted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Gone {
    success: bool,
    id: String,
}

/// End a session and forget it with its journal
#[utoipa::path(delete, path = "/api/sessions/{id}", tag = "sessions", responses(
    (status = 200, description = "It is gone", body = Gone)
))]
pub(super) async fn delete(State(app): State<App>, Id(id): Id) -> Result<Json<Gone>> {
    app.host.delete(&id).await?;
    Ok(Json(Gone { success: true, id: id.into() }))
}

/// Why to end a session.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TerminateBody {
    /// `user_requested` where absent; not `completed`, which a session says by itself.
    reason: Option<EndReason>,
}

/// A session that was ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Terminated {
    session: Session,
    /// Why it ended; not what was asked for where it had ended before.
    reason: EndReason,
}

/// End a session: its turn is stopped, its sandbox taken away, its record stays
#[utoipa::path(post, path = "/api/sessions/{id}/terminate", tag = "sessions", request_body = TerminateBody, responses(
    (status = 200, description = "The session", body = Terminated)
))]
pub(super) async fn terminate(
    State(app): State<App>,
    Id(id): Id,
    Body(body): Body<TerminateBody>,
) -> Result<Json<Terminated>> {
    let reason = body.reason.unwrap_or(EndReason::UserRequested);
    let session = app.host.terminate(&id, reason).await?;
    Ok(Json(Terminated { reason: session.reason.unwrap_or(reason), session }))
}

/// What became of a session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Changed {
    pub(super) success: bool,
    pub(super) session: Session,
}

/// Take a session into memory, attached to where it runs
#[utoipa::path(post, path = "/api/sessions/{id}/load", tag = "sessions", responses(
    (status = 200, description = "The session", body = Changed)
))]
pub(super) async fn load(
    State(app): State<App>,
    Id(id): Id,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Changed>> {
    Ok(Json(Changed { success: true, session: app.host.load(&id).await? }))
}

/// Let a session out of memory: its sandbox is taken away, its record stays
#[utoipa::path(post, path = "/api/sessions/{id}/unload", tag = "sessions", responses(
    (status = 200, description = "The session", body = Changed)
))]
pub(super) async fn unload(
    State(app): State<App>,
    Id(id): Id,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Changed>> {
    app.host.unload(&id).await?;
    Ok(Json(Changed { success: true, session: app.host.get(&id).await? }))
}
