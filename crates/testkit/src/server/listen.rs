//! Listening, on TCP and unix sockets alike.

use crate::{Error, Result};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// A connection of either kind.
pub(super) type Stream = Either<TcpStream, UnixStream>;

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

pub(super) struct Bound {
    pub(super) listeners: Vec<Listener>,
    pub(super) address: Option<SocketAddr>,
}

impl Listener {
    /// The next connection. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Events go out as they come.
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Self::Unix(listener) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

pub(super) async fn bind(tcp: Option<SocketAddr>, unix: Option<PathBuf>) -> Result<Bound> {
    let mut bound = Bound { listeners: Vec::new(), address: None };
    if let Some(wanted) = tcp {
        if !wanted.ip().is_loopback() {
            return Err(Error::NotLoopback(wanted));
        }
        let failed = |source| Error::Listen { place: wanted.to_string(), source };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        bound.address = Some(listener.local_addr().map_err(failed)?);
        bound.listeners.push(Listener::Tcp(listener));
    }
    if let Some(path) = unix {
        let listener = bind_unix(&path)
            .await
            .map_err(|source| Error::Listen { place: path.display().to_string(), source })?;
        bound.listeners.push(Listener::Unix(listener));
    }
    if bound.listeners.is_empty() { Err(Error::NothingToListenOn) } else { Ok(bound) }
}

/// Binds, in place of a socket that nobody listens on any more.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path).await => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

async fn is_stale(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.is_err_and(refused)
}
