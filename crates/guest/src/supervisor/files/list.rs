//! Directories, a page at a time.

use super::{Root, check, stat_name};
use crate::supervisor::failure::{Outcome, refused};
use hostel_guest_protocol::{Files, List, MAX_MESSAGE};
use prost::Message;
use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;
use std::collections::BinaryHeap;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// Most entries of a page.
const MOST: u32 = 10_000;
/// Most bytes of a page.
const MOST_BYTES: usize = MAX_MESSAGE / 2;
/// What an entry takes in a message beside itself.
const ENTRY: usize = 4;

/// The `limit` smallest names after `after`, however many there are.
fn names(directory: &OwnedFd, after: &[u8], limit: usize) -> Result<Vec<CString>, Errno> {
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

/// A page of at most `limit` of the names, as many as fit, and after which of them there is more.
fn page(directory: &OwnedFd, parent: &str, names: &[CString], limit: usize) -> Files {
    let mut page = Files { files: Vec::new(), next: Some(Vec::new()) };
    let (mut last, mut bytes) = (&b""[..], 0);
    for (index, name) in names.iter().enumerate() {
        // What vanished meanwhile is not there.
        let file = stat_name(directory, name, format!("{parent}/{}", name.to_string_lossy())).ok();
        bytes += file.as_ref().map_or(0, |file| file.encoded_len() + ENTRY);
        if index == limit || bytes > MOST_BYTES {
            page.next = Some(last.to_vec());
            break;
        }
        page.files.extend(file);
        last = name.to_bytes();
    }
    page
}

/// Lists as asked.
pub(crate) fn list(root: &Root, ask: &List) -> Outcome<Files> {
    check(&ask.path)?;
    let directory =
        root.open_directory(&ask.path, OFlags::RDONLY).map_err(|errno| refused(errno, &ask.path))?;
    let limit = ask.limit.clamp(1, MOST) as usize;
    // One more than that, to know whether there is more.
    let names = names(&directory, &ask.after, limit + 1).map_err(|errno| refused(errno, &ask.path))?;
    Ok(page(&directory, ask.path.trim_end_matches('/'), &names, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(names: &[CString]) -> (tempfile::TempDir, OwnedFd) {
        use std::os::unix::ffi::OsStrExt as _;
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(directory.path().join(std::ffi::OsStr::from_bytes(name.to_bytes())), "").unwrap();
        }
        let fd = std::fs::File::open(directory.path()).unwrap().into();
        (directory, fd)
    }

    fn named(names: &[&[u8]]) -> Vec<CString> {
        names.iter().map(|name| CString::new(*name).unwrap()).collect()
    }

    #[test]
    fn what_vanished_ends_no_listing() {
        let (_kept, there) = directory(&named(&[b"b", b"c", b"d"]));
        let seen = named(&[b"a", b"b", b"c", b"d"]);
        let first = page(&there, "/x", &seen, 2);
        assert_eq!((first.files.len(), first.files[0].path.as_str()), (1, "/x/b"));
        assert_eq!(first.next.as_deref(), Some(&b"b"[..]));
        let none = page(&there, "/x", &seen, 1);
        assert_eq!((none.files.len(), none.next.as_deref()), (0, Some(&b"a"[..])));
        let all = page(&there, "/x", &seen, 4);
        assert_eq!((all.files.len(), all.next.as_deref()), (3, Some(&b""[..])));
    }

    #[test]
    fn what_does_not_fit_comes_in_the_next_page() {
        let many: Vec<CString> =
            (0..1000).map(|number| CString::new(format!("{number:04}")).unwrap()).collect();
        let (_kept, there) = directory(&many);
        let parent = format!("/{}", "p".repeat(4000));
        let (mut seen, mut pages) = (0, 0);
        let mut rest = &many[..];
        loop {
            let page = page(&there, &parent, rest, 1000);
            assert!(page.encoded_len() <= MAX_MESSAGE / 2 + 1024, "{}", page.encoded_len());
            (seen, pages) = (seen + page.files.len(), pages + 1);
            let next = page.next.unwrap();
            if next.is_empty() {
                break;
            }
            assert_eq!(next, many[seen - 1].to_bytes());
            rest = &many[seen..];
        }
        assert_eq!((seen, pages), (1000, 2));
    }

    #[test]
    fn names_that_are_no_text_go_on_by_their_bytes() {
        let odd: Vec<CString> =
            (0..50u8).map(|number| CString::new([0xff, 0x80 + number]).unwrap()).collect();
        let (_kept, there) = directory(&odd);
        let (mut after, mut seen) = (Vec::new(), 0);
        loop {
            let found = {
                rustix::fs::seek(&there, rustix::fs::SeekFrom::Start(0)).unwrap();
                names(&there, &after, 8).unwrap()
            };
            let page = page(&there, "/x", &found, 7);
            seen += page.files.len();
            after = page.next.unwrap();
            if after.is_empty() {
                break;
            }
        }
        assert_eq!(seen, 50);
    }
}
