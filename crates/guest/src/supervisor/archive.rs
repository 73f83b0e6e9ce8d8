//! Tar archives, in and out, by a worker. Names in an archive are data of strangers: every one is resolved
//! below the directory that is unpacked into.

pub(super) mod pack;
pub(super) mod unpack;

use super::failure::{Outcome, refused};
use super::files::{Owner, Root, check};
use super::serve::worker_root;
use super::worker::{self, Worker};
use hostel_guest_protocol::{Answer, Empty};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::os::fd::OwnedFd;

/// Starts to unpack into a directory, which is made where absent. → the worker, and where the archive goes.
pub(super) fn import(root: &Root, path: &str, owner: Owner) -> Outcome<(Worker, OwnedFd)> {
    check(path)?;
    let refused = |errno| refused(errno, path);
    root.make_directories(path, Mode::from_raw_mode(0o755), owner).map_err(refused)?;
    root.open_directory(path, OFlags::PATH).map_err(refused)?;
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).map_err(refused)?;
    let worker = worker::start(vec![reading], |mut archive| {
        let Some(archive) = archive.pop() else { return Ok(Answer::Imported(0)) };
        unpack::unpack(&worker_root()?, path, Box::new(File::from(archive)), owner).map(Answer::Imported)
    })?;
    Ok((worker.tidy(), writing))
}

/// Starts to pack a file or directory, or what a link to one leads to. → the worker, and where the archive comes from.
pub(super) fn export(root: &Root, path: &str) -> Outcome<(Worker, OwnedFd)> {
    check(path)?;
    root.stat(path, true)?;
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| refused(errno, path))?;
    let worker = worker::start(vec![writing], |mut archive| {
        if let Some(archive) = archive.pop() {
            pack::pack(&worker_root()?, path, Box::new(File::from(archive)))?;
        }
        Ok(Answer::Done(Empty {}))
    })?;
    Ok((worker, reading))
}
