//! The file of the log, and its turn to the next.

use super::chain::{Line, Link};
use super::{AuditSettings, Flush};
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest line. A decision's texts are cut long before.
pub(super) const MAX_LINE: u64 = 64 * 1024;

/// Most bytes that are written and not on the disk.
const MAX_BEHIND: usize = 1 << 20;
/// From so many on they are brought there at once, so that nobody who writes has to wait for that.
const MUCH_BEHIND: usize = MAX_BEHIND / 4;

/// The log while it is written.
#[derive(Debug)]
pub(super) struct Log {
    settings: AuditSettings,
    file: Arc<File>,
    /// Which file it is: its device and inode.
    own: (u64, u64),
    /// Bytes in the file that are known to be good.
    length: u64,
    link: Link,
    /// The first sequence in the file.
    first: u64,
    /// How far the file is on the disk: its length then, and the link there.
    flushed: (u64, Link),
    /// What is in the file behind that.
    behind: Vec<u8>,
    /// Flushing failed. The kernel then forgets what it could not write, and says so once (fsync(2)).
    doubtful: bool,
}

/// A file as far as it is written, to be flushed.
#[derive(Debug)]
pub(super) struct Piece {
    file: Arc<File>,
    end: (u64, Link),
}

impl Piece {
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Log {
    pub(super) fn open(settings: AuditSettings) -> Result<Self> {
        let settings = AuditSettings { rotate_bytes: settings.rotate_bytes.max(4096), ..settings };
        let path = settings.path.clone();
        let wrong = |error: io::Error| Error::audit(&path, error);
        let full = full_files(&path).map_err(wrong)?.pop();
        if let Some((_, full)) = &full {
            finish_turn(&path, full).map_err(wrong)?;
        }
        let mut file = open_file(&path).map_err(wrong)?;
        let before = match full {
            Some((_, full)) => last_line(&full, &mut File::open(&full).map_err(wrong)?)?
                .map_or(Link::START, |(link, _)| link),
            None => Link::START,
        };
        let (link, length) = last_line(&path, &mut file)?.unwrap_or((before, 0));
        // What was being written when the daemon died was answered to nobody.
        file.set_len(length).map_err(wrong)?;
        // What a daemon before did not bring to the disk, and its name.
        file.sync_data().and_then(|()| sync_directory(&path)).map_err(wrong)?;
        let first = first_sequence(&path).map_err(wrong)?.unwrap_or(link.sequence + 1);
        let flushed = (length, link);
        let (own, file) = (identity(&file).map_err(wrong)?, Arc::new(file));
        Ok(Self { settings, file, own, length, link, first, flushed, behind: Vec::new(), doubtful: false })
    }

    /// Appends a record and returns its sequence. It is in the file afterwards, and on the disk later.
    pub(super) fn append(&mut self, record: &str) -> io::Result<u64> {
        if self.doubtful {
            self.recover()?;
        }
        self.still_there()?;
        if self.length >= self.settings.rotate_bytes {
            self.rotate()?;
        }
        let mut line = Vec::with_capacity(record.len() + 256);
        let link = self.link.write(record, &mut line);
        if self.behind.len() + line.len() > MAX_BEHIND {
            self.flush()?;
        }
        if let Err(error) = (&*self.file).write_all(&line) {
            // Half a line must not stay before the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.link = link;
        self.behind.extend_from_slice(&line);
        Ok(link.sequence)
    }

    /// Whether something is written and not on the disk.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Whether that is much.
    pub(super) fn is_far_behind(&self) -> bool {
        self.behind.len() >= MUCH_BEHIND
    }

    /// The last sequence that is on the disk.
    pub(super) fn on_disk(&self) -> u64 {
        self.flushed.1.sequence
    }

    /// What is to be flushed; nothing where that failed before and flushing again would say nothing.
    pub(super) fn behind(&self) -> Option<Piece> {
        let piece = || Piece { file: Arc::clone(&self.file), end: (self.length, self.link) };
        (!self.doubtful).then(piece)
    }

    /// A piece is on the disk.
    pub(super) fn flushed(&mut self, piece: &Piece) {
        // A file that was full meanwhile was flushed then.
        if Arc::ptr_eq(&self.file, &piece.file) && !self.doubtful {
            let count = piece.end.0.saturating_sub(self.flushed.0);
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.behind.len());
            self.behind.drain(..count);
            self.flushed = piece.end;
        }
    }

    /// Flushing failed.
    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// After flushing failed. What was recorded already is written once more; where each record is waited for, nothing
    /// was, and it is taken back.
    pub(super) fn recover(&mut self) -> io::Result<()> {
        self.file.set_len(self.flushed.0)?;
        self.length = self.flushed.0;
        if self.settings.flush == Flush::Each {
            self.link = self.flushed.1;
            self.behind.clear();
        } else {
            (&*self.file).write_all(&self.behind)?;
            self.length += u64::try_from(self.behind.len()).unwrap_or(u64::MAX);
            self.file.sync_data()?;
            self.all_flushed();
        }
        self.doubtful = false;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.sync_data();
        match flushed {
            Ok(()) => self.all_flushed(),
            Err(_) => self.doubt(),
        }
        flushed
    }

    fn all_flushed(&mut self) {
        self.flushed = (self.length, self.link);
        self.behind.clear();
    }

    /// Somebody may have moved or removed the file; what is written into it then would be lost.
    fn still_there(&mut self) -> io::Result<()> {
        match std::fs::metadata(&self.settings.path) {
            Ok(there) if (there.dev(), there.ino()) == self.own => {
                if there.len() == self.length {
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
        let file = open_file(&self.settings.path)?;
        self.own = identity(&file)?;
        self.file = Arc::new(file);
        self.length = 0;
        self.first = self.link.sequence + 1;
        self.all_flushed();
        sync_directory(&self.settings.path)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.flush()?;
        let full = full_name(&self.settings.path, self.first);
        // A link fails where the name is taken, a rename would replace it.
        match std::fs::hard_link(&self.settings.path, &full) {
            // So it ended the last time, between the two steps.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && is_same(&self.file, &File::open(&full)?)? => {}
            linked => linked?,
        }
        std::fs::remove_file(&self.settings.path)?;
        self.begin()?;
        if let Err(error) = self.forget_oldest() {
            tracing::warn!(path = %self.settings.path.display(), %error, "old files of the audit log cannot be removed");
        }
        Ok(())
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let kept = full_files(&self.settings.path)?;
        let most = if self.settings.keep == 0 { usize::MAX } else { self.settings.keep };
        for (_, oldest) in kept.iter().take(kept.len().saturating_sub(most)) {
            std::fs::remove_file(oldest)?;
        }
        Ok(())
    }
}

/// Whether two open files are the same one.
pub(super) fn is_same(one: &File, other: &File) -> io::Result<bool> {
    Ok(identity(one)? == identity(other)?)
}

/// What tells a file from all others, as long as it is open: device and inode.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Takes the log's name from a file that is full and has its own already: who turned it died in between.
fn finish_turn(path: &Path, full: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) if is_same(&file, &File::open(full)?)? => std::fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verify;
    use std::time::Duration;

    impl Log {
        /// As on a file system that became so while something was to be brought to the disk.
        pub(in crate::audit) fn become_read_only(&mut self) {
            self.file = Arc::new(File::open(&self.settings.path).unwrap());
            self.doubt();
        }
    }

    fn log(path: &Path, flush: Flush) -> Log {
        Log::open(AuditSettings { flush, ..AuditSettings::new(path) }).unwrap()
    }

    #[test]
    fn what_could_not_be_flushed_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut log = log(&path, Flush::Within(Duration::from_secs(1)));
        log.append("1").unwrap();
        let piece = log.behind().unwrap();
        log.append("2").unwrap();
        log.flushed(&piece);
        assert_eq!((log.on_disk(), log.is_behind()), (1, true));
        log.doubt();
        assert!(log.behind().is_none(), "flushing again would lie");
        // As if the kernel had forgotten it.
        log.file.set_len(log.flushed.0).unwrap();
        assert_eq!(log.append("3").unwrap(), 3);
        assert_eq!((log.on_disk(), verify(&path).unwrap().records), (2, 3));
    }

    #[test]
    fn what_each_waits_for_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut log = log(&path, Flush::Each);
        log.append("1").unwrap();
        let piece = log.behind().unwrap();
        log.flushed(&piece);
        log.append("2").unwrap();
        log.doubt();
        log.recover().unwrap();
        assert_eq!((log.is_behind(), verify(&path).unwrap().records), (false, 1));
        assert_eq!(log.append("another 2").unwrap(), 2);
        assert_eq!(verify(&path).unwrap().records, 2);
    }

    #[test]
    fn a_turn_that_was_cut_short_is_finished() {
        for restarts in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("audit.jsonl");
            let mut own = log(&path, Flush::Within(Duration::from_secs(1)));
            own.append("1").unwrap();
            std::fs::hard_link(&path, full_name(&path, 1)).unwrap();
            if restarts {
                own = log(&path, Flush::Within(Duration::from_secs(1)));
            } else {
                own.settings.rotate_bytes = 1;
            }
            own.append("2").unwrap();
            let verified = verify(&path).unwrap();
            assert_eq!((verified.records, verified.last, verified.files), (2, 2, 2), "restarts: {restarts}");
        }
    }

    #[test]
    fn another_file_of_that_name_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut log = log(&path, Flush::Within(Duration::from_secs(1)));
        log.append("1").unwrap();
        std::fs::write(full_name(&path, 1), "somebody's").unwrap();
        log.settings.rotate_bytes = 1;
        assert!(log.append("2").is_err());
        assert_eq!(std::fs::read(full_name(&path, 1)).unwrap(), b"somebody's");
    }

    #[test]
    fn only_so_many_full_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut log = log(&path, Flush::Within(Duration::from_secs(1)));
        (log.settings.rotate_bytes, log.settings.keep) = (1, 2);
        for _ in 0..6 {
            log.append("1").unwrap();
        }
        let verified = verify(&path).unwrap();
        assert_eq!((verified.files, verified.first, verified.last), (3, 4, 6));
    }

    #[test]
    fn a_file_that_is_full_is_flushed_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut log = log(&path, Flush::Within(Duration::from_secs(1)));
        log.settings.rotate_bytes = 300;
        log.append("1").unwrap();
        let piece = log.behind().unwrap();
        log.append("2").unwrap();
        log.append("3").unwrap();
        assert_eq!(log.on_disk(), 2);
        log.flushed(&piece);
        assert_eq!((log.on_disk(), verify(&path).unwrap().files), (2, 2), "a piece of the file before");
    }
}
