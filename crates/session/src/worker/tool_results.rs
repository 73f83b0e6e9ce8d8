//! Tool results: output of tools that an agent keeps in files beside its transcript, which names them by their absolute
//! paths. They are mirrored to blobs, and put back where the conversation goes on in another sandbox.

mod mirror;
mod restore;

pub(super) use mirror::{Mirror, Mirrored};
pub(super) use restore::{Restore, Restored};

use crate::id::SessionId;
use hostel_agent::claude;
use hostel_client::domain::file::FileKind;
use hostel_client::model::FileInfo;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Files that are kept of one session.
const MAX_FILES: usize = 1000;
/// Directories of a conversation that are looked into: it has one for each directory that it was begun in.
const MAX_DIRECTORIES: usize = 16;
/// Bytes of one.
const MAX_FILE: u64 = 64 << 20;
/// Bytes of a file's name: with all before it that is less than a blob's name may have.
const MAX_NAME: usize = 255;

/// What is known of the files that were mirrored, by their names below [`place`].
pub(super) type Known = BTreeMap<String, Mark>;

/// A file as it was when it was mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    bytes: u64,
    /// What was changed later has changed since.
    modified: Timestamp,
}

/// Where the blobs of a session are.
pub(crate) fn blobs_of(session: &SessionId) -> String {
    format!("sessions/{session}")
}

/// Where its tool results are.
pub(super) fn place(session: &SessionId) -> String {
    format!("{}/tool-results", blobs_of(session))
}

/// What a directory of a sandbox is called there. Its path has characters that names of blobs have not.
fn called(directory: &str) -> String {
    let mut name = String::new();
    for byte in &Sha256::digest(directory.as_bytes())[..16] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The directories in which the agent of a conversation keeps tool results, by the session's transcripts.
fn directories(transcripts: &[String], conversation: &str) -> Vec<String> {
    let own = transcripts.iter().filter(|path| super::start::is_own(path, conversation));
    own.filter_map(|path| claude::tool_results(path)).take(MAX_DIRECTORIES).collect()
}

/// What the file is called among the blobs: nothing for what is no regular file, or has a name that blobs have not.
fn name_of(file: &FileInfo, called: &str) -> Option<String> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let plain = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits);
    (plain && file.kind == FileKind::File).then(|| format!("{called}/{name}"))
}

/// Whether a file is new or was changed since it was mirrored.
fn is_fresh(file: &FileInfo, known: Option<&Mark>) -> bool {
    known.is_none_or(|mark| {
        mark.bytes != file.size_bytes || file.modify_time.is_some_and(|time| time > mark.modified)
    })
}

/// How many bytes all have.
fn total(known: &Known) -> u64 {
    known.values().fold(0, |sum, mark| sum.saturating_add(mark.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, kind: FileKind, size_bytes: u64, second: i64) -> FileInfo {
        let modify_time = Some(Timestamp::from_second(second).unwrap());
        FileInfo {
            path: path.to_owned(),
            kind,
            size_bytes,
            permissions: 0o600,
            uid: 0,
            gid: 0,
            modify_time,
            symlink_target: None,
        }
    }

    #[test]
    fn only_regular_files_with_names_for_blobs_are_kept() {
        let called = called("/state/projects/p/c/tool-results");
        assert_eq!(called.len(), 32);
        let name = |path: &str, kind| name_of(&file(path, kind, 1, 1), &called);
        assert_eq!(name("/d/b1-c_d.txt", FileKind::File), Some(format!("{called}/b1-c_d.txt")));
        for kind in [FileKind::Symlink, FileKind::Directory, FileKind::Other] {
            assert_eq!(name("/d/a.txt", kind), None);
        }
        let long = format!("/d/{}", "x".repeat(256));
        for path in ["/d/", "/d/.", "/d/..", "/d/.hidden", "/d/a b", "/d/ä", "/d/a\\b", "/d/a\n", &long] {
            assert_eq!(name(path, FileKind::File), None, "{path:?}");
        }
    }

    #[test]
    fn the_longest_names_are_names_of_blobs() {
        let session = "s".repeat(128).parse().unwrap();
        let longest = format!("/d/{}", "x".repeat(MAX_NAME));
        let name = name_of(&file(&longest, FileKind::File, 1, 1), &called("/d")).unwrap();
        assert!(format!("{}/{name}", place(&session)).len() <= 512);
    }

    #[test]
    fn what_is_new_or_changed_is_mirrored() {
        let mark = Mark { bytes: 3, modified: Timestamp::from_second(10).unwrap() };
        let fresh = |bytes, second| is_fresh(&file("/d/a", FileKind::File, bytes, second), Some(&mark));
        assert!(is_fresh(&file("/d/a", FileKind::File, 3, 1), None));
        assert!(fresh(4, 10) && fresh(3, 11));
        assert!(!fresh(3, 10) && !fresh(3, 9));
    }

    #[test]
    fn directories_are_beside_the_transcripts_of_the_conversation() {
        let transcripts = [
            "/h/.profile",
            "/s/projects/p/b.jsonl",
            "/s/projects/p/c.jsonl",
            "/s/projects/p/c/subagents/a.jsonl",
        ];
        let transcripts = transcripts.map(str::to_owned);
        assert_eq!(directories(&transcripts, "c"), ["/s/projects/p/c/tool-results"]);
        assert!(directories(&transcripts, "").is_empty());
    }
}
