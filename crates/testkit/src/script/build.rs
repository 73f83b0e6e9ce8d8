//! Scripts written in Rust.

use super::{MARK, Script, Step, ToolCall, Usage};
use serde_json::Value;

impl Script {
    /// A script without steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Then this step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Then an answer of text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.step(Step::text(text))
    }

    /// Then a call of a tool.
    #[must_use]
    pub fn tool(self, name: impl Into<String>, input: Value) -> Self {
        self.step(Step::tool(name, input))
    }

    /// Then this status, for `times` requests.
    #[must_use]
    pub fn error(self, status: u16, times: u32) -> Self {
        self.step(Step::error(status).times(times))
    }

    /// The steps as JSON.
    pub fn json(&self) -> String {
        let steps: Vec<Value> = self.steps.iter().map(Step::to_value).collect();
        Value::Array(steps).to_string()
    }

    /// A prompt with this script in it.
    pub fn prompt(&self, words: &str) -> String {
        let space = if words.is_empty() { "" } else { " " };
        // The mark ends with the bracket that the JSON begins with.
        format!("{words}{space}{}{}", &MARK[..MARK.len() - 1], self.json())
    }
}

impl Step {
    /// An answer of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// An answer of so many bytes of filler text.
    pub fn generated(bytes: u64) -> Self {
        Self { generate: Some(bytes), ..Self::default() }
    }

    /// A call of a tool.
    pub fn tool(name: impl Into<String>, input: Value) -> Self {
        Self { tool: Some(name.into()), input: Some(input), ..Self::default() }
    }

    /// Several calls in one answer.
    pub fn tools(calls: impl IntoIterator<Item = (String, Value)>) -> Self {
        let calls = calls.into_iter().map(|(name, input)| ToolCall { name, input }).collect();
        Self { tools: Some(calls), ..Self::default() }
    }

    /// The fault of this HTTP status.
    pub fn error(status: u16) -> Self {
        Self { error: Some(status), ..Self::default() }
    }

    /// The fault of an error event of this type after so many events of [`Self::with_text`].
    pub fn sse_error(kind: impl Into<String>, after: u64) -> Self {
        Self { sse_error: Some(kind.into()), after: Some(after), ..Self::default() }
    }

    /// The fault of a connection that is cut after so many events.
    pub fn cut(after: u64) -> Self {
        Self { cut: Some(after), ..Self::default() }
    }

    /// The fault of silence after so many events.
    pub fn hang(after: u64) -> Self {
        Self { hang: Some(after), ..Self::default() }
    }

    /// With this text, which a fault does not get to the end of.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// With this thinking before it.
    #[must_use]
    pub fn with_thinking(mut self, thinking: impl Into<String>) -> Self {
        self.thinking = Some(thinking.into());
        self
    }

    /// In so many deltas for each block.
    #[must_use]
    pub fn chunks(mut self, chunks: u32) -> Self {
        self.chunks = Some(chunks);
        self
    }

    /// With so many milliseconds before each delta.
    #[must_use]
    pub fn delay_ms(mut self, delay: u64) -> Self {
        self.delay_ms = Some(delay);
        self
    }

    /// With so many milliseconds before the answer begins.
    #[must_use]
    pub fn wait_ms(mut self, wait: u64) -> Self {
        self.wait_ms = Some(wait);
        self
    }

    /// With this stop reason.
    #[must_use]
    pub fn stop(mut self, reason: impl Into<String>) -> Self {
        self.stop = Some(reason.into());
        self
    }

    /// With these token counts.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// With another model's name than the one asked for.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// For so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// With `retry-after` of so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// With `x-should-retry`.
    #[must_use]
    pub fn should_retry(mut self, should: bool) -> Self {
        self.should_retry = Some(should);
        self
    }

    /// With this message.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// As JSON, without what is not set.
    fn to_value(&self) -> Value {
        // Strings, numbers and JSON: a step always has a form as JSON.
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
            if let Some(usage) = fields.get_mut("usage").and_then(Value::as_object_mut) {
                usage.retain(|_, value| !value.is_null());
            }
        }
        value
    }
}
