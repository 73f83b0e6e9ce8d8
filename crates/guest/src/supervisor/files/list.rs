//! Directories, a page at a time.

use super::{Root, check, stat_name};
use crate::supervisor::failure::{Outcome, failure, refused};
use hostel_guest_protocol::{FailureKind, Files, List, MAX_MESSAGE};
use prost::Message;
use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;
use std::collections::BinaryHeap;
use std::ffi::CString;
use std::mem::MaybeUninit;

/// Most entries of a page.
const MOST: u32 = 10_000;

/// The `limit` smallest names after `after`, however many there are.
fn names(directory: &rustix::fd::OwnedFd, after: &[u8], limit: usize) -> Result<Vec<CString>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut smallest: BinaryHeap<CString> = BinaryHeap::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || name.to_bytes() <= after {
            continue;
        }
        if smallest.len() < limit {
            smallest.push(name.to_owned());
        } else if let Some(mut largest) = smallest.peek_mut()
            && name < largest.as_c_str()
        {
            *largest = name.to_owned();
        }
    }
    Ok(smallest.into_sorted_vec())
}

/// Lists as asked.
pub(crate) fn list(root: &Root, ask: &List) -> Outcome<Files> {
    check(&ask.path)?;
    let directory =
        root.open_directory(&ask.path, OFlags::RDONLY).map_err(|errno| refused(errno, &ask.path))?;
    let limit = ask.limit.clamp(1, MOST) as usize;
    let names = names(&directory, ask.after.as_bytes(), limit).map_err(|errno| refused(errno, &ask.path))?;
    let parent = ask.path.trim_end_matches('/');
    let described = names.iter().filter_map(|name| {
        // What vanished meanwhile is not there.
        stat_name(&directory, name, format!("{parent}/{}", name.to_string_lossy())).ok()
    });
    let files = Files { files: described.collect() };
    if files.encoded_len() > MAX_MESSAGE / 2 {
        return Err(failure(FailureKind::Limit, "the page is too large, ask for fewer entries", "page_size"));
    }
    Ok(files)
}
