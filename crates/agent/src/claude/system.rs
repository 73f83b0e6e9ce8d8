//! Lines of the type `system`, and whether the agent is busy.

use super::read::{Found, conversation, count, nonempty, small, text};
use super::state::{State, remember};
use crate::event::{Meaning, Retry, SubagentState};
use serde_json::Value;
use std::collections::BTreeMap;

/// A line of this type.
pub(super) fn system(state: &mut State, line: &Value, found: &mut Found) -> bool {
    match text(line, "subtype") {
        "init" => init(state, line, found),
        "session_state_changed" => {
            state.tells_state = true;
            match text(line, "state") {
                "idle" => idle(state, found),
                _ => running(state, found),
            }
        }
        "api_retry" => found.push(Meaning::Retry(Retry {
            attempt: small(line, "attempt"),
            max_retries: small(line, "max_retries"),
            delay_ms: count(line, "retry_delay_ms"),
            status: status(line, "error_status"),
            error: text(line, "error").to_owned(),
        })),
        "task_started" => task(state, line, SubagentState::Started, found),
        "task_progress" => task(state, line, SubagentState::Progress, found),
        "task_notification" => {
            let ended = match text(line, "status") {
                "completed" => SubagentState::Completed,
                "" | "running" | "pending" => SubagentState::Progress,
                _ => SubagentState::Failed,
            };
            task(state, line, ended, found);
        }
        "background_tasks_changed" => background(state, line),
        "model_fallback" | "informational" => {
            let message = ["message", "content", "text"].iter().find_map(|key| nonempty(line, key));
            if let Some(message) = message {
                found.push(Meaning::Log { level: "info", message: message.to_owned() });
            }
        }
        "mirror_error" | "session_writes_lost" => found.push(Meaning::Log {
            level: "error",
            message: nonempty(line, "message").unwrap_or("the transcript is not complete").to_owned(),
        }),
        _ => {}
    }
    true
}

fn init(state: &mut State, line: &Value, found: &mut Found) {
    if let Some(version) = nonempty(line, "claude_code_version") {
        state.ready.version = Some(version.to_owned());
    }
    // A turn begins with this line in every version.
    running(state, found);
    conversation(state, line, found);
}

/// The agent is busy.
pub(super) fn running(state: &mut State, found: &mut Found) {
    if !state.busy {
        state.busy = true;
        found.push(Meaning::Running);
    }
}

/// The agent is idle.
pub(super) fn idle(state: &mut State, found: &mut Found) {
    if state.busy {
        state.busy = false;
        state.interrupting = false;
        found.push(Meaning::Idle);
    }
}

fn task(state: &mut State, line: &Value, became: SubagentState, found: &mut Found) {
    let Some(id) = nonempty(line, "tool_use_id").or(nonempty(line, "task_id")) else { return };
    let task = nonempty(line, "task_id").unwrap_or(id);
    let said = nonempty(line, "description").map(str::to_owned);
    let description = said.or_else(|| state.tasks.get(task).cloned()).unwrap_or_default();
    if matches!(became, SubagentState::Completed | SubagentState::Failed) {
        state.tasks.remove(task);
    } else {
        remember(&mut state.tasks, task, description.clone());
    }
    found.push(Meaning::Subagent { id: id.to_owned(), state: became, description });
}

/// All that goes on on the side.
fn background(state: &mut State, line: &Value) {
    let Some(tasks) = line["tasks"].as_array() else { return };
    let mut known = BTreeMap::new();
    for task in tasks {
        if let Some(id) = nonempty(task, "task_id").or(nonempty(task, "id")) {
            remember(&mut known, id, text(task, "description").to_owned());
        }
    }
    state.tasks = known;
}

/// An HTTP status.
pub(super) fn status(line: &Value, key: &str) -> Option<u16> {
    line.get(key).and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok())
}
