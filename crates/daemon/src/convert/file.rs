//! Files and archives.

use super::timestamp;
use crate::error::Result;
use hostel_proto::v1;
use hostel_sandbox::Error as DomainError;
use hostel_sandbox::file::{Compression, FileEvent, FileEventKind, FileInfo, FileKind, WriteOptions};
use hostel_sandbox::spec::validate_path;

/// How a file is written; `Append` needs its length first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WritePlan {
    At(WriteOptions),
    Append(WriteOptions),
}

pub(crate) fn path(field: &str, path: &str) -> Result<()> {
    Ok(validate_path(field, path)?)
}

pub(crate) fn permissions(permissions: Option<u32>) -> Result<Option<u32>> {
    if permissions.is_some_and(|mode| mode > 0o7777) {
        return Err(DomainError::invalid("permissions", "0 to 07777 (4095)").into());
    }
    Ok(permissions)
}

pub(crate) fn write_plan(open: &v1::WriteFileOpen) -> Result<WritePlan> {
    path("path", &open.path)?;
    let mode = open.write_mode();
    if open.offset != 0 && mode != v1::WriteMode::Patch {
        return Err(DomainError::invalid("offset", "only with WRITE_MODE_PATCH").into());
    }
    let base = WriteOptions {
        mode: permissions(open.permissions)?,
        create_parents: open.create_parents,
        ..WriteOptions::default()
    };
    match mode {
        v1::WriteMode::Unspecified if open.write_mode != 0 => {
            Err(DomainError::invalid("write_mode", format!("{} is not a mode", open.write_mode)).into())
        }
        v1::WriteMode::Unspecified | v1::WriteMode::Replace => Ok(WritePlan::At(base)),
        v1::WriteMode::Create => Ok(WritePlan::At(WriteOptions { must_not_exist: true, ..base })),
        v1::WriteMode::Append => Ok(WritePlan::Append(base)),
        v1::WriteMode::Patch => Ok(WritePlan::At(WriteOptions { offset: Some(open.offset), ..base })),
    }
}

pub(crate) fn compression(compression: i32) -> Result<Compression> {
    match v1::ArchiveCompression::try_from(compression) {
        Ok(v1::ArchiveCompression::Unspecified | v1::ArchiveCompression::None) => Ok(Compression::None),
        Ok(v1::ArchiveCompression::Zstd) => Ok(Compression::Zstd),
        Err(_) => {
            Err(DomainError::invalid("compression", format!("{compression} is not a compression")).into())
        }
    }
}

pub(crate) fn api_file(info: FileInfo) -> v1::FileInfo {
    let kind = match info.kind {
        FileKind::File => v1::FileKind::Regular,
        FileKind::Directory => v1::FileKind::Directory,
        FileKind::Symlink => v1::FileKind::Symlink,
        FileKind::Other => v1::FileKind::Other,
    };
    v1::FileInfo {
        path: info.path,
        kind: kind.into(),
        size_bytes: info.size,
        permissions: info.mode,
        uid: info.uid,
        gid: info.gid,
        modify_time: Some(timestamp(info.modified)),
        symlink_target: info.link_target.unwrap_or_default(),
    }
}

/// An event below `watched`.
pub(crate) fn api_event(watched: &str, event: FileEvent) -> v1::FileEvent {
    let kind = match event.kind {
        FileEventKind::Created => v1::FileEventKind::Created,
        FileEventKind::Modified => v1::FileEventKind::Modified,
        FileEventKind::Attributes => v1::FileEventKind::AttributesChanged,
        FileEventKind::Removed => v1::FileEventKind::Removed,
        FileEventKind::Overflow => v1::FileEventKind::Overflow,
    };
    let path = if event.path.is_empty() { watched.to_owned() } else { event.path };
    v1::FileEvent { kind: kind.into(), path }
}

/// The watch stands.
pub(crate) fn api_watching(watched: &str) -> v1::FileEvent {
    v1::FileEvent { kind: v1::FileEventKind::Watching.into(), path: watched.to_owned() }
}
