//! What happens in a session, numbered.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::{Arc, OnceLock};

/// An event of a journal. Made by [`Event::new`]; what it is never changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its number in the session, from 1, without holes but for what compaction took away.
    pub seq: u64,
    /// What kind.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The message whose turn it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Arc<str>>,
    /// When it was journaled.
    pub time: Timestamp,
    /// What of it depends on the kind: always an object.
    pub data: Arc<RawValue>,
    /// What clients get of it, made once for all of them.
    #[serde(skip)]
    shown: OnceLock<Shown>,
}

/// An event as clients get it.
#[derive(Debug, Clone)]
struct Shown {
    /// `id: …`, `event: …`, `data: …` and an empty line.
    frame: Bytes,
    /// Where in it the JSON is.
    json: std::ops::Range<usize>,
}

impl Event {
    /// An event with its number and time, of which whole microseconds count: that is what databases keep, and who
    /// reads an event again is to see the same.
    #[must_use]
    pub fn new(seq: u64, time: Timestamp, event: NewEvent) -> Self {
        let NewEvent { kind, message_id, data } = event;
        let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
        Self { seq, kind, message_id, time, data, shown: OnceLock::new() }
    }

    /// It as JSON without line breaks. Made at the first call and shared from then on.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let shown = self.shown();
        shown.frame.slice(shown.json.clone())
    }

    /// It as a frame of an event stream (WHATWG HTML, server-sent events), the number as its id. Made at the first
    /// call and shared from then on.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        self.shown().frame.clone()
    }

    fn shown(&self) -> &Shown {
        self.shown.get_or_init(|| {
            let mut frame = format!("id: {}\nevent: {}\ndata: ", self.seq, self.kind).into_bytes();
            let start = frame.len();
            // Nothing in it fails to be written: it is all text and numbers.
            let _ = serde_json::to_writer(&mut frame, self);
            let end = frame.len();
            // Between its parts JSON may be broken into lines; a frame may not, and in strings there are none.
            for byte in &mut frame[start..] {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
            frame.extend_from_slice(b"\n\n");
            Shown { frame: frame.into(), json: start..end }
        })
    }
}

/// An event that has no number yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What kind.
    pub kind: EventKind,
    /// The message whose turn it belongs to.
    pub message_id: Option<Arc<str>>,
    /// What of it depends on the kind: an object.
    pub data: Arc<RawValue>,
}

macro_rules! kinds {
    ($($(#[$docs:meta])* $variant:ident = $word:tt,)+) => {
        /// What kind of event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum EventKind {
            $($(#[$docs])* #[serde(rename = $word)] $variant,)+
        }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word that clients and the database have for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The kind that a word is for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
            }
        }
    };
}

kinds! {
    /// The first event: `{session}`.
    SessionCreated = "session:created",
    /// The status of the session: `{status, reason?, message?}`.
    StatusChanged = "status:changed",
    /// The environment: `{environment}`.
    EnvironmentChanged = "environment:changed",
    /// Something of the record changed: `{fields: {…}}`.
    MetadataUpdate = "metadata:update",
    /// A message was accepted: `{messageId, position, content}`.
    MessageQueued = "message:queued",
    /// A message will not be worked on: `{messageId, reason}`.
    MessageCancelled = "message:cancelled",
    /// A turn began: `{messageId}`.
    TurnStarted = "turn:started",
    /// A turn ended: `{messageId, outcome}`, the outcome as `MessageOutcome`.
    TurnCompleted = "turn:completed",
    /// A line of the agent's output that is no delta, as it wrote it: `{message}`.
    AgentMessage = "agent:message",
    /// A part of an answer began: `{conversationId, block}`. `conversationId` is `main` or a subagent's.
    BlockStart = "block:start",
    /// A part of an answer grew: `{conversationId, blockId, index, kind, delta}`.
    BlockDelta = "block:delta",
    /// More is known of it: `{conversationId, blockId, updates}`.
    BlockUpdate = "block:update",
    /// A part of an answer is complete: `{conversationId, blockId, block}`.
    BlockComplete = "block:complete",
    /// What was used since the last of these: `{usage, agentCost}`, the cost as the agent estimates it for the whole
    /// session until now.
    Usage = "usage:update",
    /// A subagent began: `{subagentId, description}`.
    SubagentDiscovered = "subagent:discovered",
    /// A subagent ended: `{subagentId, status}`.
    SubagentCompleted = "subagent:completed",
    /// The agent asks: `{question}`.
    PermissionRequested = "permission:requested",
    /// It has its answer: `{questionId, verdict, decidedBy, message?}`.
    PermissionResolved = "permission:resolved",
    /// A file was made by the agent: `{path}`.
    FileCreated = "file:created",
    /// A file was changed by the agent: `{path}`.
    FileModified = "file:modified",
    /// The model could not be asked and is asked again: as `hostel_agent::Retry`.
    ModelRetry = "model:retry",
    /// Something to tell people: `{level, message}`.
    Log = "log",
    /// Something went wrong: `{message, code}`.
    Error = "error",
    /// The agent's output has a hole or is not what it should be: `{problem}`.
    OutputDamaged = "output:damaged",
    /// The session has ended: `{reason, message?}`. How it ended, `status:changed`, comes before. No turn begins after
    /// it; but where the sandbox stays for a while what its agent still says comes, and `environment:changed` at its
    /// end.
    SessionEnded = "session:ended",
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_line_of_the_same_json() {
        let data = RawValue::from_string("{\"text\":\n\"a\\nb\"}".to_owned()).unwrap();
        let new = NewEvent { kind: EventKind::Log, message_id: Some("m".into()), data: data.into() };
        let event = Event::new(7, Timestamp::UNIX_EPOCH, new);
        let frame = String::from_utf8(event.frame().to_vec()).unwrap();
        let json = frame.strip_prefix("id: 7\nevent: log\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert_eq!(json.as_bytes(), event.json());
        let back: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(
            back,
            serde_json::json!({"seq": 7, "type": "log", "messageId": "m", "time": "1970-01-01T00:00:00Z",
                "data": {"text": "a\nb"}})
        );
        assert_eq!(event.frame().as_ptr(), event.frame().as_ptr(), "made once");
    }
}
