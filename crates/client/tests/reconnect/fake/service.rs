//! The process service of the fake daemon: exec and attach, and nothing else.

use super::{Shared, pattern};
use hostel_proto::v1::process_event::Event;
use hostel_proto::v1::process_input::Input;
use hostel_proto::v1::process_service_server::{ProcessService, ProcessServiceServer};
use hostel_proto::v1::{self, attach_process_request, exec_process_request};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Inputs = Pin<Box<dyn Stream<Item = Option<Input>> + Send>>;

pub(super) struct Service {
    shared: Arc<Shared>,
    attachments: Mutex<JoinSet<()>>,
}

impl Service {
    pub(super) fn server(shared: Arc<Shared>) -> ProcessServiceServer<Self> {
        ProcessServiceServer::new(Self { shared, attachments: Mutex::default() })
    }

    fn attach(&self, options: &v1::AttachOptions, inputs: Inputs) -> ReceiverStream<Result<Event, Status>> {
        assert!(options.explicit_acks);
        let (sender, receiver) = mpsc::channel(2);
        let attachment = Attachment {
            shared: Arc::clone(&self.shared),
            stdout: usize::try_from(options.stdout_offset).unwrap(),
            stderr: usize::try_from(options.stderr_offset).unwrap(),
        };
        self.attachments.lock().unwrap().spawn(attachment.run(inputs, sender));
        ReceiverStream::new(receiver)
    }
}

struct Attachment {
    shared: Arc<Shared>,
    stdout: usize,
    stderr: usize,
}

impl Attachment {
    async fn run(mut self, mut inputs: Inputs, events: mpsc::Sender<Result<Event, Status>>) {
        let opened = Event::Opened(v1::ProcessOpened { process: Some(self.process()) });
        let _ = events.send(Ok(opened)).await;
        let mut open = true;
        loop {
            let next = self.output();
            let over = next.is_none()
                && (self.shared.behaviour.closes_stdin || self.shared.seen(|s| s.stdin_closed));
            tokio::select! {
                permit = events.reserve(), if next.is_some() || over => {
                    let (Ok(permit), event) = (permit, next) else { return };
                    let Some((output, bytes)) = event else {
                        permit.send(Ok(exited()));
                        return;
                    };
                    let at = if output.stream == 1 { &mut self.stdout } else { &mut self.stderr };
                    *at += bytes;
                    permit.send(Ok(Event::Output(output)));
                    self.shared.seen(|seen| seen.sent += bytes);
                    self.shared.went_through(bytes);
                }
                input = inputs.next(), if open => match input {
                    Some(Some(input)) => if let Some(event) = self.take(input) {
                        let _ = events.send(Ok(event)).await;
                    },
                    _ => open = false,
                }
            }
        }
    }

    /// The next piece of output, of odd lengths, and its length.
    fn output(&self) -> Option<(v1::OutputData, usize)> {
        let behaviour = self.shared.behaviour;
        let (stream, at, end) = if self.stderr < behaviour.stderr && self.stderr <= self.stdout {
            (2, self.stderr, behaviour.stderr)
        } else {
            (1, self.stdout, behaviour.stdout)
        };
        let length = (end - at).min(30_011);
        if length == 0 {
            return None;
        }
        let output = v1::OutputData {
            stream: i32::try_from(stream).unwrap(),
            offset: u64::try_from(at).unwrap(),
            data: pattern(stream, at, length).into(),
        };
        Some((output, length))
    }

    fn take(&self, input: Input) -> Option<Event> {
        match input {
            Input::Stdin(stdin) => {
                let offset = usize::try_from(stdin.offset).unwrap();
                let accepted = self.shared.seen(|seen| {
                    assert!(offset <= seen.stdin.len(), "a hole in stdin");
                    let known = (seen.stdin.len() - offset).min(stdin.data.len());
                    seen.stdin.extend_from_slice(&stdin.data[known..]);
                    seen.stdin.len()
                });
                self.shared.went_through(stdin.data.len());
                Some(Event::StdinAccepted(v1::StdinAccepted { offset: u64::try_from(accepted).unwrap() }))
            }
            Input::CloseStdin(_) => {
                self.shared.seen(|seen| seen.stdin_closed = true);
                None
            }
            Input::Ack(ack) => {
                if ack.stream == i32::from(v1::OutputStream::Stdout) {
                    self.shared.seen(|seen| seen.acknowledged = seen.acknowledged.max(ack.offset));
                }
                None
            }
            Input::Resize(_) | Input::Signal(_) => None,
        }
    }

    fn process(&self) -> v1::Process {
        let stdin_offset = if self.shared.behaviour.forgets_stdin {
            0
        } else {
            self.shared.seen(|seen| u64::try_from(seen.stdin.len()).unwrap())
        };
        v1::Process {
            id: "p-one".to_owned(),
            sandbox_id: "sb-test".to_owned(),
            command: vec!["talk".to_owned()],
            stdin_offset,
            ..Default::default()
        }
    }
}

fn exited() -> Event {
    let mut status =
        v1::ExitStatus { outcome: Some(v1::exit_status::Outcome::ExitCode(7)), ..Default::default() };
    status.set_reason(v1::ExitReason::Exited);
    Event::Exited(status)
}

#[tonic::async_trait]
impl ProcessService for Service {
    type ExecProcessStream = Events<v1::ExecProcessResponse>;
    type AttachProcessStream = Events<v1::AttachProcessResponse>;
    type StreamOutputStream = Events<v1::StreamOutputResponse>;

    async fn exec_process(
        &self,
        request: Request<Streaming<v1::ExecProcessRequest>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        use exec_process_request::Frame;
        let mut frames = request.into_inner();
        let Some(Frame::Open(open)) = frames.message().await?.and_then(|message| message.frame) else {
            return Err(Status::invalid_argument("no open"));
        };
        if let Some(what) = self.shared.behaviour.away {
            let refused = self.shared.seen(|seen| {
                seen.refused += 1;
                seen.refused
            });
            if what != "daemon" || refused < 3 {
                let metadata = HashMap::from([("what".to_owned(), what.to_owned())]);
                let details = ErrorDetails::with_error_info("UNAVAILABLE", "hostel", metadata);
                return Err(Status::with_error_details(Code::Unavailable, "it is away", details));
            }
        }
        let request_id = open.start.unwrap().request_id;
        let first = self.shared.seen(|seen| {
            let first = seen.request_id != request_id;
            seen.processes += usize::from(first);
            seen.request_id = request_id;
            first
        });
        if first && self.shared.behaviour.dies_before_opening {
            self.shared.die.notify_one();
            std::future::pending::<()>().await;
        }
        let inputs = Box::pin(frames.map(|message| match message.ok()?.frame? {
            Frame::Input(input) => input.input,
            Frame::Open(_) => None,
        }));
        let events = self.attach(&open.options.unwrap(), inputs);
        let events = events.map(|event| {
            Ok(v1::ExecProcessResponse { event: Some(v1::ProcessEvent { event: Some(event?) }) })
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn attach_process(
        &self,
        request: Request<Streaming<v1::AttachProcessRequest>>,
    ) -> Result<Response<Self::AttachProcessStream>, Status> {
        use attach_process_request::Frame;
        let mut frames = request.into_inner();
        let Some(Frame::Open(open)) = frames.message().await?.and_then(|message| message.frame) else {
            return Err(Status::invalid_argument("no open"));
        };
        if open.process_id != "p-one" {
            let metadata = HashMap::from([("kind".to_owned(), "process".to_owned())]);
            let details = ErrorDetails::with_error_info("NOT_FOUND", "hostel", metadata);
            return Err(Status::with_error_details(Code::NotFound, "no process \"p-none\"", details));
        }
        let inputs = Box::pin(frames.map(|message| match message.ok()?.frame? {
            Frame::Input(input) => input.input,
            Frame::Open(_) => None,
        }));
        let events = self.attach(&open.options.unwrap(), inputs);
        let events = events.map(|event| {
            Ok(v1::AttachProcessResponse { event: Some(v1::ProcessEvent { event: Some(event?) }) })
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn start_process(
        &self,
        _: Request<v1::StartProcessRequest>,
    ) -> Result<Response<v1::StartProcessResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn stream_output(
        &self,
        _: Request<v1::StreamOutputRequest>,
    ) -> Result<Response<Self::StreamOutputStream>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn write_stdin(
        &self,
        _: Request<v1::WriteStdinRequest>,
    ) -> Result<Response<v1::WriteStdinResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn close_stdin(
        &self,
        _: Request<v1::CloseStdinRequest>,
    ) -> Result<Response<v1::CloseStdinResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn get_process(
        &self,
        _: Request<v1::GetProcessRequest>,
    ) -> Result<Response<v1::GetProcessResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn list_processes(
        &self,
        _: Request<v1::ListProcessesRequest>,
    ) -> Result<Response<v1::ListProcessesResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn signal_process(
        &self,
        _: Request<v1::SignalProcessRequest>,
    ) -> Result<Response<v1::SignalProcessResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn kill_all_processes(
        &self,
        _: Request<v1::KillAllProcessesRequest>,
    ) -> Result<Response<v1::KillAllProcessesResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn resize_terminal(
        &self,
        _: Request<v1::ResizeTerminalRequest>,
    ) -> Result<Response<v1::ResizeTerminalResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn wait_process(
        &self,
        _: Request<v1::WaitProcessRequest>,
    ) -> Result<Response<v1::WaitProcessResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
}
