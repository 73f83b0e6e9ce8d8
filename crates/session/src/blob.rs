//! Files that are too large or too many for the database: what agents keep beside their transcripts, below
//! `sessions/ID/`.

mod key;
mod location;
mod s3;

pub use location::{BlobLocation, S3Bucket};

use crate::error::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use std::sync::Arc;
use std::time::Duration;

/// Of what a blob is written and read at one go.
const PART: usize = 8 << 20;
/// The longest that one request, or one part of a blob, may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// The most blobs in one list.
const MAX_LIST: usize = 100_000;
/// Blobs that are copied at a time.
const COPIES: usize = 16;
/// The largest blob where nothing else is said.
const DEFAULT_MAX_BYTES: u64 = 16 << 30;

/// Blobs by name, in a directory or an S3 bucket. Names have 1 to 512 bytes: parts of letters, digits, `.`, `_` and
/// `-`, with `/` between them; no part begins with a `.`.
///
/// A blob is there as a whole or not at all, and when writing it returns it is kept: in a directory it is flushed to
/// disk.
#[derive(Clone, Debug)]
pub struct BlobStore {
    store: Arc<dyn ObjectStore>,
    /// What all names here begin with in the store.
    prefix: Path,
    max_bytes: u64,
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub key: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was written.
    pub modified: Timestamp,
}

/// The content of a blob, in order.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

impl BlobStore {
    /// Opens a store. A directory is made where there is none, so that only its owner may look into it.
    ///
    /// # Errors
    /// [`Error::Blob`] where a directory cannot be made, or an S3 client not be set up. Whether a bucket answers is
    /// not asked.
    pub fn open(location: &BlobLocation) -> Result<Self> {
        let (store, prefix) = location.connect()?;
        Ok(Self { store, prefix, max_bytes: DEFAULT_MAX_BYTES })
    }

    /// The same, with blobs of at most so many bytes; 16 GiB otherwise.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Writes a blob, in the place of one of that name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, [`Error::Blob`].
    pub async fn put(&self, key: &str, content: Bytes) -> Result<()> {
        let path = self.path(key)?;
        self.check_size(key, content.len() as u64)?;
        self.put_whole(key, &path, content).await
    }

    /// Writes a blob from a stream, in the place of one of that name, without holding more than some megabytes of it.
    /// How many bytes it has. There is no blob, or the one there was, where the stream ends with an error or
    /// somebody stops waiting; in the latter case a bucket keeps the parts until its own rule removes them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, those of the stream, [`Error::Blob`].
    pub async fn put_stream(
        &self,
        key: &str,
        content: impl Stream<Item = Result<Bytes>> + Send + Unpin,
    ) -> Result<u64> {
        let path = self.path(key)?;
        let mut parts = Parts { content, bytes: 0, ended: false };
        let first = parts.next(self, key).await?;
        if parts.ended {
            self.put_whole(key, &path, first).await?;
            return Ok(parts.bytes);
        }
        let mut upload = in_time("write", key, self.store.put_multipart(&path)).await?;
        match self.put_parts(key, &mut *upload, first, &mut parts).await {
            Ok(()) => Ok(parts.bytes),
            Err(error) => {
                if let Err(left) = in_time("give up writing", key, upload.abort()).await {
                    tracing::warn!(error = %left, "parts of a blob that was not written are left");
                }
                Err(error)
            }
        }
    }

    async fn put_parts(
        &self,
        key: &str,
        upload: &mut dyn MultipartUpload,
        first: Bytes,
        parts: &mut Parts<impl Stream<Item = Result<Bytes>> + Send + Unpin>,
    ) -> Result<()> {
        let mut part = first;
        while !part.is_empty() {
            in_time("write", key, upload.put_part(PutPayload::from_bytes(part))).await?;
            part = if parts.ended { Bytes::new() } else { parts.next(self, key).await? };
        }
        in_time("write", key, upload.complete()).await.map(|_| ())
    }

    async fn put_whole(&self, key: &str, path: &Path, content: Bytes) -> Result<()> {
        in_time("write", key, self.store.put(path, PutPayload::from_bytes(content))).await.map(|_| ())
    }

    /// Reads a blob: what is known of it, and its content. Each piece has its own deadline.
    ///
    /// # Errors
    /// [`Error::NoSuch`], [`Error::Invalid`] for a name that is none, [`Error::Blob`].
    pub async fn get(&self, key: &str) -> Result<(Blob, BlobStream)> {
        let path = self.path(key)?;
        let found = in_time("read", key, self.store.get(&path)).await?;
        let blob = Blob { key: key.to_owned(), ..self.blob(&found.meta)? };
        let key = key.to_owned();
        let content =
            futures::stream::try_unfold((found.into_stream(), key), |(mut content, key)| async move {
                let piece = in_time("read", &key, content.try_next()).await?;
                Ok(piece.map(|piece| (piece, (content, key))))
            });
        Ok((blob, content.boxed()))
    }

    /// Reads all of a blob of at most so many bytes.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::Blob`] for one that is larger.
    pub async fn read(&self, key: &str, max_bytes: usize) -> Result<Bytes> {
        let (blob, mut content) = self.get(key).await?;
        if blob.bytes > max_bytes as u64 {
            return Err(failed("read", key, format!("it has {} bytes, at most {max_bytes}", blob.bytes)));
        }
        let mut all = BytesMut::new();
        while let Some(piece) = content.try_next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The blobs below a name, by name: `a` has `a/b` and `a/c/d` below it, but not `ab`. All for an empty one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, [`Error::Blob`], also for more than 100,000.
    pub async fn list(&self, below: &str) -> Result<Vec<Blob>> {
        let path = if below.is_empty() { self.prefix.clone() } else { self.path(below)? };
        let mut found = self.store.list(Some(&path));
        let mut blobs = Vec::new();
        while let Some(meta) = in_time("list", below, found.try_next()).await? {
            if blobs.len() == MAX_LIST {
                return Err(failed("list", below, format!("there are more than {MAX_LIST}")));
            }
            blobs.push(self.blob(&meta)?);
        }
        blobs.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(blobs)
    }

    /// Removes the blob of a name and those below it. How many there were.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, [`Error::Blob`]; some may be removed then.
    pub async fn delete(&self, below: &str) -> Result<u64> {
        let path = self.path(below)?;
        let mut paths = vec![];
        match in_time("remove", below, self.store.head(&path)).await {
            Ok(_) => paths.push(Ok(path.clone())),
            Err(Error::NoSuch { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut found = self.store.list(Some(&path));
        while let Some(meta) = in_time("remove", below, found.try_next()).await? {
            paths.push(Ok(meta.location));
        }
        let mut removed = self.store.delete_stream(futures::stream::iter(paths).boxed());
        let mut count = 0;
        loop {
            match in_time("remove", below, removed.try_next()).await {
                Ok(Some(_)) => count += 1,
                Ok(None) => return Ok(count),
                // Somebody else was faster.
                Err(Error::NoSuch { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies the blobs below a name to where they are below another. How many there were. Nothing tells the copies
    /// from what was written.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, [`Error::Blob`]; some may be copied then.
    pub async fn copy(&self, below: &str, to: &str) -> Result<usize> {
        let blobs = self.list(below).await?;
        let count = blobs.len();
        let copies =
            blobs.into_iter().map(|Blob { key, .. }| {
                let rest = key.strip_prefix(below).unwrap_or_default();
                let target = format!("{to}{rest}");
                async move {
                    in_time("copy", &key, self.store.copy(&self.path(&key)?, &self.path(&target)?)).await
                }
            });
        futures::stream::iter(copies).buffer_unordered(COPIES).try_collect::<()>().await?;
        Ok(count)
    }

    /// Whether it answers: asks for a list and takes its beginning, and for a blob that is none.
    ///
    /// # Errors
    /// [`Error::Blob`].
    pub async fn check(&self) -> Result<()> {
        let mut found = self.store.list(Some(&self.prefix));
        in_time("check", "", found.try_next()).await?;
        // A list of what is no directory any more is empty; only who reads there is told.
        match in_time("check", "", self.store.head(&self.path("check")?)).await {
            Ok(_) | Err(Error::NoSuch { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self, key: &str) -> Result<Path> {
        key::check(key)?;
        let parts = self.prefix.parts().chain(key.split('/').map(Into::into));
        Ok(Path::from_iter(parts))
    }

    fn blob(&self, meta: &object_store::ObjectMeta) -> Result<Blob> {
        let path = meta.location.as_ref();
        let key = path.strip_prefix(self.prefix.as_ref()).unwrap_or(path).trim_start_matches('/').to_owned();
        let modified = Timestamp::from_millisecond(meta.last_modified.timestamp_millis())
            .map_err(|error| failed("read the time of", &key, error.to_string()))?;
        Ok(Blob { key, bytes: meta.size, modified })
    }

    fn check_size(&self, key: &str, bytes: u64) -> Result<()> {
        if bytes <= self.max_bytes {
            return Ok(());
        }
        Err(failed("write", key, format!("it has more than {} bytes", self.max_bytes)))
    }
}

/// A stream in parts of one size; only the last may be smaller.
struct Parts<S> {
    content: S,
    bytes: u64,
    ended: bool,
}

impl<S: Stream<Item = Result<Bytes>> + Send + Unpin> Parts<S> {
    async fn next(&mut self, store: &BlobStore, key: &str) -> Result<Bytes> {
        let mut part = BytesMut::new();
        while part.len() < PART {
            let Some(piece) = self.content.try_next().await? else {
                self.ended = true;
                break;
            };
            self.bytes += piece.len() as u64;
            store.check_size(key, self.bytes)?;
            part.extend_from_slice(&piece);
        }
        Ok(part.freeze())
    }
}

/// Waits for the store, not for ever.
async fn in_time<T>(
    action: &'static str,
    key: &str,
    work: impl Future<Output = object_store::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(object_store::Error::NotFound { .. })) => {
            Err(Error::NoSuch { kind: "blob", name: key.to_owned() })
        }
        Ok(Err(error)) => Err(failed(action, key, error.to_string())),
        Err(_) => Err(failed(action, key, format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

fn failed(action: &'static str, key: &str, problem: String) -> Error {
    Error::Blob { action, key: key.to_owned(), problem }
}
