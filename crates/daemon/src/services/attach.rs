//! Both directions of an attachment to a process.
//!
//! Output goes from the backend's channel straight into the response, piece by piece as the client takes it. Input
//! is pumped by a task of its own. Dropping the response, as when the client goes away, detaches.

use crate::convert::attachment;
use crate::error::Error;
use crate::sandboxes::{Lease, Sandboxes};
use futures::Stream;
use hostel_proto::v1;
use hostel_sandbox::Error as DomainError;
use hostel_sandbox::process::{Attachment, Input, Output, ProcessInfo};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Timeout;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};

/// How long after its output the end of a sandbox may be noticed.
const SETTLE: Duration = Duration::from_secs(2);

/// How long after the last event a client may take to end its half of the call.
const CLIENT_ENDS: Duration = Duration::from_secs(1);

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
    wrong: Option<oneshot::Receiver<Status>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    /// Offsets of stdout and stderr that were asked for.
    asked: [Option<u64>; 2],
    /// Why the output broke off, until it is known whether that was the end of the sandbox.
    broken: Option<(DomainError, Pin<Box<Timeout<WaitForCancellationFutureOwned>>>)>,
    lease: Lease,
    message: PhantomData<fn() -> M>,
}

impl<M: EventMessage> Events<M> {
    /// Events of an attachment to which nothing is sent.
    pub(super) fn new(sandboxes: &Sandboxes, lease: Lease, attachment: Attachment) -> Self {
        Self {
            output: attachment.output,
            _input: attachment.input,
            wrong: None,
            stop: Box::pin(sandboxes.stopping().clone().cancelled_owned()),
            ended: false,
            asked: [None; 2],
            broken: None,
            lease,
            message: PhantomData,
        }
    }

    /// Refuses offsets beyond the end, which is known when the attachment stands.
    pub(super) fn asked(mut self, asked: [Option<u64>; 2]) -> Self {
        self.asked = asked;
        self
    }

    /// The same, with input from the client.
    pub(super) fn with_input<In: InputMessage>(
        sandboxes: &Sandboxes,
        lease: Lease,
        attachment: Attachment,
        requests: Streaming<In>,
    ) -> Self {
        let (report, wrong) = oneshot::channel();
        // It ends with the attachment. To abort it then would keep the last event waiting behind it.
        sandboxes.tasks().spawn(pump(requests, attachment.input.clone(), report));
        let mut events = Self::new(sandboxes, lease, attachment);
        events.wrong = Some(wrong);
        events
    }

    /// The output broke off: with the sandbox, which is how a process ends, or for another reason, which is an
    /// error.
    fn broke(&mut self, error: DomainError, cx: &mut Context<'_>) -> Poll<Option<Result<M, Status>>> {
        let ending = tokio::time::timeout(SETTLE, self.lease.ending());
        self.settle(error, Box::pin(ending), cx)
    }

    fn settle(
        &mut self,
        error: DomainError,
        mut ending: Pin<Box<Timeout<WaitForCancellationFutureOwned>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<M, Status>>> {
        if !matches!(error, DomainError::Unavailable { .. }) || self.stop.as_mut().poll(cx).is_ready() {
            return self.end(Error::from(error).into());
        }
        match ending.as_mut().poll(cx) {
            Poll::Pending => {
                self.broken = Some((error, ending));
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                self.ended = true;
                Poll::Ready(Some(Ok(M::of(attachment::sandbox_gone()))))
            }
            Poll::Ready(Err(_)) => self.end(Error::from(error).into()),
        }
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<M, Status>>> {
        self.ended = true;
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
        if let Some((error, ending)) = this.broken.take() {
            return this.settle(error, ending, cx);
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
            Poll::Ready(Some(Ok(Output::Opened(info)))) if beyond(&this.asked, &info).is_some() => {
                let field = beyond(&this.asked, &info).unwrap_or_default();
                this.end(crate::status::invalid(field, "is beyond the end of the output"))
            }
            Poll::Ready(Some(Ok(output))) => {
                this.ended = matches!(output, Output::Exited(_));
                Poll::Ready(Some(Ok(M::of(attachment::api_event(this.lease.id(), output)))))
            }
            Poll::Ready(Some(Err(error))) => this.broke(error, cx),
            Poll::Ready(None) => {
                let detail = "the attachment ended without the end of the process".to_owned();
                this.broke(DomainError::Unavailable { what: "guest", detail }, cx)
            }
            Poll::Pending if this.stop.as_mut().poll(cx).is_ready() => this.end(Error::Draining.into()),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The offset that was asked for and is beyond the end of what was written.
fn beyond(asked: &[Option<u64>; 2], info: &ProcessInfo) -> Option<&'static str> {
    let ends = [("stdout_offset", asked[0], info.stdout.end), ("stderr_offset", asked[1], info.stderr.end)];
    ends.into_iter().find(|(_, asked, end)| asked.is_some_and(|asked| asked > *end)).map(|(field, ..)| field)
}

/// Lets the client end its half of the call, which it does when it has the last event. To drop its half before would
/// send it a reset, and both of us would be busy with that while its next call waits.
async fn requests_end<In: InputMessage>(mut requests: Streaming<In>) {
    let end = async { while let Ok(Some(_)) = requests.message().await {} };
    let _ = tokio::time::timeout(CLIENT_ENDS, end).await;
}

/// Passes input on until the client sends no more or nobody takes it; reports what is wrong with it.
async fn pump<In: InputMessage>(
    mut requests: Streaming<In>,
    input: mpsc::Sender<Input>,
    report: oneshot::Sender<Status>,
) {
    loop {
        let message = tokio::select! {
            biased;
            () = input.closed() => return requests_end(requests).await,
            message = requests.message() => message,
        };
        let wrong = match message {
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
