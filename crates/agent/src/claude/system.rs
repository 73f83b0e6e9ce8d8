//! Lines of the type `system`, and whether the agent is busy.

use super::prompts;
use super::read::{Found, count, nonempty, small, text, word};
use super::state::{State, Task, remember};
use crate::event::{Meaning, Retry, SubagentState};
use crate::lines::clip;
use serde_json::Value;
use std::collections::BTreeMap;

/// Of how many plugins it is told that they could not be loaded.
const MAX_PLUGINS: usize = 16;
/// How much is kept of what a task is for, or of what is wrong with a plugin, in bytes.
const MAX_DESCRIPTION: usize = 1024;

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
    if let Some(version) = word(line, "claude_code_version") {
        state.ready.version = Some(version.to_owned());
    }
    state.learn(&line["capabilities"]);
    plugins(state, &line["plugin_errors"], found);
    // A turn begins with this line in every version.
    running(state, found);
    prompts::turn_begins(state, found);
    let id = word(line, "session_id").map(str::to_owned);
    let model = word(line, "model").map(str::to_owned);
    let is_new = id.is_some() && id != state.ready.conversation || model.is_some() && model != state.model;
    state.model = model.or(state.model.take());
    state.ready.conversation = id.or(state.ready.conversation.take());
    if let Some(id) = state.ready.conversation.clone().filter(|_| is_new) {
        found.push(Meaning::Conversation { id, model: state.model.clone() });
    }
}

/// Plugins that it could not load. Every turn tells them.
fn plugins(state: &mut State, errors: &Value, found: &mut Found) {
    let errors = errors.as_array().into_iter().flatten().filter_map(|error| nonempty(error, "message"));
    let problems: Vec<String> =
        errors.take(MAX_PLUGINS).map(|problem| clip(problem, MAX_DESCRIPTION).to_owned()).collect();
    if problems != state.plugin_problems {
        for problem in &problems {
            found.push(Meaning::Log { level: "warn", message: format!("a plugin is not there: {problem}") });
        }
        state.plugin_problems = problems;
    }
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
        prompts::none_waits(state, found);
        state.busy = false;
        state.interrupting = false;
        found.push(Meaning::Idle);
    }
}

fn task(state: &mut State, line: &Value, became: SubagentState, found: &mut Found) {
    let Some(id) = word(line, "tool_use_id").or(word(line, "task_id")) else { return };
    let task = word(line, "task_id").unwrap_or(id);
    let mut known = state.tasks.remove(task).unwrap_or_default();
    if let Some(description) = nonempty(line, "description") {
        known.description = clip(description, MAX_DESCRIPTION).to_owned();
    }
    known.is_command |= text(line, "task_type") == "local_bash";
    let description = known.description.clone();
    if matches!(became, SubagentState::Started | SubagentState::Progress) {
        remember(&mut state.tasks, task, known);
    }
    found.push(Meaning::Subagent { id: id.to_owned(), state: became, description });
}

/// All that goes on on the side.
fn background(state: &mut State, line: &Value) {
    let Some(tasks) = line["tasks"].as_array() else { return };
    let mut known = BTreeMap::new();
    for task in tasks {
        if let Some(id) = word(task, "task_id") {
            let description = clip(text(task, "description"), MAX_DESCRIPTION).to_owned();
            let is_command = text(task, "task_type") == "local_bash";
            remember(&mut known, id, Task { description, is_command });
        }
    }
    // What is no longer there was described for its end, which is told later.
    state.tasks = known;
}

/// An HTTP status.
pub(super) fn status(line: &Value, key: &str) -> Option<u16> {
    line.get(key).and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok())
}
