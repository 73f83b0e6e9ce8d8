//! All listeners as one stream of connections.

use super::authority::NamedStream;
use super::peer::Peer;
use super::unix::UnixSocket;
use super::{Address, tcp};
use crate::error::Result;
use futures::Stream;
use futures::stream::{SelectAll, select_all, unfold};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

/// How long to wait after a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection whose peer is known.
#[derive(Debug)]
pub(crate) enum Connection {
    Unix { stream: NamedStream, peer: Peer },
    Tcp { stream: TcpStream, peer: Peer },
}

enum Listener {
    Unix(UnixSocket),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(socket) => socket.accept().await,
            Self::Tcp(listener) => tcp::accept(listener).await,
        }
    }
}

/// Bound listeners.
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
    addresses: Vec<Address>,
}

impl Listeners {
    /// Binds every address.
    ///
    /// # Errors
    /// `Listen` for the first that cannot be bound; nothing stays bound then.
    pub(crate) fn bind(addresses: &[Address]) -> Result<Self> {
        let mut listeners = Vec::with_capacity(addresses.len());
        let mut bound = Vec::with_capacity(addresses.len());
        for address in addresses {
            address.validate()?;
            match address {
                Address::Unix(path) => {
                    listeners.push(Listener::Unix(UnixSocket::bind(path)?));
                    bound.push(address.clone());
                }
                Address::Tcp(socket) => {
                    let listener = tcp::bind(*socket)?;
                    bound.push(listener.local_addr().map_or_else(|_| address.clone(), Address::Tcp));
                    listeners.push(Listener::Tcp(listener));
                }
            }
        }
        Ok(Self { listeners, addresses: bound })
    }

    /// What was bound, with the ports that the system chose.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Accepts until it is dropped; socket files go away with it.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        let streams = self.listeners.into_iter().map(|listener| {
            Box::pin(unfold(listener, |listener| async move {
                let connection = loop {
                    match listener.accept().await {
                        Ok(connection) => break connection,
                        Err(error) => {
                            tracing::warn!(%error, "a connection could not be accepted");
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                };
                Some((Ok(connection), listener))
            }))
        });
        let all: SelectAll<_> = select_all(streams);
        all
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::Unix { peer, .. } | Self::Tcp { peer, .. } => peer.clone(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
            Self::Tcp { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix { stream, .. } => stream.stream().poll_write(cx, bytes),
            Self::Tcp { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix { stream, .. } => stream.stream().poll_write_vectored(cx, parts),
            Self::Tcp { stream, .. } => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix { stream, .. } => stream.stream().poll_flush(cx),
            Self::Tcp { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix { stream, .. } => stream.stream().poll_shutdown(cx),
            Self::Tcp { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
