//! Content blocks, and how they are cut into deltas.

use serde::Serialize;
use serde_json::Value;

/// Characters of a delta where the script does not say how many there are.
const USUAL_CHARACTERS: usize = 24;
/// Bytes of a delta of filler, likewise.
const USUAL_FILLER: u64 = 1024;
/// What thinking is signed with. Clients give it back and look no further.
const SIGNATURE: &str = "aG9zdGVsLXRlc3RraXQtc2lnbmF0dXJlCg==";
const FILLER: &str = "All work and no play makes a dull model. ";

/// A content block.
#[derive(Debug, Clone)]
pub(super) enum Block {
    Thinking(String),
    Text(String),
    /// So many bytes of text that is made when it is needed.
    Generated(u64),
    /// A call, with its input as JSON text too.
    Tool {
        id: String,
        name: String,
        input: Value,
        json: String,
    },
}

/// A block as the API has it.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum BlockBody<'a> {
    Thinking { thinking: &'a str, signature: &'a str },
    Text { text: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: &'a Value },
}

/// A delta as the API has it.
#[derive(Serialize)]
#[serde(tag = "type")]
pub(super) enum Delta<'a> {
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

impl Block {
    /// The block with all its content.
    pub(super) fn body(&self) -> BlockBody<'_> {
        match self {
            Self::Thinking(thinking) => BlockBody::Thinking { thinking, signature: SIGNATURE },
            Self::Text(text) => BlockBody::Text { text },
            Self::Generated(_) => BlockBody::Text { text: "" },
            Self::Tool { id, name, input, .. } => BlockBody::ToolUse { id, name, input },
        }
    }

    /// The same with its filler made.
    pub(super) fn filled(&self) -> Self {
        match self {
            Self::Generated(bytes) => Self::Text(generated(*bytes)),
            other => other.clone(),
        }
    }

    /// The block as its stream begins: without content.
    pub(super) fn opening<'a>(&'a self, no_input: &'a Value) -> BlockBody<'a> {
        match self {
            Self::Thinking(_) => BlockBody::Thinking { thinking: "", signature: "" },
            Self::Text(_) | Self::Generated(_) => BlockBody::Text { text: "" },
            Self::Tool { id, name, .. } => BlockBody::ToolUse { id, name, input: no_input },
        }
    }

    /// How many deltas its content is streamed in.
    pub(super) fn deltas(&self, chunks: Option<u32>) -> u64 {
        match self {
            Self::Thinking(text) | Self::Text(text) | Self::Tool { json: text, .. } => {
                number_of_pieces(text.chars().count(), chunks) as u64
            }
            Self::Generated(bytes) => bytes.div_ceil(filler_piece(*bytes, chunks)),
        }
    }

    /// Its signature, where it has one.
    pub(super) fn signature(&self) -> Option<Delta<'static>> {
        matches!(self, Self::Thinking(_)).then_some(Delta::Signature { signature: SIGNATURE })
    }
}

/// The size of a block's content.
pub(super) fn bytes_of(block: &Block) -> u64 {
    match block {
        Block::Thinking(text) | Block::Text(text) => text.len() as u64,
        Block::Generated(bytes) => *bytes,
        Block::Tool { name, json, .. } => (name.len() + json.len()) as u64,
    }
}

/// Text cut into pieces of about the same number of characters.
pub(super) fn pieces(text: &str, chunks: Option<u32>) -> Vec<String> {
    let count = text.chars().count();
    let number = number_of_pieces(count, chunks);
    let mut characters = text.chars();
    // In 64 bits a count times a number of pieces has room: a body is 32 MiB at most.
    let end = |piece: usize| count * piece / number;
    (0..number).map(|piece| characters.by_ref().take(end(piece + 1) - end(piece)).collect()).collect()
}

fn number_of_pieces(characters: usize, chunks: Option<u32>) -> usize {
    let wanted = chunks.map_or_else(|| characters.div_ceil(USUAL_CHARACTERS), |chunks| chunks as usize);
    wanted.clamp(1, characters.max(1))
}

/// How many bytes a delta of filler has.
pub(super) fn filler_piece(bytes: u64, chunks: Option<u32>) -> u64 {
    chunks.map_or(USUAL_FILLER, |chunks| bytes.div_ceil(u64::from(chunks))).max(1)
}

/// So many bytes of filler.
pub(super) fn generated(bytes: u64) -> String {
    let bytes = usize::try_from(bytes).unwrap_or(0);
    let mut text = FILLER.repeat(bytes.div_ceil(FILLER.len()));
    // Filler is ASCII, so that it may end anywhere.
    text.truncate(bytes);
    text
}
