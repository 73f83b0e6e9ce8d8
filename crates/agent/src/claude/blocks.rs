//! The parts of a conversation.

use super::read::{Found, nonempty, small, text, word};
use super::state::{MAIN, Message, OpenBlock, State, remember};
use super::turns;
use crate::event::{Block, BlockKind, DeltaKind, Meaning, ToolStatus};
use serde_json::Value;

/// How many blocks of a message may be incomplete.
const MAX_OPEN_BLOCKS: usize = 64;

/// A piece of an answer as it comes from the model.
pub(super) fn stream(state: &mut State, line: &Value, found: &mut Found) -> bool {
    let event = &line["event"];
    let conversation = found.subagent.clone().unwrap_or_default();
    match text(event, "type") {
        "message_start" => {
            abandon(state, &conversation, 0, found);
            let id = word(&event["message"], "id").unwrap_or_default().to_owned();
            remember(&mut state.messages, &conversation, Message { id, ..Message::default() });
            if conversation == MAIN {
                turns::begin(state);
            }
        }
        "content_block_start" => {
            let Some(message) = state.messages.get_mut(&conversation) else { return true };
            let (index, block) = (small(event, "index"), &event["content_block"]);
            message.next = message.next.max(index.saturating_add(1));
            let Some(start) = begin(&message.id, index, block) else { return true };
            // A model writes one after the other. What is not complete by now never will be.
            if message.open.len() >= MAX_OPEN_BLOCKS {
                let oldest = message.open.remove(0);
                found.push(Meaning::BlockAbandoned { block: oldest.id });
            }
            let kind = text(block, "type").to_owned();
            message.open.push(OpenBlock { index, kind, id: start.id.clone() });
            found.push(Meaning::BlockStart(start));
        }
        "content_block_delta" => {
            let (index, delta) = (small(event, "index"), &event["delta"]);
            let (kind, key) = match text(delta, "type") {
                "text_delta" => (DeltaKind::Text, "text"),
                "thinking_delta" => (DeltaKind::Thinking, "thinking"),
                "input_json_delta" => (DeltaKind::Input, "partial_json"),
                _ => return true,
            };
            let known = state.messages.get(&conversation);
            let open = known.and_then(|message| message.open.iter().find(|open| open.index == index));
            let (Some(open), Some(delta)) = (open, nonempty(delta, key)) else { return true };
            found.push(Meaning::BlockDelta { block: open.id.clone(), index, kind, delta: delta.to_owned() });
        }
        "message_stop" => {
            let from = line["abandoned_blocks"]["from_block_index"].as_u64();
            if let Some(from) = from {
                abandon(state, &conversation, from, found);
            }
        }
        _ => {}
    }
    true
}

/// Gives up the blocks of a conversation that are not complete, from a place on.
pub(super) fn abandon(state: &mut State, conversation: &str, from: u64, found: &mut Found) {
    let Some(message) = state.messages.get_mut(conversation) else { return };
    message.open.retain(|open| {
        let stays = u64::from(open.index) < from;
        if !stays {
            found.push(Meaning::BlockAbandoned { block: open.id.clone() });
        }
        stays
    });
}

/// What a block is called: a call by its own id, which its result names; others by their place in their message.
fn name(message: &str, index: u32, block: &Value) -> String {
    match word(block, "id").filter(|_| text(block, "type") == "tool_use") {
        Some(call) => call.to_owned(),
        None => format!("{message}:{index}"),
    }
}

fn begin(message: &str, index: u32, block: &Value) -> Option<Block> {
    let kind = match text(block, "type") {
        "text" => BlockKind::AssistantText { text: text(block, "text").to_owned() },
        "thinking" => BlockKind::Thinking { text: text(block, "thinking").to_owned() },
        "tool_use" => BlockKind::ToolUse {
            name: text(block, "name").to_owned(),
            input: Value::Null,
            status: ToolStatus::Pending,
        },
        _ => return None,
    };
    Some(Block { id: name(message, index, block), kind })
}

/// Complete blocks of an answer: one in each line.
pub(super) fn assistant(state: &mut State, line: &Value, found: &mut Found) -> bool {
    let message = &line["message"];
    let id = word(message, "id").unwrap_or_default().to_owned();
    let conversation = found.subagent.clone().unwrap_or_default();
    if state.messages.get(&conversation).is_none_or(|known| known.id != id) {
        abandon(state, &conversation, 0, found);
        remember(&mut state.messages, &conversation, Message { id: id.clone(), ..Message::default() });
    }
    for block in message["content"].as_array().into_iter().flatten() {
        let kind = text(block, "type");
        let Some(known) = state.messages.get_mut(&conversation) else { return true };
        let index = place(known, kind);
        let block_id = name(&id, index, block);
        let kind = match kind {
            "text" => BlockKind::AssistantText { text: text(block, "text").to_owned() },
            "thinking" => BlockKind::Thinking { text: text(block, "thinking").to_owned() },
            "tool_use" => {
                let tool = word(block, "name").unwrap_or_default().to_owned();
                remember(&mut state.tools, text(block, "id"), tool.clone());
                BlockKind::ToolUse { name: tool, input: block["input"].clone(), status: ToolStatus::Running }
            }
            _ => continue,
        };
        found.push(Meaning::BlockComplete(Block { id: block_id, kind }));
    }
    true
}

/// Which of the blocks that began is this: the first of its type. Those that did not begin come after all others.
fn place(message: &mut Message, kind: &str) -> u32 {
    if let Some(position) = message.open.iter().position(|open| open.kind == kind) {
        return message.open.remove(position).index;
    }
    let index = message.next;
    message.next = message.next.saturating_add(1);
    index
}

/// Results of tools, and what the program says in the user's name.
pub(super) fn user(state: &mut State, line: &Value, found: &mut Found) -> bool {
    let content = &line["message"]["content"];
    let uuid = text(line, "uuid");
    if let Some(words) = content.as_str() {
        said(uuid, 0, words, found);
    }
    for (index, block) in content.as_array().into_iter().flatten().enumerate() {
        match text(block, "type") {
            "tool_result" => tool_result(state, block, found),
            "text" => said(uuid, index, text(block, "text"), found),
            _ => {}
        }
    }
    true
}

fn tool_result(state: &mut State, block: &Value, found: &mut Found) {
    if found.subagent.is_none() {
        turns::tool_ran(state);
    }
    let call = text(block, "tool_use_id");
    let is_error = block["is_error"].as_bool().unwrap_or_default();
    if let Some(name) = state.tools.remove(call) {
        let status = if is_error { ToolStatus::Error } else { ToolStatus::Success };
        let kind = BlockKind::ToolUse { name, input: Value::Null, status };
        found.push(Meaning::BlockUpdate(Block { id: call.to_owned(), kind }));
    }
    let kind =
        BlockKind::ToolResult { tool_use_id: call.to_owned(), content: block["content"].clone(), is_error };
    found.push(Meaning::BlockComplete(Block { id: format!("{call}:result"), kind }));
}

fn said(uuid: &str, index: usize, words: &str, found: &mut Found) {
    let id = format!("{uuid}:{index}");
    let kind = if words.starts_with("[Request interrupted by user") {
        BlockKind::System { subtype: "interrupted".to_owned(), message: words.to_owned() }
    } else {
        BlockKind::UserMessage { text: words.to_owned() }
    };
    found.push(Meaning::BlockComplete(Block { id, kind }));
}
