//! `POST /v1/messages`: from a request to what is played for it.

mod attempts;
mod conversation;
mod request;

pub(crate) use attempts::Attempts;
pub(crate) use request::MessagesRequest;

use crate::api_error::ApiError;
use crate::script::{Script, Step};
use conversation::Conversation;
use std::time::Duration;

/// What is played.
#[derive(Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) step: Step,
    pub(crate) wait: Duration,
    /// In words, for the log.
    pub(crate) what: String,
}

/// Chooses by the script in the conversation, else by the default one.
///
/// # Errors
/// 400 when the script is wrong.
pub(crate) fn choose(
    request: &MessagesRequest,
    session: &str,
    default: &Script,
    attempts: &Attempts,
) -> Result<Choice, ApiError> {
    let conversation = Conversation::of(&request.messages);
    if let Some(scripted) = &conversation.scripted {
        let wrong = |error: crate::Error| ApiError::invalid(error.to_string());
        let script = Script::find(&scripted.text).unwrap_or_else(|| Ok(Script::new())).map_err(wrong)?;
        if let Some(choice) = play(&script, scripted, session, attempts) {
            return Ok(choice);
        }
    }
    let plain = match conversation.plain {
        // A script is at its end, and nobody said anything since.
        None => return Ok(simple("ok")),
        Some(plain) => plain,
    };
    if default.is_empty() {
        let echo = format!("echo: {}", plain.text);
        return Ok(if plain.answers == 0 {
            Choice { what: "echo".to_owned(), ..simple(&echo) }
        } else {
            simple("ok")
        });
    }
    Ok(play(default, &plain, session, attempts).unwrap_or_else(|| simple("ok")))
}

fn play(
    script: &Script,
    prompt: &conversation::Prompt,
    session: &str,
    attempts: &Attempts,
) -> Option<Choice> {
    let attempt = match script.counts_attempts() {
        true => attempts.count((session, &prompt.text, prompt.place, prompt.answers)),
        false => 0,
    };
    let play = script.next(prompt.answers, attempt)?;
    let what = format!("step {}/{}: {}", play.number, script.steps().len(), play.step.in_words());
    Some(Choice { step: play.step.clone(), wait: play.wait, what })
}

fn simple(text: &str) -> Choice {
    Choice { step: Step::text(text), wait: Duration::ZERO, what: "ok".to_owned() }
}

#[cfg(test)]
mod tests;
