//! Files in a sandbox. Every path is resolved inside the sandbox's root, whatever links are there.

use crate::error::{Error, Result};
use crate::spec::validate_path;
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

/// A part of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilePage {
    /// Entries, by the bytes of their names.
    pub files: Vec<FileInfo>,
    /// The name after which there is more. As it is, and so not always UTF-8.
    pub next: Option<Vec<u8>>,
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

/// The most files that a sandbox begins with.
pub const MAX_INITIAL_FILES: usize = 64;
/// How many bytes those have at most, together.
pub const MAX_INITIAL_BYTES: usize = 1 << 20;

/// A file that a new sandbox begins with.
#[derive(Clone, PartialEq, Eq)]
pub struct InitialFile {
    /// Absolute path inside the sandbox. What is there is replaced, missing directories on the way are made.
    pub path: String,
    /// What is in it.
    pub content: Bytes,
    /// Permission bits, 0 to 0o7777; 0o644 where absent. A file that is there keeps its own.
    pub mode: Option<u32>,
}

impl std::fmt::Debug for InitialFile {
    /// Not what is in it, which is nobody's business.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("InitialFile")
            .field("path", &self.path)
            .field("bytes", &self.content.len())
            .field("mode", &self.mode)
            .finish()
    }
}

/// Checks the files that a sandbox is to begin with.
///
/// # Errors
/// [`Error::InvalidArgument`] for more than [`MAX_INITIAL_FILES`], or [`MAX_INITIAL_BYTES`] in them, for a path that is
/// not absolute, and for permission bits that are none.
pub fn validate_initial(files: &[InitialFile]) -> Result<()> {
    if files.len() > MAX_INITIAL_FILES {
        let problem =
            format!("{} files, at most {MAX_INITIAL_FILES}: write the rest when it is there", files.len());
        return Err(Error::invalid("files", problem));
    }
    let bytes: usize = files.iter().map(|file| file.content.len()).sum();
    if bytes > MAX_INITIAL_BYTES {
        let problem =
            format!("{bytes} bytes, at most {MAX_INITIAL_BYTES}: write larger ones when it is there");
        return Err(Error::invalid("files", problem));
    }
    for (index, file) in files.iter().enumerate() {
        validate_path(&format!("files[{index}].path"), &file.path)?;
        if file.mode.is_some_and(|mode| mode > 0o7777) {
            return Err(Error::invalid(format!("files[{index}].permissions"), "0 to 07777 (4095)"));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sandbox_begins_with_is_bounded() {
        let file = |path: &str, bytes: usize, mode| InitialFile {
            path: path.to_owned(),
            content: Bytes::from(vec![b'x'; bytes]),
            mode,
        };
        let most = vec![file("/a", MAX_INITIAL_BYTES / MAX_INITIAL_FILES, Some(0o7777)); MAX_INITIAL_FILES];
        validate_initial(&most).unwrap();
        for wrong in [
            [most.clone(), vec![file("/a", 0, None)]].concat(),
            vec![file("/a", MAX_INITIAL_BYTES + 1, None)],
            vec![file("a", 1, None)],
            vec![file("/a\0", 1, None)],
            vec![file("/a", 1, Some(0o10000))],
        ] {
            assert!(validate_initial(&wrong).is_err(), "{wrong:?}");
        }
        assert!(!format!("{:?}", file("/a", 3, None)).contains("xxx"));
    }
}
