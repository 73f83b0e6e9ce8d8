//! Contents of files and archives as frames on the connection, for guests that cannot hand over descriptors.

use crate::connection::{Connection, decode_answer, encode};
use crate::convert;
use crate::failure::{Fault, Subject, broken};
use crate::files::{CHUNKS, COMMIT_DEADLINE, regular};
use crate::guest::{CALL_DEADLINE, Guest, within};
use crate::inbox::Piece;
use bytes::Bytes;
use hostel_guest_protocol::{
    Answer, Ask, Empty, Frame, MAX_DATA, MAX_MESSAGE, OpenWrite, ReadFile, StreamId, WriteFile,
};
use hostel_sandbox::file::{ByteStream, FileInfo};
use hostel_sandbox::{Error, Result};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};

/// Time without a byte moving after which a guest counts as stuck.
const STALL: Duration = Duration::from_secs(60);

fn stuck() -> Error {
    Error::Unavailable { what: "guest", detail: format!("no byte moved for {STALL:?}") }
}

impl Guest {
    /// [`hostel_sandbox::Files::read`].
    pub(crate) async fn read_frames(
        &self,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(FileInfo, ByteStream)> {
        let subject = Subject::file(path);
        let ask = Ask::ReadFile(ReadFile { path: path.to_owned(), offset, length });
        let (connection, answer, _) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        let info = regular(convert::file(answer, path)?)?;
        let mut source = FrameSource::new(connection, length.unwrap_or(u64::MAX));
        let guest = self.clone();
        let content = self.feed(CHUNKS, |sender| async move {
            loop {
                let piece = source.read().await?;
                if piece.is_empty() {
                    break;
                }
                if sender.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            let (answer, connection) = source.into_answer()?;
            guest.keep(connection)?;
            match answer {
                Answer::Failed(failure) => Err(subject.error(failure)),
                answer => convert::done(answer),
            }
        })?;
        Ok((info, content))
    }

    /// [`hostel_sandbox::Files::write`].
    pub(crate) async fn write_frames(
        &self,
        open: OpenWrite,
        offset: u64,
        mut content: ByteStream,
    ) -> Result<FileInfo> {
        let path = open.path.clone();
        let subject = Subject::file(&path);
        let ask = Ask::WriteFile(WriteFile { open: Some(open), offset });
        let (connection, answer, _) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        regular(convert::file(answer, &path)?)?;
        let mut sink = FrameSink::new(connection);
        let work = async {
            while let Some(piece) = content.recv().await {
                if !sink.write(piece?).await? {
                    break;
                }
            }
            sink.end().await?;
            // Behind the content: it is only heard where that arrived whole.
            sink.send_behind(&encode(Ask::CommitWrite(Empty {}))?).await?;
            match sink.answer().await? {
                Answer::Failed(failure) => return Err(subject.error(failure)),
                answer => convert::done(answer)?,
            }
            sink.answer().await
        };
        let answer = self.unless_closed(work).await?;
        if let Some(connection) = sink.into_connection() {
            self.keep(connection)?;
        }
        match answer {
            Answer::Failed(failure) => Err(subject.error(failure)),
            answer => convert::file(answer, &path),
        }
    }
}

/// Content that a guest sends.
#[derive(Debug)]
pub(crate) struct FrameSource {
    connection: Connection,
    offset: u64,
    /// At most so many bytes more.
    left: u64,
    answer: Option<Answer>,
}

impl FrameSource {
    /// What comes on a connection after the first answer, at most `most` bytes.
    pub(crate) fn new(connection: Connection, most: u64) -> Self {
        Self { connection, offset: 0, left: most, answer: None }
    }

    /// What there is; nothing at the end.
    pub(crate) async fn read(&mut self) -> Result<Bytes> {
        let connection = &mut self.connection;
        loop {
            match connection.inbox.next_piece(MAX_MESSAGE)? {
                Some(Piece::Data { stream: StreamId::Stdout, offset, data })
                    if offset == self.offset && data.len() as u64 <= self.left =>
                {
                    self.offset += data.len() as u64;
                    self.left -= data.len() as u64;
                    return Ok(data);
                }
                Some(Piece::Data { .. }) => return Err(broken("data that is not the next of the content")),
                Some(Piece::Message(message)) => {
                    self.answer = Some(decode_answer(message)?);
                    return Ok(Bytes::new());
                }
                None => {
                    let filled = connection.inbox.fill_with_data(&connection.socket);
                    tokio::time::timeout(STALL, filled).await.map_err(|_| stuck())??;
                }
            }
        }
    }

    /// The guest's last word, and the connection for the next request.
    pub(crate) fn into_answer(self) -> Result<(Answer, Connection)> {
        let answer = self.answer.ok_or_else(|| broken("content without an end"))?;
        Ok((answer, self.connection))
    }
}

/// Content that a guest receives.
#[derive(Debug)]
pub(crate) struct FrameSink {
    connection: Connection,
    offset: u64,
    /// The guest said something before the end, and takes no more.
    refused: bool,
}

impl FrameSink {
    /// What a guest has asked for with its first answer.
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, offset: 0, refused: false }
    }

    /// Sends a piece. → false where the guest wants no more; why not is in its answer.
    pub(crate) async fn write(&mut self, mut piece: Bytes) -> Result<bool> {
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(MAX_DATA));
            let length = part.len();
            let header = Frame::Data { stream: StreamId::Stdin, offset: self.offset, length }.encode();
            self.offset += length as u64;
            if !(self.send(Bytes::copy_from_slice(&header)).await? && self.send(part).await?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says that it is complete.
    pub(crate) async fn end(&mut self) -> Result<()> {
        let header = Frame::Data { stream: StreamId::Stdin, offset: self.offset, length: 0 }.encode();
        self.send(Bytes::copy_from_slice(&header)).await.map(drop)
    }

    /// Sends bytes, unless the guest says something meanwhile. → whether it did not.
    async fn send(&mut self, bytes: Bytes) -> Result<bool> {
        let Connection { socket, inbox, .. } = &mut self.connection;
        let mut left = &bytes[..];
        while !left.is_empty() && !self.refused {
            let step = async {
                tokio::select! {
                    biased;
                    filled = inbox.fill_with_data(socket) => filled.map(|()| None),
                    sent = socket.async_io(Interest::WRITABLE, || socket.try_write(left)) => {
                        sent.map(Some).map_err(|error: io::Error| Fault::Gone(error.to_string()))
                    }
                }
            };
            match tokio::time::timeout(STALL, step).await.map_err(|_| stuck())?? {
                Some(count) => left = &left[count..],
                None => self.refused = true,
            }
        }
        Ok(!self.refused)
    }

    /// Sends a request behind the content. Where the guest has closed the connection, its answer says why.
    async fn send_behind(&mut self, request: &[u8]) -> Result<()> {
        let sent = tokio::time::timeout(STALL, self.connection.socket.write_all(request));
        sent.await.map(drop).map_err(|_| stuck())
    }

    /// The guest's next answer.
    pub(crate) async fn answer(&mut self) -> Result<Answer> {
        Ok(within(COMMIT_DEADLINE, self.connection.answer()).await?.0)
    }

    /// The connection for the next request; `None` where the guest closes it, because it did not take everything.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        (!self.refused).then_some(self.connection)
    }
}
