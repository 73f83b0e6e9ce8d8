//! Changes of files, by inotify.

use super::failure::{Outcome, refused};
use super::files::{Root, check};
use hostel_guest_protocol::{FileEvent, FileEventKind, WatchFiles};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags, RawDir, fstat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// Most directories watched for one connection.
const MOST: usize = 8192;
const BUFFER: usize = 16 << 10;

/// Files watched for a connection.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: OwnedFd,
    /// Paths by watch descriptor.
    paths: BTreeMap<i32, String>,
    recursive: bool,
    /// Nobody waits for events at the moment: the host has to read first.
    pub(crate) paused: bool,
    /// There were more directories than can be watched, and the host must learn of it.
    overflowed: bool,
}

fn interest() -> WatchFlags {
    WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE_SELF
}

impl Watch {
    /// Begins to watch as asked.
    pub(crate) fn new(root: &Root, ask: &WatchFiles) -> Outcome<Self> {
        check(&ask.path)?;
        let refused = |errno| refused(errno, &ask.path);
        let opened = root.open(&ask.path, OFlags::PATH, Mode::empty()).map_err(refused)?;
        let stat = fstat(&opened).map_err(refused)?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(refused)?;
        let recursive = ask.recursive;
        let mut watch = Self { inotify, paths: BTreeMap::new(), recursive, paused: false, overflowed: false };
        let path = if ask.path.len() > 1 { ask.path.trim_end_matches('/') } else { &ask.path };
        let descriptor = inotify::add_watch(&watch.inotify, path, interest()).map_err(refused)?;
        watch.paths.insert(descriptor, path.to_owned());
        if recursive && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            watch.add_below(path.to_owned(), None);
        }
        Ok(watch)
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.inotify
    }

    /// Watches the directories below one that is watched. What is in a directory that is new is new as well.
    fn add_below(&mut self, path: String, mut found: Option<&mut Vec<FileEvent>>) {
        let mut left = vec![path];
        while let Some(path) = left.pop() {
            for (child, is_directory) in children(&path, &mut self.overflowed) {
                if let Some(found) = &mut found {
                    found.push(FileEvent { kind: FileEventKind::Created.into(), path: child.clone() });
                }
                if is_directory && self.add_directory(&child) {
                    left.push(child);
                }
            }
        }
    }

    fn add_directory(&mut self, path: &str) -> bool {
        if self.paths.len() >= MOST {
            self.overflowed = true;
            return false;
        }
        let flags = interest() | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(&self.inotify, path, flags) {
            Ok(descriptor) => self.paths.insert(descriptor, path.to_owned()).is_none(),
            Err(Errno::NOSPC) => {
                self.overflowed = true;
                false
            }
            Err(_) => false,
        }
    }

    /// That something was missed, where it was not yet told.
    pub(crate) fn overflow(&mut self) -> Option<FileEvent> {
        let event = FileEvent { kind: FileEventKind::Overflow.into(), path: String::new() };
        std::mem::take(&mut self.overflowed).then_some(event)
    }

    /// What happened.
    pub(crate) fn read(&mut self) -> Vec<FileEvent> {
        let (mut happened, mut new) = (Vec::new(), Vec::new());
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
            happened.push((event.wd(), event.events(), name));
            if reader.is_buffer_empty() {
                break;
            }
        }
        for (descriptor, flags, name) in happened {
            self.understand(descriptor, flags, name, &mut new);
        }
        new.extend(self.overflow());
        new
    }

    fn understand(
        &mut self,
        descriptor: i32,
        flags: ReadFlags,
        name: Option<String>,
        found: &mut Vec<FileEvent>,
    ) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.overflowed = true;
            return;
        }
        let Some(directory) = self.paths.get(&descriptor) else { return };
        let path = match name {
            Some(name) => format!("{}/{name}", directory.trim_end_matches('/')),
            None => directory.clone(),
        };
        if flags.contains(ReadFlags::IGNORED) {
            self.paths.remove(&descriptor);
            return;
        }
        let of_directory = flags.contains(ReadFlags::ISDIR);
        let is_itself = flags.contains(ReadFlags::DELETE_SELF);
        if is_itself && self.paths.len() > 1 {
            // The directory above says so too.
            return;
        }
        let kind = if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            FileEventKind::Created
        } else if flags.contains(ReadFlags::CLOSE_WRITE) {
            FileEventKind::Modified
        } else if flags.contains(ReadFlags::ATTRIB) {
            FileEventKind::Attributes
        } else {
            FileEventKind::Removed
        };
        found.push(FileEvent { kind: kind.into(), path: path.clone() });
        if self.recursive && of_directory && kind == FileEventKind::Created && self.add_directory(&path) {
            self.add_below(path, Some(found));
        } else if flags.contains(ReadFlags::MOVED_FROM) && of_directory {
            self.remove_below(&path);
        }
    }

    /// A directory was moved away: what happens in it is no longer ours.
    fn remove_below(&mut self, path: &str) {
        let is_below = |other: &str| {
            other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let gone: Vec<i32> =
            self.paths.iter().filter(|(_, other)| is_below(other)).map(|(at, _)| *at).collect();
        for descriptor in gone {
            let _ = inotify::remove_watch(&self.inotify, descriptor);
            self.paths.remove(&descriptor);
        }
    }
}

/// What is in a directory, and whether it is a directory itself. More than can be looked at is an overflow.
fn children(path: &str, overflowed: &mut bool) -> Vec<(String, bool)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(path, flags, Mode::empty()) else { return Vec::new() };
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let mut found = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if found.len() >= MOST * 2 {
            *overflowed = true;
            break;
        }
        let child = format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy());
        found.push((child, entry.file_type() == FileType::Directory));
    }
    found
}
