//! Hooks that the agent runs itself. It leaves out without a word what it does not understand, so who means to guard
//! something by a hook is told of a mistake here.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// When hooks can be run, in Claude Code 2.1.329.
const EVENTS: [&str; 33] = [
    "ConfigChange",
    "CwdChanged",
    "DirectoryAdded",
    "Elicitation",
    "ElicitationResult",
    "FileChanged",
    "InstructionsLoaded",
    "MessageDisplay",
    "Notification",
    "PermissionDenied",
    "PermissionRequest",
    "PostCompact",
    "PostModelSwitch",
    "PostToolBatch",
    "PostToolUse",
    "PostToolUseFailure",
    "PreCompact",
    "PreModelSwitch",
    "PreToolUse",
    "SessionEnd",
    "SessionStart",
    "Setup",
    "Stop",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "TaskCompleted",
    "TaskCreated",
    "TeammateIdle",
    "UserPromptExpansion",
    "UserPromptSubmit",
    "WorktreeCreate",
    "WorktreeRemove",
];

/// By event.
type Hooks = BTreeMap<String, Vec<Group>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape is what counts")]
struct Group {
    matcher: Option<String>,
    hooks: Vec<Hook>,
}

/// What to run. There may be more in it, such as `timeout`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "the shape is what counts")]
enum Hook {
    Command { command: String, timeout: Option<f64> },
    Prompt { prompt: String, timeout: Option<f64> },
    Agent { prompt: String, timeout: Option<f64> },
    Http { url: String, timeout: Option<f64> },
    McpTool { server: String, tool: String, timeout: Option<f64> },
}

/// Whether the agent will understand them.
pub(super) fn check(hooks: &Value) -> Result<()> {
    let wrong = |problem: String| Error::Options { field: "hooks", problem };
    let hooks: Hooks = serde_path_to_error::deserialize(hooks).map_err(|error| wrong(error.to_string()))?;
    match hooks.keys().find(|event| !EVENTS.contains(&event.as_str())) {
        Some(event) => Err(wrong(format!("there is no event {event:?}, only {}", EVENTS.join(", ")))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use serde_json::{Value, json};

    fn problem(hooks: &Value) -> String {
        check(hooks).expect_err("a mistake").to_string()
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let guard = json!({ "type": "command", "command": "./guard", "timeout": 5, "statusMessage": "…" });
        check(&json!({
            "PreToolUse": [{ "matcher": "Bash|Write", "hooks": [guard] }],
            "Stop": [{ "hooks": [{ "type": "mcp_tool", "server": "s", "tool": "t" }] }, { "hooks": [] }],
        }))
        .expect("hooks");
        check(&json!({})).expect("no hooks");
        for (hooks, parts) in [
            (json!([]), ["hooks: ", "a map"]),
            (json!({ "BeforeToolUse": [] }), ["\"BeforeToolUse\"", " PreToolUse,"]),
            (json!({ "Stop": {} }), ["Stop: ", "a sequence"]),
            (json!({ "Stop": [guard] }), ["Stop[0].", "`matcher` or `hooks`"]),
            (json!({ "Stop": [{ "matcher": 1, "hooks": [] }] }), ["Stop[0].matcher: ", "a string"]),
            (json!({ "Stop": [{}] }), ["Stop[0]: ", "`hooks`"]),
            (json!({ "Stop": [{ "hooks": [guard, {}] }] }), ["Stop[0].hooks[1]: ", "`type`"]),
            (json!({ "Stop": [{ "hooks": [{ "type": "shell" }] }] }), ["Stop[0].hooks[0]", "`command`"]),
            (json!({ "Stop": [{ "hooks": [{ "type": "http" }] }] }), ["Stop[0].hooks[0]", "`url`"]),
        ] {
            let problem = problem(&hooks);
            assert!(parts.iter().all(|part| problem.contains(part)), "{hooks}: {problem}");
        }
    }
}
