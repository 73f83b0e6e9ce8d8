//! The most model calls in a turn, where the agent ran before anybody knew of the turn: it cannot be told then. It is
//! given a hook instead, which counts after all tools of a call have run and ends the turn before the model is called
//! again, as `--max-turns` would. The hook is a command inside, so that nothing has to wait for whoever drives.
//!
//! What is inside can be meddled with, and hooks can be switched off by the settings of a workspace. So it is counted
//! here too: an agent that goes on all the same is interrupted.

use super::read::text;
use super::state::{Asked, MAIN, State};
use crate::launch::LaunchOptions;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// When the hook runs.
const EVENT: &str = "PostToolBatch";
/// How long it may take, in seconds.
const TIMEOUT: u32 = 10;

/// Counts in a file. What the hook is told begins with the fields that all hooks have, then comes `hook_event_name`;
/// quotation marks in values are escaped. Subagents have turns of their own.
const COUNT: &str = r#"call=$(head -c 65536)
call=${call%%'"hook_event_name":'*}
case $call in *'"agent_id":'*) exit ;; esac
session=${call#*'"session_id":"'} session=${session%%'"'*}
prompt=${call#*'"prompt_id":"'} prompt=${prompt%%'"'*}
file=${CLAUDE_CONFIG_DIR:-$HOME/.claude}/.turns-$session
read -r last used <"$file" && [ "$last" = "$prompt" ] || used=0
used=$((used + 1))
echo "$prompt $used" >"$file"
"#;

/// How often it may, and did.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Turns {
    /// The most in a turn; `None` where nobody asks.
    most: Option<u32>,
    /// How many of its calls had tools that have run, since its last result.
    used: u32,
    /// The message that the last of them came in.
    last: String,
    /// Whether it went on all the same, and was interrupted.
    is_over: bool,
}

impl Turns {
    pub(super) fn new(options: &LaunchOptions) -> Self {
        Self { most: options.max_turns.filter(|_| options.claimed_spare), ..Self::default() }
    }

    /// Whether the turn that runs has none left.
    fn spent(&self) -> Option<u32> {
        self.most.filter(|most| self.used >= *most)
    }
}

/// The hooks of a session, with ours.
pub(super) fn hooks(options: &LaunchOptions) -> Option<Value> {
    let Some(most) = Turns::new(options).most else { return options.hooks.clone() };
    let stop = json!({ "continue": false, "stopReason": words(most) });
    let command = format!("{COUNT}[ \"$used\" -lt {most} ] || echo '{stop}'\n");
    let ours = json!({ "hooks": [{ "type": "command", "command": command, "timeout": TIMEOUT }] });
    let mut hooks = options.hooks.clone().unwrap_or_else(|| Value::Object(Map::new()));
    match &mut hooks[EVENT] {
        Value::Array(others) => others.push(ours),
        none => *none = json!([ours]),
    }
    Some(hooks)
}

/// The model answers in the main conversation.
pub(super) fn begin(state: &mut State) {
    if state.turns.spent().is_some() && !std::mem::replace(&mut state.turns.is_over, true) {
        state.ask("hostel:turns", &json!({ "subtype": "interrupt" }), Asked::Option);
    }
}

/// A tool has run that it called in the main conversation.
pub(super) fn tool_ran(state: &mut State) {
    let Some(message) = state.messages.get(MAIN) else { return };
    if state.turns.last != message.id {
        state.turns.last.clone_from(&message.id);
        state.turns.used = state.turns.used.saturating_add(1);
    }
}

/// The turn is over. One that was stopped for this says so as the agent itself does where it counts.
pub(super) fn close(turns: &mut Turns, line: &mut Value) {
    let spent = turns.spent();
    let is_over = std::mem::take(&mut turns.is_over);
    turns.used = 0;
    let reason = text(line, "terminal_reason");
    let was_stopped = reason == "hook_stopped" || is_over && reason.starts_with("aborted");
    if let Some(most) = spent.filter(|_| was_stopped) {
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
