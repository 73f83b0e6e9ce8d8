//! Archives whose files come without their directories: the entries that are missing are put in, with mode 0755 of
//! root's. Engines make up such directories by themselves, but with some storage drivers (btrfs, zfs, vfs) with mode
//! 0600, which closes them to everybody else.

use hostel_sandbox::{Error, Result};
use std::collections::HashSet;
use tar::{Builder, EntryType, Header};

/// tar(5): everything comes in blocks of so many bytes.
const BLOCK: usize = 512;
/// Most bytes of what precedes an entry: its long name, its extended attributes.
const MOST_BEFORE: usize = 2 << 20;
/// Most bytes of names of directories that are remembered.
const MOST_NAMES: usize = 64 << 20;

/// An archive that goes by, piece after piece.
pub(crate) struct Parents {
    state: State,
    /// The block that is being collected.
    block: Vec<u8>,
    /// What belongs to the next entry and precedes it, as it came.
    before: Vec<u8>,
    /// What that says of the entry.
    path: Option<Vec<u8>>,
    size: Option<u64>,
    /// Directories and links, which need not be made.
    known: HashSet<Vec<u8>>,
    known_bytes: usize,
}

#[derive(Clone, Copy)]
enum State {
    Header,
    /// So many bytes of an entry, with those that fill its last block.
    Body(u64),
    /// The same of what precedes an entry: how many of them are its own.
    Before(EntryType, u64, usize),
    /// What is not understood is the engine's business.
    Through,
}

impl Default for Parents {
    fn default() -> Self {
        Self {
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            before: Vec::new(),
            path: None,
            size: None,
            known: HashSet::new(),
            known_bytes: 0,
        }
    }
}

fn padded(size: u64) -> u64 {
    size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

impl Parents {
    /// Takes the next bytes. → what goes on, which may be nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument` for an archive beyond all measure.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len() + BLOCK);
        while !bytes.is_empty() {
            match self.state {
                State::Through => {
                    out.extend_from_slice(bytes);
                    break;
                }
                State::Body(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (now, rest) = bytes.split_at(taken);
                    out.extend_from_slice(now);
                    bytes = rest;
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::Header } else { State::Body(left) };
                }
                State::Before(kind, left, size) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (now, rest) = bytes.split_at(taken);
                    self.before.extend_from_slice(now);
                    bytes = rest;
                    let left = left - taken as u64;
                    self.state = State::Before(kind, left, size);
                    if left == 0 {
                        self.read_before(kind, size);
                        self.state = State::Header;
                    }
                }
                State::Header => {
                    let taken = (BLOCK - self.block.len()).min(bytes.len());
                    let (now, rest) = bytes.split_at(taken);
                    self.block.extend_from_slice(now);
                    bytes = rest;
                    if self.block.len() == BLOCK {
                        self.header(&mut out)?;
                        self.block.clear();
                    }
                }
            }
        }
        Ok(out)
    }

    /// What is left at the end of an archive that was cut off.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.before);
        rest.append(&mut self.block);
        rest
    }

    fn header(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let header = Header::from_byte_slice(&self.block);
        let kind = header.entry_type();
        let told = header.size();
        let sum: u32 = self
            .block
            .iter()
            .enumerate()
            .map(|(at, byte)| match at {
                // Its own field counts as blanks.
                148..156 => u32::from(b' '),
                _ => u32::from(*byte),
            })
            .sum();
        let size = match told {
            Ok(size) if header.cksum().is_ok_and(|found| found == sum) && kind != EntryType::GNUSparse => {
                size
            }
            // The end, or nothing of ours.
            _ => {
                self.go_through(out);
                return Ok(());
            }
        };
        if kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
        {
            let fits = usize::try_from(size).ok().filter(|size| self.before.len() + size <= MOST_BEFORE);
            let Some(own) = fits else {
                return Err(Error::invalid("archive", "an entry has megabytes of names and attributes"));
            };
            self.before.extend_from_slice(&self.block);
            self.state = if own == 0 { State::Header } else { State::Before(kind, padded(size), own) };
            return Ok(());
        }
        let path = self.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let size = self.size.take().unwrap_or(size);
        // Those have no content, whatever they say; the engine's reader (archive/tar of Go) has it so, too.
        let is_bare = kind.is_dir()
            || kind.is_symlink()
            || kind.is_hard_link()
            || kind.is_fifo()
            || kind.is_character_special()
            || kind.is_block_special();
        self.make_parents(&path, kind.is_dir() || kind.is_symlink(), out)?;
        out.append(&mut self.before);
        out.extend_from_slice(&self.block);
        let body = if is_bare { 0 } else { padded(size) };
        self.state = if body == 0 { State::Header } else { State::Body(body) };
        Ok(())
    }

    fn go_through(&mut self, out: &mut Vec<u8>) {
        self.state = State::Through;
        out.append(&mut self.before);
        out.extend_from_slice(&self.block);
    }

    /// Reads what was said before an entry; the last bytes of `before` are that, and fill a block.
    fn read_before(&mut self, kind: EntryType, size: usize) {
        let begin = self.before.len() - usize::try_from(padded(size as u64)).unwrap_or(0);
        let said = &self.before[begin..begin + size];
        if kind.is_gnu_longname() {
            let end = said.iter().position(|byte| *byte == 0).unwrap_or(said.len());
            self.path = Some(said[..end].to_vec());
        } else if kind.is_pax_local_extensions() {
            let mut sparse = None;
            for record in tar::PaxExtensions::new(said).flatten() {
                match record.key_bytes() {
                    b"path" => self.path = Some(record.value_bytes().to_vec()),
                    // The path is made up then.
                    b"GNU.sparse.name" => sparse = Some(record.value_bytes().to_vec()),
                    b"size" => self.size = record.value().ok().and_then(|size| size.parse().ok()),
                    _ => {}
                }
            }
            self.path = sparse.or(self.path.take());
        }
    }

    /// Writes entries for the directories above a path that have none.
    fn make_parents(&mut self, path: &[u8], remember: bool, out: &mut Vec<u8>) -> Result<()> {
        let parts: Vec<&[u8]> =
            path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        if parts.contains(&&b".."[..]) {
            return Ok(());
        }
        let above = parts.len().saturating_sub(1);
        for depth in 1..=above {
            let directory = parts[..depth].join(&b'/');
            if !self.known.contains(&directory) {
                out.extend(entry(&directory)?);
                self.know(directory)?;
            }
        }
        if remember && !parts.is_empty() {
            self.know(parts.join(&b'/'))?;
        }
        Ok(())
    }

    fn know(&mut self, path: Vec<u8>) -> Result<()> {
        self.known_bytes += path.len();
        if self.known_bytes > MOST_NAMES {
            return Err(Error::invalid("archive", "it has too many directories"));
        }
        self.known.insert(path);
        Ok(())
    }
}

/// A directory, as an archive has it.
fn entry(path: &[u8]) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    let mut builder = Builder::new(Vec::new());
    let named = [path, b"/"].concat();
    builder
        .append_data(&mut header, std::ffi::OsStr::from_bytes(&named), std::io::empty())
        .map_err(|error| Error::invalid("archive", format!("a directory cannot be named: {error}")))?;
    // Without the end that an archive has.
    Ok(std::mem::take(builder.get_mut()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn archive(write: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        write(&mut builder);
        builder.into_inner().unwrap()
    }

    fn add(builder: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o700);
        header.set_size(content.len() as u64);
        if kind.is_symlink() {
            header.set_link_name("usr/bin").unwrap();
        }
        builder.append_data(&mut header, path, content).unwrap();
    }

    /// What comes of it in pieces of a size: names, modes and contents.
    fn passed(archive: &[u8], piece: usize) -> Vec<(String, u32, Vec<u8>)> {
        let mut parents = Parents::default();
        let mut out: Vec<u8> = archive.chunks(piece).flat_map(|piece| parents.pass(piece).unwrap()).collect();
        out.extend(parents.rest());
        let mut read = tar::Archive::new(&out[..]);
        let entries = read.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            (name, entry.header().mode().unwrap(), content)
        });
        entries.collect()
    }

    #[test]
    fn missing_directories_come_before_what_is_in_them_and_nothing_else_changes() {
        let long = format!("deep/{}/file", "x".repeat(150));
        let made = archive(|it| {
            add(it, EntryType::Directory, "etc/", b"");
            add(it, EntryType::Regular, "etc/passwd", b"root");
            add(it, EntryType::Regular, "./opt/tool/run", &[7; 1500]);
            add(it, EntryType::Symlink, "bin", b"");
            add(it, EntryType::Regular, "bin/sh", b"sh");
            add(it, EntryType::Regular, &long, b"long");
        });
        let deep = format!("deep/{}/", "x".repeat(150));
        let expected: Vec<(&str, u32, &[u8])> = vec![
            ("etc/", 0o700, b""),
            ("etc/passwd", 0o700, b"root"),
            ("opt/", 0o755, b""),
            ("opt/tool/", 0o755, b""),
            ("opt/tool/run", 0o700, &[7; 1500]),
            // A link is not replaced by a directory.
            ("bin", 0o700, b""),
            ("bin/sh", 0o700, b"sh"),
            ("deep/", 0o755, b""),
            (&deep, 0o755, b""),
            (&long, 0o700, b"long"),
        ];
        for piece in [1, 511, 512, 700, made.len()] {
            let found = passed(&made, piece);
            let found: Vec<_> =
                found.iter().map(|(name, mode, content)| (name.as_str(), *mode, &content[..])).collect();
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_archive_goes_through_as_it_is() {
        let nonsense: Vec<u8> = (0..5000u32).map(|number| (number % 251) as u8).collect();
        for part in [&nonsense[..], &nonsense[..100], b""] {
            let mut parents = Parents::default();
            let mut out = parents.pass(part).unwrap();
            out.extend(parents.rest());
            assert_eq!(out, part);
        }
    }
}
