//! TCP on loopback.

use super::incoming::Connection;
use super::peer::Peer;
use crate::error::{Error, Result};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use tokio::net::TcpListener;

pub(super) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let refuse = |error: std::io::Error| Error::Listen {
        address: format!("tcp://{address}"),
        detail: error.to_string(),
    };
    let listener = StdTcpListener::bind(address).map_err(refuse)?;
    listener.set_nonblocking(true).map_err(refuse)?;
    TcpListener::from_std(listener).map_err(refuse)
}

pub(super) async fn accept(listener: &TcpListener) -> std::io::Result<Connection> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(Connection::Tcp { stream, peer: Peer::loopback(), place: None })
}
