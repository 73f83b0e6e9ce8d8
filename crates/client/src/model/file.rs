//! Files inside sandboxes.

use hostel_sandbox::file::FileKind;
use jiff::Timestamp;
use serde::Serialize;

/// A file as it was when the daemon told about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Its absolute path inside the sandbox.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Permission bits, 0 to 0o7777.
    pub permissions: u32,
    /// Owner, as numbered inside.
    pub uid: u32,
    /// Group, as numbered inside.
    pub gid: u32,
    /// When its content last changed.
    pub modify_time: Option<Timestamp>,
    /// Where it points, for links.
    pub symlink_target: Option<String>,
}

/// Which file to write, and how. It replaces what is there, atomically.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteFile {
    /// Its absolute path inside the sandbox.
    pub path: String,
    /// Permission bits of a new file; 0o644 where absent.
    pub permissions: Option<u32>,
    /// Make missing parent directories.
    pub create_parents: bool,
}
