//! Sockets inside a sandbox's network namespace.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// Where a sandbox's traffic comes out: sockets made inside its network namespace (or anywhere, in tests). All are
/// nonblocking.
#[derive(Debug, Default)]
pub struct Doors {
    /// Connections to any address, redirected here.
    pub transparent: Option<std::net::TcpListener>,
    /// HTTP proxy, CONNECT and SOCKS 5 on one port.
    pub proxy: Option<std::net::TcpListener>,
    /// DNS.
    pub dns_udp: Option<std::net::UdpSocket>,
    /// DNS over TCP.
    pub dns_tcp: Option<std::net::TcpListener>,
}

/// Whom a redirected connection was meant for.
///
/// # Errors
/// Where the kernel does not know.
pub fn original_destination(_stream: &impl AsFd) -> io::Result<SocketAddr> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
