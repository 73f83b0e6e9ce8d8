//! Copying files and directories between this machine and a sandbox, with the manners of `cp -r`.

pub(crate) mod feed;

use crate::archive::{PackedDirectory, Unpacker};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::file::FileReader;
use crate::model::{Template, WriteFile};
use crate::template::ImportTemplate;
use hostel_sandbox::SandboxId;
use hostel_sandbox::file::{Compression, FileKind};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};

/// Told of each piece that was copied: its length in bytes.
pub type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

impl Client {
    /// Copies a local file or directory into a sandbox. When `remote` is a directory there, or ends with `/`, the
    /// copy goes into it under its own name; otherwise it becomes `remote`. Directories on the way are made.
    ///
    /// # Errors
    /// [`Error::Local`] when something cannot be read, else the daemon's refusal.
    pub async fn upload(
        &self,
        sandbox: &SandboxId,
        local: &Path,
        remote: &str,
        progress: Progress<'_>,
    ) -> Result<()> {
        let metadata = tokio::fs::metadata(local).await.map_err(Error::local("read", local))?;
        let target = self.remote_target(sandbox, local, remote).await?;
        if metadata.is_dir() {
            let archive = Counted { inner: PackedDirectory::new(local.to_owned()), progress };
            self.import_files(sandbox, &target, Compression::None, archive).await?;
        } else if metadata.is_file() {
            let file = tokio::fs::File::open(local).await.map_err(Error::local("read", local))?;
            let write = WriteFile {
                path: target,
                permissions: Some(metadata.permissions().mode() & 0o777),
                create_parents: true,
            };
            self.write_file(sandbox, write, Counted { inner: file, progress }).await?;
        } else {
            return Err(Error::Unsupported(format!("{} is no file and no directory", local.display())));
        }
        Ok(())
    }

    /// The path that a copy of `local` shall have.
    async fn remote_target(&self, sandbox: &SandboxId, local: &Path, remote: &str) -> Result<String> {
        let is_directory = match self.stat_file(sandbox, remote, true).await {
            Ok(info) => info.kind == FileKind::Directory,
            Err(error) if error.is_not_found() => remote.ends_with('/'),
            Err(error) => return Err(error),
        };
        if !is_directory {
            return Ok(remote.to_owned());
        }
        // The content of "." has no name of its own: it goes right in.
        let Some(name) = file_name(local) else { return Ok(remote.to_owned()) };
        Ok(format!("{}/{name}", remote.trim_end_matches('/')))
    }

    /// Makes a template of a local directory that holds a root file system.
    ///
    /// # Errors
    /// [`Error::Local`] when something cannot be read, else the daemon's refusal.
    pub async fn import_template_directory(
        &self,
        import: ImportTemplate,
        directory: &Path,
        progress: Progress<'_>,
    ) -> Result<Template> {
        let archive = PackedDirectory::new(directory.to_owned());
        self.import_template(import, Counted { inner: archive, progress }).await
    }

    /// Copies a file or directory, or what a link leads to, out of a sandbox. When `local` is a directory the copy
    /// goes into it under its own name; otherwise it becomes `local`. The content of a directory whose path ends with
    /// `.` or `..`, or that is the root, has no name of its own: it goes right in.
    ///
    /// # Errors
    /// [`Error::Local`] when something cannot be written, else the daemon's refusal.
    pub async fn download(
        &self,
        sandbox: &SandboxId,
        remote: &str,
        local: &Path,
        progress: Progress<'_>,
    ) -> Result<()> {
        let info = self.stat_file(sandbox, remote, true).await?;
        match info.kind {
            FileKind::File => {
                let name = remote.trim_end_matches('/').rsplit('/').next().unwrap_or(remote);
                let target = if local.is_dir() { local.join(name) } else { local.to_owned() };
                let reader = self.read_file(sandbox, remote, 0, None).await?;
                save(reader, &target, progress).await
            }
            FileKind::Directory if local.is_dir() => {
                self.unpack_into(sandbox, remote, local.to_owned(), progress).await
            }
            FileKind::Directory => self.unpack_as(sandbox, remote, local, info.permissions, progress).await,
            FileKind::Symlink | FileKind::Other => {
                Err(Error::Unsupported(format!("{remote} in {sandbox} is no file and no directory")))
            }
        }
    }

    async fn unpack_into(
        &self,
        sandbox: &SandboxId,
        remote: &str,
        directory: PathBuf,
        progress: Progress<'_>,
    ) -> Result<()> {
        let mut archive = self.export_files(sandbox, remote, Compression::None).await?;
        let unpacker = Unpacker::new(directory);
        while let Some(piece) = archive.next().await? {
            progress(u64::try_from(piece.len()).unwrap_or(0));
            if !unpacker.push(piece).await {
                break;
            }
        }
        unpacker.finish().await
    }

    /// Unpacks beside `local` first, so that it appears at once and whole.
    async fn unpack_as(
        &self,
        sandbox: &SandboxId,
        remote: &str,
        local: &Path,
        permissions: u32,
        progress: Progress<'_>,
    ) -> Result<()> {
        let staging = tempfile::Builder::new()
            .prefix(".hostel-copy-")
            .tempdir_in(parent(local))
            .map_err(Error::local("create a directory in", parent(local)))?;
        self.unpack_into(sandbox, remote, staging.path().to_owned(), progress).await?;
        if !is_named(remote) {
            let permissions = std::fs::Permissions::from_mode(permissions & 0o777);
            std::fs::set_permissions(staging.path(), permissions).map_err(Error::local("create", local))?;
            std::fs::rename(staging.path(), local).map_err(Error::local("create", local))?;
            // It is not there any more to be removed.
            let _ = staging.keep();
            return Ok(());
        }
        let entries =
            std::fs::read_dir(staging.path()).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        match entries.map_err(Error::local("read", staging.path()))?.as_slice() {
            [entry] => std::fs::rename(entry.path(), local).map_err(Error::local("create", local)),
            entries => {
                let count = entries.len();
                Err(Error::Protocol(format!(
                    "an archive of {remote} with {count} entries at its top, not one"
                )))
            }
        }
    }
}

/// Tells `progress` of each piece that is read from `inner`.
pub fn counted<'a, R: AsyncRead + Unpin + Send + 'a>(
    inner: R,
    progress: Progress<'a>,
) -> impl AsyncRead + Unpin + Send + 'a {
    Counted { inner, progress }
}

/// Writes what is read into a file that appears at once and whole. What is there and no regular file, such as a
/// pipe or `/dev/stdout`, is written into.
async fn save(mut reader: FileReader, target: &Path, progress: Progress<'_>) -> Result<()> {
    let in_place = target.metadata().is_ok_and(|metadata| !metadata.is_file());
    let staging = if in_place {
        None
    } else {
        let builder = tempfile::Builder::new().prefix(".hostel-copy-").tempfile_in(parent(target));
        Some(builder.map_err(Error::local("create a file in", parent(target)))?)
    };
    let opened = match &staging {
        Some(staging) => staging.reopen().map(tokio::fs::File::from_std),
        // A pipe that nobody reads yet makes us wait, and signals are heard meanwhile.
        None => tokio::fs::OpenOptions::new().write(true).open(target).await,
    };
    let mut file = opened.map_err(Error::local("write", target))?;
    while let Some(piece) = reader.next().await? {
        file.write_all(&piece).await.map_err(Error::local("write", target))?;
        progress(u64::try_from(piece.len()).unwrap_or(0));
    }
    file.flush().await.map_err(Error::local("write", target))?;
    if let Some(staging) = staging {
        let permissions = std::fs::Permissions::from_mode(reader.info().permissions & 0o777);
        staging.as_file().set_permissions(permissions).map_err(Error::local("write", target))?;
        staging.persist(target).map_err(|error| Error::local("write", target)(error.error))?;
    }
    Ok(())
}

/// Whether a path in a sandbox ends with a name, with which the names in its archive then begin.
fn is_named(path: &str) -> bool {
    !matches!(path.trim_end_matches('/').rsplit('/').next(), None | Some("" | "." | ".."))
}

/// The directory that a path is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The last part of a local path as text; `None` for `.`, `..` and `/`, and for `dir/.`, of which the content is meant.
fn file_name(path: &Path) -> Option<String> {
    // The standard library takes no notice of a dot at the end.
    if path.to_string_lossy().trim_end_matches('/').ends_with("/.") {
        return None;
    }
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Tells of each piece that is read.
struct Counted<'a, R> {
    inner: R,
    progress: Progress<'a>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        (self.progress)(u64::try_from(buf.filled().len() - before).unwrap_or(0));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_names() {
        for path in ["/a", "/a/b/", "/a/.hidden", "/a/..."] {
            assert!(is_named(path), "{path}");
        }
        for path in ["/", "//", "/a/.", "/a/..", "/a/./", "/."] {
            assert!(!is_named(path), "{path}");
        }
    }
}
