//! Questions of agents, and their answers.

use super::app::App;
use super::input::{Id, Json as Body, QuestionId};
use super::problem::Result;
use axum::Json;
use axum::extract::State;
use hostel_session::{Question, QuestionAnswer};
use serde::Serialize;

/// Questions that wait.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Questions {
    /// They, oldest first.
    questions: Vec<Question>,
}

/// List the agent's questions that wait for an answer
#[utoipa::path(get, path = "/api/sessions/{id}/permissions", tag = "permissions", responses(
    (status = 200, description = "Oldest first", body = Questions)
))]
pub(super) async fn list(State(app): State<App>, Id(id): Id) -> Result<Json<Questions>> {
    Ok(Json(Questions { questions: app.host.questions(&id).await? }))
}

/// Answer a question; the first answer counts
#[utoipa::path(
    post, path = "/api/sessions/{id}/permissions/{questionId}", tag = "permissions",
    request_body = QuestionAnswer,
    responses((status = 200, description = "The question with its answer", body = Question))
)]
pub(super) async fn answer(
    State(app): State<App>,
    Id(id): Id,
    QuestionId(question): QuestionId,
    Body(answer): Body<QuestionAnswer>,
) -> Result<Json<Question>> {
    Ok(Json(app.host.answer(&id, &question, answer).await?))
}
