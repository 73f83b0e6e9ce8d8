//! Whole directories as tar, through a pipe. The guest packs and unpacks tar; zstd happens here.

use crate::connection::Connection;
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
        let ask = Ask::Import(Path { path: path.to_owned() });
        let (mut connection, answer, descriptor) = self.converse(ask, &subject, Some(CALL_DEADLINE)).await?;
        convert::done(answer)?;
        let pipe = WriteEnd::new(with_descriptor(descriptor)?)?;
        let work = async {
            write_archive(pipe, compression, archive).await?;
            within(COMMIT_DEADLINE, connection.answer()).await
        };
        let (answer, _) = self.unless_closed(work).await?;
        self.keep(connection)?;
        match answer {
            Answer::Failed(failure) => Err(subject.error(failure)),
            answer => convert::imported(&answer),
        }
    }

    /// [`hostel_sandbox::Files::export`].
    pub(crate) async fn pack(&self, path: &str, compression: Compression) -> Result<ByteStream> {
        let subject = Subject::file(path);
        let ask = Ask::Export(Path { path: path.to_owned() });
        let (connection, answer, descriptor) = self.converse(ask, &subject, Some(CALL_DEADLINE)).await?;
        convert::done(answer)?;
        let pipe = ReadEnd::new(with_descriptor(descriptor)?)?;
        self.feed(CHUNKS, |sender| read_archive(pipe, connection, compression, subject, sender))
    }
}

/// Writes until the archive ends or the guest wants no more; why not is in its answer.
async fn write_archive(pipe: WriteEnd, compression: Compression, mut archive: ByteStream) -> Result<()> {
    let mut unpacker = match compression {
        Compression::None => None,
        Compression::Zstd => Some(blocking(Unpacker::new).await??),
    };
    while let Some(piece) = archive.recv().await {
        let Some(mut current) = unpacker.take() else {
            if !pipe.write(piece?).await? {
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
            if !pipe.write(made).await? {
                return Ok(());
            }
        }
        unpacker = Some(current);
    }
    unpacker.map_or(Ok(()), |unpacker| unpacker.finish())
}

async fn read_archive(
    pipe: ReadEnd,
    mut connection: Connection,
    compression: Compression,
    subject: Subject,
    sender: mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let mut packer = match compression {
        Compression::None => None,
        Compression::Zstd => Some(Packer::new()?),
    };
    loop {
        let mut piece = pipe.read().await?;
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
    // The pipe also ends where the guest gave up; what it says now tells.
    match within(COMMIT_DEADLINE, connection.answer()).await?.0 {
        Answer::Failed(failure) => return Err(subject.error(failure)),
        answer => convert::done(answer)?,
    }
    if let Some(packer) = packer {
        let rest = blocking(move || packer.finish()).await??;
        let _ = sender.send(Ok(rest)).await;
    }
    Ok(())
}
