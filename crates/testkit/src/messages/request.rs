//! The body of a request, as far as it matters here.

use crate::api_error::ApiError;
use serde::Deserialize;

/// A request for an answer, or for its token count.
#[derive(Debug)]
pub(crate) struct MessagesRequest {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) messages: Vec<Message>,
    /// An estimate: a token for four bytes of the body.
    pub(crate) input_tokens: u64,
}

#[derive(Debug, Deserialize)]
struct Raw {
    model: Option<String>,
    max_tokens: Option<u64>,
    messages: Option<Vec<Message>>,
    stream: Option<bool>,
}

/// One message. The role may be any: the CLI sends `system` in the middle of conversations.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Block {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) text: Option<String>,
}

impl MessagesRequest {
    /// Reads a body; only an answer needs `max_tokens`.
    ///
    /// # Errors
    /// 400 in the words of the API.
    pub(crate) fn read(body: &[u8], for_answer: bool) -> Result<Self, ApiError> {
        let invalid = |error: serde_json::Error| {
            ApiError::invalid(format!("The request body is not valid JSON for a message: {error}"))
        };
        let raw: Raw = serde_json::from_slice(body).map_err(invalid)?;
        let missing = |field: &str| ApiError::invalid(format!("{field}: Field required"));
        if for_answer {
            raw.max_tokens.ok_or_else(|| missing("max_tokens"))?;
        }
        let request = Self {
            model: raw.model.ok_or_else(|| missing("model"))?,
            stream: raw.stream.unwrap_or(false),
            messages: raw.messages.ok_or_else(|| missing("messages"))?,
            input_tokens: (body.len() as u64 / 4).max(1),
        };
        if request.messages.is_empty() {
            return Err(ApiError::invalid("messages: at least one message is required"));
        }
        Ok(request)
    }
}

impl Message {
    /// Its texts: one, or those of its text blocks.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match &self.content {
            Content::Text(text) => vec![text],
            Content::Blocks(blocks) => blocks
                .iter()
                .filter(|block| block.kind == "text")
                .filter_map(|block| block.text.as_deref())
                .collect(),
        }
    }

    pub(crate) fn has_tool_result(&self) -> bool {
        match &self.content {
            Content::Text(_) => false,
            Content::Blocks(blocks) => blocks.iter().any(|block| block.kind == "tool_result"),
        }
    }
}
