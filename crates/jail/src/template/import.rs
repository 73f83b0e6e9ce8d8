//! Importing root file systems. An archive is unpacked by `hostel-guest unpack`, a process of its own that has
//! changed its root into the new template: whatever the archive says, it writes nowhere else.

use crate::executable::Executable;
use hostel_sandbox::file::{ByteStream, Compression};
use hostel_sandbox::{Error, Result};
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Unpacks a tar archive into a new directory `rootfs` of a template's.
///
/// # Errors
/// `InvalidArgument` for a broken archive, `LimitReached` for a full disk.
pub(crate) async fn import_archive(
    executable: &Executable,
    directory: &Path,
    mut archive: ByteStream,
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
    let mut input =
        child.stdin.take().ok_or_else(|| Error::internal("start the unpacker", "it has no input"))?;
    let fed = async {
        let mut decoder = match compression {
            Compression::None => None,
            Compression::Zstd => Some(
                zstd::stream::write::Decoder::new(Vec::new())
                    .map_err(|error| Error::internal("make a decoder", error))?,
            ),
        };
        while let Some(piece) = archive.recv().await {
            let piece = piece?;
            let Some(decoder) = &mut decoder else {
                input.write_all(&piece).await.map_err(broken_pipe)?;
                continue;
            };
            // Small bites, so that a bomb is not held in memory as a whole.
            for bite in piece.chunks(4096) {
                std::io::Write::write_all(decoder, bite)
                    .map_err(|error| Error::invalid("archive", format!("not zstd: {error}")))?;
                let plain = std::mem::take(decoder.get_mut());
                input.write_all(&plain).await.map_err(broken_pipe)?;
            }
        }
        if let Some(mut decoder) = decoder {
            std::io::Write::flush(&mut decoder)
                .map_err(|error| Error::invalid("archive", format!("not zstd: {error}")))?;
            input.write_all(decoder.get_ref()).await.map_err(broken_pipe)?;
        }
        Ok(())
    }
    .await;
    drop(input);
    let output =
        child.wait_with_output().await.map_err(|error| Error::internal("wait for the unpacker", error))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect::<String>();
    match (output.status.code(), fed) {
        (Some(0), fed) => fed,
        (Some(3), _) => Err(Error::LimitReached { what: "disk", detail: said }),
        _ => Err(Error::invalid("archive", said)),
    }
}

/// The unpacker says itself why it hung up.
fn broken_pipe(_: std::io::Error) -> Error {
    Error::invalid("archive", "the unpacker stopped reading")
}

/// Copies a directory of the host, sharing its blocks where the file system can.
///
/// # Errors
/// `InvalidArgument` where it is no directory, `Internal` with what cp(1) said.
pub(crate) async fn import_directory(directory: &Path, source: &Path) -> Result<()> {
    if !source.is_absolute() || !source.is_dir() {
        return Err(Error::invalid(
            "host_path",
            format!("{} is not a directory with an absolute path", source.display()),
        ));
    }
    let root = directory.join("rootfs");
    let output = Command::new("cp")
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
