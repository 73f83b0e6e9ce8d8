//! What is sent piece by piece: events as they come, and all that is kept of a session.

use super::convert;
use super::status::{status, stopping};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use hostel_proto::v1;
use hostel_session::{ClientListener, Delivery, Disconnect, SessionHost, SessionId};
use std::pin::Pin;
use std::sync::Arc;
use tonic::Status;

/// What a streaming call sends.
pub(super) type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Events that are asked of the journal at a time for an export.
const PAGE: usize = 1000;
/// Bytes of a transcript in one message.
const PIECE: usize = 1 << 20;

/// What a client is told. Reading is what fetches the next, so that a slow reader costs nothing.
pub(super) fn watch(client: ClientListener) -> Frames<v1::WatchEventsResponse> {
    let frames = stream::unfold(Some(client), |client| async {
        let mut client = client?;
        match client.next().await {
            Ok(delivery) => Some((Ok(frame(&delivery)), Some(client))),
            Err(Disconnect::Deleted) => None,
            Err(Disconnect::Stopping) => Some((Err(stopping()), None)),
            Err(Disconnect::Failed(error)) => Some((Err(status(error)), None)),
        }
    });
    Box::pin(frames)
}

fn frame(delivery: &Delivery) -> v1::WatchEventsResponse {
    use v1::watch_events_response::Delivery as Wire;
    let delivery = match delivery {
        Delivery::Event(event) => Wire::Event(convert::event(event)),
        Delivery::Compacted { from, to } => {
            Wire::Compacted(v1::CompactedEvents { from_seq: *from, to_seq: *to })
        }
    };
    v1::WatchEventsResponse { delivery: Some(delivery) }
}

/// The record, the events up to a number, and the transcripts.
pub(super) fn export(
    host: Arc<dyn SessionHost>,
    id: SessionId,
    record: v1::Session,
    last: u64,
) -> Frames<v1::ExportSessionResponse> {
    use v1::export_session_response::Part;
    let frame = |part| v1::ExportSessionResponse { part: Some(part) };
    let first = stream::once(async move { Ok(frame(Part::Session(record))) });
    let events = events(Arc::clone(&host), id.clone(), last).map_ok(move |event| frame(Part::Event(event)));
    let pieces = transcripts(host, id).map_ok(move |piece| frame(Part::Transcript(piece)));
    Box::pin(first.chain(events).chain(pieces))
}

fn events(
    host: Arc<dyn SessionHost>,
    id: SessionId,
    last: u64,
) -> impl Stream<Item = Result<v1::SessionEvent, Status>> + Send {
    let pages = stream::try_unfold(0, move |after| {
        let (host, id) = (Arc::clone(&host), id.clone());
        async move {
            if after >= last {
                return Ok(None);
            }
            let mut page = host.events(&id, after, PAGE).await.map_err(status)?;
            page.retain(|event| event.seq <= last);
            let Some(newest) = page.last().map(|event| event.seq) else { return Ok::<_, Status>(None) };
            let events: Vec<_> = page.iter().map(|event| Ok(convert::event(event))).collect();
            Ok(Some((stream::iter(events), newest)))
        }
    });
    pages.try_flatten()
}

fn transcripts(
    host: Arc<dyn SessionHost>,
    id: SessionId,
) -> impl Stream<Item = Result<v1::TranscriptPiece, Status>> + Send {
    let files = stream::once(async move { host.transcripts(&id).await.map_err(status) });
    files
        .map_ok(|files| {
            stream::iter(files.into_iter().flat_map(|(path, content)| pieces(&path, content)).map(Ok))
        })
        .try_flatten()
}

/// A file in pieces; one that is empty is one empty piece.
fn pieces(path: &str, content: String) -> Vec<v1::TranscriptPiece> {
    let all = bytes::Bytes::from(content);
    let starts = (0..all.len().max(1)).step_by(PIECE);
    let piece = |start: usize| all.slice(start..(start + PIECE).min(all.len()));
    starts.map(|start| v1::TranscriptPiece { path: path.to_owned(), data: piece(start) }).collect()
}
