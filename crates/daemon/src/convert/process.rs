//! Processes: what to run, and how it is.

use super::{api_duration, duration, optional, optional_id, timestamp};
use crate::error::Result;
use hostel_proto::v1::{self, exit_status::Outcome};
use hostel_sandbox::process::{ExitReason, ExitStatus, ProcessInfo, ProcessSpec, TerminalSize};
use hostel_sandbox::{Error as DomainError, ProcessId, SandboxId};
use std::ops::Range;

/// Shortest timeout of a process; nothing finer is kept.
const SHORTEST_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(1);

pub(crate) fn process_id(text: String) -> Result<ProcessId> {
    Ok(ProcessId::parse(text)?)
}

pub(crate) fn spec(process_id: String, spec: Option<v1::ProcessSpec>) -> Result<ProcessSpec> {
    let spec = spec.ok_or_else(|| DomainError::invalid("spec", "say what to run"))?;
    let timeout = spec.timeout.map(|timeout| duration("spec.timeout", timeout)).transpose()?;
    if timeout.is_some_and(|timeout| timeout < SHORTEST_TIMEOUT) {
        return Err(DomainError::invalid("spec.timeout", "at least 1 millisecond").into());
    }
    let terminal = spec.terminal.map(|size| terminal_size("spec.terminal", &size)).transpose()?;
    let spec = ProcessSpec {
        id: optional_id(process_id, ProcessId::parse)?,
        argv: spec.command,
        env: spec.env,
        cwd: optional(spec.working_directory),
        user: optional(spec.user),
        stdin: spec.stdin || terminal.is_some(),
        terminal,
        timeout,
        kill_on_disconnect: false,
        request: None,
    };
    spec.validate().map_err(as_the_api_spells_it)?;
    Ok(spec)
}

/// An error of [`spec`] where the specification is further inside: its fields are named from `place` on.
pub(crate) fn elsewhere(error: crate::Error, place: &str) -> crate::Error {
    match error {
        crate::Error::Domain(DomainError::InvalidArgument { field, problem }) => {
            let field = field.strip_prefix("spec.").unwrap_or(&field);
            DomainError::invalid(format!("{place}.{field}"), problem).into()
        }
        other => other,
    }
}

/// A specification as it was asked for.
pub(crate) fn api_spec(spec: &ProcessSpec) -> v1::ProcessSpec {
    v1::ProcessSpec {
        command: spec.argv.clone(),
        env: spec.env.clone(),
        working_directory: spec.cwd.clone().unwrap_or_default(),
        user: spec.user.clone().unwrap_or_default(),
        terminal: spec
            .terminal
            .map(|size| v1::TerminalSize { rows: size.rows.into(), columns: size.columns.into() }),
        stdin: spec.stdin,
        timeout: spec.timeout.map(api_duration),
    }
}

/// The domain's field names, as the request spells them.
pub(crate) fn as_the_api_spells_it(error: DomainError) -> DomainError {
    let DomainError::InvalidArgument { field, problem } = error else { return error };
    let field = match field.as_str() {
        "argv" => "spec.command".to_owned(),
        "cwd" => "spec.working_directory".to_owned(),
        "user" | "env" | "timeout" | "terminal" => format!("spec.{field}"),
        _ => field,
    };
    DomainError::InvalidArgument { field, problem }
}

pub(crate) fn terminal_size(field: &str, size: &v1::TerminalSize) -> Result<TerminalSize> {
    let default = TerminalSize::default();
    let side = |name: &str, value: u32, default: u16| match u16::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) => Ok(value),
        Err(_) => Err(DomainError::invalid(format!("{field}.{name}"), "at most 65535")),
    };
    Ok(TerminalSize {
        rows: side("rows", size.rows, default.rows)?,
        columns: side("columns", size.columns, default.columns)?,
    })
}

pub(crate) fn signal(signal: i32) -> Result<i32> {
    if (1..=64).contains(&signal) {
        return Ok(signal);
    }
    Err(DomainError::invalid("signal", format!("{signal} is not a signal: 1 to 64")).into())
}

pub(crate) fn states(states: &[i32]) -> Result<Vec<v1::ProcessState>> {
    states
        .iter()
        .map(|state| match v1::ProcessState::try_from(*state) {
            Ok(state) if state != v1::ProcessState::Unspecified => Ok(state),
            _ => Err(DomainError::invalid("states", format!("{state} is not a state")).into()),
        })
        .collect()
}

pub(crate) fn state(info: &ProcessInfo) -> v1::ProcessState {
    if info.exit.is_some() { v1::ProcessState::Exited } else { v1::ProcessState::Running }
}

pub(crate) fn api_process(sandbox: &SandboxId, info: &ProcessInfo) -> v1::Process {
    v1::Process {
        id: info.id.to_string(),
        sandbox_id: sandbox.to_string(),
        command: info.argv.clone(),
        state: state(info).into(),
        pid: info.pid,
        user: info.user.clone(),
        working_directory: info.cwd.clone(),
        terminal: info.terminal,
        create_time: Some(timestamp(info.start_time)),
        exit_status: info.exit.as_ref().map(api_exit),
        stdout: Some(held(&info.stdout)),
        stderr: Some(held(&info.stderr)),
        stdin_offset: info.stdin_offset,
    }
}

fn held(range: &Range<u64>) -> v1::HeldRange {
    v1::HeldRange { start_offset: range.start, end_offset: range.end }
}

pub(crate) fn api_exit(exit: &ExitStatus) -> v1::ExitStatus {
    let reason = match exit.reason {
        ExitReason::Exited => v1::ExitReason::Exited,
        ExitReason::Signaled => v1::ExitReason::Signaled,
        ExitReason::OutOfMemory => v1::ExitReason::OutOfMemory,
        ExitReason::TimedOut => v1::ExitReason::TimedOut,
        ExitReason::SandboxGone => v1::ExitReason::SandboxGone,
    };
    v1::ExitStatus {
        reason: reason.into(),
        outcome: exit.code.map(Outcome::ExitCode).or(exit.signal.map(Outcome::Signal)),
        oom_kills: exit.oom_kills,
        cpu_time: Some(api_duration(exit.cpu_time)),
        max_rss_bytes: exit.max_rss_bytes,
        exit_time: Some(timestamp(exit.time)),
    }
}
