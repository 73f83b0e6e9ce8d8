//! Reading what a response used, while it goes by.

mod estimate;
mod event;
mod passes;
mod sse;

pub(crate) use estimate::{asked, prompt};
use event::Event;
pub(crate) use passes::{Pass, Passes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sse::{EventReader, Found};

/// Longest JSON body that is read for its usage, in bytes. The largest answers of models are far below.
const MAX_JSON: usize = 32 << 20;
/// Longest model name that is kept, in bytes.
const MAX_MODEL: usize = 128;
/// Characters of output that make about one token, for streams that end before they tell.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens by the kinds that are priced apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Input that no cache was involved with.
    pub input: u64,
    /// Output, thinking included.
    pub output: u64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
    /// Input read from the cache.
    pub cache_read: u64,
}

impl Tokens {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }

    /// All kinds of input together.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
            .saturating_add(self.cache_read)
    }

    /// Reads one set of figures: what it says of each kind, and how much was written to the cache in all.
    fn said(usage: &Value) -> (Self, u64) {
        let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64).unwrap_or(0);
        let written =
            |name: &str| usage.get("cache_creation").map_or(0, |by_lifetime| number(by_lifetime, name));
        let said = Self {
            input: number(usage, "input_tokens"),
            output: number(usage, "output_tokens"),
            cache_write_5m: written("ephemeral_5m_input_tokens"),
            cache_write_1h: written("ephemeral_1h_input_tokens"),
            cache_read: number(usage, "cache_read_input_tokens"),
        };
        (said, number(usage, "cache_creation_input_tokens"))
    }

    /// The same where so much was written to the cache: what is not said to be for an hour is for five minutes, which
    /// is the API's default.
    fn with_written(self, written: u64) -> Self {
        let written = written.max(self.cache_write_5m.saturating_add(self.cache_write_1h));
        Self { cache_write_5m: written.saturating_sub(self.cache_write_1h), ..self }
    }

    /// The higher number of each kind.
    fn highest(&self, other: &Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cache_write_5m: self.cache_write_5m.max(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            cache_read: self.cache_read.max(other.cache_read),
        }
    }

    fn plus(&self, other: &Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_write_5m: self.cache_write_5m.saturating_add(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            cache_read: self.cache_read.saturating_add(other.cache_read),
        }
    }
}

/// What a response used: tokens, and what is charged besides them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Those of the passes that wrote the answer.
    pub tokens: Tokens,
    /// What other models did for it, or besides it.
    pub passes: Passes,
    /// Searches of the web that the API made for it.
    pub web_searches: u64,
    /// Whether it was made at the dearer speed.
    pub fast: bool,
    /// Whether it was of the priority tier.
    pub priority: bool,
    /// Whether it was bound to the United States.
    pub in_us: bool,
}

impl Used {
    /// The tokens of all passes.
    pub(crate) fn all_tokens(&self) -> Tokens {
        self.tokens.plus(&self.passes.tokens())
    }
}

/// Reads the usage out of one response, in whatever pieces it comes.
#[derive(Debug)]
pub(crate) struct Meter {
    form: Form,
    figures: Figures,
}

#[derive(Debug)]
enum Form {
    Events(EventReader),
    Json(Vec<u8>),
    /// Nothing to read: an error page, or a body that was too long.
    Opaque,
}

/// What was seen so far. Every number only grows: the API's are cumulative.
#[derive(Debug, Default)]
struct Figures {
    used: Used,
    model: Option<String>,
    /// Bytes of text, thinking and tool input that went by, about.
    visible: u64,
    /// Whether the response told its final figures.
    told: bool,
    /// Whether the response is complete, so that the client may go on.
    complete: bool,
}

impl Meter {
    /// A meter for a response that has no usage, as errors have none.
    pub(crate) fn none() -> Self {
        Self { form: Form::Opaque, figures: Figures::default() }
    }

    /// A meter for a response with this `content-type`.
    pub(crate) fn new(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let form = if kind.eq_ignore_ascii_case("text/event-stream") {
            Form::Events(EventReader::default())
        } else if kind.eq_ignore_ascii_case("application/json") {
            Form::Json(Vec::new())
        } else {
            Form::Opaque
        };
        Self { form, figures: Figures::default() }
    }

    /// Takes the next piece; whether new figures were in it.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> bool {
        let before = (self.figures.used.clone(), self.figures.complete);
        match &mut self.form {
            Form::Events(reader) => {
                let figures = &mut self.figures;
                reader.feed(piece, |found| match found {
                    Found::Data(data) => figures.take(data),
                    Found::Output(bytes) => figures.visible = figures.visible.saturating_add(bytes),
                });
            }
            Form::Json(body) if body.len() + piece.len() <= MAX_JSON => body.extend_from_slice(piece),
            Form::Json(_) => {
                tracing::warn!("a response is too long to be read for its usage");
                self.form = Form::Opaque;
            }
            Form::Opaque => {}
        }
        before.0 != self.figures.used || before.1 != self.figures.complete
    }

    /// The body is at its end. One that never told its final figures counts as it was seen: the output that went
    /// by, at about four bytes a token, where that is more than was told. Otherwise a client could take everything
    /// but the end, where the figures are.
    pub(crate) fn end(&mut self) {
        if let Form::Json(body) = &self.form {
            match serde_json::from_slice::<Value>(body) {
                Ok(message) => {
                    self.figures.take_message(message.get("model"), message.get("usage"));
                    self.figures.told = true;
                }
                Err(_) => self.figures.visible = u64::try_from(body.len()).unwrap_or(u64::MAX),
            }
        }
        self.form = Form::Opaque;
        self.figures.used = self.so_far();
    }

    /// What would count if this were the end: the output that went by is more than was told of it yet.
    pub(crate) fn so_far(&self) -> Used {
        let mut used = self.figures.used.clone();
        if !self.figures.told {
            used.tokens.output = used.tokens.output.max(self.figures.visible / BYTES_PER_TOKEN);
        }
        used
    }

    /// What was told so far.
    pub(crate) fn used(&self) -> &Used {
        &self.figures.used
    }

    /// Whether its output is not what was told, but what went by.
    pub(crate) fn guessed(&self) -> bool {
        !self.figures.told && self.figures.visible > 0
    }

    /// Which model answered, once it said so.
    pub(crate) fn model(&self) -> Option<&str> {
        self.figures.model.as_deref()
    }

    /// Whether a stream came to its proper end.
    pub(crate) fn is_complete(&self) -> bool {
        self.figures.complete
    }
}

impl Figures {
    fn take(&mut self, data: &[u8]) {
        match Event::parse(data) {
            Some(Event::Start { model, usage }) => self.take_message(model.as_ref(), usage.as_ref()),
            Some(Event::Usage(usage)) => {
                self.take_usage(&usage);
                self.told = true;
            }
            Some(Event::Visible(bytes)) => self.visible = self.visible.saturating_add(bytes),
            Some(Event::Stop) => self.complete = true,
            None => {}
        }
    }

    fn take_message(&mut self, model: Option<&Value>, usage: Option<&Value>) {
        if let Some(model) = model.and_then(Value::as_str) {
            self.model = Some(model_name(model));
        }
        if let Some(usage) = usage {
            self.take_usage(usage);
        }
    }

    /// Numbers are cumulative, and not every event has each of them: the highest of each counts.
    fn take_usage(&mut self, usage: &Value) {
        let searches = usage.get("server_tool_use").and_then(|tools| tools.get("web_search_requests"));
        let says = |name: &str, word: &str| usage.get(name).and_then(Value::as_str) == Some(word);
        let used = &mut self.used;
        used.web_searches = used.web_searches.max(searches.and_then(Value::as_u64).unwrap_or(0));
        used.fast |= says("speed", "fast");
        used.priority |= says("service_tier", "priority");
        used.in_us |= says("inference_geo", "us");
        let passes = Passes::read(usage.get("iterations"));
        if passes.tokens().total() >= used.passes.tokens().total() && passes != Passes::default() {
            used.passes = passes;
        }
        let (said, written) = Tokens::said(usage);
        used.tokens = used.tokens.highest(&said).with_written(written);
    }
}

/// A model's name, as much of it as is kept.
fn model_name(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_MODEL)].to_owned()
}

#[cfg(test)]
mod tests;
