//! The events of a message stream that tell what it uses.

use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// What one event means for the figures.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// `message_start`: the model, and the figures of the prompt.
    Start { model: Option<Value>, usage: Option<Value> },
    /// `message_delta`: the cumulative figures.
    Usage(Value),
    /// `content_block_delta`: so many bytes of output.
    Visible(u64),
    /// `message_stop`.
    Stop,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    message: Option<RawMessage>,
    usage: Option<Value>,
    #[serde(borrow)]
    delta: Option<RawDelta<'a>>,
}

#[derive(Deserialize)]
struct RawMessage {
    model: Option<Value>,
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    partial_json: Option<Cow<'a, str>>,
    #[serde(borrow)]
    thinking: Option<Cow<'a, str>>,
}

impl Event {
    /// Reads an event's data; `None` for everything that says nothing of usage.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let raw: Raw<'_> = serde_json::from_slice(data).ok()?;
        match raw.kind.as_ref() {
            "message_start" => {
                let message = raw.message?;
                Some(Self::Start { model: message.model, usage: message.usage })
            }
            "message_delta" => raw.usage.map(Self::Usage),
            "content_block_delta" => {
                let delta = raw.delta?;
                let bytes = [delta.text, delta.partial_json, delta.thinking]
                    .into_iter()
                    .flatten()
                    .map(|part| u64::try_from(part.len()).unwrap_or(0))
                    .sum();
                Some(Self::Visible(bytes))
            }
            "message_stop" => Some(Self::Stop),
            _ => None,
        }
    }
}
