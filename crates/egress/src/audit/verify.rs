//! Reads a whole log and says where it is broken. The log may be written meanwhile.

use super::chain::{Line, Link, hex};
use super::file::{MAX_LINE, full_files, is_same};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// How often a log is listed until its files stay for that long.
const TRIES: usize = 100;

/// A log that is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// How many records were read.
    pub records: u64,
    /// The first record's sequence; more than 1 where older files were removed. 0 in an empty log.
    pub first: u64,
    /// The last record's sequence.
    pub last: u64,
    /// The last record's hash in hexadecimal digits. To be kept elsewhere, with its sequence, by who wants to find lines
    /// missing at the end. Empty in an empty log.
    pub last_hash: String,
    /// How many files there are.
    pub files: u64,
}

/// Verifies a log with its full files. A line at the end that is being written, or was when the power went, is passed
/// over.
///
/// # Errors
/// [`Error::AuditBroken`] naming the first line that does not follow; [`Error::Audit`] where a file cannot be read, or
/// files come and go faster than they can be listed.
pub fn verify(path: &Path) -> Result<Verified> {
    for _ in 0..TRIES {
        if let Some(verified) = verify_once(path)? {
            return Ok(verified);
        }
    }
    Err(Error::audit(path, io::Error::other("its files are turned faster than they can be listed")))
}

/// `None` where the file that was written was turned and removed before it was looked for among the full ones.
fn verify_once(path: &Path) -> Result<Option<Verified>> {
    let wrong = |error: io::Error| Error::audit(path, error);
    // First the file that is written, as far as it is now: what is full later has another name, and is the same file.
    let live = match File::open(path) {
        Ok(file) => {
            let length = file.metadata().map_err(wrong)?.len();
            Some((file, length))
        }
        // Between two files there is a moment without one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(wrong(error)),
    };
    let full = full_files(path).map_err(wrong)?;
    if live.is_none() && full.is_empty() {
        return Err(wrong(io::ErrorKind::NotFound.into()));
    }
    if let Some((live, _)) = &live
        && live.metadata().map_err(wrong)?.nlink() == 0
    {
        return Ok(None);
    }
    let mut reading = Reading::default();
    for (number, full) in full {
        let file = match File::open(&full) {
            Ok(file) => file,
            // There are enough newer ones: it was removed just now, as were those before it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                reading = Reading::default();
                continue;
            }
            Err(error) => return Err(Error::audit(&full, error)),
        };
        let turned = live.as_ref().map(|(live, _)| is_same(&file, live)).transpose().map_err(wrong)?;
        if turned == Some(true) {
            break;
        }
        reading.file(&full, BufReader::new(file), Kind::Full(number))?;
    }
    if let Some((live, length)) = live {
        reading.file(path, BufReader::new(live.take(length)), Kind::Live)?;
    }
    Ok(Some(reading.verified))
}

/// What is expected of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It begins with the record whose sequence it is named after, and ends with a whole one.
    Full(u64),
    Live,
}

/// How far it was read.
#[derive(Default)]
struct Reading {
    link: Option<Link>,
    verified: Verified,
}

impl Reading {
    fn file(&mut self, path: &Path, mut file: impl BufRead, kind: Kind) -> Result<()> {
        self.verified.files += 1;
        let (mut number, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let read = file.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line);
            let read = read.map_err(|error| Error::audit(path, error))?;
            let unfinished = kind == Kind::Live && !line.ends_with(b"\n") && line.len() as u64 <= MAX_LINE;
            if read == 0 || unfinished {
                return Ok(());
            }
            number += 1;
            let begins = match kind {
                Kind::Full(first) if number == 1 => Some(first),
                _ => None,
            };
            let link = follow(self.link, begins, &line).map_err(|problem| Error::AuditBroken {
                path: path.to_owned(),
                line: number,
                problem: problem.to_owned(),
                before: self.verified.records,
            })?;
            self.take(link);
        }
    }

    fn take(&mut self, link: Link) {
        if self.verified.records == 0 {
            self.verified.first = link.sequence;
        }
        self.verified.records += 1;
        self.verified.last = link.sequence;
        self.verified.last_hash = hex(&link.hash);
        self.link = Some(link);
    }
}

/// The link of a line that follows another. `begins` is the sequence that a file's first line must have.
fn follow(before: Option<Link>, begins: Option<u64>, line: &[u8]) -> std::result::Result<Link, &'static str> {
    let text = line.strip_suffix(b"\n").ok_or("the line is cut")?;
    let line = std::str::from_utf8(text).ok().and_then(Line::read).ok_or("not a line of an audit log")?;
    if !line.is_whole() {
        return Err("its hash is not that of its content");
    }
    let link = line.link;
    match before {
        // Where older files were removed, the first line that is left is taken as it is.
        None if link.sequence > 1 => {}
        before if before.unwrap_or(Link::START).hash != line.previous => {
            return Err("it does not follow the line before: lines were changed, removed or put in between");
        }
        before if before.unwrap_or(Link::START).sequence + 1 != link.sequence => {
            return Err("its sequence does not follow");
        }
        _ => {}
    }
    if begins.is_some_and(|first| first != link.sequence) {
        return Err("the file is named after another first record: lines before it were removed");
    }
    Ok(link)
}
