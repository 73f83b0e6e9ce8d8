//! `hostel session questions`, `approve` and `deny`.

use super::super::conversation::describe;
use super::super::{Context, Outcome, SUCCESS};
use crate::failure::Failure;
use crate::output::{self, human, table};
use hostel_client::model::{SessionQuestion, Verdict};
use hostel_client::{AnswerQuestion, SessionClient};
use serde_json::json;

pub(super) async fn list(context: &Context, client: &SessionClient, id: &str) -> Outcome {
    let questions = client.questions(id).await?;
    if context.json {
        output::json(&json!({ "questions": questions }))?;
        return Ok(SUCCESS);
    }
    let mut table = table::Table::new(&["ID", "AGE", "DENIED", "ASKS FOR"]);
    for question in &questions {
        table.row([
            question.id.clone(),
            human::age(question.ask_time),
            human::until(question.expire_time),
            describe(&question.tool, Some(&question.input)).chars().take(100).collect(),
        ]);
    }
    table.print()?;
    Ok(SUCCESS)
}

pub(super) async fn approve(
    context: &Context,
    client: &SessionClient,
    id: &str,
    question: Option<String>,
    always: bool,
) -> Outcome {
    let verdict = if always { Verdict::AllowForSession } else { Verdict::Allow };
    answer(context, client, id, question, decide(verdict)).await
}

pub(super) async fn deny(
    context: &Context,
    client: &SessionClient,
    id: &str,
    question: Option<String>,
    message: Option<String>,
    interrupt: bool,
) -> Outcome {
    let denial = AnswerQuestion { message, interrupt, ..decide(Verdict::Deny) };
    answer(context, client, id, question, denial).await
}

fn decide(verdict: Verdict) -> AnswerQuestion {
    let decided_by = std::env::var("USER").ok().filter(|name| !name.is_empty());
    AnswerQuestion { verdict, message: None, input: None, interrupt: false, decided_by }
}

async fn answer(
    context: &Context,
    client: &SessionClient,
    id: &str,
    question: Option<String>,
    answer: AnswerQuestion,
) -> Outcome {
    let question = match question {
        Some(question) => question,
        None => only(client.questions(id).await?)?.id,
    };
    let question = client.answer(id, &question, answer).await?;
    if context.json {
        output::json(&question)?
    } else {
        output::line(&question.id)?
    }
    Ok(SUCCESS)
}

/// The question that is meant where none is named.
fn only(mut questions: Vec<SessionQuestion>) -> Result<SessionQuestion, Failure> {
    match (questions.pop(), questions.len()) {
        (Some(question), 0) => Ok(question),
        (None, _) => Err(Failure::other("NO_QUESTION", "no question waits")),
        (Some(_), others) => {
            let all = others + 1;
            Err(Failure::usage(format!("{all} questions wait: name one of `hostel session questions`")))
        }
    }
}
