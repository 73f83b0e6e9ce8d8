//! Events in one line each.

use hostel_agent::{AgentEvent, Block, BlockKind, Meaning};

/// What events mean, shortly.
pub(crate) fn outline(events: &[AgentEvent]) -> String {
    let lines = events.iter().map(|event| {
        let subagent = event.subagent.as_ref().map(|id| format!("  [{id}] ")).unwrap_or_default();
        let raw = if event.raw.is_some() { "" } else { " -" };
        format!("{subagent}{}{raw}\n", meaning(&event.meaning))
    });
    lines.collect()
}

fn meaning(meaning: &Meaning) -> String {
    match meaning {
        Meaning::Ready(ready) => format!("ready {:?}", ready.version),
        Meaning::Conversation { id, model } => format!("conversation {id} {model:?}"),
        Meaning::Running => "running".to_owned(),
        Meaning::Idle => "idle".to_owned(),
        Meaning::Prompt { uuid, state } => format!("prompt {uuid} {state:?}"),
        Meaning::BlockStart(start) => format!("start {}", block(start)),
        Meaning::BlockDelta { block, index, kind, delta } => {
            format!("delta {block} {index} {kind:?} {delta:?}")
        }
        Meaning::BlockUpdate(update) => format!("update {}", block(update)),
        Meaning::BlockComplete(complete) => format!("complete {}", block(complete)),
        Meaning::BlockAbandoned { block } => format!("abandoned {block}"),
        Meaning::Question(question) => {
            format!(
                "question {} {} {} {:?}",
                question.id, question.tool, question.input, question.tool_use_id
            )
        }
        Meaning::QuestionWithdrawn { id } => format!("withdrawn {id}"),
        Meaning::HostCall { id, name, hook, message } => {
            let method = message.get("method").or(message.get("hook_event_name"));
            format!("call {id} {name} {hook} {method:?}")
        }
        Meaning::Result(result) => format!(
            "result {} error:{} interrupted:{} unasked:{} ${:.6} turns:{} {:?} {:?} {:?}",
            result.subtype,
            result.is_error,
            result.interrupted,
            result.unasked,
            result.cost_usd,
            result.num_turns,
            result.terminal_reason,
            result.prompts,
            result.text,
        ),
        Meaning::Retry(retry) => format!("retry {}/{} {:?}", retry.attempt, retry.max_retries, retry.status),
        Meaning::Subagent { id, state, description } => format!("side {id} {state:?} {description:?}"),
        Meaning::Transcript { path, entries } => format!("transcript {path} {}", entries.len()),
        Meaning::Log { level, message } => format!("log {level} {message}"),
        Meaning::Other { kind } => format!("other {kind}"),
        other => format!("{other:?}"),
    }
}

fn block(block: &Block) -> String {
    let id = &block.id;
    match &block.kind {
        BlockKind::ToolUse { name, input, status } => format!("{id} call {name} {input} {status:?}"),
        BlockKind::ToolResult { tool_use_id, is_error, .. } => {
            format!("{id} result {tool_use_id} {is_error}")
        }
        BlockKind::AssistantText { text } => format!("{id} text {text:?}"),
        BlockKind::Thinking { text } => format!("{id} thinking {text:?}"),
        BlockKind::UserMessage { text } => format!("{id} user {text:?}"),
        BlockKind::System { subtype, message } => format!("{id} system {subtype} {message:?}"),
    }
}
