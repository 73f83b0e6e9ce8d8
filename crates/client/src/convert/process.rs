//! Processes and what flows to and from them.

use super::{duration_to_wire, required, seconds, time, unknown};
use crate::error::Result;
use crate::model::{ExitStatus, HeldRange, Process};
use bytes::Bytes;
use hostel_proto::v1;
use hostel_proto::v1::process_input::Input;
use hostel_sandbox::process::{ExitReason, OutputStream, ProcessSpec, TerminalSize};
use hostel_sandbox::{ProcessId, SandboxId};

pub(crate) fn process(wire: v1::Process) -> Result<Process> {
    Ok(Process {
        id: ProcessId::parse(wire.id)?,
        sandbox_id: SandboxId::parse(wire.sandbox_id)?,
        command: wire.command,
        pid: wire.pid,
        running: wire.exit_status.is_none(),
        user: wire.user,
        working_directory: wire.working_directory,
        terminal: wire.terminal,
        create_time: time(wire.create_time),
        exit: wire.exit_status.map(exit_status).transpose()?,
        stdout: held(wire.stdout),
        stderr: held(wire.stderr),
        stdin_offset: wire.stdin_offset,
    })
}

fn held(wire: Option<v1::HeldRange>) -> HeldRange {
    wire.map(|range| HeldRange { start_offset: range.start_offset, end_offset: range.end_offset })
        .unwrap_or_default()
}

pub(crate) fn exit_status(wire: v1::ExitStatus) -> Result<ExitStatus> {
    use v1::ExitReason as Wire;
    use v1::exit_status::Outcome;
    let reason = match wire.reason() {
        Wire::Exited => ExitReason::Exited,
        Wire::Signaled => ExitReason::Signaled,
        Wire::OutOfMemory => ExitReason::OutOfMemory,
        Wire::TimedOut => ExitReason::TimedOut,
        Wire::SandboxGone => ExitReason::SandboxGone,
        Wire::Unspecified => return Err(unknown("exit reason", wire.reason)),
    };
    let (exit_code, signal) = match wire.outcome {
        Some(Outcome::ExitCode(code)) => (Some(code), None),
        Some(Outcome::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    Ok(ExitStatus {
        reason,
        exit_code,
        signal,
        oom_kills: wire.oom_kills,
        cpu_seconds: wire.cpu_time.map(seconds).unwrap_or_default(),
        max_rss_bytes: wire.max_rss_bytes,
        exit_time: time(wire.exit_time),
    })
}

pub(crate) fn process_spec(spec: &ProcessSpec) -> v1::ProcessSpec {
    v1::ProcessSpec {
        command: spec.argv.clone(),
        env: spec.env.clone().into_iter().collect(),
        working_directory: spec.cwd.clone().unwrap_or_default(),
        user: spec.user.clone().unwrap_or_default(),
        terminal: spec.terminal.map(terminal_size),
        stdin: spec.stdin,
        timeout: spec.timeout.map(duration_to_wire),
    }
}

pub(crate) fn terminal_size(size: TerminalSize) -> v1::TerminalSize {
    v1::TerminalSize { rows: size.rows.into(), columns: size.columns.into() }
}

pub(crate) fn output_stream(number: i32) -> Result<OutputStream> {
    match v1::OutputStream::try_from(number) {
        Ok(v1::OutputStream::Stdout) => Ok(OutputStream::Stdout),
        Ok(v1::OutputStream::Stderr) => Ok(OutputStream::Stderr),
        Ok(v1::OutputStream::Unspecified) | Err(_) => required(None, "the stream of output"),
    }
}

pub(crate) fn stream_to_wire(stream: OutputStream) -> i32 {
    match stream {
        OutputStream::Stdout => v1::OutputStream::Stdout.into(),
        OutputStream::Stderr => v1::OutputStream::Stderr.into(),
    }
}

pub(crate) fn stdin_input(offset: u64, data: Bytes) -> Input {
    Input::Stdin(v1::StdinData { offset, data })
}

pub(crate) fn signal_input(signal: i32) -> Input {
    Input::Signal(signal)
}
