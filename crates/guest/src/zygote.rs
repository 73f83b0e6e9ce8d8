//! The zygote: a small single-threaded process from which jails are cloned without exec.
//!
//! The daemon itself never forks: a fork costs by the memory of its parent, and a multi-threaded one may not
//! do much in the child. The zygote has an almost empty mount namespace of its own ([`world`]), keeps
//! namespaces that were prepared ahead ([`namespaces`]), and clones each jail from itself ([`jail`]); the
//! clone builds its root ([`root`]), learns from the daemon whose it is, confines itself ([`confine`], [`seccomp`])
//! and becomes the supervisor. When the daemon goes away its socket ends and the zygote exits, and with it clones
//! that wait to be somebody's; jails that are up live on.

mod clone3;
pub(crate) mod confine;
mod jail;
mod mounts;
mod namespaces;
mod packet;
mod root;
pub mod seccomp;
mod world;

use hostel_guest_protocol::zygote::{Order, Setup, ZygoteReply, ZygoteRequest};
use namespaces::Prepared;
use packet::{Packet, PacketSocket};
use prost::Message;
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// A step that failed, and with which error. Small enough to be made in a half-built jail.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {errno}")]
pub(crate) struct Failed {
    what: String,
    errno: Errno,
}

/// Names the step a system call was made for.
pub(crate) trait At<T> {
    /// `what` is verb and object: `mount the root`.
    fn at(self, what: impl Into<String>) -> Result<T, Failed>;
}

impl<T, E: Into<Errno>> At<T> for Result<T, E> {
    fn at(self, what: impl Into<String>) -> Result<T, Failed> {
        self.map_err(|error| Failed { what: what.into(), errno: error.into() })
    }
}

/// The errno of a failed standard library call.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// What the zygote keeps between requests.
struct Zygote {
    socket: PacketSocket,
    rootless: bool,
    idmap: bool,
    prepared: HashMap<String, Prepared>,
}

/// Serves the daemon at the other end of standard input until it hangs up.
#[must_use]
pub fn main() -> ExitCode {
    let socket = PacketSocket::stdin();
    let Ok(Some(first)) = socket.receive() else { return ExitCode::FAILURE };
    let Ok(setup) = Setup::decode(&*first.bytes) else { return ExitCode::FAILURE };
    confine::auto_reap_children();
    confine::no_cores();
    confine::no_protection_from_memory_shortage();
    let mut reply = world::enter(&setup);
    let pool = reply.pool.take();
    let failed = !reply.message.failure.is_empty();
    let idmap = reply.message.idmap;
    if socket.send(&reply.message.encode_to_vec(), pool.as_ref().map(AsFd::as_fd).as_slice()).is_err()
        || failed
    {
        return ExitCode::FAILURE;
    }
    drop(pool);
    let mut zygote = Zygote { socket, rootless: setup.rootless, idmap, prepared: HashMap::new() };
    while let Ok(Some(packet)) = zygote.socket.receive() {
        if zygote.serve(packet).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

impl Zygote {
    /// Carries one request out and answers it. An error means that the daemon cannot be reached.
    fn serve(&mut self, packet: Packet) -> Result<(), Errno> {
        let order = ZygoteRequest::decode(&*packet.bytes).ok().and_then(|request| request.order);
        let outcome = match order {
            Some(Order::Prepare(prepare)) => {
                namespaces::prepare(prepare.uid_base, self.rootless).map(|prepared| {
                    self.prepared.insert(prepare.cell, prepared);
                    None
                })
            }
            Some(Order::Clone(clone)) => self.clone_jail(*clone, packet.descriptors).map(Some),
            Some(Order::Discard(discard)) => {
                self.prepared.remove(&discard.cell);
                Ok(None)
            }
            None => Err(Failed { what: "understand the daemon".to_owned(), errno: Errno::PROTO }),
        };
        match outcome {
            Ok(Some((pid, pidfd))) => {
                let reply = ZygoteReply { pid, answered: true, ..ZygoteReply::default() };
                self.socket.send(&reply.encode_to_vec(), &[pidfd.as_fd()])
            }
            Ok(None) => self
                .socket
                .send(&ZygoteReply { answered: true, ..ZygoteReply::default() }.encode_to_vec(), &[]),
            Err(failed) => {
                let reply =
                    ZygoteReply { failure: failed.to_string(), answered: true, ..ZygoteReply::default() };
                self.socket.send(&reply.encode_to_vec(), &[])
            }
        }
    }

    fn clone_jail(
        &mut self,
        order: hostel_guest_protocol::zygote::CloneJail,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(u32, OwnedFd), Failed> {
        let prepared = match self.prepared.remove(&order.cell) {
            Some(prepared) => prepared,
            None => namespaces::prepare(order.uid_base, self.rootless)?,
        };
        let plan = jail::Plan::new(order, descriptors, prepared, self.idmap, self.rootless)?;
        jail::clone(plan)
    }
}
