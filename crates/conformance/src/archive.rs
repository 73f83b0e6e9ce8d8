//! Streams of bytes, and archives good and bad.

use crate::failure::Outcome;
use crate::session::patiently;
use bytes::Bytes;
use hostel_sandbox::file::ByteStream;
use tokio::sync::mpsc;

const PIECE: usize = 256 << 10;

/// A stream of bytes that are there already. Cheap: pieces share them.
pub(crate) fn stream(content: impl Into<Bytes>) -> ByteStream {
    ending(content, None)
}

/// A stream that breaks after some bytes.
pub(crate) fn broken_stream(content: impl Into<Bytes>) -> ByteStream {
    ending(content, Some(hostel_sandbox::Error::internal("read the source", "it went away")))
}

fn ending(content: impl Into<Bytes>, last: Option<hostel_sandbox::Error>) -> ByteStream {
    let mut content: Bytes = content.into();
    let (sender, receiver) = mpsc::channel(content.len() / PIECE + 2);
    while !content.is_empty() {
        let piece = content.split_to(content.len().min(PIECE));
        // There is room for every piece.
        let _ = sender.try_send(Ok(piece));
    }
    if let Some(error) = last {
        let _ = sender.try_send(Err(error));
    }
    receiver
}

/// All bytes of a stream.
pub(crate) async fn collect(mut stream: ByteStream) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = patiently("the next bytes", stream.recv()).await? {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// Builds a tar archive, honest or not.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds an entry with any name, past every check of the library.
    pub(crate) fn entry(
        mut self,
        kind: tar::EntryType,
        name: &str,
        link: &str,
        mode: u32,
        content: &[u8],
    ) -> std::io::Result<Self> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let fields = header.as_gnu_mut().ok_or_else(|| std::io::Error::other("not a GNU header"))?;
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        if kind.is_character_special() || kind.is_block_special() {
            // /dev/zero, which gives bytes where it can be opened.
            header.set_device_major(1)?;
            header.set_device_minor(5)?;
        }
        header.set_cksum();
        self.0.append(&header, content)?;
        Ok(self)
    }

    pub(crate) fn file(self, name: &str, mode: u32, content: &[u8]) -> std::io::Result<Self> {
        self.entry(tar::EntryType::Regular, name, "", mode, content)
    }

    pub(crate) fn directory(self, name: &str) -> std::io::Result<Self> {
        self.entry(tar::EntryType::Directory, name, "", 0o755, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> std::io::Result<Self> {
        self.entry(tar::EntryType::Symlink, name, target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> std::io::Result<Self> {
        self.entry(tar::EntryType::Link, name, target, 0o644, b"")
    }

    pub(crate) fn bytes(self) -> std::io::Result<Vec<u8>> {
        self.0.into_inner()
    }
}
