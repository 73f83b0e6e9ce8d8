//! Listening sockets for the host, which gets copies of their descriptors. They stay here, so that connections made
//! while there is no daemon wait for the next one.

use super::Supervisor;
use super::failure::{Outcome, failure, invalid, refused};
use super::files::{self, Root};
use hostel_guest_protocol::{FailureKind, LISTENERS, ListenAt, ListenUnix, MAX_LISTENERS};
use rustix::fs::{AtFlags, FileType, Mode, Stat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Connections that may wait to be accepted, through a restart of the daemon too.
const BACKLOG: i32 = 1024;

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Listener {
    at: ListenAt,
    socket: OwnedFd,
    /// Device and number of its file, where it has one.
    file: Option<(u64, u64)>,
}

impl Supervisor {
    /// → a copy of the socket's descriptor.
    pub(super) fn listen(&mut self, at: ListenAt) -> Outcome<OwnedFd> {
        let root = &self.root;
        // One whose file somebody took away cannot be reached any more.
        self.listeners.retain(|known| known.at != at || known.file == file_of(root, &at));
        let index = match self.listeners.iter().position(|known| known.at == at) {
            Some(index) => index,
            None if self.listeners.len() >= MAX_LISTENERS => {
                let message = format!("at most {MAX_LISTENERS} sockets of a sandbox can listen for the host");
                return Err(failure(FailureKind::Limit, message, LISTENERS));
            }
            None => {
                let socket = match &at {
                    ListenAt::Unix(unix) => listen_unix(root, unix)?,
                    ListenAt::Tcp(port) => listen_tcp(*port)?,
                };
                self.listeners.push(Listener { file: file_of(root, &at), at, socket });
                self.listeners.len() - 1
            }
        };
        rustix::io::fcntl_dupfd_cloexec(&self.listeners[index].socket, 3)
            .map_err(|errno| refused(errno, "copy a descriptor"))
    }
}

fn file_of(root: &Root, at: &ListenAt) -> Option<(u64, u64)> {
    let ListenAt::Unix(unix) = at else { return None };
    let named = root.named(&unix.path).ok()?;
    let stat = statat(&named.directory, &named.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

fn new_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn listen_tcp(port: u32) -> Outcome<OwnedFd> {
    let number = u16::try_from(port).ok().filter(|port| *port > 0);
    let number = number.ok_or_else(|| invalid("port", "a port is from 1 to 65535"))?;
    let listening = new_socket(AddressFamily::INET).and_then(|socket| {
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, number))?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    });
    listening.map_err(|errno| in_the_way(errno, &format!("127.0.0.1:{port}")))
}

fn listen_unix(root: &Root, unix: &ListenUnix) -> Outcome<OwnedFd> {
    files::check(&unix.path)?;
    if unix.mode > 0o777 {
        return Err(invalid("mode", "permission bits are at most 777 (octal)"));
    }
    bind_unix(root, unix).map_err(|errno| in_the_way(errno, &unix.path))
}

fn bind_unix(root: &Root, unix: &ListenUnix) -> Result<OwnedFd, Errno> {
    let (parent, _) = files::split(&unix.path).ok_or(Errno::INVAL)?;
    // Root's, so that nobody who is not can put something else in its place.
    root.make_directories(parent, Mode::from_raw_mode(0o755), None)?;
    let named = root.named(&unix.path)?;
    match statat(&named.directory, &named.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_socket(&stat) => unlinkat(&named.directory, &named.name, AtFlags::empty())?,
        Ok(_) => return Err(Errno::EXIST),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let address = SocketAddrUnix::new(&named.name)?;
    let socket = new_socket(AddressFamily::UNIX)?;
    // bind(2) knows no directory but the current one. The name is made there, never followed, with these bits from
    // the first moment: to change them later could change those of whatever lies there by then.
    let mask = rustix::process::umask(Mode::from_raw_mode(!unix.mode & 0o777));
    let bound = rustix::process::fchdir(&named.directory).and_then(|()| bind(&socket, &address));
    rustix::process::umask(mask);
    root.enter().and(bound)?;
    refuse_descriptors(&socket);
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Nobody who connects may send descriptors, which whoever reads there would have to close: that can take long, and the
/// sender can see to it (SO_PASSRIGHTS of Linux 6.16; who connects has it from here). Older kernels do not know it.
fn refuse_descriptors(socket: &OwnedFd) {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    // SAFETY: the option is an int on our own stack.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

fn in_the_way(errno: Errno, what: &str) -> hostel_guest_protocol::Failure {
    match errno {
        Errno::ADDRINUSE => failure(FailureKind::Exists, format!("{what} is taken"), ""),
        errno => refused(errno, what),
    }
}
