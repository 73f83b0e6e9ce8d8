//! What an agent has kept of its conversation, by the files that it names.

use super::Worker;
use crate::event::EventKind;
use crate::store::{MAX_TRANSCRIPT_FILES, TranscriptPiece};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// The files that a session has transcripts of. The sandbox says what they are called.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// By hashes: who finds two of the same gains one file.
    known: HashSet<u64>,
    /// That there are too many was told.
    told: bool,
}

impl Files {
    /// Whether a file is kept: one that is known, or that there is room for.
    fn admit(&mut self, path: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let file = hasher.finish();
        let is_kept = self.known.len() < MAX_TRANSCRIPT_FILES || self.known.contains(&file);
        if is_kept {
            self.known.insert(file);
        }
        is_kept
    }
}

impl Worker {
    /// Finds out which files there are of before.
    pub(super) async fn recall_files(&mut self) {
        if self.session.session_id.is_empty() {
            return;
        }
        match self.shared.store.transcript_paths(&self.id).await {
            Ok(paths) => {
                for path in paths {
                    self.files.admit(&path);
                }
            }
            // Then there may be as many more.
            Err(error) => {
                tracing::warn!(session = %self.id, %error, "it is not known which transcripts there are");
            }
        }
    }

    /// The agent wrote to a transcript.
    pub(super) fn transcribe(&mut self, path: String, entries: &[Value]) {
        if !self.files.admit(&path) {
            if !std::mem::replace(&mut self.files.told, true) {
                let message =
                    format!("the agent keeps more than {MAX_TRANSCRIPT_FILES} transcripts; no more are kept");
                self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
            }
            return;
        }
        let mut lines = String::new();
        for entry in entries {
            let _ = writeln!(lines, "{entry}");
        }
        self.count_written(path.len() + lines.len());
        self.draft.transcribe(TranscriptPiece { path, lines });
        self.mirroring.fall_behind();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_and_those_that_are_known_go_on() {
        let mut files = Files::default();
        assert!((0..MAX_TRANSCRIPT_FILES).all(|number| files.admit(&number.to_string())));
        assert!(!files.admit("more"));
        assert!(files.admit("0") && !files.admit("more"));
        assert_eq!(files.known.len(), MAX_TRANSCRIPT_FILES);
    }
}
