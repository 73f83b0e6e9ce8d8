//! Packing local directories as tar archives and unpacking such as come from sandboxes, which are not to be trusted.

use crate::error::{Error, Result};
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

/// Bytes in one piece of an archive.
const CHUNK: usize = 256 << 10;
/// Pieces under way between the thread and the connection.
const QUEUE: usize = 4;

/// A tar archive of a directory, made while it is read.
pub(crate) struct PackedDirectory {
    reader: StreamReader<ReceiverStream<io::Result<Bytes>>, Bytes>,
    /// Ends by itself when the reader is dropped, because nobody takes its bytes any more.
    _packer: JoinSet<()>,
}

impl PackedDirectory {
    /// Packs what is in `directory`; names in the archive are relative to it. Links are packed as links. Sockets,
    /// pipes and devices are left out.
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut packer = JoinSet::new();
        packer.spawn_blocking(move || {
            let mut pieces = Pieces { sender: sender.clone(), buffer: Vec::with_capacity(CHUNK) };
            if let Err(error) = pack(&directory, &mut pieces) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self { reader: StreamReader::new(ReceiverStream::new(receiver)), _packer: packer }
    }
}

impl AsyncRead for PackedDirectory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

fn pack(directory: &Path, pieces: &mut Pieces) -> io::Result<()> {
    let mut builder = tar::Builder::new(&mut *pieces);
    builder.follow_symlinks(false);
    let mut waiting = vec![PathBuf::new()];
    while let Some(relative) = waiting.pop() {
        let path = directory.join(&relative);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let name = if relative.as_os_str().is_empty() { Path::new(".") } else { &relative };
        let kind = if name == Path::new(".") { std::fs::metadata(&path) } else { path.symlink_metadata() }
            .map_err(named)?
            .file_type();
        if kind.is_dir() {
            builder.append_dir(name, &path).map_err(named)?;
            for entry in std::fs::read_dir(&path).map_err(named)? {
                waiting.push(relative.join(entry.map_err(named)?.file_name()));
            }
        } else if kind.is_file() {
            append_file(&mut builder, name, &path).map_err(named)?;
        } else if kind.is_symlink() {
            builder.append_path_with_name(&path, name).map_err(named)?;
        }
    }
    builder.finish()?;
    drop(builder);
    pieces.flush()
}

/// Packs a file as long as it was when it was opened. Left to itself tar packs what it reads, and a file that changes
/// meanwhile breaks the archive.
fn append_file(builder: &mut tar::Builder<&mut Pieces>, name: &Path, path: &Path) -> io::Result<()> {
    // Somebody may have put a pipe or a link in its place.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let before = file.metadata()?;
    if !before.is_file() {
        return Ok(());
    }
    if before.blocks().saturating_mul(512) >= before.len() {
        return append(builder, name, &before, file);
    }
    // It has holes, which tar knows to leave out.
    builder.append_file(name, &mut file)?;
    let after = file.metadata()?;
    if (after.len(), after.modified()?) != (before.len(), before.modified()?) {
        return Err(io::Error::other("the file changed while it was copied"));
    }
    Ok(())
}

/// Packs as much of `content` as `metadata` promises.
fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    name: &Path,
    metadata: &Metadata,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    let mut content = content.take(metadata.len());
    builder.append_data(&mut header, name, &mut content)?;
    match content.limit() {
        0 => Ok(()),
        missing => {
            let message = format!("the file lost {missing} bytes while it was copied");
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
        }
    }
}

/// Hands what is written on in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Unpacks an archive that is given to it piece by piece. After it is dropped nothing more is written.
pub(crate) struct Unpacker {
    /// `None` when no more comes.
    pieces: Option<mpsc::Sender<Bytes>>,
    thread: JoinSet<io::Result<()>>,
    /// Ends with the thread.
    ended: std::sync::mpsc::Receiver<()>,
    directory: PathBuf,
}

impl Unpacker {
    /// Unpacks into `directory`, which exists. Nothing is written outside of it, whatever names and links the
    /// archive holds, and nothing gets an owner or a set-user-id bit from it.
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut thread = JoinSet::new();
        let into = directory.clone();
        let (running, ended) = std::sync::mpsc::sync_channel(0);
        thread.spawn_blocking(move || {
            let _running: std::sync::mpsc::SyncSender<()> = running;
            let mut archive = tar::Archive::new(Incoming { receiver, piece: Bytes::new() });
            archive.unpack(&into)?;
            // To the end of the stream, so that the last pieces find a taker.
            io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
        });
        Self { pieces: Some(sender), thread, ended, directory }
    }

    /// Takes the next piece. `false` when unpacking has failed; [`Self::finish`] says why.
    pub(crate) async fn push(&self, piece: Bytes) -> bool {
        match &self.pieces {
            Some(pieces) => pieces.send(piece).await.is_ok(),
            None => false,
        }
    }

    /// Waits until all is unpacked.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.pieces = None;
        let result = match self.thread.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(io::Error::other("the thread that unpacks died")),
        };
        result.map_err(Error::local("unpack into", self.directory.as_path()))
    }
}

impl Drop for Unpacker {
    /// Waits for what is on its way, at most a few pieces: whoever removes the directory next finds nobody in it.
    fn drop(&mut self) {
        self.pieces = None;
        let _ = self.ended.recv();
    }
}

/// Reads the pieces as one stream.
struct Incoming {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = self.piece.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    async fn round_trip(archive: &[u8], into: &Path) -> Result<()> {
        let unpacker = Unpacker::new(into.to_owned());
        for piece in archive.chunks(1000) {
            if !unpacker.push(Bytes::copy_from_slice(piece)).await {
                break;
            }
        }
        unpacker.finish().await
    }

    #[tokio::test]
    async fn a_tree_survives_packing_and_unpacking() {
        let source = tempfile::tempdir().unwrap();
        let deep = source.path().join("a").join("b".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("big"), vec![7; 3 << 20]).unwrap();
        std::os::unix::fs::symlink("b", source.path().join("a/link")).unwrap();
        let mut archive = Vec::new();
        PackedDirectory::new(source.path().to_owned()).read_to_end(&mut archive).await.unwrap();

        let target = tempfile::tempdir().unwrap();
        round_trip(&archive, target.path()).await.unwrap();
        let copy = target.path().join("a").join("b".repeat(200)).join("big");
        assert_eq!(std::fs::read(copy).unwrap(), vec![7; 3 << 20]);
        assert_eq!(std::fs::read_link(target.path().join("a/link")).unwrap(), Path::new("b"));
    }

    #[test]
    fn a_file_that_changes_while_it_is_packed_breaks_no_archive() {
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), "four").unwrap();
        let metadata = source.as_file().metadata().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, Path::new("grows"), &metadata, &b"four and more"[..]).unwrap();
        append(&mut builder, Path::new("next"), &metadata, &b"next"[..]).unwrap();
        let shrunk = append(&mut builder, Path::new("shrinks"), &metadata, &b"no"[..]).unwrap_err();
        assert!(shrunk.to_string().contains("lost 2 bytes"), "{shrunk}");
        let archive = builder.into_inner().unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .take(2)
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect();
        assert_eq!(found, [("grows".to_owned(), "four".to_owned()), ("next".to_owned(), "next".to_owned())]);
    }

    #[tokio::test]
    async fn files_with_holes_stay_small() {
        let source = tempfile::tempdir().unwrap();
        let file = File::create(source.path().join("sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"end", 64 << 20).unwrap();
        let mut archive = Vec::new();
        PackedDirectory::new(source.path().to_owned()).read_to_end(&mut archive).await.unwrap();
        assert!(archive.len() < 1 << 20, "{} bytes", archive.len());
        let target = tempfile::tempdir().unwrap();
        round_trip(&archive, target.path()).await.unwrap();
        assert_eq!(std::fs::read(target.path().join("sparse")).unwrap().len(), (64 << 20) + 3);
    }

    #[tokio::test]
    async fn an_archive_cannot_write_outside_its_directory() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "door", "..").unwrap();
        let mut file = tar::Header::new_gnu();
        file.set_size(4);
        file.set_mode(0o4755);
        builder.append_data(&mut file, "door/escaped", &b"evil"[..]).unwrap();
        let archive = builder.into_inner().unwrap();
        let result = round_trip(&archive, &target).await;
        assert!(result.is_err() && !outside.path().join("escaped").exists(), "{result:?}");
    }

    #[tokio::test]
    async fn a_broken_archive_is_an_error() {
        let target = tempfile::tempdir().unwrap();
        assert!(round_trip(&[b'x'; 2048], target.path()).await.is_err());
    }
}
