//! Files of a session's sandbox.

mod content;
mod range;

pub(super) use content::{read, write};
// What the macros of utoipa look for beside a handler.
pub(super) use content::{__path_read, __path_write};

use super::app::App;
use super::input::{Id, Query};
use super::problem::{Problem, Result};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use futures::stream::try_unfold;
use futures::{Stream, TryStreamExt as _};
use hostel_session::client::domain::SandboxId;
use hostel_session::client::domain::file::{Compression, FileKind};
use hostel_session::client::model::FileInfo;
use hostel_session::client::{self, Client};
use hostel_session::{Error, SessionId};
use serde::{Deserialize, Serialize};
use std::io;

/// Longest path, in bytes (PATH_MAX of Linux).
const LONGEST: usize = 4096;

/// Which file.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Its path inside the sandbox. Where it is not absolute it begins at the session's working directory.
    path: Option<String>,
}

/// A file of a session.
pub(super) struct Place {
    client: Client,
    sandbox: SandboxId,
    path: String,
}

impl Place {
    /// The place that a path means.
    ///
    /// # Errors
    /// Where the session has no sandbox now, or that is no path.
    async fn find(app: &App, id: &SessionId, path: Option<&str>) -> Result<Self> {
        let base = app.working_directory(id).await?;
        let path = absolute(&base, path.unwrap_or_default())?;
        let (client, sandbox) = app.host.environment(id).await?;
        Ok(Self { client, sandbox, path })
    }
}

/// A path in the sandbox. What leads out of it is the daemon's to refuse.
fn absolute(base: &str, path: &str) -> Result<String> {
    let whole = match path {
        "" => base.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{path}", base.trim_end_matches('/')),
    };
    if whole.contains('\0') || whole.len() > LONGEST {
        return Err(Problem::invalid("path", format!("a path has at most {LONGEST} bytes and no NUL")));
    }
    Ok(whole)
}

/// A file of a sandbox.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = File)]
pub(super) struct FileBody {
    /// The last part of its path.
    name: String,
    /// Its absolute path inside the sandbox.
    path: String,
    /// `file`, `directory`, `symlink` or `other`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// In bytes.
    size: u64,
    /// Permission bits in octal, as in `0644`.
    permissions: String,
    /// Owner, as numbered inside.
    uid: u32,
    /// Group, as numbered inside.
    gid: u32,
    /// When its content last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    modified_at: Option<String>,
    /// Where it points, for links.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl From<FileInfo> for FileBody {
    fn from(file: FileInfo) -> Self {
        Self {
            name: file.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned(),
            kind: match file.kind {
                FileKind::File => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
                FileKind::Other => "other",
            },
            path: file.path,
            size: file.size_bytes,
            permissions: format!("{:04o}", file.permissions),
            uid: file.uid,
            gid: file.gid,
            modified_at: file.modify_time.map(|time| time.to_string()),
            target: file.symlink_target,
        }
    }
}

/// The most files of one list: an agent may make more than a server has memory for.
const MAX_FILES: usize = 10_000;

/// A directory.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Directory {
    /// Its path inside the sandbox.
    path: String,
    /// What is in it, by name: the first 10,000.
    files: Vec<FileBody>,
    /// Whether there is more.
    truncated: bool,
}

/// Pieces as a body. It breaks when the server stops, so that nobody takes it for whole.
fn body(app: &App, pieces: impl Stream<Item = client::Result<Bytes>> + Send + 'static) -> Body {
    let state = (Box::pin(pieces), app.stop.clone());
    Body::from_stream(try_unfold(state, |(mut pieces, stop)| async move {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(io::Error::other(Error::Stopping)),
            next = pieces.try_next() => next.map_err(io::Error::other)?,
        };
        Ok(next.map(|piece| (piece, (pieces, stop))))
    }))
}

/// List a directory of the sandbox
#[utoipa::path(get, path = "/api/sessions/{id}/files", tag = "files", params(Which), responses(
    (status = 200, description = "The directory", body = Directory)
))]
pub(super) async fn list(
    State(app): State<App>,
    Id(id): Id,
    Query(which): Query<Which>,
) -> Result<Json<Directory>> {
    let place = Place::find(&app, &id, which.path.as_deref()).await?;
    let mut files = place.client.list_first_files(&place.sandbox, &place.path, MAX_FILES + 1).await?;
    let truncated = files.len() > MAX_FILES;
    files.truncate(MAX_FILES);
    let files = files.into_iter().map(FileBody::from).collect();
    Ok(Json(Directory { path: place.path, files, truncated }))
}

/// Download the working directory as an archive, tar in zstd
#[utoipa::path(get, path = "/api/sessions/{id}/workspace", tag = "files", responses(
    (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/zstd")
))]
pub(super) async fn workspace(State(app): State<App>, Id(id): Id) -> Result<impl IntoResponse> {
    let place = Place::find(&app, &id, None).await?;
    let archive = place.client.export_files(&place.sandbox, &place.path, Compression::Zstd).await?;
    let pieces = try_unfold(archive, |mut archive| async move {
        Ok::<_, client::Error>(archive.next().await?.map(|piece| (piece, archive)))
    });
    let headers = [
        (CONTENT_TYPE, "application/zstd".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"workspace-{id}.tar.zst\"")),
    ];
    Ok((headers, body(&app, pieces)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_where_the_agent_works() {
        for (path, whole) in [
            ("", "/workspace"),
            ("a/b", "/workspace/a/b"),
            ("/etc/passwd", "/etc/passwd"),
            ("../x", "/workspace/../x"),
        ] {
            assert_eq!(absolute("/workspace", path).unwrap(), whole);
        }
        assert_eq!(absolute("/", "a").unwrap(), "/a");
        assert!(absolute("/", "a\0").is_err() && absolute("/", &"a".repeat(5000)).is_err());
    }
}
