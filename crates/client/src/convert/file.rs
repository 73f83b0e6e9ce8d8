//! Files.

use super::{optional, time, unknown};
use crate::error::Result;
use crate::model::FileInfo;
use hostel_proto::v1;
use hostel_sandbox::file::{Compression, FileKind};

pub(crate) fn file_info(wire: v1::FileInfo) -> Result<FileInfo> {
    use v1::FileKind as Wire;
    let kind = match wire.kind() {
        Wire::Regular => FileKind::File,
        Wire::Directory => FileKind::Directory,
        Wire::Symlink => FileKind::Symlink,
        Wire::Other => FileKind::Other,
        Wire::Unspecified => return Err(unknown("kind of file", wire.kind)),
    };
    Ok(FileInfo {
        path: wire.path,
        kind,
        size_bytes: wire.size_bytes,
        permissions: wire.permissions,
        uid: wire.uid,
        gid: wire.gid,
        modify_time: time(wire.modify_time),
        symlink_target: optional(wire.symlink_target),
    })
}

pub(crate) fn compression(compression: Compression) -> i32 {
    match compression {
        Compression::None => v1::ArchiveCompression::None.into(),
        Compression::Zstd => v1::ArchiveCompression::Zstd.into(),
    }
}
