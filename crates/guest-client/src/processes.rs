//! Processes.

use crate::convert;
use crate::failure::{Subject, broken};
use crate::guest::{CALL_DEADLINE, Guest};
use hostel_guest_protocol as wire;
use hostel_guest_protocol::{Ask, Empty, ProcessRef};
use hostel_sandbox::Result;
use hostel_sandbox::id::ProcessId;
use hostel_sandbox::process::{
    AttachOptions, Attachment, ExitStatus, ProcessInfo, ProcessSpec, TerminalSize,
};

/// The id of a process to be started, and what errors about it name.
fn identify(spec: &ProcessSpec) -> (ProcessId, Subject) {
    let id = spec.id.clone().unwrap_or_else(ProcessId::generate);
    let program = spec.argv.first().cloned().unwrap_or_default();
    let subject = Subject::process(&id).or_missing("program", program);
    (id, subject)
}

/// Errors are those of the methods of the same names of `hostel_sandbox::ExecutionEnvironment`.
impl Guest {
    /// Starts a process. One without an id gets one here.
    ///
    /// # Errors
    /// `InvalidArgument`; `NotFound` (`program`); `AlreadyExists`; `LimitReached`; `Unavailable`.
    pub async fn start(&self, spec: ProcessSpec) -> Result<ProcessInfo> {
        let (id, subject) = identify(&spec);
        let (answer, _) = self.call(Ask::Start(convert::spec(spec, &id)), &subject).await?;
        convert::process(answer, &id)
    }

    /// Attaches to a process, running or ended.
    ///
    /// At most 1 MiB of standard input waits here while the process takes none; then, and only then, signals and
    /// acknowledgements behind it wait too.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` (`STDIN_HELD`); `Unavailable`.
    pub async fn attach(&self, process: &ProcessId, options: AttachOptions) -> Result<Attachment> {
        let ask = Ask::Attach(convert::attach(process, &options));
        let subject = Subject::process(process);
        let (connection, answer, _) = self.converse(ask, &subject, Some(CALL_DEADLINE)).await?;
        self.attached(connection, answer, process, &options)
    }

    /// Starts and attaches in one step.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::attach`].
    pub async fn exec(&self, spec: ProcessSpec, options: AttachOptions) -> Result<Attachment> {
        let (id, subject) = identify(&spec);
        let attach = Some(convert::attach(&id, &options));
        let ask = Ask::Exec(wire::Exec { spec: Some(convert::spec(spec, &id)), attach });
        let (connection, answer, _) = self.converse(ask, &subject, Some(CALL_DEADLINE)).await?;
        self.attached(connection, answer, &id, &options)
    }

    /// The processes, running and lately ended, oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let (answer, _) = self.call(Ask::ListProcesses(Empty {}), &Subject::guest()).await?;
        convert::processes(answer)
    }

    /// One process.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    pub async fn process(&self, process: &ProcessId) -> Result<ProcessInfo> {
        let ask = Ask::GetProcess(ProcessRef { id: process.to_string() });
        let (answer, _) = self.call(ask, &Subject::process(process)).await?;
        convert::process(answer, process)
    }

    /// Sends a signal, 1 to 64, to the process group.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` once it ended; `Unavailable`.
    pub async fn signal(&self, process: &ProcessId, signal: i32) -> Result<()> {
        let ask = Ask::Signal(wire::Signal { id: process.to_string(), signal });
        convert::done(self.call(ask, &Subject::process(process)).await?.0)
    }

    /// Gives the terminal a new size.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` without a terminal; `Unavailable`.
    pub async fn resize(&self, process: &ProcessId, size: TerminalSize) -> Result<()> {
        let size = Some(convert::size(size));
        let ask = Ask::Resize(wire::Resize { id: process.to_string(), size });
        convert::done(self.call(ask, &Subject::process(process)).await?.0)
    }

    /// Waits for the end, however long that takes.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` where the guest goes away first.
    pub async fn wait(&self, process: &ProcessId) -> Result<ExitStatus> {
        let ask = Ask::Wait(ProcessRef { id: process.to_string() });
        let (connection, answer, _) = self.converse(ask, &Subject::process(process), None).await?;
        self.keep(connection)?;
        let process = convert::process(answer, process)?;
        process.exit.ok_or_else(|| broken("a process that is said to be over has no end"))
    }
}
