//! From the sandbox to the blobs.

use super::{Known, MAX_FILE, MAX_FILES, Mark, called, directories, is_fresh, name_of, place, total};
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::id::SessionId;
use crate::local::Shared;
use crate::worker::jobs::{Job, daemon};
use futures::Stream;
use hostel_client::domain::SandboxId;
use hostel_client::domain::file::FileKind;
use hostel_client::model::FileInfo;
use hostel_client::{Client, FileReader};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Entries of a directory that are looked at.
const MAX_LISTED: usize = 4 * MAX_FILES;
/// How long mirroring may take at one go.
const MIRRORING: Duration = Duration::from_secs(5 * 60);
/// How long from when the sandbox is to be given up.
const HURRIED: Duration = Duration::from_secs(10);
/// How long a sandbox may take for the next piece of a file.
const PIECE: Duration = Duration::from_secs(30);
/// How long an upload may take to be given up in good order.
const GIVING_UP: Duration = Duration::from_secs(3);
/// How soon a daemon that is away is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// What is to be mirrored.
pub(in crate::worker) struct Mirror {
    pub(in crate::worker) shared: Arc<Shared>,
    pub(in crate::worker) session: SessionId,
    /// What the agent calls the conversation.
    pub(in crate::worker) conversation: String,
    pub(in crate::worker) sandbox: String,
    /// What was mirrored before; `None` where that is to be looked up.
    pub(in crate::worker) known: Option<Known>,
    /// Bytes that may still be kept of the session.
    pub(in crate::worker) room: u64,
    /// The sandbox is to be given up.
    pub(in crate::worker) hurry: CancellationToken,
}

/// What came of it.
pub(in crate::worker) struct Mirrored {
    /// What is mirrored now, where that is known.
    pub(in crate::worker) known: Option<Known>,
    /// Bytes that are kept more than before, or less.
    pub(in crate::worker) grown: i64,
    /// What could not be mirrored, and why. With `again` it may be another time.
    pub(in crate::worker) problem: Option<String>,
    pub(in crate::worker) again: bool,
}

impl Mirror {
    pub(in crate::worker) async fn run(mut self, epoch: u64) -> Job {
        let hurry = self.hurry.clone();
        let limit = async {
            tokio::select! {
                () = tokio::time::sleep(MIRRORING) => {}
                () = async { hurry.cancelled().await; tokio::time::sleep(HURRIED).await } => {}
            }
        };
        let stop = CancellationToken::new();
        let known = self.known.take();
        let before = known.as_ref().map(total);
        let mut work = Work { stop: stop.clone(), known, before, left_out: None };
        let mirrored = {
            let all = work.all(&self);
            tokio::pin!(all);
            tokio::select! {
                done = &mut all => done,
                () = limit => {
                    // An upload that is under way is given up in good order.
                    stop.cancel();
                    all.await
                }
            }
        };
        let after = work.known.as_ref().map(total).unwrap_or_default();
        let grown = i128::from(after) - i128::from(work.before.unwrap_or(after));
        let error = mirrored.err().map(|error| match error {
            Error::Stopping => "it took too long".to_owned(),
            error => error.to_string(),
        });
        Job::Mirrored(
            epoch,
            Mirrored {
                known: work.known,
                grown: i64::try_from(grown).unwrap_or_default(),
                again: error.is_some(),
                problem: error.or(work.left_out),
            },
        )
    }
}

/// Mirroring, as far as it has come.
struct Work {
    stop: CancellationToken,
    known: Option<Known>,
    /// Bytes that were kept when it began.
    before: Option<u64>,
    /// Something that will not be mirrored, and why.
    left_out: Option<String>,
}

impl Work {
    async fn all(&mut self, mirror: &Mirror) -> Result<()> {
        loop {
            match self.once(mirror).await {
                Err(Error::Daemon(error)) if error.is_connection() => {
                    self.unless_stopped(tokio::time::sleep(AGAIN)).await?;
                }
                done => return done,
            }
        }
    }

    async fn once(&mut self, mirror: &Mirror) -> Result<()> {
        let (shared, place) = (&mirror.shared, place(&mirror.session));
        let transcripts = self.unless_stopped(shared.store.transcript_paths(&mirror.session)).await??;
        let directories = directories(&transcripts, &mirror.conversation);
        let client = self.unless_stopped(shared.client()).await??;
        let sandbox = SandboxId::parse(mirror.sandbox.as_str()).map_err(daemon)?;
        for directory in &directories {
            let listed = client.list_first_files(&sandbox, directory, MAX_LISTED);
            let files = match self.unless_stopped(listed).await? {
                // The agent has kept none, or is gone with its sandbox.
                Err(error) if error.is_not_found() => continue,
                files => files?,
            };
            if self.known.is_none() && !files.is_empty() {
                let known = self.unless_stopped(kept(&shared.blobs, &place)).await??;
                self.before = Some(total(&known));
                self.known = Some(known);
            }
            let called = called(directory);
            for file in &files {
                let Some(name) = name_of(file, &called) else { continue };
                self.mirror(mirror, &client, &sandbox, file, &place, name).await?;
            }
        }
        Ok(())
    }

    /// Mirrors one file, where that is to be.
    async fn mirror(
        &mut self,
        mirror: &Mirror,
        client: &Client,
        sandbox: &SandboxId,
        file: &FileInfo,
        place: &str,
        name: String,
    ) -> Result<()> {
        let known = self.known.get_or_insert_default();
        let mark = known.get(&name).copied();
        if !is_fresh(file, mark.as_ref()) {
            return Ok(());
        }
        if mark.is_none() && known.len() >= MAX_FILES {
            self.leave_out(format!("there are more than {MAX_FILES} of them"));
            return Ok(());
        }
        let grown = total(known).saturating_sub(self.before.unwrap_or_default());
        let room = mirror.room.saturating_sub(grown).saturating_add(mark.map_or(0, |mark| mark.bytes));
        let most = room.min(MAX_FILE);
        // Of each upload some megabytes are in memory. For a file at a time: no session keeps others from theirs.
        let _turn = self.unless_stopped(mirror.shared.mirrors.acquire()).await?;
        let reader = match self.unless_stopped(client.read_file(sandbox, &file.path, 0, None)).await? {
            Ok(reader) => reader,
            Err(error) if error.is_connection() => return Err(error.into()),
            // It was removed since.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => {
                self.leave_out(error.to_string());
                return Ok(());
            }
        };
        // Between the list and now something else may have come there: all of it is of this sandbox.
        let (kind, bytes) = (reader.info().kind, reader.info().size_bytes);
        if kind != FileKind::File || bytes > most {
            self.leave_out(format!("one has {bytes} bytes, and {most} may be kept"));
            return Ok(());
        }
        let modified = reader.info().modify_time.unwrap_or(Timestamp::MIN);
        let content = pieces(reader, self.stop.clone());
        tokio::pin!(content);
        let blobs = mirror.shared.blobs.clone().with_max_bytes(most);
        let key = format!("{place}/{name}");
        let bytes = tokio::select! {
            bytes = blobs.put_stream(&key, content) => bytes?,
            // A bucket that does not answer would be waited for much longer.
            () = async { self.stop.cancelled().await; tokio::time::sleep(GIVING_UP).await } => {
                return Err(Error::Stopping);
            }
        };
        self.known.get_or_insert_default().insert(name, Mark { bytes, modified });
        Ok(())
    }

    fn leave_out(&mut self, why: String) {
        self.left_out.get_or_insert(why);
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            done = work => Ok(done),
            () = self.stop.cancelled() => Err(Error::Stopping),
        }
    }
}

/// The content of a file; an error where it is to stop, or the sandbox sends nothing more.
fn pieces(reader: FileReader, stop: CancellationToken) -> impl Stream<Item = Result<bytes::Bytes>> + Send {
    futures::stream::try_unfold((reader, stop), |(mut reader, stop)| async move {
        let piece = tokio::select! {
            piece = tokio::time::timeout(PIECE, reader.next()) => piece.map_err(|_| Error::Stopping)??,
            () = stop.cancelled() => return Err(Error::Stopping),
        };
        Ok(piece.map(|piece| (piece, (reader, stop))))
    })
}

/// What is kept below a name.
pub(super) async fn kept(blobs: &BlobStore, place: &str) -> Result<Known> {
    let blobs = blobs.list(place).await?.into_iter();
    let named = blobs.filter_map(|blob| {
        let name = blob.key.strip_prefix(place)?.strip_prefix('/')?.to_owned();
        Some((name, Mark { bytes: blob.bytes, modified: blob.modified }))
    });
    Ok(named.collect())
}
