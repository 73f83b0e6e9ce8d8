//! The most model calls in a turn, where the agent ran before anybody knew of the turn: it cannot be told then, but it
//! asks its host after all tools of a call have run, before it calls the model again. What this comes to is the same as
//! with `--max-turns`.

use crate::launch::LaunchOptions;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The hook by which it asks.
const HOOK: &str = "hostel:turns";
/// When.
const EVENT: &str = "PostToolBatch";

/// How long it waits for an answer, in seconds: as long as anybody may be away who will come back. After that Claude Code
/// 2.1.329 ends, instead of going on.
const PATIENCE: u32 = 24 * 60 * 60;

/// How often it may, and did.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Turns {
    /// The most in a turn; `None` where nobody asks.
    most: Option<u32>,
    /// How often it did since its last result.
    used: u32,
}

impl Turns {
    pub(super) fn new(options: &LaunchOptions) -> Self {
        Self { most: options.max_turns.filter(|_| options.claimed_spare), used: 0 }
    }

    /// Whether the turn that runs has none left.
    fn spent(&self) -> Option<u32> {
        self.most.filter(|most| self.used >= *most)
    }
}

/// The hooks that it is told of, with ours.
pub(super) fn hooks(options: &LaunchOptions) -> Option<Value> {
    let mut hooks = options.host_hooks.clone();
    if Turns::new(options).most.is_some() {
        let events = hooks.get_or_insert_with(|| json!({})).as_object_mut();
        let ours = json!({ "hookCallbackIds": [HOOK], "timeout": PATIENCE });
        let others = events.map(|events| events.entry(EVENT).or_insert_with(|| json!([])));
        if let Some(others) = others.and_then(Value::as_array_mut) {
            others.push(ours);
        }
    }
    hooks
}

/// The answer, where it is this that it asks. Subagents have turns of their own.
pub(super) fn answer(turns: &mut Turns, request: &Value) -> Option<Value> {
    if turns.most.is_none() || request["callback_id"] != HOOK {
        return None;
    }
    let is_main = request["input"]["agent_id"].is_null();
    turns.used = turns.used.saturating_add(u32::from(is_main));
    match turns.spent().filter(|_| is_main) {
        Some(most) => Some(json!({ "continue": false, "stopReason": words(most) })),
        None => Some(json!({})),
    }
}

/// The turn is over. One that was stopped for this says so as the agent itself does where it counts.
pub(super) fn close(turns: &mut Turns, line: &mut Value) {
    let spent = turns.spent();
    turns.used = 0;
    if let Some(most) = spent.filter(|_| line["terminal_reason"] == "hook_stopped") {
        line["subtype"] = json!("error_max_turns");
        line["is_error"] = json!(true);
        line["terminal_reason"] = json!("max_turns");
        line["errors"] = json!([words(most)]);
        if let Some(line) = line.as_object_mut() {
            line.remove("result");
        }
    }
}

fn words(most: u32) -> String {
    format!("Reached maximum number of turns ({most})")
}
