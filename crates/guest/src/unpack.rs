//! `hostel-guest unpack`: unpacks a tar archive from standard input into the current directory, which becomes
//! its root first. Whatever names and links an archive holds, they lead nowhere else.
//!
//! Exit status: 0, 1 for a broken archive or a refused operation, 3 for a full disk.

use rustix::process::chroot;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use tar::{Archive, EntryType, Header};

/// Most entries of one archive.
const MAX_ENTRIES: u64 = 10_000_000;
const DISK_FULL: u8 = 3;

/// Does it.
#[must_use]
pub fn main() -> ExitCode {
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
    let mut archive = Archive::new(BufReader::with_capacity(128 << 10, input));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    let mut count = 0;
    // The modes of directories come last: a read-only one would refuse what belongs into it.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(io::Error::other(format!("more than {MAX_ENTRIES} entries")));
        }
        match entry.header().entry_type() {
            EntryType::Block | EntryType::Char => continue,
            EntryType::Fifo => {
                let path = entry.path()?.into_owned();
                make_pipe(&path, entry.header()).map_err(|error| named(&path, error))?;
                continue;
            }
            EntryType::Directory => {
                directories.push(entry);
                continue;
            }
            _ => {}
        }
        let path = entry.path()?.into_owned();
        let unpacked = entry.unpack_in("/").map_err(|error| named(&path, error))?;
        if !unpacked {
            return Err(io::Error::other(format!("{}: leads out of the archive", path.display())));
        }
    }
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
