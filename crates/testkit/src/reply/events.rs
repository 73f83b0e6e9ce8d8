//! An answer as server-sent events (docs of the Messages API, "Streaming").

use super::blocks::{Block, BlockBody, Delta, filler_piece, generated, pieces};
use super::{MessageBody, Reply, UsageBody};
use crate::api_error::ApiError;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use std::iter::once;

/// One event, as it goes over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) frame: Bytes,
    /// Whether it carries output, so that slow answers wait before it.
    pub(crate) is_delta: bool,
    /// Whether the answer is complete with it.
    pub(crate) is_last: bool,
}

/// All events of an answer.
pub(crate) type Events = Box<dyn Iterator<Item = Event> + Send>;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Data<'a> {
    MessageStart { message: MessageBody<'a> },
    ContentBlockStart { index: usize, content_block: BlockBody<'a> },
    Ping,
    ContentBlockDelta { index: usize, delta: Delta<'a> },
    ContentBlockStop { index: usize },
    MessageDelta { delta: End<'a>, usage: EndUsage },
    MessageStop,
}

#[derive(Serialize)]
struct End<'a> {
    stop_reason: &'a str,
    stop_sequence: Option<&'a str>,
}

/// The last usage has all counts again, and the final output.
#[derive(Serialize)]
struct EndUsage {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

/// The events of an answer, in the order of the API. Filler is made on the way.
pub(crate) fn events(reply: Reply) -> Events {
    let first = usage_at_start(reply.usage);
    let start = event(&Data::MessageStart { message: reply.message(Vec::new(), None, first) });
    let usage = EndUsage {
        input_tokens: reply.usage.input_tokens,
        cache_creation_input_tokens: reply.usage.cache_creation_input_tokens,
        cache_read_input_tokens: reply.usage.cache_read_input_tokens,
        output_tokens: reply.usage.output_tokens,
    };
    let delta = End { stop_reason: &reply.stop_reason, stop_sequence: None };
    let end = [event(&Data::MessageDelta { delta, usage }), event(&Data::MessageStop)];
    let chunks = reply.chunks;
    let blocks = reply.blocks.into_iter().enumerate();
    Box::new(
        once(start).chain(blocks.flat_map(move |(index, block)| of_block(index, block, chunks))).chain(end),
    )
}

/// Only the first tokens are known when the answer begins.
fn usage_at_start(usage: UsageBody) -> UsageBody {
    UsageBody { output_tokens: usage.output_tokens.min(1), ..usage }
}

fn of_block(index: usize, block: Block, chunks: Option<u32>) -> Events {
    let nothing = Value::Object(serde_json::Map::new());
    let start = event(&Data::ContentBlockStart { index, content_block: block.opening(&nothing) });
    // The API sends a ping after the first beginning.
    let ping = (index == 0).then(|| event(&Data::Ping));
    let delta = move |delta: Delta<'_>| event(&Data::ContentBlockDelta { index, delta });
    let signature = block.signature().map(delta);
    let opened = once(start).chain(ping);
    let closed = signature.into_iter().chain(once(event(&Data::ContentBlockStop { index })));
    let deltas: Events = match block {
        Block::Generated(bytes) => filler(index, bytes, chunks),
        Block::Thinking(text) => Box::new(
            pieces(&text, chunks)
                .into_iter()
                .map(move |thinking| delta(Delta::Thinking { thinking: &thinking })),
        ),
        Block::Text(text) => {
            Box::new(pieces(&text, chunks).into_iter().map(move |text| delta(Delta::Text { text: &text })))
        }
        // The API begins with an empty piece.
        Block::Tool { json, .. } => Box::new(
            once(String::new())
                .chain(pieces(&json, chunks))
                .map(move |piece| delta(Delta::InputJson { partial_json: &piece })),
        ),
    };
    Box::new(opened.chain(deltas).chain(closed))
}

/// Filler: the same event again and again, and a shorter one at the end.
fn filler(index: usize, bytes: u64, chunks: Option<u32>) -> Events {
    let piece = filler_piece(bytes, chunks);
    let of = move |bytes| {
        let text = generated(bytes);
        event(&Data::ContentBlockDelta { index, delta: Delta::Text { text: &text } })
    };
    let times = usize::try_from(bytes / piece).unwrap_or(0);
    let rest = bytes % piece;
    let full = if times > 0 { of(piece) } else { of(0) };
    Box::new(std::iter::repeat_n(full, times).chain((rest > 0).then(|| of(rest))))
}

fn event(data: &Data<'_>) -> Event {
    let name = match data {
        Data::MessageStart { .. } => "message_start",
        Data::ContentBlockStart { .. } => "content_block_start",
        Data::Ping => "ping",
        Data::ContentBlockDelta { .. } => "content_block_delta",
        Data::ContentBlockStop { .. } => "content_block_stop",
        Data::MessageDelta { .. } => "message_delta",
        Data::MessageStop => "message_stop",
    };
    // Strings, numbers and JSON: an event always has a form as JSON.
    let json = serde_json::to_string(data).unwrap_or_default();
    Event {
        frame: frame(name, &json),
        is_delta: matches!(data, Data::ContentBlockDelta { .. }),
        is_last: matches!(data, Data::MessageStop),
    }
}

/// The event that ends a stream in the middle.
pub(crate) fn error_event(error: &ApiError, request_id: &str) -> Bytes {
    frame("error", &error.json(request_id))
}

fn frame(name: &str, json: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {json}\n\n"))
}
