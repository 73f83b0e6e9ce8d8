//! `ProcessService`.

use super::attach::Events;
use super::{Answer, Frames, peer};
use crate::convert::{attachment, duration, process as convert, sandbox_id};
use crate::error::{Error, Result};
use crate::listen::Peer;
use crate::page;
use crate::request_id::{derived_process_id, repeat, start_request};
use crate::sandboxes::{Lease, Sandboxes};
use crate::status::invalid;
use hostel_proto::v1;
use hostel_proto::v1::process_service_server::ProcessService;
use hostel_sandbox::process::{
    AttachOptions, Attachment, Input, Output, ProcessInfo, ProcessSpec, StartRequest,
};
use hostel_sandbox::{Error as DomainError, ProcessId};
use std::time::{Duration, SystemTime};
use tonic::{Request, Response, Streaming};

/// The service over the processes of all sandboxes.
pub(crate) struct Processes(pub Sandboxes);

#[tonic::async_trait]
impl ProcessService for Processes {
    async fn start_process(
        &self,
        request: Request<v1::StartProcessRequest>,
    ) -> Answer<v1::StartProcessResponse> {
        let peer = peer(&request)?;
        let start = self.start(&peer, request.into_inner())?;
        let started = start.lease.inside()?.start(start.spec.clone()).await;
        let info = started.map_err(|error| start.failure(error))?;
        let process = Some(convert::api_process(start.lease.id(), &info));
        Ok(Response::new(v1::StartProcessResponse { process }))
    }

    type AttachProcessStream = Frames<v1::AttachProcessResponse>;

    async fn attach_process(
        &self,
        request: Request<Streaming<v1::AttachProcessRequest>>,
    ) -> Answer<Self::AttachProcessStream> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|message| message.frame);
        let Some(v1::attach_process_request::Frame::Open(open)) = first else {
            return Err(invalid("open", "the first message must be open"));
        };
        let options = attachment::options(open.options, v1::StdinAccess::None)?;
        let (lease, id) = self.enter(open.sandbox_id, open.process_id)?;
        let asked = [options.stdout_from, options.stderr_from];
        let attachment = lease.inside()?.attach(&id, options).await.map_err(Error::from)?;
        let events = Events::with_input(&self.0, lease, attachment, requests);
        Ok(Response::new(Box::pin(events.asked(asked))))
    }

    type ExecProcessStream = Frames<v1::ExecProcessResponse>;

    async fn exec_process(
        &self,
        request: Request<Streaming<v1::ExecProcessRequest>>,
    ) -> Answer<Self::ExecProcessStream> {
        let peer = peer(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|message| message.frame);
        let Some(v1::exec_process_request::Frame::Open(open)) = first else {
            return Err(invalid("open", "the first message must be open"));
        };
        let request = open.start.ok_or_else(|| invalid("start", "say what to run"))?;
        let wants_stdin = request.spec.as_ref().is_some_and(|spec| spec.stdin || spec.terminal.is_some());
        let access = if wants_stdin { v1::StdinAccess::Write } else { v1::StdinAccess::None };
        let options = attachment::options(open.options, access)?;
        let mut start = self.start(&peer, request)?;
        start.spec.kill_on_disconnect = open.kill_on_disconnect;
        let executed = start.lease.inside()?.exec(start.spec.clone(), options).await;
        let attachment = executed.map_err(|error| start.failure(error))?;
        Ok(Response::new(Box::pin(Events::with_input(&self.0, start.lease, attachment, requests))))
    }

    type StreamOutputStream = Frames<v1::StreamOutputResponse>;

    async fn stream_output(
        &self,
        request: Request<v1::StreamOutputRequest>,
    ) -> Answer<Self::StreamOutputStream> {
        let request = request.into_inner();
        let options = v1::AttachOptions {
            stdout_offset: request.stdout_offset,
            stderr_offset: request.stderr_offset,
            only_new_output: request.only_new_output,
            ..v1::AttachOptions::default()
        };
        let options = attachment::options(Some(options), v1::StdinAccess::None)?;
        let (lease, id) = self.enter(request.sandbox_id, request.process_id)?;
        let asked = [options.stdout_from, options.stderr_from];
        let attachment = lease.inside()?.attach(&id, options).await.map_err(Error::from)?;
        Ok(Response::new(Box::pin(Events::new(&self.0, lease, attachment).asked(asked))))
    }

    async fn write_stdin(&self, request: Request<v1::WriteStdinRequest>) -> Answer<v1::WriteStdinResponse> {
        let request = request.into_inner();
        let stdin = request.stdin.ok_or_else(|| invalid("stdin", "give the bytes"))?;
        let end = stdin.offset.saturating_add(stdin.data.len() as u64);
        let input = attachment::stdin_input(stdin)?;
        let (lease, id) = self.enter(request.sandbox_id, request.process_id)?;
        let accepted_offset = write_stdin(&lease, &id, input, end).await?;
        Ok(Response::new(v1::WriteStdinResponse { accepted_offset }))
    }

    async fn close_stdin(&self, request: Request<v1::CloseStdinRequest>) -> Answer<v1::CloseStdinResponse> {
        let request = request.into_inner();
        let (lease, id) = self.enter(request.sandbox_id, request.process_id)?;
        close_stdin(&lease, &id).await?;
        Ok(Response::new(v1::CloseStdinResponse {}))
    }

    async fn get_process(&self, request: Request<v1::GetProcessRequest>) -> Answer<v1::GetProcessResponse> {
        let request = request.into_inner();
        let (lease, id) = self.enter(request.sandbox_id, request.process_id)?;
        let info = lease.inside()?.process(&id).await.map_err(Error::from)?;
        Ok(Response::new(v1::GetProcessResponse { process: Some(convert::api_process(lease.id(), &info)) }))
    }

    async fn list_processes(
        &self,
        request: Request<v1::ListProcessesRequest>,
    ) -> Answer<v1::ListProcessesResponse> {
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let states = convert::states(&request.states)?;
        let filter = ["processes", request.sandbox_id.as_str(), &format!("{states:?}")];
        let after: Option<(SystemTime, ProcessId)> = page::position(&request.page_token, &filter)?;
        let lease = self.0.enter(&sandbox_id(request.sandbox_id.clone())?)?;
        let mut processes = lease.inside()?.processes().await.map_err(Error::from)?;
        processes.sort_by_key(position);
        processes.retain(|info| after.as_ref().is_none_or(|after| position(info) > *after));
        processes.retain(|info| states.is_empty() || states.contains(&convert::state(info)));
        let more = processes.len() > size;
        processes.truncate(size);
        let next = processes.last().filter(|_| more).map(|last| page::token(&position(last), &filter));
        Ok(Response::new(v1::ListProcessesResponse {
            processes: processes.iter().map(|info| convert::api_process(lease.id(), info)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn signal_process(
        &self,
        request: Request<v1::SignalProcessRequest>,
    ) -> Answer<v1::SignalProcessResponse> {
        let request = request.into_inner();
        let signal = convert::signal(request.signal)?;
        let (lease, id) = self.enter(request.sandbox_id, request.process_id)?;
        lease.inside()?.signal(&id, signal).await.map_err(Error::from)?;
        Ok(Response::new(v1::SignalProcessResponse {}))
    }

    async fn kill_all_processes(
        &self,
        request: Request<v1::KillAllProcessesRequest>,
    ) -> Answer<v1::KillAllProcessesResponse> {
        let lease = self.0.enter(&sandbox_id(request.into_inner().sandbox_id)?)?;
        lease.inside()?.kill_all().await.map_err(Error::from)?;
        Ok(Response::new(v1::KillAllProcessesResponse {}))
    }

    async fn resize_terminal(
        &self,
        request: Request<v1::ResizeTerminalRequest>,
    ) -> Answer<v1::ResizeTerminalResponse> {
        let request = request.into_inner();
        let size = convert::terminal_size("size", &request.size.unwrap_or_default())?;
        let (lease, id) = self.enter(request.sandbox_id, request.process_id)?;
        lease.inside()?.resize(&id, size).await.map_err(Error::from)?;
        Ok(Response::new(v1::ResizeTerminalResponse {}))
    }

    async fn wait_process(
        &self,
        request: Request<v1::WaitProcessRequest>,
    ) -> Answer<v1::WaitProcessResponse> {
        let request = request.into_inner();
        let timeout = request.timeout.map(|timeout| duration("timeout", timeout)).transpose()?;
        let (lease, id) = self.enter(request.sandbox_id, request.process_id)?;
        let inside = lease.inside()?;
        let limit = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let info = tokio::select! {
            biased;
            ended = inside.wait(&id) => ended,
            () = limit => inside.process(&id).await,
            () = self.0.stopping().cancelled() => return Err(Error::Draining.into()),
        };
        let info = info.map_err(Error::from)?;
        Ok(Response::new(v1::WaitProcessResponse { process: Some(convert::api_process(lease.id(), &info)) }))
    }
}

/// A process that is about to be started.
struct Start {
    lease: Lease,
    spec: ProcessSpec,
    request_id: String,
}

impl Start {
    fn failure(&self, error: DomainError) -> Error {
        match error {
            DomainError::AlreadyExists { kind: StartRequest::KIND, .. } => {
                Error::RequestIdReused { request_id: self.request_id.clone() }
            }
            error => convert::as_the_api_spells_it(error).into(),
        }
    }
}

impl Processes {
    fn enter(&self, sandbox: String, process: String) -> Result<(Lease, ProcessId)> {
        Ok((self.0.enter(&sandbox_id(sandbox)?)?, convert::process_id(process)?))
    }

    /// Reads a request to start. What makes it repeatable is kept in the sandbox, beside the process.
    fn start(&self, peer: &Peer, mut request: v1::StartProcessRequest) -> Result<Start> {
        let request_id = std::mem::take(&mut request.request_id);
        let repeat = repeat(peer, "StartProcess", request_id.clone(), &request)?;
        let lease = self.0.enter(&sandbox_id(request.sandbox_id)?)?;
        let mut spec = convert::spec(request.process_id, request.spec)?;
        if let Some(repeat) = repeat {
            let request = start_request(&repeat);
            if spec.id.is_none() {
                spec.id = Some(ProcessId::parse(derived_process_id(&request))?);
            }
            spec.request = Some(request);
        }
        Ok(Start { lease, spec, request_id })
    }
}

fn position(info: &ProcessInfo) -> (SystemTime, ProcessId) {
    (info.start_time, info.id.clone())
}

/// How often, and how long apart, standard input is asked for while the attachment of an earlier call lets go of it.
const STDIN_ATTEMPTS: u32 = 10;
const STDIN_PAUSE: Duration = Duration::from_millis(10);
/// How long the end of standard input may take to arrive before the call answers all the same.
const CLOSE_WAIT: Duration = Duration::from_millis(100);

/// Attaches to write, for one call.
async fn attach_stdin(lease: &Lease, id: &ProcessId) -> Result<Attachment> {
    let options = AttachOptions { stdin: true, ..AttachOptions::default() };
    let mut attempt = 1;
    loop {
        match lease.inside()?.attach(id, options.clone()).await {
            Err(DomainError::WrongState { reason: "STDIN_HELD", .. }) if attempt < STDIN_ATTEMPTS => {
                tokio::time::sleep(STDIN_PAUSE).await;
                attempt += 1;
            }
            attached => return Ok(attached?),
        }
    }
}

/// Writes to standard input over an attachment of its own, and waits until it is accepted up to `end`.
async fn write_stdin(lease: &Lease, id: &ProcessId, input: Input, end: u64) -> Result<u64> {
    let mut attachment = attach_stdin(lease, id).await?;
    attachment.input.send(input).await.map_err(|_| ended(id))?;
    while let Some(output) = attachment.output.recv().await {
        match output? {
            Output::StdinAccepted { offset } if offset >= end => return Ok(offset),
            Output::Exited(_) => break,
            _ => {}
        }
    }
    Err(ended(id))
}

/// Closes standard input. Where it is closed nothing answers, so the wait is bounded; the order is kept anyway.
async fn close_stdin(lease: &Lease, id: &ProcessId) -> Result<()> {
    let mut attachment = attach_stdin(lease, id).await?;
    attachment.input.send(Input::CloseStdin).await.map_err(|_| ended(id))?;
    let closed = async {
        while let Some(Ok(output)) = attachment.output.recv().await {
            if matches!(output, Output::StdinAccepted { .. } | Output::Exited(_)) {
                return;
            }
        }
    };
    // An answer in time is a courtesy: what was sent arrives also after this attachment is gone.
    let _ = tokio::time::timeout(CLOSE_WAIT, closed).await;
    Ok(())
}

fn ended(id: &ProcessId) -> Error {
    DomainError::wrong_state("PROCESS_ENDED", format!("process {id} has ended")).into()
}
