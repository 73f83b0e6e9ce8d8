//! From the blobs into another sandbox.

use super::mirror::kept;
use super::{Known, Mark, called, place};
use crate::error::{Error, Result};
use crate::id::SessionId;
use crate::local::Shared;
use futures::TryStreamExt as _;
use hostel_agent::claude;
use hostel_client::Client;
use hostel_client::domain::SandboxId;
use hostel_client::model::WriteFile;
use jiff::Timestamp;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

/// How long a start waits for a blob store that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to put everything back.
const RESTORING: Duration = Duration::from_secs(2 * 60);

/// Where to put tool results back.
pub(in crate::worker) struct Restore<'a> {
    pub(in crate::worker) shared: &'a Shared,
    pub(in crate::worker) session: &'a SessionId,
    /// The paths of the session's transcripts.
    pub(in crate::worker) transcripts: &'a [String],
    pub(in crate::worker) client: &'a Client,
    pub(in crate::worker) sandbox: &'a SandboxId,
    /// Nobody wants the sandbox any more.
    pub(in crate::worker) cancel: &'a CancellationToken,
}

/// What was put back.
pub(in crate::worker) struct Restored {
    /// What is mirrored, where that is known.
    pub(in crate::worker) known: Option<Known>,
    /// What is missing, and why.
    pub(in crate::worker) problem: Option<String>,
}

impl Restore<'_> {
    /// Puts back what can be: a conversation can go on without.
    ///
    /// # Errors
    /// Where the daemon is away, so that all of it is to be done again.
    pub(in crate::worker) async fn run(self) -> Result<Restored> {
        let without = |problem| Ok(Restored { known: None, problem: Some(problem) });
        tokio::select! {
            restored = tokio::time::timeout(RESTORING, self.all()) => match restored {
                Ok(Err(Error::Daemon(error))) => Err(error.into()),
                Ok(Err(error)) => without(error.to_string()),
                Ok(Ok(restored)) => Ok(restored),
                Err(_) => without(format!("they could not be put back within {} s", RESTORING.as_secs())),
            },
            () = self.cancel.cancelled() => Ok(Restored { known: None, problem: None }),
        }
    }

    async fn all(&self) -> Result<Restored> {
        let place = place(self.session);
        let mut known = self.kept(&place).await?;
        let directories = self.transcripts.iter().filter_map(|path| claude::tool_results(path));
        let directories: HashMap<_, _> = directories.map(|path| (called(&path), path)).collect();
        let mut problem = None;
        for (name, mark) in &mut known {
            let Some((directory, file)) = name.split_once('/') else { continue };
            let Some(directory) = directories.get(directory) else { continue };
            match self.put_back(&format!("{place}/{name}"), format!("{directory}/{file}")).await {
                Ok(put) => *mark = put,
                Err(Error::Daemon(error)) if error.is_connection() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(session = %self.session, name, %error, "a tool result is not put back");
                    problem.get_or_insert_with(|| error.to_string());
                }
            }
        }
        Ok(Restored { known: Some(known), problem })
    }

    /// What there is to put back. A blob store that does not answer is asked again for a while.
    async fn kept(&self, place: &str) -> Result<Known> {
        let mut problem = None;
        let asking = async {
            loop {
                match kept(&self.shared.blobs, place).await {
                    Err(error @ Error::Blob { .. }) => problem = Some(error),
                    done => return done,
                }
                tokio::time::sleep(crate::worker::effects::PAUSE).await;
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(done) => done,
            Err(_) => Err(problem.unwrap_or_else(|| Error::Blob {
                action: "list",
                key: place.to_owned(),
                problem: format!("no answer within {} s", PATIENCE.as_secs()),
            })),
        }
    }

    async fn put_back(&self, blob: &str, path: String) -> Result<Mark> {
        let (_, content) = self.shared.blobs.get(blob).await?;
        let content = StreamReader::new(content.map_err(io::Error::other));
        let write = WriteFile { path, permissions: Some(0o600), create_parents: true };
        let written = self.client.write_file(self.sandbox, write, content).await?;
        let modified = written.modify_time.unwrap_or(Timestamp::MIN);
        Ok(Mark { bytes: written.size_bytes, modified })
    }
}
