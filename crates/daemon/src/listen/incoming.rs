//! All listeners as one stream of connections.

use super::authority::NamedStream;
use super::peer::Peer;
use super::places::{Complaints, Most, Place, Places};
use super::unix::UnixSocket;
use super::{Address, tcp};
use crate::error::Result;
use futures::Stream;
use futures::stream::{SelectAll, select_all, unfold};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

/// How long to wait after a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection whose peer is known, and its place once it has one.
#[derive(Debug)]
pub(crate) enum Connection {
    Unix { stream: NamedStream, peer: Peer, place: Option<Place> },
    Tcp { stream: TcpStream, peer: Peer, place: Option<Place> },
}

impl Connection {
    /// Gives it a place among all connections. One for which there is none is closed.
    fn seat(mut self, places: &Places) -> std::result::Result<Self, Peer> {
        let (Self::Unix { peer, place, .. } | Self::Tcp { peer, place, .. }) = &mut self;
        *place = Some(places.take(peer.user()).ok_or_else(|| peer.clone())?);
        Ok(self)
    }
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
    places: Places,
}

impl Listeners {
    /// Binds every address.
    ///
    /// # Errors
    /// `Listen` for the first that cannot be bound; nothing stays bound then.
    pub(crate) fn bind(addresses: &[Address], most: Most) -> Result<Self> {
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
        Ok(Self { listeners, addresses: bound, places: Places::new(most) })
    }

    /// What was bound, with the ports that the system chose.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Accepts until it is dropped; socket files go away with it.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        let streams = self.listeners.into_iter().map(|listener| {
            let door = Door {
                listener,
                places: self.places.clone(),
                failed: Complaints::default(),
                refused: Complaints::default(),
            };
            Box::pin(unfold(door, |mut door| async move { Some((Ok(door.next().await), door)) }))
        });
        let all: SelectAll<_> = select_all(streams);
        all
    }
}

/// One listener, and what it has to complain of.
struct Door {
    listener: Listener,
    places: Places,
    failed: Complaints,
    refused: Complaints,
}

impl Door {
    /// The next connection that there is a place for. Others are closed.
    async fn next(&mut self) -> Connection {
        loop {
            let seated = self.listener.accept().await.map(|connection| connection.seat(&self.places));
            match seated {
                Ok(Ok(connection)) => return connection,
                Ok(Err(peer)) => {
                    if let Some(before) = self.refused.next(Instant::now()) {
                        tracing::warn!(peer = %peer.actor, before, "refused a connection: there are too many");
                    }
                }
                Err(error) => {
                    if let Some(before) = self.failed.next(Instant::now()) {
                        tracing::warn!(%error, before, "a connection could not be accepted");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
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
