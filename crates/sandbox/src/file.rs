//! Files in a sandbox. Every path is resolved inside the sandbox's root, whatever links are there.

use crate::error::Result;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// A stream of bytes with back-pressure. An `Err` ends it. For reads and exports it is the backend that sends.
pub type ByteStream = mpsc::Receiver<Result<Bytes>>;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device. It can be listed, moved and removed, not read or written.
    Other,
}

/// A file's metadata, as inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Absolute path asked for, or of the directory entry.
    pub path: String,
    /// Its kind.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Owner inside the sandbox.
    pub uid: u32,
    /// Group inside the sandbox.
    pub gid: u32,
    /// Last change of content.
    pub modified: SystemTime,
    /// Where a symbolic link points.
    pub link_target: Option<String>,
}

/// How to write a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits of a new file; 0o644 where absent. An existing file keeps its own.
    pub mode: Option<u32>,
    /// Make missing parent directories.
    pub create_parents: bool,
    /// Write in place from this offset and keep the rest. Where absent the file is replaced as a whole:
    /// readers see the old content or the new, never a part (rename(2)).
    pub offset: Option<u64>,
    /// Refuse to replace what is there.
    pub must_not_exist: bool,
}

/// One change below a watched directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEvent {
    /// What happened.
    pub kind: FileEventKind,
    /// Absolute path; empty with `Overflow`.
    pub path: String,
}

/// Kinds of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileEventKind {
    /// A new entry, or one moved here.
    Created,
    /// Content written and closed.
    Modified,
    /// Mode, owner or times.
    Attributes,
    /// An entry gone, or moved away.
    Removed,
    /// Changes were lost; look again for yourself.
    Overflow,
}

/// Largest window of a zstd archive that is unpacked, as a power of two: 128 MiB, what the format's own tools accept
/// (RFC 8878, 3.1.1.1.2).
pub const ZSTD_WINDOW_LOG: u32 = 27;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Plain tar.
    #[default]
    None,
    /// tar in zstd (RFC 8878).
    Zstd,
}
