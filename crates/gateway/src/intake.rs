//! Bodies of requests: read whole, for they may have to be sent to another upstream. Room for all of one is taken
//! before, of the sandbox's and of the node's. A part of the node's is for small ones alone, of which a sandbox has only
//! so much: whoever announces much and sends little keeps others from announcing much, and from nothing else.

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
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The unit in which bodies are held.
const HELD_UNIT: usize = 1024;

/// What a small body has at most, in bytes.
const SMALL: usize = 1 << 20;
/// How much of the room for small bodies one sandbox has at most, in bytes; the rest of its own goes with the large.
const SMALL_OF_ONE: usize = 4 << 20;

/// Room for bodies: the node's or a sandbox's.
pub(crate) struct Room {
    /// For small ones alone; a node with little room has none for them.
    small: Option<Arc<Semaphore>>,
    /// Of the node for all others; of a sandbox for all that it has.
    large: Arc<Semaphore>,
}

impl Room {
    /// The node's. A quarter is for small bodies, as long as the largest of all finds room in the rest.
    pub(crate) fn of_node(limits: &Limits) -> Self {
        let all = limits.node_held_bytes;
        let small = (all / 4).min(all.saturating_sub(limits.body_bytes));
        let small = if small < SMALL { 0 } else { small };
        Self { small: (small > 0).then(|| semaphore(small)), large: semaphore(all - small) }
    }

    /// A sandbox's.
    pub(crate) fn of_sandbox(limits: &Limits) -> Self {
        Self { small: Some(semaphore(SMALL_OF_ONE)), large: semaphore(limits.held_bytes) }
    }
}

fn semaphore(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(units(bytes)))
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(HELD_UNIT)
}

/// A body, and the room that is taken for it.
pub(crate) struct Held {
    pub bytes: Bytes,
    _room: Vec<OwnedSemaphorePermit>,
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
    match timeout(time(&limits, most), Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => {
            let bytes = body.to_bytes();
            let needed = units(bytes.len());
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

/// How long a body of at most so many bytes may take.
fn time(limits: &Limits, most: usize) -> Duration {
    let seconds = u64::try_from(most >> 20).unwrap_or(u64::MAX);
    limits.body_timeout.saturating_add(Duration::from_secs(seconds))
}

/// First of the sandbox's room: who waits there takes nothing from others.
async fn take(seat: &Seat, bytes: usize) -> Option<Vec<OwnedSemaphorePermit>> {
    let (own, node) = (&seat.room, &seat.core.room);
    let units = u32::try_from(units(bytes)).unwrap_or(u32::MAX);
    let of_own = Arc::clone(&own.large).acquire_many_owned(units).await.ok()?;
    if bytes <= SMALL
        && let (Some(small_of_own), Some(small_of_node)) = (&own.small, &node.small)
        && let Ok(of_small) = Arc::clone(small_of_own).try_acquire_many_owned(units)
    {
        let of_node = Arc::clone(small_of_node).acquire_many_owned(units).await.ok()?;
        return Some(vec![of_own, of_small, of_node]);
    }
    let of_node = Arc::clone(&node.large).acquire_many_owned(units).await.ok()?;
    Some(vec![of_own, of_node])
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
