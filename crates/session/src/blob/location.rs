//! Where blobs are.

use super::s3;
use crate::error::{Error, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use secrecy::SecretString;
use std::fmt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where blobs are. As text: a directory, or `s3://bucket/prefix?region=eu-west-1&endpoint=https://s3.example.com`.
#[derive(Debug, Clone)]
pub enum BlobLocation {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A bucket of S3, or of something that speaks like it.
    S3(S3Bucket),
}

/// A bucket of S3, or of something that speaks like it.
#[derive(Clone)]
pub struct S3Bucket {
    /// Its name.
    pub bucket: String,
    /// What the names of all objects begin with; may be empty.
    pub prefix: String,
    /// The region; `AWS_REGION` or `us-east-1` where absent.
    pub region: Option<String>,
    /// The server; Amazon's of the region where absent. One with `http://` is spoken to in the clear.
    pub endpoint: Option<String>,
    /// Key id and secret key. Where absent they are looked for as AWS's own programs do: `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, a web identity, the container's or the machine's role.
    pub credentials: Option<(String, SecretString)>,
}

impl BlobLocation {
    pub(super) fn connect(&self) -> Result<(Arc<dyn ObjectStore>, Path)> {
        match self {
            Self::Directory(path) => {
                let store =
                    directory(path).map_err(|problem| failed(&path.display().to_string(), problem))?;
                Ok((Arc::new(store), Path::default()))
            }
            Self::S3(bucket) => {
                let prefix = Path::parse(bucket.prefix.trim_matches('/'))
                    .map_err(|error| failed(&bucket.bucket, error.to_string()))?;
                let store = s3::connect(bucket).map_err(|problem| failed(&bucket.bucket, problem))?;
                Ok((Arc::new(store), prefix))
            }
        }
    }
}

fn directory(path: &std::path::Path) -> std::result::Result<LocalFileSystem, String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(|error| error.to_string())?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    Ok(store.with_fsync(true).with_automatic_cleanup(true))
}

fn failed(key: &str, problem: String) -> Error {
    Error::Blob { action: "open", key: key.to_owned(), problem }
}

impl FromStr for BlobLocation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem: &str| Err(Error::invalid("blobs", problem));
        let Some(rest) = text.strip_prefix("s3://") else {
            if text.is_empty() || text.contains("://") {
                return wrong("blobs are in a directory, or in s3://bucket/prefix?region=…&endpoint=…");
            }
            return Ok(Self::Directory(PathBuf::from(text)));
        };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || bucket.contains('@') {
            return wrong("a bucket is s3://bucket/prefix; keys are not part of it: set AWS_ACCESS_KEY_ID");
        }
        let mut location = S3Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: None,
            endpoint: None,
            credentials: None,
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("region", region)) => location.region = Some(region.to_owned()),
                Some(("endpoint", endpoint)) => location.endpoint = Some(endpoint.to_owned()),
                _ => return wrong("a bucket may have ?region=… and &endpoint=…, nothing else"),
            }
        }
        Ok(Self::S3(location))
    }
}

impl fmt::Display for BlobLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(formatter, "{}", path.display()),
            Self::S3(bucket) => write!(formatter, "s3://{}/{}", bucket.bucket, bucket.prefix),
        }
    }
}

impl fmt::Debug for S3Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("S3Bucket")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("credentials", &self.credentials.as_ref().map(|_| "…"))
            .finish()
    }
}
