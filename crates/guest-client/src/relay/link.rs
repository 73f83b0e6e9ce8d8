//! A relay that runs, and its channels.

use super::channel::Channel;
use super::{Shared, Streams};
use crate::failure::Fault;
use bytes::{Buf as _, Bytes, BytesMut};
use hostel_guest_protocol::relay::{
    GREETING, MAX_CHANNELS, PIECE_HEADER, PING_SECONDS, Piece, SILENCE_SECONDS,
};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Pieces on their way to the relay.
const PIECES: usize = 32;
/// Bytes read at once.
const READ: usize = 128 << 10;

/// A relay that greeted. Dropping it ends it and its channels.
pub(super) struct Link {
    out: mpsc::Sender<Bytes>,
    channels: Channels,
    shared: Shared,
    stop: CancellationToken,
    _guard: DropGuard,
}

#[derive(Clone, Default)]
struct Channels(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    open: HashMap<u32, Arc<Channel>>,
    /// Number of the next one.
    next: u32,
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel of that number; `None` where it is closed already.
    fn find(&self, number: u32) -> Result<Option<Arc<Channel>>, Fault> {
        let channels = self.lock();
        if number >= channels.next {
            return Err(Fault::Rule("its relay speaks of a channel that was never opened".to_owned()));
        }
        Ok(channels.open.get(&number).cloned())
    }
}

impl Link {
    /// Hears the greeting of a relay that was just started.
    pub(super) async fn start(streams: Streams, shared: &Shared) -> Result<Self, Fault> {
        let Streams { input, mut output } = streams;
        let mut greeting = [0; GREETING.len()];
        let greeted = output.read_exact(&mut greeting).await;
        greeted.map_err(|error| Fault::Gone(format!("its relay did not start: {error}")))?;
        if greeting != GREETING {
            return Err(Fault::Rule("what answers is no relay".to_owned()));
        }
        let stop = shared.stop.child_token();
        let (out, pieces) = mpsc::channel(PIECES);
        let link = Self {
            out,
            channels: Channels::default(),
            shared: shared.clone(),
            _guard: stop.clone().drop_guard(),
            stop,
        };
        let end = link.stop.clone();
        let writer = async move {
            let _ = end.run_until_cancelled(write(input, pieces)).await;
            end.cancel();
        };
        shared.tasks.spawn(writer);
        let (end, channels, shared) = (link.stop.clone(), link.channels.clone(), link.shared.clone());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let reading = read(output, &channels, &shared);
            if let Some(Err(fault)) = end.run_until_cancelled(reading).await {
                tracing::debug!(?fault, "a relay is gone");
            }
            end.cancel();
            channels.lock().open.clear();
        });
        Ok(link)
    }

    /// A new channel; `None` where the relay is gone.
    pub(super) fn open(&self) -> Result<Option<UnixStream>, Fault> {
        let failed = |error: std::io::Error| Fault::Gone(format!("make a pair of sockets: {error}"));
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let (number, channel) = {
            let mut channels = self.channels.lock();
            if channels.open.len() >= MAX_CHANNELS {
                return Err(Fault::Gone(format!("more than {MAX_CHANNELS} connections at a time")));
            }
            let number = channels.next;
            let Some(next) = number.checked_add(1) else { return Ok(None) };
            channels.next = next;
            let channel = Channel::new(number);
            channels.open.insert(number, Arc::clone(&channel));
            (number, channel)
        };
        let (channels, out, stop) = (self.channels.clone(), self.out.clone(), self.stop.clone());
        self.shared.tasks.spawn(async move {
            let carried = async {
                if out.send(Bytes::copy_from_slice(&Piece::Open.encode(number))).await.is_ok() {
                    channel.carry(ours, out).await;
                }
            };
            let _ = stop.run_until_cancelled(carried).await;
            channels.lock().open.remove(&number);
        });
        Ok(Some(theirs))
    }
}

async fn write(mut input: Pin<Box<dyn AsyncWrite + Send>>, mut pieces: mpsc::Receiver<Bytes>) {
    let silence = Duration::from_secs(PING_SECONDS);
    loop {
        let piece = match tokio::time::timeout(silence, pieces.recv()).await {
            Ok(Some(piece)) => piece,
            Ok(None) => return,
            Err(_) => Bytes::copy_from_slice(&Piece::Ping.encode(0)),
        };
        if input.write_all(&piece).await.is_err() {
            return;
        }
        while let Ok(piece) = pieces.try_recv() {
            if input.write_all(&piece).await.is_err() {
                return;
            }
        }
        if input.flush().await.is_err() {
            return;
        }
    }
}

/// Reads until the relay is gone, or silent for too long.
async fn read(
    mut output: Pin<Box<dyn AsyncRead + Send>>,
    channels: &Channels,
    shared: &Shared,
) -> Result<(), Fault> {
    let gone = |what: String| Fault::Gone(what);
    let mut arrived = BytesMut::new();
    let mut heard = Instant::now();
    let silence = Duration::from_secs(SILENCE_SECONDS);
    loop {
        arrived.reserve(READ);
        match tokio::time::timeout_at(heard + silence, output.read_buf(&mut arrived)).await {
            Ok(Ok(0)) => return Err(gone("it hung up".to_owned())),
            Ok(Ok(_)) => heard = Instant::now(),
            Ok(Err(error)) => return Err(gone(error.to_string())),
            Err(_) if shared.frozen.load(Ordering::Acquire) => heard = Instant::now(),
            Err(_) => return Err(gone("it says nothing any more".to_owned())),
        }
        sort(&mut arrived, channels)?;
    }
}

/// Hands out every whole piece of what arrived.
fn sort(arrived: &mut BytesMut, channels: &Channels) -> Result<(), Fault> {
    while let Some(header) = arrived.first_chunk::<PIECE_HEADER>() {
        let (number, piece) = Piece::decode(header).map_err(|error| Fault::Rule(error.to_string()))?;
        if arrived.len() < PIECE_HEADER + piece.length() {
            return Ok(());
        }
        arrived.advance(PIECE_HEADER);
        match piece {
            Piece::Data(length) => {
                let data = arrived.split_to(length);
                if let Some(channel) = channels.find(number)? {
                    channel.receive(&data)?;
                }
            }
            Piece::Room(bytes) => {
                if let Some(channel) = channels.find(number)? {
                    channel.give_room(bytes)?;
                }
            }
            Piece::Close => {
                if let Some(channel) = channels.find(number)? {
                    channel.close();
                }
            }
            Piece::Pong => {}
            Piece::Open | Piece::Ping => {
                return Err(Fault::Rule("its relay said what only a host says".to_owned()));
            }
        }
    }
    Ok(())
}
