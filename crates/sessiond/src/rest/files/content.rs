//! Contents of files.

use super::range::{Part, part};
use super::{FileBody, Place, Which, body};
use crate::rest::app::App;
use crate::rest::input::{Id, Query, too_large};
use crate::rest::problem::{Problem, Result};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LAST_MODIFIED,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream::try_unfold;
use hostel_session::Error;
use hostel_session::client::domain::file::FileKind;
use hostel_session::client::model::{FileInfo, WriteFile};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

/// Largest file that is written, in bytes.
const LARGEST: u64 = 4 << 30;
/// How long a client may take for its next bytes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Read a file of the sandbox
///
/// With `Range` a part of it.
#[utoipa::path(get, path = "/api/sessions/{id}/files/content", tag = "files", params(Which), responses(
    (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 206, description = "The part", body = Vec<u8>, content_type = "application/octet-stream"),
))]
pub(in crate::rest) async fn read(
    State(app): State<App>,
    Id(id): Id,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response> {
    let place = Place::find(&app, &id, Some(required(which.path.as_deref())?)).await?;
    let info = place.client.stat_file(&place.sandbox, &place.path, true).await?;
    if info.kind != FileKind::File {
        return Err(Problem::invalid("path", format!("{} is no file", place.path)));
    }
    let size = info.size_bytes;
    let (status, first, length) = match part(&headers, size) {
        Part::Whole => (StatusCode::OK, 0, None),
        Part::Bytes { first, last } => (StatusCode::PARTIAL_CONTENT, first, Some(last - first + 1)),
        Part::Nothing => {
            let detail = format!("the file has {size} bytes");
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            return Err(Problem::new(status, "range", "Range not satisfiable", detail).with("size", size));
        }
    };
    let reader = place.client.read_file(&place.sandbox, &place.path, first, length).await?;
    let pieces = try_unfold(reader, |mut reader| async move {
        Ok::<_, hostel_session::client::Error>(reader.next().await?.map(|piece| (piece, reader)))
    });
    let mut response = Response::new(body(&app, pieces));
    *response.status_mut() = status;
    describe(response.headers_mut(), &info, first, length);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, info: &FileInfo, first: u64, length: Option<u64>) {
    // What an agent wrote must not run as a page of this server.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A file that grows or shrinks while it is read breaks the length off; only a part is promised one.
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length.into());
        let range = format!("bytes {first}-{}/{}", first + length - 1, info.size_bytes);
        if let Ok(range) = HeaderValue::from_str(&range) {
            headers.insert(CONTENT_RANGE, range);
        }
    }
    let time = info.modify_time.map(|time| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    if let Some(time) = time.and_then(|time| HeaderValue::from_str(&time).ok()) {
        headers.insert(LAST_MODIFIED, time);
    }
}

/// Write a file of the sandbox
///
/// In place of what is there, at once and whole; directories on the way are made.
#[utoipa::path(
    put, path = "/api/sessions/{id}/files/content", tag = "files", params(Which),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The file", body = FileBody))
)]
pub(in crate::rest) async fn write(
    State(app): State<App>,
    Id(id): Id,
    Query(which): Query<Which>,
    content: Body,
) -> Result<Json<FileBody>> {
    let place = Place::find(&app, &id, Some(required(which.path.as_deref())?)).await?;
    let taken = Arc::new(AtomicU64::new(0));
    let content = limited(content, Arc::clone(&taken), app.stop.clone());
    let write = WriteFile { path: place.path, permissions: None, create_parents: true };
    let written = place.client.write_file(&place.sandbox, write, content).await;
    if taken.load(Ordering::Relaxed) > LARGEST {
        return Err(too_large(usize::try_from(LARGEST).unwrap_or(usize::MAX)));
    }
    Ok(Json(written?.into()))
}

/// A body with a bound on its size and on the time between its pieces, and until the server stops. What breaks it
/// breaks the write, so that nothing is kept.
fn limited(
    body: Body,
    taken: Arc<AtomicU64>,
    stop: CancellationToken,
) -> impl tokio::io::AsyncRead + Send + Unpin {
    let pieces = try_unfold(body.into_data_stream(), move |mut stream| {
        let (taken, stop) = (Arc::clone(&taken), stop.clone());
        async move {
            let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the body took too long");
            let next = tokio::select! {
                () = stop.cancelled() => return Err(io::Error::other(Error::Stopping)),
                next = tokio::time::timeout(PATIENCE, stream.next()) => next.map_err(slow)?,
            };
            let Some(piece) = next else { return Ok(None) };
            let piece: Bytes = piece.map_err(io::Error::other)?;
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if taken.fetch_add(length, Ordering::Relaxed).saturating_add(length) > LARGEST {
                return Err(io::Error::other("the body is too large"));
            }
            Ok(Some((piece, stream)))
        }
    });
    StreamReader::new(Box::pin(pieces))
}

fn required(path: Option<&str>) -> Result<&str> {
    path.filter(|path| !path.is_empty()).ok_or_else(|| Problem::invalid("path", "is missing: ?path=FILE"))
}
