//! Whole directories as tar, through a pipe, or as frames. The guest packs and unpacks tar; zstd happens here.

use crate::connection::Connection;
use crate::content::{FrameSink, FrameSource};
use crate::convert;
use crate::failure::Subject;
use crate::files::{CHUNKS, COMMIT_DEADLINE, blocking, with_descriptor};
use crate::guest::{CALL_DEADLINE, Guest, within};
use crate::pipe::{ReadEnd, WriteEnd};
use crate::zstandard::{Packer, Unpacker};
use bytes::Bytes;
use hostel_guest_protocol::{Answer, Ask, Path};
use hostel_sandbox::Result;
use hostel_sandbox::file::{ByteStream, Compression};
use tokio::sync::mpsc;

impl Guest {
    /// [`hostel_sandbox::Files::import`].
    pub(crate) async fn unpack(
        &self,
        path: &str,
        compression: Compression,
        archive: ByteStream,
    ) -> Result<u64> {
        let subject = Subject::file(path);
        let path = Path { path: path.to_owned() };
        let here = self.hands_descriptors();
        let ask = if here { Ask::Import(path) } else { Ask::ImportFrames(path) };
        let (connection, answer, descriptor) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        convert::done(answer)?;
        let mut sink = if here {
            Sink::Pipe(Some(WriteEnd::new(with_descriptor(descriptor)?)?), connection)
        } else {
            Sink::Frames(FrameSink::new(connection))
        };
        let work = async {
            write_archive(&mut sink, compression, archive).await?;
            sink.answer().await
        };
        let answer = self.unless_closed(work).await?;
        if let Some(connection) = sink.into_connection() {
            self.keep(connection)?;
        }
        match answer {
            Answer::Failed(failure) => Err(subject.error(failure)),
            answer => convert::imported(&answer),
        }
    }

    /// [`hostel_sandbox::Files::export`].
    pub(crate) async fn pack(&self, path: &str, compression: Compression) -> Result<ByteStream> {
        let subject = Subject::file(path);
        let path = Path { path: path.to_owned() };
        let here = self.hands_descriptors();
        let ask = if here { Ask::Export(path) } else { Ask::ExportFrames(path) };
        let (connection, answer, descriptor) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        convert::done(answer)?;
        let source = if here {
            Source::Pipe(ReadEnd::new(with_descriptor(descriptor)?)?, connection)
        } else {
            Source::Frames(FrameSource::new(connection, u64::MAX))
        };
        self.feed(CHUNKS, |sender| read_archive(source, compression, subject, sender))
    }
}

/// Where an archive goes.
enum Sink {
    /// Into a pipe, until that is closed; the answer comes on the connection.
    Pipe(Option<WriteEnd>, Connection),
    Frames(FrameSink),
}

impl Sink {
    /// → false where the guest wants no more.
    async fn write(&mut self, piece: Bytes) -> Result<bool> {
        match self {
            Self::Pipe(Some(pipe), _) => pipe.write(piece).await,
            Self::Pipe(None, _) => Ok(false),
            Self::Frames(frames) => frames.write(piece).await,
        }
    }

    /// Ends the archive; the guest's last word on it.
    async fn answer(&mut self) -> Result<Answer> {
        match self {
            Self::Pipe(pipe, connection) => {
                *pipe = None;
                Ok(within(COMMIT_DEADLINE, connection.answer()).await?.0)
            }
            Self::Frames(frames) => {
                frames.end().await?;
                frames.answer().await
            }
        }
    }

    fn into_connection(self) -> Option<Connection> {
        match self {
            Self::Pipe(_, connection) => Some(connection),
            Self::Frames(frames) => frames.into_connection(),
        }
    }
}

/// Where an archive comes from.
enum Source {
    Pipe(ReadEnd, Connection),
    Frames(FrameSource),
}

impl Source {
    /// What there is; nothing at the end.
    async fn read(&mut self) -> Result<Bytes> {
        match self {
            Self::Pipe(pipe, _) => pipe.read().await,
            Self::Frames(frames) => frames.read().await,
        }
    }

    /// The guest's last word.
    async fn answer(self) -> Result<Answer> {
        match self {
            Self::Pipe(_, mut connection) => Ok(within(COMMIT_DEADLINE, connection.answer()).await?.0),
            Self::Frames(frames) => frames.into_answer().map(|(answer, _)| answer),
        }
    }
}

/// Writes until the archive ends or the guest wants no more; why not is in its answer.
async fn write_archive(sink: &mut Sink, compression: Compression, mut archive: ByteStream) -> Result<()> {
    let mut unpacker = match compression {
        Compression::None => None,
        Compression::Zstd => Some(blocking(Unpacker::new).await??),
    };
    while let Some(piece) = archive.recv().await {
        let Some(mut current) = unpacker.take() else {
            if !sink.write(piece?).await? {
                return Ok(());
            }
            continue;
        };
        current.push(piece?);
        loop {
            let (back, made) = blocking(move || {
                let made = current.step();
                (current, made)
            })
            .await?;
            current = back;
            let made = made?;
            if made.is_empty() {
                break;
            }
            if !sink.write(made).await? {
                return Ok(());
            }
        }
        unpacker = Some(current);
    }
    unpacker.map_or(Ok(()), |unpacker| unpacker.finish())
}

async fn read_archive(
    mut source: Source,
    compression: Compression,
    subject: Subject,
    sender: mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let mut packer = match compression {
        Compression::None => None,
        Compression::Zstd => Some(Packer::new()?),
    };
    loop {
        let mut piece = source.read().await?;
        if piece.is_empty() {
            break;
        }
        if let Some(mut current) = packer.take() {
            let (back, packed) = blocking(move || {
                let packed = current.step(&piece);
                (current, packed)
            })
            .await?;
            packer = Some(back);
            piece = packed?;
        }
        if !piece.is_empty() && sender.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
    // It also ends where the guest gave up; what it says now tells.
    match source.answer().await? {
        Answer::Failed(failure) => return Err(subject.error(failure)),
        answer => convert::done(answer)?,
    }
    if let Some(packer) = packer {
        let rest = blocking(move || packer.finish()).await??;
        let _ = sender.send(Ok(rest)).await;
    }
    Ok(())
}
