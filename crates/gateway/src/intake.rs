//! Bodies of requests: read whole, for they may have to be sent to another upstream. Room for all of one is taken
//! before, of the sandbox's and of the node's.

use crate::body::Reply;
use crate::config::Limits;
use crate::reply;
use crate::request::Seat;
use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The unit in which bodies are held.
const HELD_UNIT: usize = 1024;

/// Room for bodies of so many bytes.
pub(crate) fn room(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes.div_ceil(HELD_UNIT)))
}

/// A body, and the room that is taken for it.
pub(crate) struct Held {
    pub bytes: Bytes,
    _room: [OwnedSemaphorePermit; 2],
}

/// Reads the body; otherwise what its sender is told, and under which name that is counted.
pub(crate) async fn read(
    seat: &Seat,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Held, (Response<Reply>, &'static str)> {
    let limits = seat.core.limits;
    let limit = limits.body_bytes;
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let most = match declared {
        Some(length) if length > limit => return Err(reply::too_large(limit)),
        Some(length) => length,
        // Of a chunked body, all that it may become.
        None if body.is_end_stream() => 0,
        None => limit,
    };
    let Ok(Some(mut room)) = timeout(limits.room_timeout, take(seat, most)).await else {
        return Err(reply::no_room());
    };
    match timeout(limits.body_timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => {
            let bytes = body.to_bytes();
            let needed = bytes.len().div_ceil(HELD_UNIT);
            for permit in &mut room {
                drop(permit.split(permit.num_permits().saturating_sub(needed)));
            }
            Ok(Held { bytes, _room: room })
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(reply::too_large(limit)),
        Ok(Err(_)) => Err(reply::broken_off()),
        Err(_) => Err(reply::too_slow()),
    }
}

/// First of the sandbox's room: who waits there takes nothing from others.
async fn take(seat: &Seat, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
    let units = u32::try_from(bytes.div_ceil(HELD_UNIT)).unwrap_or(u32::MAX);
    let own = Arc::clone(&seat.room).acquire_many_owned(units).await.ok()?;
    let node = Arc::clone(&seat.core.room).acquire_many_owned(units).await.ok()?;
    Some([own, node])
}

/// Reads what is left of the body of a refused request: to close a connection with bytes that nobody read resets it,
/// and its client would not see the answer.
pub(crate) async fn drain(limits: &Limits, headers: &HeaderMap, body: &mut Incoming) {
    // One that waits to be told to go on has sent nothing.
    if headers.contains_key(EXPECT) {
        return;
    }
    let most = limits.body_bytes.saturating_mul(2);
    let draining = async {
        let mut drained = 0_usize;
        while drained <= most
            && let Some(Ok(frame)) = body.frame().await
        {
            drained = drained.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // Too slow: it may see the connection break.
    let _ = timeout(limits.linger, draining).await;
}
