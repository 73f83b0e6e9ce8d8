//! Attachments: input in, events out. Bytes are passed on, not copied.

use super::process::{api_exit, api_process, signal, terminal_size};
use crate::error::Result;
use hostel_proto::v1::{self, process_event::Event, process_input};
use hostel_sandbox::process::{AttachOptions, Input, Output, OutputStream};
use hostel_sandbox::{Error as DomainError, SandboxId};
use std::time::SystemTime;

/// Most bytes of standard input in one message.
const MOST_STDIN: usize = 1 << 20;

/// How to attach. `default_access` is what `STDIN_ACCESS_UNSPECIFIED` means.
pub(crate) fn options(
    options: Option<v1::AttachOptions>,
    default_access: v1::StdinAccess,
) -> Result<AttachOptions> {
    let options = options.unwrap_or_default();
    if options.only_new_output && (options.stdout_offset != 0 || options.stderr_offset != 0) {
        let problem = "only_new_output and an offset contradict each other";
        return Err(DomainError::invalid("options.only_new_output", problem).into());
    }
    let access = match options.stdin_access() {
        v1::StdinAccess::Unspecified if options.stdin_access != 0 => {
            let problem = format!("{} is not a kind of access", options.stdin_access);
            return Err(DomainError::invalid("options.stdin_access", problem).into());
        }
        v1::StdinAccess::Unspecified => default_access,
        access => access,
    };
    Ok(AttachOptions {
        stdout_from: (!options.only_new_output).then_some(options.stdout_offset),
        stderr_from: (!options.only_new_output).then_some(options.stderr_offset),
        stdin: matches!(access, v1::StdinAccess::Write | v1::StdinAccess::TakeOver),
        takeover: access == v1::StdinAccess::TakeOver,
        acks: options.explicit_acks,
    })
}

pub(crate) fn input(input: v1::ProcessInput) -> Result<Input> {
    match input.input {
        None => Err(DomainError::invalid("input", "say what is sent").into()),
        Some(process_input::Input::Stdin(stdin)) => stdin_input(stdin),
        Some(process_input::Input::CloseStdin(_)) => Ok(Input::CloseStdin),
        Some(process_input::Input::Resize(size)) => Ok(Input::Resize(terminal_size("resize", &size)?)),
        Some(process_input::Input::Signal(number)) => Ok(Input::Signal(signal(number)?)),
        Some(process_input::Input::Ack(ack)) => {
            Ok(Input::Ack { stream: output_stream(ack.stream)?, offset: ack.offset })
        }
    }
}

pub(crate) fn stdin_input(stdin: v1::StdinData) -> Result<Input> {
    if stdin.data.len() > MOST_STDIN {
        return Err(DomainError::invalid("stdin.data", format!("at most {MOST_STDIN} bytes")).into());
    }
    Ok(Input::Stdin { offset: stdin.offset, data: stdin.data })
}

fn output_stream(stream: i32) -> Result<OutputStream> {
    match v1::OutputStream::try_from(stream) {
        Ok(v1::OutputStream::Stdout) => Ok(OutputStream::Stdout),
        Ok(v1::OutputStream::Stderr) => Ok(OutputStream::Stderr),
        Ok(v1::OutputStream::Unspecified) | Err(_) => {
            Err(DomainError::invalid("ack.stream", format!("{stream} is not a stream")).into())
        }
    }
}

pub(crate) fn api_stream(stream: OutputStream) -> i32 {
    match stream {
        OutputStream::Stdout => v1::OutputStream::Stdout.into(),
        OutputStream::Stderr => v1::OutputStream::Stderr.into(),
    }
}

/// The end of a process whose sandbox ended first.
pub(crate) fn sandbox_gone() -> v1::ProcessEvent {
    let exit = v1::ExitStatus {
        reason: v1::ExitReason::SandboxGone.into(),
        exit_time: Some(super::timestamp(SystemTime::now())),
        ..v1::ExitStatus::default()
    };
    v1::ProcessEvent { event: Some(Event::Exited(exit)) }
}

pub(crate) fn api_event(sandbox: &SandboxId, output: Output) -> v1::ProcessEvent {
    let event = match output {
        Output::Opened(info) => {
            Event::Opened(v1::ProcessOpened { process: Some(api_process(sandbox, &info)) })
        }
        Output::Data { stream, offset, data } => {
            Event::Output(v1::OutputData { stream: api_stream(stream), offset, data })
        }
        Output::Gap { stream, missing } => Event::Gap(v1::OutputGap {
            stream: api_stream(stream),
            from_offset: missing.start,
            to_offset: missing.end,
        }),
        Output::StdinAccepted { offset } => Event::StdinAccepted(v1::StdinAccepted { offset }),
        Output::Exited(exit) => Event::Exited(api_exit(&exit)),
    };
    v1::ProcessEvent { event: Some(event) }
}
