//! A way down a tree of directories and back up, however deep it is, with few descriptors.

use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Directories that stay open above where we are. Below that many only the innermost one is open, and the way
/// back is `..`.
const HELD: usize = 64;

/// The directories between where we began and where we are, each with something about it.
#[derive(Debug)]
pub(crate) struct Descent<T> {
    levels: Vec<Level<T>>,
}

#[derive(Debug)]
struct Level<T> {
    /// Open for the innermost level, and for the outermost [`HELD`].
    directory: Option<OwnedFd>,
    /// Device and inode, to know it again.
    identity: (u64, u64),
    about: T,
}

impl<T> Descent<T> {
    pub(crate) fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// Where we are; none after the last way up.
    pub(crate) fn here(&mut self) -> Option<(&OwnedFd, &mut T)> {
        let level = self.levels.last_mut()?;
        Some((level.directory.as_ref()?, &mut level.about))
    }

    /// Goes down into a directory that was opened in this one.
    pub(crate) fn enter(&mut self, directory: OwnedFd, about: T) -> Result<(), Errno> {
        let identity = identity(&directory)?;
        if self.levels.len() > HELD
            && let Some(above) = self.levels.last_mut()
        {
            above.directory = None;
        }
        self.levels.push(Level { directory: Some(directory), identity, about });
        Ok(())
    }

    /// Goes up. → what there was about the directory that we leave.
    ///
    /// # Errors
    /// `BUSY` where somebody moved it, so that the way back does not lead to where we came from.
    pub(crate) fn leave(&mut self) -> Result<Option<T>, Errno> {
        let Some(left) = self.levels.pop() else { return Ok(None) };
        if let Some(above) = self.levels.last_mut()
            && above.directory.is_none()
        {
            let directory = open_below(left.directory.as_ref().ok_or(Errno::BADF)?, c"..")?;
            if identity(&directory)? != above.identity {
                return Err(Errno::BUSY);
            }
            above.directory = Some(directory);
        }
        Ok(Some(left.about))
    }
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Opens a directory by its name in another, and no link.
pub(crate) fn open_below(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat, renameat};

    const DEPTH: usize = 3 * HELD;

    /// Goes down `DEPTH` directories that it makes.
    fn down(base: &std::path::Path) -> Descent<usize> {
        let mut descent = Descent::new();
        descent.enter(rustix::fs::open(base, OFlags::RDONLY, Mode::empty()).unwrap(), 0).unwrap();
        for level in 1..=DEPTH {
            let (here, _) = descent.here().unwrap();
            mkdirat(here, c"d", Mode::RWXU).unwrap();
            let below = open_below(here, c"d").unwrap();
            descent.enter(below, level).unwrap();
        }
        descent
    }

    #[test]
    fn the_way_back_is_the_way_there_and_few_are_open() {
        let directory = tempfile::tempdir().unwrap();
        let mut descent = down(directory.path());
        let open = descent.levels.iter().filter(|level| level.directory.is_some()).count();
        assert!(open <= HELD + 2, "{open} are open");
        for level in (0..=DEPTH).rev() {
            let (here, about) = descent.here().unwrap();
            assert_eq!(*about, level);
            let stat = fstat(here).unwrap();
            assert_eq!((stat.st_dev, stat.st_ino), descent.levels[level].identity);
            assert_eq!(descent.leave().unwrap(), Some(level));
        }
        assert!(descent.here().is_none());
        assert_eq!(descent.leave().unwrap(), None);
    }

    #[test]
    fn whoever_is_moved_on_the_way_does_not_come_out_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let mut descent = down(directory.path());
        let innermost = format!("{}{}", directory.path().display(), "/d".repeat(DEPTH));
        renameat(CWD, &innermost, CWD, directory.path().join("moved")).unwrap();
        assert_eq!(descent.leave(), Err(Errno::BUSY));
    }
}
