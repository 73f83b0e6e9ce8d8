//! What happened and is not yet durable.

use crate::event::{Event, EventKind};
use crate::message::Message;
use crate::question::Question;
use crate::store::{Compaction, TranscriptPiece};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Events that may wait for one commit; then no more output is read.
const MAX_EVENTS: usize = 2000;
/// Bytes of them.
const MAX_BYTES: usize = 32 << 20;

/// Something to do when what was drafted is durable.
pub(super) type After = Box<dyn FnOnce(&mut super::Worker) + Send>;

/// What happened and is not yet durable.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) events: Vec<Arc<Event>>,
    bytes: usize,
    /// Whether the record changed.
    pub(super) session: bool,
    /// Whether the agent's state changed.
    pub(super) agent: bool,
    pub(super) messages: BTreeMap<String, Message>,
    pub(super) questions: BTreeMap<String, Question>,
    pub(super) transcript: Vec<TranscriptPiece>,
    pub(super) compact: Vec<Compaction>,
    pub(super) after: Vec<After>,
}

impl Draft {
    pub(super) fn is_empty(&self) -> bool {
        !self.session
            && !self.agent
            && self.events.is_empty()
            && self.messages.is_empty()
            && self.questions.is_empty()
            && self.transcript.is_empty()
            && self.after.is_empty()
    }

    /// Whether more output may be read before it is committed.
    pub(super) fn has_room(&self) -> bool {
        self.events.len() < MAX_EVENTS && self.bytes < MAX_BYTES
    }

    pub(super) fn push(&mut self, event: Event) {
        self.bytes += event.data.get().len();
        self.events.push(Arc::new(event));
    }

    pub(super) fn transcribe(&mut self, piece: TranscriptPiece) {
        self.bytes += piece.lines.len();
        self.transcript.push(piece);
    }
}

/// The data of an event as JSON: an object always, whatever becomes of its parts.
pub(crate) fn json(kind: EventKind, data: &impl Serialize) -> Arc<RawValue> {
    let json = serde_json::value::to_raw_value(data).unwrap_or_else(|error| {
        tracing::error!(%kind, %error, "an event cannot be told");
        RawValue::NULL.to_owned()
    });
    json.into()
}

/// The deltas of blocks that are not complete, to be forgotten when they are.
#[derive(Default)]
pub(super) struct Deltas {
    open: HashMap<String, Kept>,
    /// Runs of all of them.
    runs: usize,
}

/// Deltas that are kept of a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Their numbers.
    pub(super) runs: Vec<Compaction>,
    /// Bytes that they count for.
    pub(super) bytes: u64,
}

/// Blocks that may be open at a time; what is beyond keeps its deltas.
const MAX_OPEN: usize = 256;
/// Runs of all open blocks. Each is a statement of the commit that completes its block, and an agent that writes two
/// blocks in turns makes one of each delta: what is beyond keeps its deltas, too.
const MAX_RUNS: usize = 4096;

impl Deltas {
    /// A delta of a block has that number, and counts for so many bytes.
    pub(super) fn note(&mut self, block: &str, seq: u64, bytes: u64) {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(block) {
            return;
        }
        let kept = self.open.entry(block.to_owned()).or_default();
        match kept.runs.last_mut() {
            Some(run) if run.to + 1 == seq => run.to = seq,
            _ if self.runs < MAX_RUNS => {
                kept.runs.push(Compaction { from: seq, to: seq });
                self.runs += 1;
            }
            _ => return,
        }
        kept.bytes = kept.bytes.saturating_add(bytes);
    }

    /// Notes what an event of the journal says of blocks.
    pub(super) fn recall(&mut self, event: &Event) {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Part {
            block_id: String,
            #[serde(default)]
            updates: Updates,
        }
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Updates {
            abandoned: bool,
        }
        let part = || serde_json::from_str::<Part>(event.data.get()).ok();
        match event.kind {
            EventKind::BlockDelta => {
                let bytes = u64::try_from(event.data.get().len()).unwrap_or(u64::MAX);
                if let Some(part) = part() {
                    self.note(&part.block_id, event.seq, bytes.saturating_add(super::EVENT));
                }
            }
            EventKind::BlockComplete => drop(part().map(|part| self.complete(&part.block_id))),
            EventKind::BlockUpdate => {
                drop(part().filter(|part| part.updates.abandoned).map(|part| self.complete(&part.block_id)));
            }
            _ => {}
        }
    }

    /// The block is complete.
    pub(super) fn complete(&mut self, block: &str) -> Kept {
        let kept = self.open.remove(block).unwrap_or_default();
        self.runs -= kept.runs.len();
        kept
    }

    /// Nothing is open any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Deltas, MAX_RUNS};

    #[test]
    fn blocks_that_are_written_in_turns_are_compacted_in_part() {
        let mut deltas = Deltas::default();
        let most = u64::try_from(MAX_RUNS).unwrap();
        for seq in 1..=2 * most {
            deltas.note(if seq % 2 == 0 { "a" } else { "b" }, seq, 10);
        }
        let (a, b) = (deltas.complete("a"), deltas.complete("b"));
        assert_eq!(a.runs.len() + b.runs.len(), MAX_RUNS);
        assert_eq!(a.bytes + b.bytes, 10 * most, "what is kept counts");
        deltas.note("c", 2 * most + 1, 10);
        assert_eq!(deltas.complete("c").runs.len(), 1, "there is room again");
    }
}
