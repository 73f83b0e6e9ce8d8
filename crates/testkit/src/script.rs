//! The script language: what the endpoint shall answer, written as JSON in a prompt.

mod build;
mod check;
mod play;

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a script begins with in a prompt. The JSON array begins with the bracket.
pub(crate) const MARK: &str = "@@[";

/// Steps, in the order in which they are played: one for each answer, and faults before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script {
    steps: Vec<Step>,
}

/// One answer, or a fault in place of one. `docs/testkit.md` has examples.
///
/// A step with `error`, `sse_error`, `cut` or `hang` is a *fault*: no answer is completed. It is played for `times`
/// requests, after which the next step takes its place, or for ever. A step with nothing but `wait_ms` delays the
/// next one. All other steps are answers with, in this order, `thinking`, `text`, `gen`, and the tool calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Text of the answer.
    pub text: Option<String>,
    /// Thinking before the text.
    pub thinking: Option<String>,
    /// So many bytes of filler text, at most 1 GiB streamed and 64 MiB otherwise.
    #[serde(rename = "gen")]
    pub generate: Option<u64>,
    /// The name of a tool that is called.
    pub tool: Option<String>,
    /// What `tool` is called with; an empty object by default.
    pub input: Option<Value>,
    /// Several calls in one answer.
    pub tools: Option<Vec<ToolCall>>,
    /// How many deltas each block is streamed in, 1 to 100 000 [one for 24 characters, or 1024 bytes of `gen`].
    pub chunks: Option<u32>,
    /// Milliseconds before each delta, at most a minute; without streaming their sum passes before the answer.
    pub delay_ms: Option<u64>,
    /// Milliseconds before the answer begins, at most ten minutes.
    pub wait_ms: Option<u64>,
    /// The `stop_reason` [`tool_use` with tools, else `end_turn`].
    pub stop: Option<String>,
    /// Token counts; what is missing is estimated.
    pub usage: Option<Usage>,
    /// The model that the answer names [the one asked for].
    pub model: Option<String>,
    /// An HTTP status from 400 to 599 with the error body that belongs to it.
    pub error: Option<u16>,
    /// The type of an error event in the stream, such as `overloaded_error`. Where the request asks for no stream,
    /// the status that belongs to it.
    pub sse_error: Option<String>,
    /// How many events come before `sse_error` [0].
    pub after: Option<u64>,
    /// The connection is cut after so many events; at 0 before the status line, and so without streaming.
    pub cut: Option<u64>,
    /// Nothing comes after so many events; at 0 no status line either, and so without streaming. Ends after an hour.
    pub hang: Option<u64>,
    /// How many requests the fault is for, at least 1 [all].
    pub times: Option<u32>,
    /// Seconds in the header `retry-after` of `error`.
    pub retry_after: Option<u32>,
    /// The header `x-should-retry` of `error`.
    pub should_retry: Option<bool>,
    /// The message of `error` or `sse_error` [the one the API has for it].
    pub message: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool.
    #[serde(alias = "tool")]
    pub name: String,
    /// What it is called with.
    #[serde(default = "no_input")]
    pub input: Value,
}

fn no_input() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Token counts of one answer. What is `None` is estimated: a token for four bytes, and nothing cached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Input that was neither written to the cache nor read from it.
    pub input_tokens: Option<u64>,
    /// Output.
    pub output_tokens: Option<u64>,
    /// Written to the cache for five minutes.
    pub cache_creation_5m: Option<u64>,
    /// Written to the cache for an hour.
    pub cache_creation_1h: Option<u64>,
    /// Read from the cache.
    pub cache_read: Option<u64>,
}

impl Script {
    /// The script in a prompt: from the first `@@[` on, as far as the JSON goes. `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Script`].
    pub fn find(prompt: &str) -> Option<Result<Self>> {
        let start = prompt.find(MARK)? + MARK.len() - 1;
        Some(Self::parse(&prompt[start..]))
    }

    /// Reads a JSON array of steps; what follows it is no matter.
    ///
    /// # Errors
    /// [`Error::Script`] with the step and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Vec<Step>>();
        let steps = values.next().ok_or_else(|| Error::Script("there is no JSON array".to_owned()))?;
        let script = Self { steps: steps.map_err(|error| Error::Script(error.to_string()))? };
        script.check()?;
        Ok(script)
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

#[cfg(test)]
mod tests;
