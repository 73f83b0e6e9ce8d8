//! What a client sends as a first message that says what it is, and messages with bytes after it.

use crate::convert::optional;
use crate::error::Error;
use crate::status::invalid;
use bytes::Bytes;
use hostel_sandbox::Error as DomainError;
use hostel_sandbox::file::ByteStream;
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::body::Body;
use tonic::{Code, Status, Streaming};

/// Most bytes in one message.
const MOST: usize = 1 << 20;
/// Messages that may wait for the backend before the client waits.
const BUFFER: usize = 8;

/// The parts of a message of an upload.
pub(super) enum Part<Open> {
    Open(Open),
    Data(Bytes),
}

/// A generated message that is a part of an upload.
pub(super) trait UploadMessage: Send + 'static {
    type Open: Send + 'static;
    /// Its part; `None` where it has none.
    fn part(self) -> Option<Part<Self::Open>>;
}

macro_rules! upload_message {
    ($message:ident, $module:ident, $open:ident) => {
        impl UploadMessage for hostel_proto::v1::$message {
            type Open = hostel_proto::v1::$open;

            fn part(self) -> Option<Part<Self::Open>> {
                match self.frame? {
                    hostel_proto::v1::$module::Frame::Open(open) => Some(Part::Open(open)),
                    hostel_proto::v1::$module::Frame::Data(data) => Some(Part::Data(data)),
                }
            }
        }
    };
}

upload_message!(WriteFileRequest, write_file_request, WriteFileOpen);
upload_message!(ImportFilesRequest, import_files_request, ImportFilesOpen);
upload_message!(ImportTemplateRequest, import_template_request, ImportTemplateOpen);

/// The first message, which says what is uploaded.
pub(super) async fn open<M: UploadMessage>(stream: &mut Streaming<M>) -> Result<M::Open, Status> {
    match stream.message().await?.and_then(UploadMessage::part) {
        Some(Part::Open(open)) => Ok(open),
        _ => Err(invalid("open", "the first message must be open")),
    }
}

/// Makes a request that is cancelled end as one that is broken off. Otherwise its messages just end, as those of one that
/// is complete (tonic's decoder takes `CANCELLED` of a request for its end), and half an archive would be a whole one.
pub(crate) fn told_when_broken_off(request: http::Request<Body>) -> http::Request<Body> {
    let told = |status: Status| match status.code() {
        Code::Cancelled => Status::aborted("the caller broke off"),
        _ => status,
    };
    request.map(|body| Body::new(body.map_err(told)))
}

/// The bytes of an upload under way. Dropping it stops reading.
pub(super) struct Upload {
    /// For the backend. An `Err` in it says that the client broke off.
    pub bytes: ByteStream,
    /// How many bytes came so far.
    pub count: Arc<AtomicU64>,
    pub reader: AbortOnDropHandle<()>,
}

/// Reads the messages after the first. What is wrong with them ends the stream with an error, so that nothing
/// half-sent counts as whole; so does a client that sends nothing for `patience`, where it is given.
pub(super) fn bytes<M: UploadMessage>(
    mut stream: Streaming<M>,
    patience: Option<Duration>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Upload {
    let (sender, bytes) = mpsc::channel(BUFFER);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let reader = tasks.spawn(async move {
        loop {
            let message = tokio::select! {
                message = within(patience, stream.message()) => message,
                () = stop.cancelled() => Err(Error::Draining.into()),
            };
            let (item, last) = match message {
                Ok(None) => return,
                Ok(Some(message)) => match message.part() {
                    Some(Part::Data(data)) if data.len() <= MOST => {
                        counted.fetch_add(data.len() as u64, Ordering::Relaxed);
                        (Ok(data), false)
                    }
                    Some(Part::Data(_)) => {
                        (Err(DomainError::invalid("data", format!("at most {MOST} bytes"))), true)
                    }
                    Some(Part::Open(_)) => {
                        (Err(DomainError::invalid("open", "only the first message")), true)
                    }
                    None => (Err(DomainError::invalid("frame", "say what is sent")), true),
                },
                Err(status) => (Err(broken_off(&status)), true),
            };
            if sender.send(item).await.is_err() || last {
                return;
            }
        }
    });
    Upload { bytes, count, reader: AbortOnDropHandle::new(reader) }
}

/// Waits for a message, and only so long.
async fn within<T>(
    patience: Option<Duration>,
    message: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(patience) = patience else { return message.await };
    let late = |_| Status::deadline_exceeded(format!("the client sent nothing for {patience:?}"));
    tokio::time::timeout(patience, message).await.map_err(late)?
}

fn broken_off(status: &Status) -> DomainError {
    if let Some(error) = crate::unreadable::fault(status) {
        return error;
    }
    let detail = optional(status.message().to_owned()).unwrap_or_else(|| "the client went away".to_owned());
    DomainError::Unavailable { what: "upload", detail }
}
