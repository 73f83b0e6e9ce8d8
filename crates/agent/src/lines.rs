//! Cuts a stream into lines, and knows how far it came.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How much of a line that is no good is shown, in bytes.
const EXCERPT: usize = 200;

/// How far a stream is dealt with. This is what is saved of [`Lines`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Place {
    /// Bytes that are dealt with, from the beginning of the process.
    pub(crate) consumed: u64,
    /// Whether what comes up to the next line end is the rest of a line that was given up.
    pub(crate) skipping: bool,
}

/// A line of a stream, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The beginning of one that is too long. The rest does not come.
    TooLong(&'a [u8]),
}

/// Cuts a stream into lines of a bounded length.
#[derive(Debug)]
pub(crate) struct Lines {
    place: Place,
    partial: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// From a place on, with lines of at most `limit` bytes.
    pub(crate) fn new(place: Place, limit: usize) -> Self {
        Self { place, partial: Vec::new(), limit }
    }

    /// How far the stream is dealt with: behind the last line that was handed out.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// How many bytes came, those of a line that is not complete among them.
    pub(crate) fn received(&self) -> u64 {
        self.place.consumed + length(&self.partial)
    }

    /// Takes the next bytes and hands out the lines that they complete.
    pub(crate) fn feed(&mut self, mut data: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            self.piece(&data[..end], true, &mut each);
            data = &data[end + 1..];
        }
        if !data.is_empty() {
            self.piece(data, false, &mut each);
        }
    }

    /// The stream has ended: hands out what is left as a line.
    pub(crate) fn end(&mut self, mut each: impl FnMut(Line<'_>)) {
        let rest = std::mem::take(&mut self.partial);
        self.place.consumed += length(&rest);
        self.place.skipping = false;
        if !rest.is_empty() {
            each(Line::Whole(&rest));
        }
    }

    /// Bytes are lost: the line that they cut is given up. Whether they are lost to us, or were had already.
    pub(crate) fn skip(&mut self, missing: &Range<u64>) -> bool {
        if missing.end <= self.place.consumed + length(&self.partial) {
            return false;
        }
        self.partial = Vec::new();
        self.place = Place { consumed: missing.end, skipping: true };
        true
    }

    fn piece(&mut self, piece: &[u8], ends: bool, each: &mut impl FnMut(Line<'_>)) {
        if self.place.skipping {
            self.place.consumed += length(piece) + u64::from(ends);
            self.place.skipping = !ends;
        } else if self.partial.len() + piece.len() > self.limit {
            let mut beginning: Vec<u8> = self.partial.iter().take(EXCERPT).copied().collect();
            beginning.extend(piece.iter().take(EXCERPT - beginning.len()));
            self.place.consumed += length(&self.partial) + length(piece) + u64::from(ends);
            self.place.skipping = !ends;
            self.partial = Vec::new();
            each(Line::TooLong(&beginning));
        } else if !ends {
            self.partial.extend_from_slice(piece);
        } else if self.partial.is_empty() {
            self.place.consumed += length(piece) + 1;
            each(Line::Whole(piece));
        } else {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(piece);
            self.place.consumed += length(&line) + 1;
            each(Line::Whole(&line));
        }
    }
}

/// The beginning of a line as text, for people.
pub(crate) fn excerpt(line: &[u8]) -> String {
    clip(&String::from_utf8_lossy(&line[..line.len().min(EXCERPT + 4)]), EXCERPT).to_owned()
}

/// The beginning of a text: at most so many bytes, whole characters.
pub(crate) fn clip(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// How many bytes at the end are the beginning of a character whose rest is still to come.
pub(crate) fn incomplete(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    (1..=tail.len())
        .rev()
        .find(|count| {
            let end = &tail[tail.len() - count..];
            std::str::from_utf8(end)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}
