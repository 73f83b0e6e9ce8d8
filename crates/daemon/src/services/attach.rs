//! Both directions of an attachment to a process.
//!
//! Output goes from the backend's channel straight into the response, piece by piece as the client takes it. Input
//! is pumped by a task of its own. Dropping the response, as when the client goes away, detaches.

use crate::convert::attachment;
use crate::error::Error;
use crate::sandboxes::{Lease, Sandboxes};
use futures::Stream;
use hostel_proto::v1;
use hostel_sandbox::process::{Attachment, Input, Output};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

/// A request that carries input after its first message.
pub(super) trait InputMessage: Send + 'static {
    /// The input; `None` where it carries something else.
    fn input(self) -> Option<v1::ProcessInput>;
}

impl InputMessage for v1::AttachProcessRequest {
    fn input(self) -> Option<v1::ProcessInput> {
        match self.frame {
            Some(v1::attach_process_request::Frame::Input(input)) => Some(input),
            _ => None,
        }
    }
}

impl InputMessage for v1::ExecProcessRequest {
    fn input(self) -> Option<v1::ProcessInput> {
        match self.frame {
            Some(v1::exec_process_request::Frame::Input(input)) => Some(input),
            _ => None,
        }
    }
}

/// A response that carries an event.
pub(super) trait EventMessage: Send + 'static {
    fn of(event: v1::ProcessEvent) -> Self;
}

macro_rules! event_message {
    ($($message:ident)+) => {
        $(impl EventMessage for v1::$message {
            fn of(event: v1::ProcessEvent) -> Self {
                Self { event: Some(event) }
            }
        })+
    };
}

event_message!(AttachProcessResponse ExecProcessResponse StreamOutputResponse);

/// What an attached client receives.
pub(super) struct Events<M> {
    output: mpsc::Receiver<hostel_sandbox::Result<Output>>,
    /// Dropping it would detach, so it stays as long as the response, also when the client sends nothing more.
    _input: mpsc::Sender<Input>,
    pump: Option<AbortOnDropHandle<()>>,
    wrong: Option<oneshot::Receiver<Status>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    lease: Lease,
    message: PhantomData<fn() -> M>,
}

impl<M: EventMessage> Events<M> {
    /// Events of an attachment to which nothing is sent.
    pub(super) fn new(sandboxes: &Sandboxes, lease: Lease, attachment: Attachment) -> Self {
        Self {
            output: attachment.output,
            _input: attachment.input,
            pump: None,
            wrong: None,
            stop: Box::pin(sandboxes.stopping().clone().cancelled_owned()),
            ended: false,
            lease,
            message: PhantomData,
        }
    }

    /// The same, with input from the client.
    pub(super) fn with_input<In: InputMessage>(
        sandboxes: &Sandboxes,
        lease: Lease,
        attachment: Attachment,
        requests: Streaming<In>,
    ) -> Self {
        let (report, wrong) = oneshot::channel();
        let pump = sandboxes.tasks().spawn(pump(requests, attachment.input.clone(), report));
        let mut events = Self::new(sandboxes, lease, attachment);
        events.pump = Some(AbortOnDropHandle::new(pump));
        events.wrong = Some(wrong);
        events
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<M, Status>>> {
        self.ended = true;
        self.pump = None;
        Poll::Ready(Some(Err(status)))
    }
}

impl<M: EventMessage> Stream for Events<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(wrong) = &mut this.wrong
            && let Poll::Ready(reported) = Pin::new(wrong).poll(cx)
        {
            this.wrong = None;
            if let Ok(status) = reported {
                return this.end(status);
            }
        }
        match this.output.poll_recv(cx) {
            Poll::Ready(Some(Ok(output))) => {
                this.ended = matches!(output, Output::Exited(_));
                Poll::Ready(Some(Ok(M::of(attachment::api_event(this.lease.id(), output)))))
            }
            Poll::Ready(Some(Err(error))) => this.end(Error::from(error).into()),
            Poll::Ready(None) => {
                let detail = "the attachment ended without the end of the process".to_owned();
                this.end(Error::from(hostel_sandbox::Error::Unavailable { what: "guest", detail }).into())
            }
            Poll::Pending if this.stop.as_mut().poll(cx).is_ready() => this.end(Error::Draining.into()),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Passes input on until the client sends no more; reports what is wrong with it.
async fn pump<In: InputMessage>(
    mut requests: Streaming<In>,
    input: mpsc::Sender<Input>,
    report: oneshot::Sender<Status>,
) {
    loop {
        let wrong = match requests.message().await {
            // The client sends no more.
            Ok(None) => return,
            // It is gone, and so is the response; or it sent what is no message.
            Err(status) => match crate::unreadable::fault(&status) {
                Some(error) => crate::status::domain_status(&error),
                None => return,
            },
            Ok(Some(message)) => match message.input().map(attachment::input) {
                Some(Ok(one)) => {
                    if input.send(one).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Err(error)) => error.into(),
                None => crate::status::invalid("frame", "only input after the first message"),
            },
        };
        // Nobody hears it when the response is gone.
        let _ = report.send(wrong);
        return;
    }
}
