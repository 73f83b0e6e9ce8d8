//! How turns and processes end.

use super::read::{Found, count, nonempty, small, word};
use super::state::{MAIN, State};
use super::{blocks, prompts, system};
use crate::event::{AgentEvent, Meaning, TurnResult, Usage};
use serde_json::Value;

/// What is said of a turn whose agent has ended.
const GONE: &str = "agent_exited";

/// The result of a turn.
pub(super) fn result(state: &mut State, line: &Value, found: &mut Found) -> bool {
    system::running(state, found);
    let prompts = prompts::answered(state, told(line));
    // Only we say that it is gone.
    let subtype = word(line, "subtype").filter(|subtype| *subtype != GONE).unwrap_or("error");
    let reason = nonempty(line, "terminal_reason");
    // Older versions do not say the reason.
    let interrupted = match reason {
        Some(reason) => reason.starts_with("aborted"),
        None => state.interrupting && subtype == "error_during_execution",
    };
    let usage = &line["usage"];
    let result = TurnResult {
        subtype: subtype.to_owned(),
        is_error: line["is_error"].as_bool().unwrap_or(subtype != "success"),
        text: words(line),
        terminal_reason: reason.map(str::to_owned),
        interrupted,
        api_error_status: system::status(line, "api_error_status"),
        usage: Usage {
            input: count(usage, "input_tokens"),
            output: count(usage, "output_tokens"),
            cache_creation: count(usage, "cache_creation_input_tokens"),
            cache_read: count(usage, "cache_read_input_tokens"),
        },
        cost_usd: cost(state, line),
        num_turns: small(line, "num_turns"),
        duration_ms: count(line, "duration_ms"),
        prompts: prompts.clone(),
        unasked: nonempty(&line["origin"], "kind").is_some_and(|kind| kind != "human"),
        structured_output: line.get("structured_output").filter(|value| !value.is_null()).cloned(),
    };
    // Whatever the model did not finish, it will not.
    blocks::abandon(state, MAIN, 0, found);
    found.push(Meaning::Result(result));
    prompts::completed(state, prompts, found);
    // A version that tells when it is idle does so after this. Others are idle unless something goes on on the side.
    if !state.tells_state && state.tasks.values().all(|task| task.is_command) {
        system::idle(state, found);
    }
    true
}

/// The prompts that it answers.
fn told(line: &Value) -> Vec<String> {
    let mut prompts: Vec<String> = line["user_message_uuids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|uuid| uuid.as_str().map(str::to_owned))
        .collect();
    if let Some(uuid) = nonempty(line, "user_message_uuid").filter(|uuid| !prompts.iter().any(|p| p == uuid))
    {
        prompts.push(uuid.to_owned());
    }
    prompts
}

/// The last words, or what went wrong.
fn words(line: &Value) -> Option<String> {
    let errors = || {
        let errors: Vec<&str> = line["errors"].as_array()?.iter().filter_map(Value::as_str).collect();
        (!errors.is_empty()).then(|| errors.join("\n"))
    };
    line["result"].as_str().map(str::to_owned).or_else(errors)
}

/// What was spent since the last result, in dollars.
fn cost(state: &mut State, line: &Value) -> f64 {
    let total = told_nano(&line["total_cost_usd"]);
    let before = state.spent;
    state.spent = total.unwrap_or(before);
    let told = line["model_usage_since_last_result"].as_object().and_then(|models| {
        let mut costs = models.values().map(|model| told_nano(&model["costUSD"]));
        costs.try_fold(0_u64, |sum, cost| Some(sum.saturating_add(cost?)))
    });
    dollars(told.unwrap_or_else(|| total.unwrap_or(before).saturating_sub(before)))
}

/// Dollars that the agent tells.
fn told_nano(dollars: &Value) -> Option<u64> {
    dollars.as_f64().filter(|dollars| dollars.is_finite() && *dollars >= 0.0).map(nano)
}

/// Dollars as thousand-millionths, which add up and compare exactly. Not for what is negative or no number.
pub(super) fn nano(dollars: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked, and a cast saturates"
    )]
    let nano = (dollars * 1e9).round() as u64;
    nano.min(1 << 53)
}

/// Thousand-millionths as dollars.
pub(super) fn dollars(nano: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "dollars are told in floating point")]
    let dollars = nano as f64 / 1e9;
    dollars
}

/// The process has ended.
pub(super) fn exited(state: &mut State, code: Option<i32>, events: &mut Vec<AgentEvent>) {
    if std::mem::replace(&mut state.exited, true) {
        return;
    }
    let how = code.map_or_else(|| "was killed".to_owned(), |code| format!("ended with code {code}"));
    let complaint = Some(state.complaint.as_str()).filter(|complaint| !complaint.is_empty());
    let problem = format!("the agent {how}{}", complaint.map(|text| format!(": {text}")).unwrap_or_default());
    let mut add = |meaning| events.push(AgentEvent::new(meaning));
    for (id, _) in std::mem::take(&mut state.questions) {
        add(Meaning::QuestionWithdrawn { id });
    }
    for (id, what) in std::mem::take(&mut state.asked) {
        if what == super::state::Asked::Request {
            add(Meaning::Answered { id, result: Err(problem.clone()) });
        }
    }
    for open in std::mem::take(&mut state.messages).into_values().flat_map(|message| message.open) {
        add(Meaning::BlockAbandoned { block: open.id });
    }
    let mut prompts = std::mem::take(&mut state.unanswered);
    prompts.extend(std::mem::take(&mut state.prompts));
    // One that had its result before has no other: whoever ends by SIGINT gives it on the way out.
    if state.in_turn || !prompts.is_empty() {
        add(Meaning::Result(TurnResult {
            subtype: GONE.to_owned(),
            is_error: true,
            text: Some(problem),
            interrupted: state.interrupting,
            prompts,
            ..TurnResult::default()
        }));
    }
    if std::mem::replace(&mut state.busy, false) {
        add(Meaning::Idle);
    }
    state.calls.clear();
    state.tasks.clear();
    state.tools.clear();
}
