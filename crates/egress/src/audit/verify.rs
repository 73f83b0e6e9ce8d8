//! Reads a whole log and says where it is broken.

use super::chain::{Line, Link};
use super::file::{MAX_LINE, full_files};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// A log that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// How many records were read.
    pub records: u64,
    /// The first record's sequence; more than 1 where older files were removed. 0 in an empty log.
    pub first: u64,
    /// The last record's sequence; to be kept elsewhere by who wants to find lines missing at the end.
    pub last: u64,
    /// How many files there are.
    pub files: u64,
}

/// Verifies a log with its full files.
///
/// # Errors
/// [`Error::AuditBroken`] naming the first line that does not follow; [`Error::Audit`] where a file cannot be read.
pub fn verify(path: &Path) -> Result<Verified> {
    let wrong = |error: std::io::Error| Error::audit(path, error);
    let full = full_files(path).map_err(wrong)?;
    let files = full.iter().map(|(_, path)| path.as_path()).chain([path]);
    let mut verified = Verified { records: 0, first: 0, last: 0, files: 0 };
    let mut link = None;
    for path in files {
        verified.files += 1;
        link = verify_file(path, link, &mut verified)?;
    }
    verified.last = link.map_or(0, |link| link.sequence);
    Ok(verified)
}

fn verify_file(path: &Path, mut link: Option<Link>, verified: &mut Verified) -> Result<Option<Link>> {
    let wrong = |error: std::io::Error| Error::audit(path, error);
    let mut file = BufReader::new(File::open(path).map_err(wrong)?);
    let (mut number, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = file.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(wrong)?;
        if read == 0 {
            return Ok(link);
        }
        number += 1;
        link = Some(follow(link, &line).map_err(|problem| Error::AuditBroken {
            path: path.to_owned(),
            line: number,
            problem: problem.to_owned(),
        })?);
        if verified.records == 0 {
            verified.first = link.map_or(0, |link| link.sequence);
        }
        verified.records += 1;
    }
}

/// The link of a line that follows another.
fn follow(before: Option<Link>, line: &[u8]) -> std::result::Result<Link, &'static str> {
    let text = line.strip_suffix(b"\n").ok_or("the line is cut")?;
    let line = std::str::from_utf8(text).ok().and_then(Line::read).ok_or("not a line of an audit log")?;
    if !line.is_whole() {
        return Err("its hash is not that of its content");
    }
    match before {
        // Where older files were removed, the first line that is left is taken as it is.
        None if line.link.sequence > 1 => Ok(line.link),
        before if before.unwrap_or(Link::START).hash != line.previous => {
            Err("it does not follow the line before: lines were changed, removed or put in between")
        }
        before if before.unwrap_or(Link::START).sequence + 1 != line.link.sequence => {
            Err("its sequence does not follow")
        }
        _ => Ok(line.link),
    }
}
