//! One connection on a link, from the host's side.

use crate::failure::Fault;
use bytes::{Bytes, BytesMut};
use hostel_guest_protocol::relay::{MAX_PIECE, Piece, WINDOW};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};

/// What a channel's own task and the link's reader share.
#[derive(Debug)]
pub(super) struct Channel {
    number: u32,
    state: Mutex<State>,
    /// Something arrived, or the guest closed.
    arrived: Notify,
    /// The guest has room for more.
    room: Notify,
}

#[derive(Debug)]
struct State {
    /// From the guest, not yet delivered; at most [`WINDOW`] with what is being delivered.
    arrived: BytesMut,
    /// Bytes that came and for which no new room was given yet.
    owed: usize,
    /// What may still be sent.
    room: usize,
    closed: bool,
}

impl Channel {
    pub(super) fn new(number: u32) -> Arc<Self> {
        let state = State { arrived: BytesMut::new(), owed: 0, room: WINDOW, closed: false };
        Arc::new(Self {
            number,
            state: Mutex::new(state),
            arrived: Notify::default(),
            room: Notify::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what came for it.
    pub(super) fn receive(&self, data: &[u8]) -> Result<(), Fault> {
        let mut state = self.state();
        if state.owed + data.len() > WINDOW || state.closed {
            return Err(Fault::Rule("its relay sent more than there is room for".to_owned()));
        }
        state.owed += data.len();
        state.arrived.extend_from_slice(data);
        self.arrived.notify_one();
        Ok(())
    }

    /// The guest has taken so much.
    pub(super) fn give_room(&self, bytes: usize) -> Result<(), Fault> {
        let mut state = self.state();
        state.room += bytes;
        if state.room > WINDOW {
            return Err(Fault::Rule("its relay took more than was sent".to_owned()));
        }
        self.room.notify_one();
        Ok(())
    }

    /// The guest closed it: what came before is still delivered.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_one();
    }

    /// Carries both ways until either end is closed, and says so.
    pub(super) async fn carry(self: Arc<Self>, stream: UnixStream, out: mpsc::Sender<Bytes>) {
        let (reading, writing) = stream.into_split();
        let carried = async {
            tokio::select! {
                up = self.up(reading, &out) => up,
                down = self.down(writing, &out) => down,
            }
        };
        if carried.await.is_some() {
            let _ = out.send(Bytes::copy_from_slice(&Piece::Close.encode(self.number))).await;
        }
    }

    /// Ends when the user of the connection has closed it and everything is sent; `None` where the link is gone.
    async fn up(&self, mut reading: OwnedReadHalf, out: &mpsc::Sender<Bytes>) -> Option<()> {
        let mut buffer = vec![0; MAX_PIECE];
        loop {
            let room = self.some_room().await;
            let count = reading.read(&mut buffer[..room.min(MAX_PIECE)]).await.unwrap_or(0);
            if count == 0 {
                return Some(());
            }
            self.state().room -= count;
            let piece = [&Piece::Data(count).encode(self.number)[..], &buffer[..count]].concat();
            out.send(piece.into()).await.ok()?;
        }
    }

    async fn some_room(&self) -> usize {
        loop {
            let room = self.state().room;
            if room > 0 {
                return room;
            }
            self.room.notified().await;
        }
    }

    /// Ends when the guest has closed it and everything is delivered; `None` where the link is gone.
    async fn down(&self, mut writing: OwnedWriteHalf, out: &mpsc::Sender<Bytes>) -> Option<()> {
        loop {
            let piece = {
                let mut state = self.state();
                match (state.arrived.is_empty(), state.closed) {
                    (true, true) => return Some(()),
                    (true, false) => None,
                    (false, _) => Some(std::mem::take(&mut state.arrived)),
                }
            };
            let Some(piece) = piece else {
                self.arrived.notified().await;
                continue;
            };
            if writing.write_all(&piece).await.is_err() {
                // Nobody reads it any more; what they said last is still sent, and `up` ends after it.
                return std::future::pending().await;
            }
            self.state().owed -= piece.len();
            let room = Piece::Room(piece.len()).encode(self.number);
            out.send(Bytes::copy_from_slice(&room)).await.ok()?;
        }
    }
}
