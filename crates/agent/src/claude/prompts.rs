//! What becomes of prompts.

use super::read::{Found, text};
use super::state::State;
use crate::event::{Meaning, MessageState, TurnResult};
use serde_json::Value;

/// The agent tells it itself.
pub(super) fn lifecycle(state: &mut State, line: &Value, found: &mut Found) -> bool {
    let what = match text(line, "state") {
        "queued" => MessageState::Queued,
        "started" => MessageState::Started,
        "completed" => MessageState::Completed,
        "cancelled" => MessageState::Cancelled,
        _ => return false,
    };
    state.tells_prompts = true;
    became_at_last(state, text(line, "command_uuid"), what, found);
    true
}

/// A prompt was taken back.
pub(super) fn cancelled(state: &mut State, uuid: &str, found: &mut Found) {
    became_at_last(state, uuid, MessageState::Cancelled, found);
}

/// Something became of a prompt. A result takes away the prompts that it names. One that is dealt with and was not
/// named is answered by the turn that runs, or by none.
fn became_at_last(state: &mut State, uuid: &str, what: MessageState, found: &mut Found) {
    let waits = state.prompts.iter().any(|prompt| prompt == uuid);
    match what {
        MessageState::Completed if waits && state.in_turn => state.unanswered.push(uuid.to_owned()),
        MessageState::Completed if waits => found.push(Meaning::Result(without_turn(uuid, false))),
        MessageState::Cancelled if waits => found.push(Meaning::Result(without_turn(uuid, true))),
        _ => {}
    }
    became(state, uuid, what, found);
}

/// The agent is idle: what was not answered will not be.
pub(super) fn none_waits(state: &mut State, found: &mut Found) {
    for uuid in std::mem::take(&mut state.unanswered) {
        found.push(Meaning::Result(without_turn(&uuid, false)));
    }
    if !state.tells_prompts {
        // These were taken into a turn that ran.
        let rest = state.prompts.drain(..).collect();
        completed(state, rest, found);
    }
}

/// The result of a prompt that had no turn: it was cancelled before, or it is one that the conversation has already.
fn without_turn(uuid: &str, cancelled: bool) -> TurnResult {
    let (subtype, reason) =
        if cancelled { ("error_during_execution", "cancelled") } else { ("success", "repeated") };
    TurnResult {
        subtype: subtype.to_owned(),
        is_error: cancelled,
        interrupted: cancelled,
        terminal_reason: Some(reason.to_owned()),
        prompts: vec![uuid.to_owned()],
        ..TurnResult::default()
    }
}

/// Something became of a prompt.
fn became(state: &mut State, uuid: &str, what: MessageState, found: &mut Found) {
    if matches!(what, MessageState::Completed | MessageState::Cancelled) {
        state.prompts.retain(|prompt| prompt != uuid);
    }
    found.push(Meaning::Prompt { uuid: uuid.to_owned(), state: what });
}

/// A turn begins. Versions that do not tell take all that waits into it.
pub(super) fn turn_begins(state: &mut State, found: &mut Found) {
    state.in_turn = true;
    if state.tells_prompts {
        return;
    }
    for uuid in state.prompts.clone() {
        if !state.turn.contains(&uuid) {
            state.turn.push(uuid.clone());
            became(state, &uuid, MessageState::Started, found);
        }
    }
}

/// The prompts that a turn answered, by its result.
pub(super) fn answered(state: &mut State, told: Vec<String>) -> Vec<String> {
    state.in_turn = false;
    let turn = std::mem::take(&mut state.turn);
    let mut prompts = if told.is_empty() { turn } else { told };
    for uuid in std::mem::take(&mut state.unanswered) {
        if !prompts.contains(&uuid) {
            prompts.push(uuid);
        }
    }
    state.prompts.retain(|prompt| !prompts.contains(prompt));
    prompts
}

/// Versions that do not tell have dealt with these.
pub(super) fn completed(state: &mut State, prompts: Vec<String>, found: &mut Found) {
    if !state.tells_prompts {
        for uuid in prompts {
            became(state, &uuid, MessageState::Completed, found);
        }
    }
}
