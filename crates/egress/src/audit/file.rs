//! The file of the log, and its turn to the next.

use super::AuditSettings;
use super::chain::{Line, Link};
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest line. A decision's texts are cut long before.
pub(super) const MAX_LINE: u64 = 64 * 1024;

/// The log while it is written.
#[derive(Debug)]
pub(super) struct Log {
    settings: AuditSettings,
    file: File,
    /// Bytes in the file that are known to be good.
    length: u64,
    link: Link,
    /// The first sequence in the file.
    first: u64,
}

impl Log {
    pub(super) fn open(settings: AuditSettings) -> Result<Self> {
        let settings = AuditSettings { rotate_bytes: settings.rotate_bytes.max(4096), ..settings };
        let path = settings.path.clone();
        let wrong = |error: io::Error| Error::audit(&path, error);
        let file = open_file(&path).map_err(wrong)?;
        let before = match full_files(&path).map_err(wrong)?.pop() {
            Some((_, full)) => last_line(&full, &mut File::open(&full).map_err(wrong)?)?
                .map_or(Link::START, |(link, _)| link),
            None => Link::START,
        };
        let mut log = Self { first: before.sequence + 1, link: before, length: 0, file, settings };
        if let Some((link, end)) = last_line(&path, &mut log.file)? {
            (log.link, log.length) = (link, end);
        }
        // What was being written when the daemon died was answered to nobody.
        log.file.set_len(log.length).map_err(wrong)?;
        log.first = first_sequence(&path).map_err(wrong)?.unwrap_or(log.link.sequence + 1);
        Ok(log)
    }

    /// Appends records and returns when they are on the disk. All of them, or none.
    pub(super) fn append<'a>(&mut self, records: impl Iterator<Item = &'a str>) -> io::Result<()> {
        self.still_there()?;
        if self.length >= self.settings.rotate_bytes {
            self.rotate()?;
        }
        let (mut lines, mut link) = (Vec::new(), self.link);
        for record in records {
            link = link.write(record, &mut lines);
        }
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stay before the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.link = link;
        Ok(())
    }

    /// Somebody may have moved or removed the file; what is written into it then would be lost.
    fn still_there(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        match std::fs::metadata(&self.settings.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {
                if own.len() == self.length {
                    return Ok(());
                }
                Err(io::Error::other("somebody else changed its length"))
            }
            Ok(_) => Err(io::Error::other("somebody put another file in its place")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::error!(path = %self.settings.path.display(), "the audit log was removed; it goes on in a new file");
                self.begin()
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a new file with the chain as it is.
    fn begin(&mut self) -> io::Result<()> {
        self.file = open_file(&self.settings.path)?;
        self.length = 0;
        self.first = self.link.sequence + 1;
        sync_directory(&self.settings.path)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let full = full_name(&self.settings.path, self.first);
        // A link fails where the name is taken, a rename would replace it.
        std::fs::hard_link(&self.settings.path, &full)?;
        std::fs::remove_file(&self.settings.path)?;
        self.begin()?;
        let mut kept = full_files(&self.settings.path)?;
        while self.settings.keep > 0 && kept.len() > self.settings.keep {
            let (_, oldest) = kept.remove(0);
            std::fs::remove_file(oldest)?;
        }
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(io::Error::other(format!(
            "its mode is {mode:o}; others must have no rights, as with 600"
        )));
    }
    Ok(file)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// The last whole line's link and where it ends; `None` in an empty file.
fn last_line(path: &Path, file: &mut File) -> Result<Option<(Link, u64)>> {
    let wrong = |error: io::Error| Error::audit(path, error);
    let length = file.seek(SeekFrom::End(0)).map_err(wrong)?;
    let start = length.saturating_sub(2 * MAX_LINE);
    file.seek(SeekFrom::Start(start)).map_err(wrong)?;
    let mut tail = Vec::new();
    file.take(2 * MAX_LINE).read_to_end(&mut tail).map_err(wrong)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        if length > MAX_LINE {
            return Err(Error::audit(path, "its last line is too long to be one of ours"));
        }
        return Ok(None);
    };
    let begin = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let line = std::str::from_utf8(&tail[begin..end]).ok().and_then(Line::read);
    match line.filter(Line::is_whole) {
        Some(line) => Ok(Some((line.link, start + end as u64 + 1))),
        None => Err(Error::audit(path, "its last line was changed; move the file away to begin a new log")),
    }
}

fn first_sequence(path: &Path) -> io::Result<Option<u64>> {
    let mut line = String::new();
    let file = io::BufReader::new(File::open(path)?);
    io::BufRead::read_line(&mut file.take(MAX_LINE), &mut line)?;
    Ok(Line::read(line.trim_end()).map(|line| line.link.sequence))
}

fn full_name(path: &Path, first: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{first:020}"));
    name.into()
}

/// The full files of a log with their first sequences, the oldest first.
pub(super) fn full_files(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(own) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(own)?.strip_prefix('.'));
        if let Some(number) =
            number.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok())
        {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
