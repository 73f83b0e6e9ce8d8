//! What becomes of prompts.

use super::read::{Found, text};
use super::state::State;
use crate::event::{Meaning, MessageState};
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
    became(state, text(line, "command_uuid"), what, found);
    true
}

/// Something became of a prompt.
pub(super) fn became(state: &mut State, uuid: &str, what: MessageState, found: &mut Found) {
    if matches!(what, MessageState::Completed | MessageState::Cancelled) {
        state.prompts.retain(|prompt| prompt != uuid);
    }
    found.push(Meaning::Prompt { uuid: uuid.to_owned(), state: what });
}

/// A turn begins. Versions that do not tell take all that waits into it.
pub(super) fn turn_begins(state: &mut State, found: &mut Found) {
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
    let turn = std::mem::take(&mut state.turn);
    let prompts = if told.is_empty() { turn } else { told };
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
