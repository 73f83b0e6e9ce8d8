//! Files. Contents are read and written here, through descriptors that the guest opened.

use crate::convert;
use crate::descriptor::{readable_file, writable_file};
use crate::failure::{Subject, broken};
use crate::guest::{CALL_DEADLINE, Guest, within};
use async_trait::async_trait;
use bytes::Bytes;
use hostel_guest_protocol as wire;
use hostel_guest_protocol::{Ask, Empty, FromGuest, GuestEvent};
use hostel_sandbox::file::{ByteStream, Compression, FileEvent, FileInfo, FileKind, FilePage, WriteOptions};
use hostel_sandbox::{Error, Files, Result};
use hostel_untrusted_socket::Descriptor;
use prost::Message;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Offset that no byte of any file has.
const MOST_OFFSET: u64 = i64::MAX.unsigned_abs();
/// Chunks on their way to a reader.
pub(crate) const CHUNKS: usize = 4;
/// Pieces of content written at once.
const BATCH: usize = 16;
/// Changes of files on their way to a watcher.
const EVENTS: usize = 256;
/// Longest event, in bytes.
const MOST_EVENT: usize = 64 << 10;
/// Most entries of a page.
const MOST_ENTRIES: usize = 10_000;
/// Time to put a written file in place, or to finish an archive; disks can be slow.
pub(crate) const COMMIT_DEADLINE: Duration = Duration::from_secs(300);

pub(crate) fn with_descriptor(descriptor: Option<Descriptor>) -> Result<Descriptor> {
    descriptor.ok_or_else(|| broken("an answer without its descriptor"))
}

#[async_trait]
impl Files for Guest {
    async fn stat(&self, path: &str, follow: bool) -> Result<FileInfo> {
        let ask = Ask::Stat(wire::Stat { path: path.to_owned(), follow });
        convert::file(self.call(ask, &Subject::file(path)).await?.0, path)
    }

    async fn list(&self, path: &str, after: Option<&[u8]>, limit: usize) -> Result<FilePage> {
        let limit = limit.clamp(1, MOST_ENTRIES);
        let ask = Ask::List(wire::List {
            path: path.to_owned(),
            after: after.unwrap_or_default().to_vec(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        });
        let (answer, _) = self.call(ask, &Subject::file(path)).await?;
        convert::files(answer, path, after.unwrap_or_default(), limit)
    }

    async fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<(FileInfo, ByteStream)> {
        if !self.hands_descriptors() {
            return self.read_frames(path, offset, length).await;
        }
        let ask = Ask::OpenRead(wire::Path { path: path.to_owned() });
        let (answer, descriptor) = self.call(ask, &Subject::file(path)).await?;
        let info = regular(convert::file(answer, path)?)?;
        let file = Arc::new(readable_file(with_descriptor(descriptor)?)?);
        let content = self.feed(CHUNKS, |sender| send_content(file, offset, length, sender))?;
        Ok((info, content))
    }

    async fn write(&self, path: &str, options: WriteOptions, content: ByteStream) -> Result<FileInfo> {
        let subject = Subject::file(path);
        let offset = options.offset.unwrap_or(0);
        let open = wire::OpenWrite {
            path: path.to_owned(),
            mode: options.mode,
            create_parents: options.create_parents,
            in_place: options.offset.is_some(),
            must_not_exist: options.must_not_exist,
        };
        if !self.hands_descriptors() {
            return self.write_frames(open, offset, content).await;
        }
        let ask = Ask::OpenWrite(open);
        let (mut connection, answer, descriptor) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        regular(convert::file(answer, path)?)?;
        let file = Arc::new(writable_file(with_descriptor(descriptor)?)?);
        let commit = crate::connection::encode(Ask::CommitWrite(Empty {}))?;
        let work = async {
            receive_content(file, offset, content).await?;
            within(COMMIT_DEADLINE, connection.ask(&commit)).await
        };
        let (answer, _) = self.unless_closed(work).await?;
        self.keep(connection)?;
        match answer {
            wire::Answer::Failed(failure) => Err(subject.error(failure)),
            answer => convert::file(answer, path),
        }
    }

    async fn make_directory(&self, path: &str, parents: bool, mode: Option<u32>) -> Result<FileInfo> {
        let ask = Ask::MakeDirectory(wire::MakeDirectory { path: path.to_owned(), parents, mode });
        convert::file(self.call(ask, &Subject::file(path)).await?.0, path)
    }

    async fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<FileInfo> {
        let ask = Ask::Rename(wire::Rename { from: from.to_owned(), to: to.to_owned(), overwrite });
        let subject = Subject::file(to).or_missing("file", from);
        convert::file(self.call(ask, &subject).await?.0, to)
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        let ask = Ask::Remove(wire::Remove { path: path.to_owned(), recursive });
        let subject = Subject::file(path);
        if !recursive {
            return convert::done(self.call(ask, &subject).await?.0);
        }
        // A large tree takes longer than an answer.
        let (connection, answer, _) = self.occupy(ask, &subject, Some(COMMIT_DEADLINE)).await?;
        self.keep(connection)?;
        convert::done(answer)
    }

    async fn watch(&self, path: &str, recursive: bool) -> Result<mpsc::Receiver<Result<FileEvent>>> {
        let subject = Subject::file(path);
        let ask = Ask::WatchFiles(wire::WatchFiles { path: path.to_owned(), recursive });
        let (mut connection, answer, _) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        convert::done(answer)?;
        self.feed(EVENTS, |sender| async move {
            loop {
                let message = connection.message(MOST_EVENT).await?;
                let event = FromGuest::decode(message).ok().and_then(|message| message.event);
                let event = match event {
                    Some(GuestEvent::FileEvent(event)) => convert::file_event(event)?,
                    Some(GuestEvent::Failed(failure)) => return Err(subject.error(failure)),
                    _ => return Err(broken("that is no change of a file")),
                };
                if sender.send(Ok(event)).await.is_err() {
                    return Ok(());
                }
            }
        })
    }

    async fn import(&self, path: &str, compression: Compression, archive: ByteStream) -> Result<u64> {
        self.unpack(path, compression, archive).await
    }

    async fn export(&self, path: &str, compression: Compression) -> Result<ByteStream> {
        self.pack(path, compression).await
    }
}

pub(crate) fn regular(info: FileInfo) -> Result<FileInfo> {
    if info.kind == FileKind::File { Ok(info) } else { Err(broken("it opened what is no regular file")) }
}

/// Runs blocking work where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let work = tokio::task::spawn_blocking(work);
    work.await.map_err(|error| Error::internal("work with a file", error))
}

async fn send_content(
    file: Arc<OwnedFd>,
    offset: u64,
    length: Option<u64>,
    sender: mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let (mut offset, mut left) = (offset, length.unwrap_or(u64::MAX));
    loop {
        // The kernel refuses a range that ends beyond the largest offset, even of an empty file.
        let most = left.min(CHUNK as u64).min(MOST_OFFSET.saturating_sub(offset));
        let most = usize::try_from(most).unwrap_or(CHUNK);
        if most == 0 {
            return Ok(());
        }
        let Ok(permit) = sender.reserve().await else { return Ok(()) };
        let source = Arc::clone(&file);
        let chunk = blocking(move || {
            let mut chunk = Vec::with_capacity(most);
            retry_on_intr(|| rustix::io::pread(&*source, spare_capacity(&mut chunk), offset)).map(|_| chunk)
        });
        let mut chunk = chunk.await?.map_err(|errno| Error::internal("read a file", errno))?;
        chunk.truncate(most);
        if chunk.is_empty() {
            return Ok(());
        }
        offset += chunk.len() as u64;
        left -= chunk.len() as u64;
        permit.send(Ok(chunk.into()));
    }
}

async fn receive_content(file: Arc<OwnedFd>, offset: u64, mut content: ByteStream) -> Result<()> {
    let (mut offset, mut batch) = (offset, Vec::with_capacity(BATCH));
    while content.recv_many(&mut batch, BATCH).await > 0 {
        let pieces = batch.drain(..).collect::<Result<Vec<Bytes>>>()?;
        let file = Arc::clone(&file);
        offset = blocking(move || write_pieces(&file, offset, pieces)).await??;
    }
    Ok(())
}

/// → the offset after the last byte.
fn write_pieces(file: &OwnedFd, mut offset: u64, pieces: Vec<Bytes>) -> Result<u64> {
    for piece in pieces {
        let mut left = &piece[..];
        while !left.is_empty() {
            if i64::try_from(offset.saturating_add(left.len() as u64)).is_err() {
                return Err(Error::invalid("offset", "beyond the end of every file"));
            }
            match retry_on_intr(|| rustix::io::pwrite(file, left, offset)) {
                Ok(0) => return Err(Error::internal("write a file", "nothing was written")),
                Ok(count) => {
                    offset += count as u64;
                    left = &left[count..];
                }
                Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(Error::LimitReached { what: "disk", detail: errno.to_string() });
                }
                Err(errno) => return Err(Error::internal("write a file", errno)),
            }
        }
    }
    Ok(offset)
}
