//! One call that is attached to a process: either the one that started it, or a later one.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::exec::Stdin;
use hostel_proto::v1;
use hostel_proto::v1::attach_process_request::Frame as AttachFrame;
use hostel_proto::v1::exec_process_request::Frame as ExecFrame;
use hostel_proto::v1::process_input::Input;
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{ProcessId, SandboxId};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Input waiting for the connection.
const QUEUE: usize = 8;

/// What to attach to.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// A process to start. Repeating the call with the same id attaches to the one that it started.
    Exec { request_id: String, spec: Box<ProcessSpec> },
    /// A process that is there.
    Process(ProcessId),
}

/// Where to read from; `None` is "from now on".
pub(super) type Offsets = Option<(u64, u64)>;

/// Both directions of the call.
pub(super) struct Connection {
    pub(super) input: mpsc::Sender<Input>,
    pub(super) events: Events,
}

/// What comes from the daemon.
pub(super) enum Events {
    Exec(Streaming<v1::ExecProcessResponse>),
    Attach(Streaming<v1::AttachProcessResponse>),
}

impl Connection {
    pub(super) async fn open(
        client: &Client,
        sandbox: &SandboxId,
        target: &Target,
        offsets: Offsets,
        stdin: Stdin,
    ) -> Result<Self> {
        let (input, receiver) = mpsc::channel(QUEUE);
        let inputs = ReceiverStream::new(receiver).map(|input| v1::ProcessInput { input: Some(input) });
        let options = options(offsets, stdin);
        let events = match target {
            Target::Exec { request_id, spec } => {
                let open = exec_open(sandbox, request_id, spec, options);
                let open = tokio_stream::once(v1::ExecProcessRequest { frame: Some(ExecFrame::Open(open)) });
                let inputs =
                    inputs.map(|input| v1::ExecProcessRequest { frame: Some(ExecFrame::Input(input)) });
                let response = client.processes().exec_process(open.chain(inputs)).await;
                Events::Exec(response.map_err(convert::in_session)?.into_inner())
            }
            Target::Process(process) => {
                let open = v1::AttachOpen {
                    sandbox_id: sandbox.to_string(),
                    process_id: process.to_string(),
                    options: Some(options),
                };
                let open =
                    tokio_stream::once(v1::AttachProcessRequest { frame: Some(AttachFrame::Open(open)) });
                let inputs =
                    inputs.map(|input| v1::AttachProcessRequest { frame: Some(AttachFrame::Input(input)) });
                let response = client.processes().attach_process(open.chain(inputs)).await;
                Events::Attach(response.map_err(convert::in_session)?.into_inner())
            }
        };
        Ok(Self { input, events })
    }
}

impl Events {
    /// The next event; `None` when the daemon ended the call. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<v1::ProcessEvent>> {
        let event = match self {
            Self::Exec(events) => events.message().await.map(|message| message.map(|message| message.event)),
            Self::Attach(events) => {
                events.message().await.map(|message| message.map(|message| message.event))
            }
        };
        Ok(event.map_err(convert::in_session)?.flatten())
    }
}

fn exec_open(
    sandbox: &SandboxId,
    request_id: &str,
    spec: &ProcessSpec,
    options: v1::AttachOptions,
) -> v1::ExecOpen {
    v1::ExecOpen {
        start: Some(v1::StartProcessRequest {
            sandbox_id: sandbox.to_string(),
            request_id: request_id.to_owned(),
            process_id: spec.id.as_ref().map(ToString::to_string).unwrap_or_default(),
            spec: Some(convert::process_spec(spec)),
        }),
        options: Some(options),
        kill_on_disconnect: spec.kill_on_disconnect,
    }
}

fn options(offsets: Offsets, stdin: Stdin) -> v1::AttachOptions {
    let stdin_access = match stdin {
        Stdin::None => v1::StdinAccess::None,
        Stdin::Write => v1::StdinAccess::Write,
        Stdin::TakeOver => v1::StdinAccess::TakeOver,
    };
    let (stdout_offset, stderr_offset) = offsets.unwrap_or((0, 0));
    v1::AttachOptions {
        stdout_offset,
        stderr_offset,
        only_new_output: offsets.is_none(),
        stdin_access: stdin_access.into(),
        explicit_acks: true,
    }
}
