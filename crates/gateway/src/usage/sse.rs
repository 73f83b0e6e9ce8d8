//! Server-sent events in pieces of any size (WHATWG HTML, "Parsing an event stream").
//!
//! Nearly all bytes of a stream are deltas of content, which tell no usage. Those are known by their `event` field or
//! by how their data begins, and only looked through for the end of the line.

use memchr::memchr2;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Longest event that is read, in bytes. Longer ones go by unread; what matters here is far shorter.
const MAX_EVENT: usize = 1 << 20;
/// So much of a line is kept until it is known what it is.
const HEAD: usize = 256;
/// What stands behind the text of a delta: `"}}`.
const TAIL: usize = 3;

/// What stands before the text of a delta.
/// What a signature has of thinking is the thinking itself, which the model wrote and need not show.
static FIELDS: LazyLock<[Finder<'static>; 4]> =
    LazyLock::new(|| ["\"text\":", "\"thinking\":", "\"partial_json\":", "\"signature\":"].map(Finder::new));
/// A block that begins with all of its thinking, unreadable.
static REDACTED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"redacted_thinking\""));

/// What is found in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The data of an event.
    Data(&'a [u8]),
    /// A delta of content with about so many bytes, which was not read.
    Output(u64),
}

/// What an event is, as far as that is known before its data is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Unknown,
    /// A delta of content.
    Delta,
    /// Another event without usage.
    Quiet,
}

impl Kind {
    fn named(name: &[u8]) -> Self {
        match name {
            b"content_block_delta" => Self::Delta,
            b"content_block_start" | b"content_block_stop" | b"ping" => Self::Quiet,
            _ => Self::Unknown,
        }
    }

    /// By data that begins as the API's does, with the type.
    fn of_data(data: &[u8]) -> Self {
        let name = |data: &[u8]| -> Option<Self> {
            let rest = data.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
            let rest = rest.strip_prefix(b"\"type\"")?.trim_ascii_start().strip_prefix(b":")?;
            let rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
            let end = rest.iter().position(|byte| *byte == b'"')?;
            Some(Self::named(&rest[..end]))
        };
        name(data).unwrap_or_default()
    }
}

/// Splits a byte stream into events and gives away what may tell usage.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    line: Line,
    event: Event,
    after_return: bool,
    /// Whether a line was ended: the first may begin with a byte order mark.
    begun: bool,
}

/// The line that comes.
#[derive(Debug, Default)]
struct Line {
    /// Its beginning, or all of it where it is wanted.
    kept: Vec<u8>,
    /// Its length in bytes.
    length: usize,
    /// Nothing more of it is kept.
    cut: bool,
}

/// The event that comes.
#[derive(Debug, Default)]
struct Event {
    kind: Kind,
    data: Vec<u8>,
    has_data: bool,
    output: u64,
}

impl EventReader {
    /// Takes the next piece and calls `found` for every event that is complete.
    pub(super) fn feed(&mut self, mut piece: &[u8], mut found: impl FnMut(Found<'_>)) {
        if self.after_return && !piece.is_empty() {
            self.after_return = false;
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        while let Some(end) = memchr2(b'\n', b'\r', piece) {
            self.extend(&piece[..end]);
            self.end_line(&mut found);
            let was_return = piece[end] == b'\r';
            piece = &piece[end + 1..];
            if was_return {
                self.after_return = piece.is_empty();
                piece = piece.strip_prefix(b"\n").unwrap_or(piece);
            }
        }
        self.extend(piece);
    }

    fn extend(&mut self, mut part: &[u8]) {
        self.line.length = self.line.length.saturating_add(part.len());
        let kept = self.line.kept.len();
        if kept < HEAD {
            let (head, rest) = part.split_at(part.len().min(HEAD - kept));
            self.line.kept.extend_from_slice(head);
            part = rest;
            self.line.cut = self.line.kept.len() == HEAD && !self.is_wanted();
        }
        if self.line.cut || part.is_empty() {
            return;
        }
        if self.line.kept.len() + part.len() > MAX_EVENT {
            self.line.cut = true;
        } else {
            self.line.kept.extend_from_slice(part);
        }
    }

    /// Whether more than the line's beginning is to be kept.
    fn is_wanted(&self) -> bool {
        value(self.unmarked(&self.line.kept), b"data:").is_some_and(|data| self.kind(data) == Kind::Unknown)
    }

    /// A line without the byte order mark that the first may begin with.
    fn unmarked<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        if self.begun { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) }
    }

    fn kind(&self, data: &[u8]) -> Kind {
        match self.event.kind {
            Kind::Unknown if !self.event.has_data => Kind::of_data(data),
            known => known,
        }
    }

    fn end_line(&mut self, found: &mut impl FnMut(Found<'_>)) {
        let line = std::mem::take(&mut self.line);
        let kept = self.unmarked(&line.kept);
        self.begun = true;
        if kept.is_empty() {
            self.event.end(found);
        } else if let Some(name) = value(kept, b"event:") {
            self.event.kind = Kind::named(name);
        } else if let Some(data) = value(kept, b"data:") {
            let kind = self.kind(data);
            let whole = line.length.saturating_sub(kept.len() - data.len());
            self.event.add(kind, data, whole, line.cut);
        }
        // Its room serves the next line.
        self.line.kept = line.kept;
        self.line.kept.clear();
    }
}

impl Event {
    /// Adds a line of data, of which the beginning is here or, where it is not `cut`, all `whole` bytes.
    fn add(&mut self, kind: Kind, data: &[u8], whole: usize, cut: bool) {
        match kind {
            Kind::Unknown if cut || self.data.len() + data.len() >= MAX_EVENT => {}
            Kind::Unknown => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data);
                self.has_data = true;
            }
            Kind::Delta => {
                self.kind = kind;
                let text = text_begin(data).map_or(0, |begin| whole.saturating_sub(begin + TAIL));
                self.output = self.output.saturating_add(u64::try_from(text).unwrap_or(u64::MAX));
            }
            Kind::Quiet => {
                self.kind = kind;
                if REDACTED.find(&data[..data.len().min(HEAD)]).is_some() {
                    self.output = self.output.saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));
                }
            }
        }
    }

    fn end(&mut self, found: &mut impl FnMut(Found<'_>)) {
        if self.has_data {
            found(Found::Data(&self.data));
        }
        if self.output > 0 {
            found(Found::Output(self.output));
        }
        self.data.clear();
        (self.kind, self.has_data, self.output) = (Kind::Unknown, false, 0);
    }
}

/// A field's value, without the one space that may stand before it.
fn value<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(field).map(|rest| rest.strip_prefix(b" ").unwrap_or(rest))
}

/// Where the output of a delta begins, if it has any.
fn text_begin(data: &[u8]) -> Option<usize> {
    let head = &data[..data.len().min(HEAD)];
    let ends = FIELDS.iter().filter_map(|field| field.find(head).map(|at| at + field.needle().len()));
    let colon = ends.min()?;
    memchr::memchr(b'"', &head[colon..]).map(|quote| colon + quote + 1)
}
