//! The files that a new sandbox begins with.

use super::Sandboxes;
use super::create::gone_caller;
use crate::error::Result;
use bytes::Bytes;
use hostel_sandbox::file::{InitialFile, WriteOptions};
use hostel_sandbox::{Created, Error as DomainError, ExecutionEnvironment, SandboxId, Stage};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long writing all of them may take in a sandbox that was made for them.
const DEADLINE: Duration = Duration::from_secs(30);

impl Sandboxes {
    /// Writes the files. The sandbox is removed where that fails: its caller gets all of them or none.
    ///
    /// # Errors
    /// As writing a file; where the caller went away.
    pub(super) async fn furnish(
        &self,
        id: &SandboxId,
        created: Created,
        files: &[InitialFile],
        cancel: &CancellationToken,
    ) -> Result<Created> {
        self.furnish_until(Instant::now() + DEADLINE, id, created, files, cancel).await
    }

    /// The same where the files have to be there by then.
    ///
    /// # Errors
    /// As [`Self::furnish`].
    pub(super) async fn furnish_until(
        &self,
        until: Instant,
        id: &SandboxId,
        mut created: Created,
        files: &[InitialFile],
        cancel: &CancellationToken,
    ) -> Result<Created> {
        if files.is_empty() {
            return Ok(created);
        }
        let begin = Instant::now();
        let written = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(gone_caller()),
            written = tokio::time::timeout_at(until.into(), write(&*created.environment, files)) => match written {
                Ok(written) => written.map_err(Into::into),
                Err(_) => Err(DomainError::DeadlineExceeded { what: "writing its files".to_owned() }.into()),
            },
        };
        if let Err(error) = written {
            self.undo(id, &created).await;
            return Err(error);
        }
        created.stages.push(Stage { name: "files", duration: begin.elapsed() });
        Ok(created)
    }
}

async fn write(
    environment: &dyn ExecutionEnvironment,
    files: &[InitialFile],
) -> std::result::Result<(), DomainError> {
    let inside = environment.inside()?;
    for file in files {
        let options = WriteOptions { mode: file.mode, create_parents: true, ..WriteOptions::default() };
        inside.write(&file.path, options, whole(file.content.clone())).await?;
    }
    Ok(())
}

/// A stream of one piece.
fn whole(content: Bytes) -> mpsc::Receiver<hostel_sandbox::Result<Bytes>> {
    let (sender, stream) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Ok(content));
    stream
}
