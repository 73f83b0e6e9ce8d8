//! Processes.

use crate::convert;
use crate::failure::{Subject, broken};
use crate::guest::{CALL_DEADLINE, Guest};
use async_trait::async_trait;
use hostel_guest_protocol as wire;
use hostel_guest_protocol::{Ask, Empty, ProcessRef};
use hostel_sandbox::id::ProcessId;
use hostel_sandbox::process::{AttachOptions, Attachment, Output, ProcessInfo, ProcessSpec, TerminalSize};
use hostel_sandbox::{Error, Processes, Result};
use std::time::Duration;

/// What is run to rehearse, the first that is there. Neither reads anything of whoever comes later.
const REHEARSALS: [&[&str]; 2] = [&["sh", "-c", ":"], &["true"]];
/// How long such a thing may take.
const REHEARSAL: Duration = Duration::from_secs(10);
/// How often it is tried to run [`KILLER`] in a sandbox that is full, which has room when a process of it was killed.
const KILLER_TRIES: usize = 8;
/// Kills what its user may; for guests of earlier versions.
const KILLER: &[&str] = &["sh", "-c", "kill -9 -1 2>/dev/null; exit 0"];
/// SIGKILL, signal(7).
const KILL: i32 = 9;

/// What became of something that nobody is told of.
enum Unlisted {
    Ended,
    /// It is not there, or cannot be run.
    Impossible,
    /// The sandbox has no room for another process now.
    Full(Error),
}

impl Guest {
    /// Runs something that nobody is told of.
    async fn run_unlisted(&self, argv: &[&str]) -> Result<Unlisted> {
        let argv = argv.iter().map(ToString::to_string).collect();
        let spec = ProcessSpec { argv, timeout: Some(REHEARSAL), ..ProcessSpec::default() };
        let (id, subject) = identify(&spec);
        // Without input the guest gives the connection back, for the first caller.
        let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
        let spec = wire::ProcessSpec { unlisted: true, ..convert::spec(spec, &id) };
        let ask = Ask::Exec(wire::Exec { spec: Some(spec), attach: Some(convert::attach(&id, &options)) });
        let (connection, answer, _) = match self.converse(ask, &subject, Some(CALL_DEADLINE)).await {
            Ok(started) => started,
            Err(error @ (Error::Unavailable { .. } | Error::Protocol { .. })) => return Err(error),
            Err(full @ Error::LimitReached { .. }) => return Ok(Unlisted::Full(full)),
            // What cannot be run here is no fault of the sandbox.
            Err(_) => return Ok(Unlisted::Impossible),
        };
        let mut attachment = self.attached(connection, answer, &id, &options)?;
        while let Some(output) = attachment.output.recv().await {
            if matches!(output?, Output::Exited(_)) {
                break;
            }
        }
        Ok(Unlisted::Ended)
    }

    /// For a guest of an earlier version, which does not know that it could kill everything.
    async fn kill_what_is_known(&self) -> Result<()> {
        for _ in 1..KILLER_TRIES {
            if !matches!(self.run_unlisted(KILLER).await?, Unlisted::Full(_)) {
                return self.kill_listed().await;
            }
            self.kill_listed().await?;
        }
        match self.run_unlisted(KILLER).await? {
            // Those who are not listed fill it, and live.
            Unlisted::Full(full) => Err(full),
            Unlisted::Ended | Unlisted::Impossible => self.kill_listed().await,
        }
    }

    async fn kill_listed(&self) -> Result<()> {
        for process in self.processes().await?.into_iter().filter(|process| process.exit.is_none()) {
            match self.signal(&process.id, KILL).await {
                Ok(()) | Err(Error::NotFound { .. } | Error::WrongState { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The id of a process to be started, and what errors about it name.
fn identify(spec: &ProcessSpec) -> (ProcessId, Subject) {
    let id = spec.id.clone().unwrap_or_else(ProcessId::generate);
    let program = spec.argv.first().cloned().unwrap_or_default();
    let subject = Subject::process(&id).or_missing("program", program);
    (id, subject)
}

#[async_trait]
impl Processes for Guest {
    async fn start(&self, spec: ProcessSpec) -> Result<ProcessInfo> {
        let (id, subject) = identify(&spec);
        let (answer, _) = self.call(Ask::Start(convert::spec(spec, &id)), &subject).await?;
        convert::process(answer, &id)
    }

    // At most 1 MiB of standard input waits here while the process takes none; then, and only then, signals and
    // acknowledgements behind it wait too.
    async fn attach(&self, process: &ProcessId, options: AttachOptions) -> Result<Attachment> {
        let ask = Ask::Attach(convert::attach(process, &options));
        let subject = Subject::process(process);
        let (connection, answer, _) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        self.attached(connection, answer, process, &options)
    }

    async fn exec(&self, spec: ProcessSpec, options: AttachOptions) -> Result<Attachment> {
        let (id, subject) = identify(&spec);
        let attach = Some(convert::attach(&id, &options));
        let ask = Ask::Exec(wire::Exec { spec: Some(convert::spec(spec, &id)), attach });
        let (connection, answer, _) = self.occupy(ask, &subject, Some(CALL_DEADLINE)).await?;
        self.attached(connection, answer, &id, &options)
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let (answer, _) = self.call(Ask::ListProcesses(Empty {}), &Subject::guest()).await?;
        convert::processes(answer)
    }

    async fn process(&self, process: &ProcessId) -> Result<ProcessInfo> {
        let ask = Ask::GetProcess(ProcessRef { id: process.to_string() });
        let (answer, _) = self.call(ask, &Subject::process(process)).await?;
        convert::process(answer, process)
    }

    async fn signal(&self, process: &ProcessId, signal: i32) -> Result<()> {
        let ask = Ask::Signal(wire::Signal { id: process.to_string(), signal });
        convert::done(self.call(ask, &Subject::process(process)).await?.0)
    }

    async fn kill_all(&self) -> Result<()> {
        match self.call(Ask::KillAll(Empty {}), &Subject::guest()).await {
            Err(Error::InvalidArgument { .. }) => self.kill_what_is_known().await,
            answered => convert::done(answered?.0),
        }
    }

    async fn resize(&self, process: &ProcessId, size: TerminalSize) -> Result<()> {
        let size = Some(convert::size(size));
        let ask = Ask::Resize(wire::Resize { id: process.to_string(), size });
        convert::done(self.call(ask, &Subject::process(process)).await?.0)
    }

    async fn wait(&self, process: &ProcessId) -> Result<ProcessInfo> {
        let ask = Ask::Wait(ProcessRef { id: process.to_string() });
        let (connection, answer, _) = self.occupy(ask, &Subject::process(process), None).await?;
        self.keep(connection)?;
        let process = convert::process(answer, process)?;
        if process.exit.is_none() {
            return Err(broken("a process that is said to be over has no end"));
        }
        Ok(process)
    }

    async fn rehearse(&self) -> Result<()> {
        for argv in REHEARSALS {
            if matches!(self.run_unlisted(argv).await?, Unlisted::Ended) {
                break;
            }
        }
        // A guest of an earlier version does not give it back: then there is another.
        self.ping(CALL_DEADLINE).await
    }
}
