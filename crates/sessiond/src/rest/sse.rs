//! Event streams (WHATWG HTML §9.2, server-sent events).

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;

/// How long a stream is silent before it says that it is there, so that nobody on the way takes it for dead.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Says nothing.
pub(super) const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// One frame of an event stream.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "tells OpenAPI how a frame looks")]
pub(super) struct Frame {
    /// JSON.
    data: String,
    /// The type of the event; of a message's stream it is in the data.
    event: Option<String>,
    /// The number of the event, to go on after with `Last-Event-ID`.
    id: Option<String>,
}

/// An answer of frames.
pub(super) fn response(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    use futures::StreamExt as _;
    fallible(frames.map(Ok::<_, Infallible>))
}

/// An event stream that may break; then it ends without its end.
pub(super) fn fallible<E: Into<axum::BoxError> + 'static>(
    frames: impl Stream<Item = std::result::Result<Bytes, E>> + Send + 'static,
) -> Response {
    let body = Body::from_stream(frames);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Proxies of nginx's kind hold an answer back until it is whole, unless told.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// A frame with nothing but data.
pub(super) fn data(value: &impl Serialize) -> Bytes {
    let mut frame = b"data: ".to_vec();
    // What we answer with can be written.
    let _ = serde_json::to_writer(&mut frame, value);
    one_line(&mut frame);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

/// JSON that somebody else wrote may be broken into lines between its parts; a frame may not.
fn one_line(json: &mut [u8]) {
    json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[test]
    fn a_frame_has_one_line_of_data() {
        let broken = RawValue::from_string("{\n\"a\":\r\n\"b\\n\"}".to_owned()).unwrap();
        assert_eq!(&data(&broken)[..], b"data: { \"a\":  \"b\\n\"}\n\n");
    }
}
