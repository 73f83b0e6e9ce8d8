//! Server-sent events in pieces of any size (WHATWG HTML, "Parsing an event stream").

/// Longest event that is read, in bytes. Longer ones go by unread; what matters here is far shorter.
const MAX_EVENT: usize = 1 << 20;

/// Splits a byte stream into events and gives each one's data away.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The line or event became too long; it is skipped to its end.
    too_long: bool,
    after_return: bool,
}

impl EventReader {
    /// Takes the next piece and calls `found` with the data of every event that is complete.
    pub(super) fn feed(&mut self, mut piece: &[u8], mut found: impl FnMut(&[u8])) {
        if self.after_return && !piece.is_empty() {
            self.after_return = false;
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        while let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
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

    fn extend(&mut self, part: &[u8]) {
        if self.too_long || self.line.len() + part.len() > MAX_EVENT {
            self.too_long = true;
            self.line.clear();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, found: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() && !self.too_long {
            if self.has_data {
                found(&self.data);
            }
            self.data.clear();
            self.has_data = false;
            return;
        }
        let value = self.line.strip_prefix(b"data:").map(|rest| rest.strip_prefix(b" ").unwrap_or(rest));
        if let Some(value) = value
            && self.data.len() + value.len() < MAX_EVENT
        {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        }
        self.line.clear();
        self.too_long = false;
    }
}
