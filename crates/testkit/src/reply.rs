//! One answer of the model: its blocks, token counts and end, to be told whole or as events.

mod blocks;
mod events;

pub(crate) use events::{Events, error_event, events};

use crate::messages::MessagesRequest;
use crate::script::{Step, Usage};
use blocks::{Block, bytes_of};
use serde::Serialize;

/// How much filler an answer that is not streamed may have: it is all in memory.
const MAX_WHOLE: u64 = 64 << 20;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    id: String,
    model: String,
    blocks: Vec<Block>,
    stop_reason: String,
    usage: UsageBody,
    chunks: Option<u32>,
}

/// The usage of an answer, as the API has it.
#[derive(Debug, Clone, Copy, Serialize)]
struct UsageBody {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation: CacheCreation,
    output_tokens: u64,
    service_tier: &'static str,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: u64,
    ephemeral_1h_input_tokens: u64,
}

/// A message as the API has it.
#[derive(Serialize)]
struct MessageBody<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<blocks::BlockBody<'a>>,
    stop_reason: Option<&'a str>,
    stop_sequence: Option<&'a str>,
    usage: UsageBody,
}

impl Reply {
    /// What a step answers to a request. `new_id` gives numbers that no other answer has.
    pub(crate) fn new(step: Step, request: &MessagesRequest, new_id: impl Fn() -> String) -> Self {
        let mut blocks = Vec::new();
        blocks.extend(step.thinking.map(Block::Thinking));
        blocks.extend(step.text.map(Block::Text));
        blocks.extend(step.generate.map(Block::Generated));
        let first = step.tool.map(|tool| (tool, step.input.unwrap_or_else(|| serde_json::json!({}))));
        let more = step.tools.into_iter().flatten().map(|call| (call.name, call.input));
        let before_tools = blocks.len();
        blocks.extend(first.into_iter().chain(more).map(|(name, input)| Block::Tool {
            id: format!("toolu_{}", new_id()),
            name,
            json: input.to_string(),
            input,
        }));
        let usual_stop = if blocks.len() > before_tools { "tool_use" } else { "end_turn" };
        if blocks.is_empty() {
            blocks.push(Block::Text("ok".to_owned()));
        }
        let output = (blocks.iter().map(bytes_of).sum::<u64>() / 4).max(1);
        Self {
            id: format!("msg_{}", new_id()),
            model: step.model.unwrap_or_else(|| request.model.clone()),
            usage: UsageBody::new(step.usage.unwrap_or_default(), request.input_tokens, output),
            stop_reason: step.stop.unwrap_or_else(|| usual_stop.to_owned()),
            chunks: step.chunks,
            blocks,
        }
    }

    /// The message as one JSON; `None` when it is too big for that.
    pub(crate) fn whole(&self) -> Option<Vec<u8>> {
        let filler = self.blocks.iter().map(|block| match block {
            Block::Generated(bytes) => *bytes,
            _ => 0,
        });
        if filler.sum::<u64>() > MAX_WHOLE {
            return None;
        }
        let filled: Vec<Block> = self.blocks.iter().map(Block::filled).collect();
        let content = filled.iter().map(Block::body).collect();
        serde_json::to_vec(&self.message(content, Some(&self.stop_reason), self.usage)).ok()
    }

    /// How many deltas it is streamed in.
    pub(crate) fn deltas(&self) -> u64 {
        self.blocks.iter().map(|block| block.deltas(self.chunks)).sum()
    }

    fn message<'a>(
        &'a self,
        content: Vec<blocks::BlockBody<'a>>,
        stop_reason: Option<&'a str>,
        usage: UsageBody,
    ) -> MessageBody<'a> {
        MessageBody {
            id: &self.id,
            kind: "message",
            role: "assistant",
            model: &self.model,
            content,
            stop_reason,
            stop_sequence: None,
            usage,
        }
    }
}

impl UsageBody {
    fn new(given: Usage, input: u64, output: u64) -> Self {
        let (five_minutes, hour) =
            (given.cache_creation_5m.unwrap_or(0), given.cache_creation_1h.unwrap_or(0));
        Self {
            input_tokens: given.input_tokens.unwrap_or(input),
            cache_creation_input_tokens: five_minutes + hour,
            cache_read_input_tokens: given.cache_read.unwrap_or(0),
            cache_creation: CacheCreation {
                ephemeral_5m_input_tokens: five_minutes,
                ephemeral_1h_input_tokens: hour,
            },
            output_tokens: given.output_tokens.unwrap_or(output),
            service_tier: "standard",
        }
    }
}
