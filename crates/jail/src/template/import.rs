//! Importing root file systems. An archive is unpacked by `hostel-guest unpack`, a process of its own that has
//! changed its root into the new template: whatever the archive says, it writes nowhere else.

use crate::executable::Executable;
use bytes::{Buf as _, Bytes};
use hostel_sandbox::file::{ByteStream, Compression, ZSTD_WINDOW_LOG};
use hostel_sandbox::{Error, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Bytes that are unpacked before they are handed on.
const CHUNK: usize = 256 << 10;

/// Unpacks a tar archive into a new directory `rootfs` of a template's.
///
/// # Errors
/// `InvalidArgument` for a broken archive, `LimitReached` for a full disk.
pub(crate) async fn import_archive(
    executable: &Executable,
    directory: &Path,
    archive: ByteStream,
    compression: Compression,
) -> Result<()> {
    let root = directory.join("rootfs");
    std::fs::create_dir(&root).map_err(|error| Error::internal(format!("make {}", root.display()), error))?;
    let mut child = Command::new(executable.path())
        .arg("unpack")
        .current_dir(&root)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::internal("start the unpacker", error))?;
    let input = child.stdin.take().ok_or_else(|| Error::internal("start the unpacker", "it has no input"))?;
    let input = input.into_owned_fd().map_err(|error| Error::internal("use the unpacker's input", error))?;
    // Unpacking is work, and the unpacker may be slow: neither is for the threads that everybody shares.
    let fed = tokio::task::spawn_blocking(move || feed(archive, compression, &mut File::from(input))).await;
    let fed = fed.map_err(|panic| Error::internal("unpack an archive", panic)).and_then(|fed| fed);
    let output =
        child.wait_with_output().await.map_err(|error| Error::internal("wait for the unpacker", error))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect::<String>();
    match (output.status.code(), fed) {
        (Some(0), fed) => fed,
        (Some(3), _) => Err(Error::LimitReached { what: "disk", detail: said }),
        _ => Err(Error::invalid("archive", said)),
    }
}

/// Hands an archive on, unpacked, in pieces of at most [`CHUNK`] however much is made of however little. Blocks.
fn feed(archive: ByteStream, compression: Compression, input: &mut impl Write) -> Result<()> {
    let mut pieces = Pieces { archive, piece: Bytes::new(), broken: None };
    let fed = match compression {
        Compression::None => hand_on(&mut pieces, input),
        Compression::Zstd => unpack(&mut pieces, input),
    };
    match pieces.broken {
        Some(error) => Err(error),
        None => fed,
    }
}

fn unpack(pieces: &mut Pieces, input: &mut impl Write) -> Result<()> {
    let start = |error| Error::internal("start zstd", error);
    let mut decoder = zstd::stream::read::Decoder::new(pieces).map_err(start)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(start)?;
    hand_on(&mut decoder, input)
}

fn hand_on(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length]).map_err(broken_pipe)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::invalid("archive", format!("not valid zstd: {error}"))),
        }
    }
}

/// The pieces of an archive as they come, as one stream.
struct Pieces {
    archive: ByteStream,
    piece: Bytes,
    /// Why no more come, where that is not the end.
    broken: Option<Error>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.archive.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    self.broken = Some(error);
                    return Err(io::Error::other("the archive was broken off"));
                }
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// The unpacker says itself why it hung up.
fn broken_pipe(_: std::io::Error) -> Error {
    Error::invalid("archive", "the unpacker stopped reading")
}

/// Copies a directory of the host, sharing its blocks where the file system can. A copy that nobody will ever have ends
/// with the daemon.
///
/// # Errors
/// `InvalidArgument` where it is no directory, `Internal` with what cp(1) said.
pub(crate) async fn import_directory(executable: &Executable, directory: &Path, source: &Path) -> Result<()> {
    if !source.is_absolute() || !source.is_dir() {
        return Err(Error::invalid(
            "host_path",
            format!("{} is not a directory with an absolute path", source.display()),
        ));
    }
    let root = directory.join("rootfs");
    let output = Command::new(executable.path())
        .args(["tied", &std::process::id().to_string(), "cp"])
        .args(["--archive", "--one-file-system", "--reflink=auto", "--no-target-directory", "--"])
        .arg(source)
        .arg(&root)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Error::internal("start cp", error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::internal(format!("copy {}", source.display()), said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant};

    /// Counts, and keeps the largest piece.
    #[derive(Default)]
    struct Sink {
        total: usize,
        largest: usize,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.total += bytes.len();
            self.largest = self.largest.max(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn fed(pieces: Vec<Result<Bytes>>) -> (Result<()>, Sink) {
        let (sender, archive) = tokio::sync::mpsc::channel(pieces.len().max(1));
        pieces.into_iter().for_each(|piece| sender.try_send(piece).unwrap());
        drop(sender);
        let mut sink = Sink::default();
        (feed(archive, Compression::Zstd, &mut sink), sink)
    }

    #[test]
    fn a_bomb_is_never_held_as_a_whole() {
        const SIZE: usize = 256 << 20;
        let bomb = zstd::stream::encode_all(io::repeat(0).take(SIZE as u64), 1).unwrap();
        let (done, sink) = fed(vec![Ok(bomb.into())]);
        done.unwrap();
        assert_eq!((sink.total, sink.largest <= CHUNK), (SIZE, true));
    }

    async fn until(done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "it goes on as it was");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn what_is_tied_ends_when_its_parent_is_killed() {
        let home = tempfile::tempdir().unwrap();
        let guest = home.path().join("guest");
        std::fs::write(&guest, hostel_guest_binary::GUEST).unwrap();
        std::fs::set_permissions(&guest, std::fs::Permissions::from_mode(0o755)).unwrap();
        let script = format!("{} tied $$ sleep 1000 & echo $!; wait", guest.display());
        let mut parent =
            std::process::Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        io::BufReader::new(parent.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let process = format!("/proc/{}", said.trim());
        let name = || std::fs::read_to_string(format!("{process}/comm")).unwrap_or_default();
        until(|| name() == "sleep\n").await;
        parent.kill().unwrap();
        parent.wait().unwrap();
        // Whoever has it now may be slow to see it off.
        let state = || std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
        until(|| state().is_empty() || state().contains(") Z ")).await;
    }

    #[test]
    fn what_is_cut_short_or_broken_off_is_not_taken_for_whole() {
        let packed = Bytes::from(zstd::stream::encode_all(&b"some text"[..], 1).unwrap());
        let cut = fed(vec![Ok(packed.slice(..packed.len() - 1))]).0.unwrap_err();
        assert!(matches!(cut, Error::InvalidArgument { .. }), "{cut}");
        let gone = || Error::Unavailable { what: "upload", detail: "the client went away".to_owned() };
        let broken = fed(vec![Ok(packed.slice(..4)), Err(gone())]).0.unwrap_err();
        assert_eq!(broken.to_string(), gone().to_string());
        let whole = fed(vec![Ok(packed.slice(..4)), Ok(packed.slice(4..)), Ok(packed)]);
        whole.0.unwrap();
        assert_eq!(whole.1.total, 18, "frames follow each other");
    }
}
