//! Jails before they are anybody's: a clone in its cell that has built its root and waits to hear whose it is. Every
//! jail starts as one; some are cloned ahead ([`crate::spares`]).

use crate::cell::{Cell, Disk, Ground, Prepared};
use crate::zygote::Cloned;
use hostel_guest_protocol::zygote::CloneJail;
use hostel_sandbox::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;

/// All of a jail that does not depend on whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// As in a template's recipe.
    pub(crate) layers: Vec<String>,
    pub(crate) host_usr: bool,
    pub(crate) disk: Disk,
}

/// A jail without a guest. It exits when `first` is dropped; removing its cell is its owner's business.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(crate) cell: Cell,
    pub(crate) shape: Shape,
    /// The guest's first connection, on which it waits for its `Birth` message.
    pub(crate) first: OwnedFd,
    pub(crate) cloned: Cloned,
}

impl Newborn {
    /// Whether its process is there.
    pub(crate) fn lives(&self) -> bool {
        let mut ended = [PollFd::new(&self.cloned.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut ended, Some(&Timespec::default())) == Ok(0)
    }
}

impl Ground {
    /// Clones a jail into a cell. Where that fails, or is given up, the cell is still to be removed.
    ///
    /// # Errors
    /// `Unavailable` where the zygote has gone; `Internal` with what could not be done.
    pub(crate) async fn conceive(&self, prepared: Prepared, shape: Shape) -> Result<Newborn> {
        let Prepared { cell, listener, spill, doors } = prepared;
        let (first, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| Error::internal("make a guest's socket", error))?;
        let order = CloneJail {
            uid_base: cell.uid_base(),
            cell: cell.name.clone(),
            layers: shape.layers.clone(),
            host_usr: shape.host_usr,
            in_memory: shape.disk == Disk::Memory,
            has_cgroup2: doors.unified.is_some(),
            has_oom_file: doors.oom_counter.is_some(),
            join_files: u32::try_from(doors.tasks.len()).unwrap_or(0),
        };
        // In the order that `CloneJail` gives.
        let mut descriptors = vec![theirs, listener, spill];
        descriptors.extend(doors.unified.into_iter().chain(doors.oom_counter).chain(doors.tasks));
        let cloned = self.zygote.clone_jail(order, descriptors).await?;
        Ok(Newborn { cell, shape, first, cloned })
    }
}
