//! `hostel-guest unpack`: unpacks a tar archive from standard input into the current directory, which becomes
//! its root first. Whatever names and links an archive holds, they lead nowhere else.
//!
//! Exit status: 0, 1 for a broken archive or a refused operation, 3 for a full disk.

use rustix::process::{Resource, Rlimit, chroot, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use tar::{Archive, EntryType, Header};

/// Most entries of one archive.
const MAX_ENTRIES: u64 = 10_000_000;
/// Most directories among them: they are remembered to the end, about a kilobyte each.
const MAX_DIRECTORIES: usize = 500_000;
/// Most bytes that tell of one entry: its headers, long names and attributes, which are held in memory.
const MAX_DESCRIPTION: u64 = 1 << 20;
/// Most memory of the unpacker, where something was overlooked.
const MAX_MEMORY: u64 = 1 << 30;
const DISK_FULL: u8 = 3;

/// Does it.
#[must_use]
pub fn main() -> ExitCode {
    let _ = setrlimit(Resource::As, Rlimit { current: Some(MAX_MEMORY), maximum: Some(MAX_MEMORY) });
    match confine().and_then(|()| unpack(io::stdin().lock())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
            ExitCode::from(if full { DISK_FULL } else { 1 })
        }
    }
}

/// Shuts this process into the directory, with no right but to write files for others there.
fn confine() -> io::Result<()> {
    chroot(".")?;
    rustix::process::chdir("/")?;
    let kept =
        CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}

/// Unpacks everything but devices, which a jail has of its own.
fn unpack(input: impl Read) -> io::Result<u64> {
    let budget = Rc::new(Cell::new(u64::MAX));
    let input = Budgeted { input: BufReader::with_capacity(128 << 10, input), budget: budget.clone() };
    let mut archive = Archive::new(input);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    let mut count = 0;
    // The modes of directories come last: a read-only one would refuse what belongs into it.
    let mut directories = Vec::new();
    let mut entries = archive.entries()?;
    loop {
        budget.set(MAX_DESCRIPTION);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry?;
        budget.set(u64::MAX);
        count += 1;
        if count > MAX_ENTRIES {
            return Err(io::Error::other(format!("more than {MAX_ENTRIES} entries")));
        }
        match entry.header().entry_type() {
            EntryType::Block | EntryType::Char => drain(&mut entry)?,
            EntryType::Fifo => {
                let path = entry.path()?.into_owned();
                make_pipe(&path, entry.header()).map_err(|error| named(&path, error))?;
                drain(&mut entry)?;
            }
            EntryType::Directory => {
                drain(&mut entry)?;
                if directories.len() >= MAX_DIRECTORIES {
                    return Err(io::Error::other(format!("more than {MAX_DIRECTORIES} directories")));
                }
                directories.push(entry);
            }
            _ => {
                let path = entry.path()?.into_owned();
                let unpacked = entry.unpack_in("/").map_err(|error| named(&path, error))?;
                if !unpacked {
                    return Err(io::Error::other(format!("{}: leads out of the archive", path.display())));
                }
                drain(&mut entry)?;
            }
        }
    }
    budget.set(u64::MAX);
    directories.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    for mut directory in directories {
        let path = directory.path()?.into_owned();
        directory.unpack_in("/").map_err(|error| named(&path, error))?;
    }
    if count == 0 {
        return Err(io::Error::other("the archive is empty"));
    }
    Ok(count)
}

/// Reads what is left of an entry, so that what comes next is the description of another one.
fn drain(entry: &mut impl Read) -> io::Result<()> {
    io::copy(entry, &mut io::sink()).map(drop)
}

/// Input of which only so much may be read.
struct Budgeted<R> {
    input: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("a name or the attributes of an entry are too long"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.input.read(&mut buffer[..most])?;
        self.budget.set(left - length as u64);
        Ok(length)
    }
}

/// A named pipe, which the tar crate does not make. Its directory came before it.
fn make_pipe(path: &Path, header: &Header) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chownat, mknodat};
    let target = Path::new("/").join(path.strip_prefix("/").unwrap_or(path));
    let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
    let (uid, gid) = (id(header.uid()?)?, id(header.gid()?)?);
    mknodat(CWD, &target, FileType::Fifo, Mode::from_raw_mode(header.mode()? & 0o7777), 0)?;
    chownat(CWD, &target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// The tar crate hides the kernel's word in the error's source; its number decides the exit status.
fn named(path: &Path, error: io::Error) -> io::Error {
    let mut causes = vec![error.to_string()];
    let mut number = error.raw_os_error();
    let mut source = error.get_ref().and_then(|inner| inner.source());
    while let Some(cause) = source {
        number = number.or_else(|| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
        causes.push(cause.to_string());
        source = cause.source();
    }
    match number {
        Some(number @ (libc::ENOSPC | libc::EDQUOT)) => io::Error::from_raw_os_error(number),
        _ => io::Error::other(format!("{}: {}", path.display(), causes.join(": "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is unpacked here: it fails before the first entry is known.
    #[test]
    fn names_and_attributes_are_bounded_before_they_are_read() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let mut header = Header::new_gnu();
            header.set_path("long").unwrap();
            header.set_entry_type(kind);
            header.set_size(1 << 40);
            header.set_cksum();
            let (endless, read) = (io::repeat(b'a'), Rc::new(Cell::new(u64::MAX)));
            let input = header.as_bytes().chain(Budgeted { input: endless, budget: read.clone() });
            let error = unpack(input).unwrap_err();
            assert!(error.to_string().contains("too long"), "{kind:?}: {error}");
            assert!(u64::MAX - read.get() <= 2 * MAX_DESCRIPTION, "{kind:?}");
        }
    }
}
