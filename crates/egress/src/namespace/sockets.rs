//! Our sockets in a sandbox's network namespace.

use super::Error;
use nix::sys::socket::{setsockopt, sockopt::IpTransparent};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// Ports that the kernel gives to nobody by itself (`ip_local_port_range` ends at 60999), so that ours are seldom
/// those a program wants.
const PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_534;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket for IPv4 and IPv6, nonblocking, at a port that nothing inside has or can take. → its port too.
///
/// # Errors
/// Where it cannot be made, which `step` names.
pub(super) fn open(step: &'static str, kind: SocketType) -> Result<(OwnedFd, u16), Error> {
    // What runs inside may have some of them; its own limits keep it from having all.
    for port in PORTS {
        match open_at(kind, port) {
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => return Err(Error::step(step, errno)),
            Ok(socket) => return Ok((socket, port)),
        }
    }
    Err(Error::step(step, Errno::ADDRINUSE))
}

fn open_at(kind: SocketType, port: u16) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, address) = match socket_with(AddressFamily::INET6, kind, flags, None) {
        Ok(socket) => {
            sockopt::set_ipv6_v6only(&socket, false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        Err(Errno::AFNOSUPPORT) => (
            socket_with(AddressFamily::INET, kind, flags, None)?,
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        ),
        Err(errno) => return Err(errno),
    };
    if kind == SocketType::STREAM {
        setsockopt(&socket, IpTransparent, &true).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    }
    bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// Where a connection was meant to go that the transparent listener accepted: its own end of it.
///
/// # Errors
/// `InvalidInput` for loopback: a program inside connected to the listener's own port, which leads nowhere.
pub fn original_destination(stream: &impl AsFd) -> std::io::Result<SocketAddr> {
    let address = SocketAddr::try_from(getsockname(stream)?).map_err(|_: Errno| not_redirected())?;
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    if address.ip().is_loopback() { Err(not_redirected()) } else { Ok(address) }
}

fn not_redirected() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, "a connection that nobody redirected")
}
