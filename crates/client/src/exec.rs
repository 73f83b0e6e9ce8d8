//! Attached processes whose input and output outlive the connection.

mod backoff;
mod connection;
mod driver;
mod position;
mod stdin;

pub(crate) use backoff::Backoff;
pub use backoff::ReconnectPolicy;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::{ExitStatus, Process};
use bytes::Bytes;
use connection::Target;
use driver::{Control, Driver, Given};
use hostel_sandbox::process::{OutputStream, ProcessSpec, TerminalSize};
use hostel_sandbox::{ProcessId, SandboxId};
use std::ops::Range;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Events waiting to be taken.
const EVENTS: usize = 8;
/// Pieces of stdin, and as many signals and the like, waiting for the driver.
const COMMANDS: usize = 8;

/// When the daemon is told that output arrived, and so need not be kept for us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// When it was handed over: every 512 KiB or 10 ms.
    #[default]
    Automatic,
    /// When [`ExecInput::acknowledge`] says so, for a caller that must first make it durable.
    Manual,
}

/// Whether an attachment writes to stdin. One at a time may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Only reads output. It may still send signals and sizes.
    #[default]
    None,
    /// Writes, unless somebody else does.
    Write,
    /// Writes, and takes stdin from whoever had it.
    TakeOver,
}

/// What to run, attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The program. With `kill_on_disconnect` it also dies when the connection breaks, so nothing is left to
    /// attach to again.
    pub spec: ProcessSpec,
    /// Makes the call repeatable; made by us where absent.
    pub request_id: Option<String>,
    /// When output counts as read.
    pub acknowledge: Acknowledge,
    /// What to do when the connection breaks.
    pub reconnect: ReconnectPolicy,
}

impl Exec {
    /// A program with its arguments and nothing else asked for.
    pub fn command<T: Into<String>>(sandbox: &SandboxId, argv: impl IntoIterator<Item = T>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self::new(sandbox.clone(), ProcessSpec { argv, ..ProcessSpec::default() })
    }

    /// A program as `spec` says.
    #[must_use]
    pub fn new(sandbox: SandboxId, spec: ProcessSpec) -> Self {
        Self {
            sandbox,
            spec,
            request_id: None,
            acknowledge: Acknowledge::default(),
            reconnect: ReconnectPolicy::default(),
        }
    }
}

/// What to attach to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The process.
    pub process: ProcessId,
    /// Offsets to read stdout and stderr from; `None`: only what is written from now on.
    pub from: Option<(u64, u64)>,
    /// Whether to write to stdin.
    pub stdin: Stdin,
    /// When output counts as read.
    pub acknowledge: Acknowledge,
    /// What to do when the connection breaks.
    pub reconnect: ReconnectPolicy,
}

impl Attach {
    /// Reads everything that is still held, from the beginning, without stdin.
    #[must_use]
    pub fn new(sandbox: SandboxId, process: ProcessId) -> Self {
        Self {
            sandbox,
            process,
            from: Some((0, 0)),
            stdin: Stdin::None,
            acknowledge: Acknowledge::default(),
            reconnect: ReconnectPolicy::default(),
        }
    }
}

/// What comes from an attached process.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Bytes of a stream. They come in order, each once.
    Output {
        /// Which stream.
        stream: OutputStream,
        /// Position of the first byte in the stream.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// These offsets were asked for and are no longer held.
    Gap {
        /// Which stream.
        stream: OutputStream,
        /// The missing offsets.
        missing: Range<u64>,
    },
    /// It ended. Comes last and once.
    Exited(ExitStatus),
}

/// An attached process: what it is, and both directions.
#[derive(Debug)]
pub struct ExecSession {
    /// The process when we attached.
    pub process: Process,
    /// To the process.
    pub input: ExecInput,
    /// From the process.
    pub output: ExecOutput,
}

impl Client {
    /// Runs a program and attaches to it.
    ///
    /// # Errors
    /// [`Error::Invalid`] before anything is sent, else the daemon's refusal.
    pub async fn exec(&self, exec: Exec) -> Result<ExecSession> {
        exec.spec.validate()?;
        let request_id = exec.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let stdin = exec.spec.stdin || exec.spec.terminal.is_some();
        let target = Target::Exec { request_id, spec: Box::new(exec.spec) };
        let access = if stdin { Stdin::Write } else { Stdin::None };
        let driver = Driver::new(self.clone(), exec.sandbox, target, access, Some((0, 0)), exec.acknowledge);
        start(driver, exec.reconnect, stdin).await
    }

    /// Attaches to a process, running or ended.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn attach(&self, attach: Attach) -> Result<ExecSession> {
        let target = Target::Process(attach.process);
        let driver =
            Driver::new(self.clone(), attach.sandbox, target, attach.stdin, attach.from, attach.acknowledge);
        start(driver, attach.reconnect, attach.stdin != Stdin::None).await
    }
}

/// Lets the driver run and waits until it is attached.
async fn start(driver: Driver, reconnect: ReconnectPolicy, writes: bool) -> Result<ExecSession> {
    // Two ways in, so that a signal does not wait behind stdin that nobody reads.
    let (stdin, given) = mpsc::channel(COMMANDS);
    let (control, controls) = mpsc::channel(COMMANDS);
    let (events, mut event_receiver) = mpsc::channel(EVENTS);
    let (opened, mut process) = mpsc::channel(1);
    let (connected, link) = watch::channel(true);
    let accepted = driver.accepted();
    let mut task = JoinSet::new();
    task.spawn(driver.run(given, controls, events, opened, connected, reconnect));
    let Some(process) = process.recv().await else {
        return Err(match event_receiver.recv().await {
            Some(Err(error)) => error,
            _ => Error::SessionClosed,
        });
    };
    Ok(ExecSession {
        process,
        input: ExecInput { stdin, control, writes, accepted },
        output: ExecOutput { events: event_receiver, link, _task: task },
    })
}

/// The way to an attached process. Clones share it. Dropping it sends nothing: stdin stays open.
#[derive(Debug, Clone)]
pub struct ExecInput {
    stdin: mpsc::Sender<Given>,
    control: mpsc::Sender<Control>,
    /// Whether stdin is ours.
    writes: bool,
    accepted: watch::Receiver<u64>,
}

impl ExecInput {
    /// How far the sandbox has stdin, counted from the process's beginning: what was written before is safe there,
    /// whatever happens to us.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        *self.accepted.borrow()
    }

    /// Writes to stdin. Waits while the process does not read and 1 MiB is on its way. Bytes given before a broken
    /// connection arrive after it, once.
    ///
    /// # Errors
    /// [`Error::SessionClosed`] when the process has ended or the output was dropped, [`Error::Unsupported`] when
    /// the session has no stdin.
    pub async fn write(&self, data: impl Into<Bytes>) -> Result<()> {
        if !self.writes {
            return Err(Error::Unsupported("this session was opened without stdin".to_owned()));
        }
        self.stdin.send(Given::Bytes(data.into())).await.map_err(|_| Error::SessionClosed)
    }

    /// Ends stdin, after all that was written. A terminal gets Ctrl-D.
    ///
    /// # Errors
    /// [`Error::SessionClosed`].
    pub async fn close(&self) -> Result<()> {
        self.stdin.send(Given::End).await.map_err(|_| Error::SessionClosed)
    }

    /// Changes the size of the terminal.
    ///
    /// # Errors
    /// [`Error::SessionClosed`].
    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.send(Control::Resize(size)).await
    }

    /// Sends a signal, 1 to 64, to the process group. When the connection breaks at that moment it may be lost.
    ///
    /// # Errors
    /// [`Error::SessionClosed`].
    pub async fn signal(&self, signal: i32) -> Result<()> {
        self.send(Control::Signal(signal)).await
    }

    /// Says that every byte of a stream before `offset` is safe with us. Only for [`Acknowledge::Manual`].
    ///
    /// # Errors
    /// [`Error::SessionClosed`].
    pub async fn acknowledge(&self, stream: OutputStream, offset: u64) -> Result<()> {
        self.send(Control::Acknowledge(stream, offset)).await
    }

    async fn send(&self, control: Control) -> Result<()> {
        self.control.send(control).await.map_err(|_| Error::SessionClosed)
    }
}

/// The way from an attached process. Not taking events holds the process back. Dropping it detaches; the process
/// goes on.
#[derive(Debug)]
pub struct ExecOutput {
    events: mpsc::Receiver<Result<Event>>,
    link: watch::Receiver<bool>,
    /// Aborted when dropped, which ends the call.
    _task: JoinSet<()>,
}

impl ExecOutput {
    /// The next event; `None` after [`Event::Exited`] or an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        self.events.recv().await
    }

    /// Whether the session is attached at the moment, for whoever wants to show it: `false` from a broken connection
    /// until the session is attached again. Closed when the session is over.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<bool> {
        self.link.clone()
    }
}
