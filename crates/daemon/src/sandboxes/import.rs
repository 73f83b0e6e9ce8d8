//! Importing templates: to the end whatever becomes of the caller, and from paths of the node.

use super::{Repeat, Sandboxes};
use crate::error::{Error, Result};
use hostel_sandbox::file::{ByteStream, Compression};
use hostel_sandbox::template::Template;
use hostel_sandbox::{Backend, BackendName, Error as DomainError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

/// Bytes read at a time from an archive on the node.
const CHUNK: usize = 256 << 10;
/// Imports that may wait for their turn.
pub(super) const WAITING: usize = 64;

/// The right to import.
#[derive(Debug)]
#[must_use]
pub(crate) struct ImportTurn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Sandboxes {
    /// Runs an import to its end whatever becomes of the caller; once for all who ask at the same time under one
    /// request id.
    ///
    /// # Errors
    /// Those of `work`; `RequestIdReused`.
    pub(crate) async fn import(
        &self,
        repeat: Option<&Repeat>,
        work: impl Future<Output = Result<(BackendName, Template)>> + Send + 'static,
    ) -> Result<(BackendName, Template)> {
        match repeat {
            Some(repeat) => self.0.imports.once(&self.0.tasks, repeat, work).await,
            None => self.to_the_end(work).await,
        }
    }

    /// Waits for one of the few turns to import; it ends when it is dropped.
    ///
    /// # Errors
    /// `LimitReached` where too many wait already; `Draining`.
    pub(crate) async fn import_turn(&self) -> Result<ImportTurn> {
        let crowded = |_| DomainError::LimitReached {
            what: "imports",
            detail: format!("{WAITING} wait for their turn already; try again later"),
        };
        let place = Arc::clone(&self.0.import_places).try_acquire_owned().map_err(crowded)?;
        tokio::select! {
            turn = Arc::clone(&self.0.import_turns).acquire_owned() => {
                let turn = turn.map_err(|closed| DomainError::internal("wait for an import", closed))?;
                Ok(ImportTurn { _turn: turn, _place: place })
            }
            () = self.0.stop.cancelled() => Err(Error::Draining),
        }
    }

    /// Imports a directory or an archive of the node's. Without `compression` the archive's first bytes tell it.
    ///
    /// # Errors
    /// `InvalidArgument` for the path; of the backend.
    pub(crate) async fn import_path(
        &self,
        backend: &Arc<dyn Backend>,
        template: Template,
        compression: Option<Compression>,
        path: &Path,
    ) -> Result<Template> {
        let wrong = |error| DomainError::invalid("host_path", format!("{}: {error}", path.display()));
        let _turn = self.import_turn().await?;
        let metadata = tokio::fs::metadata(path).await.map_err(wrong)?;
        if metadata.is_dir() {
            return Ok(backend.import_template_directory(template, path).await?);
        }
        let compression = match compression {
            Some(compression) => compression,
            None => looked_at(path).await?,
        };
        let (bytes, reader) = self.bytes_of(path.to_owned());
        let imported = backend.import_template(template, bytes, compression).await;
        drop(reader);
        Ok(imported?)
    }

    fn bytes_of(&self, path: PathBuf) -> (ByteStream, AbortOnDropHandle<()>) {
        let (sender, bytes) = tokio::sync::mpsc::channel(4);
        let reader = self.tasks().spawn(async move {
            let failed = |error| DomainError::internal(format!("read {}", path.display()), error);
            let mut file = match tokio::fs::File::open(&path).await {
                Ok(file) => file,
                Err(error) => return drop(sender.send(Err(failed(error))).await),
            };
            loop {
                let mut buffer = bytes::BytesMut::with_capacity(CHUNK);
                let item = match file.read_buf(&mut buffer).await {
                    Ok(0) => return,
                    Ok(_) => Ok(buffer.freeze()),
                    Err(error) => Err(failed(error)),
                };
                let last = item.is_err();
                if sender.send(item).await.is_err() || last {
                    return;
                }
            }
        });
        (bytes, AbortOnDropHandle::new(reader))
    }
}

/// How an archive is packed, by its first bytes.
async fn looked_at(path: &Path) -> Result<Compression> {
    let unreadable = |error| DomainError::internal(format!("read {}", path.display()), error);
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut start = [0; 4];
    let length = file.read(&mut start).await.map_err(unreadable)?;
    match &start[..length] {
        [0x28, 0xb5, 0x2f, 0xfd] => Ok(Compression::Zstd),
        [0x1f, 0x8b, ..] => {
            let problem = format!("{} is gzip; unpack it first: gunzip", path.display());
            Err(DomainError::invalid("host_path", problem).into())
        }
        _ => Ok(Compression::None),
    }
}
