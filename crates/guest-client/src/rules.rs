//! What a guest may say on an attached connection, and when.

use crate::convert;
use crate::failure::{Fault, Subject, broken};
use crate::inbox::Piece;
use hostel_guest_protocol::{FromGuest, Gap, GuestEvent, StreamId};
use hostel_sandbox::process::{AttachOptions, ExitStatus, Output, OutputStream, ProcessInfo};
use hostel_sandbox::{Error, Result};
use prost::Message;

/// What comes of a piece that the guest sent.
pub(crate) enum Said {
    /// Something for the reader.
    Output(Output),
    /// The process ended.
    Exited(ExitStatus),
}

/// Where an attachment stands.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Offset of the next byte of each stream, where it is known yet.
    next: [Option<u64>; 2],
    terminal: bool,
    stdin: bool,
    /// What a writer before us left can still be under way, so this begins anywhere.
    accepted: u64,
    subject: Subject,
}

impl Rules {
    pub(crate) fn new(process: &ProcessInfo, options: &AttachOptions) -> Self {
        // Whoever asks for more than there is gets what comes next, wherever that begins.
        let known = |from: Option<u64>, end: u64| from.filter(|from| *from <= end);
        Self {
            next: [
                known(options.stdout_from, process.stdout.end),
                known(options.stderr_from, process.stderr.end),
            ],
            terminal: process.terminal,
            stdin: options.stdin,
            accepted: 0,
            subject: Subject::process(&process.id),
        }
    }

    /// Checks a piece against everything before it.
    pub(crate) fn check(&mut self, piece: Piece) -> Result<Said> {
        match piece {
            Piece::Data { stream, offset, data } => {
                let stream = self.stream(stream as u32)?;
                let next = &mut self.next[stream as usize];
                if next.is_some_and(|next| next != offset) {
                    return Err(broken(format!("output at {offset} where {next:?} was next")));
                }
                *next = Some(offset.saturating_add(data.len() as u64));
                Ok(Said::Output(Output::Data { stream, offset, data }))
            }
            Piece::Message(message) => {
                let event = FromGuest::decode(message).ok().and_then(|message| message.event);
                self.event(event.ok_or_else(|| broken("that is no event"))?)
            }
        }
    }

    fn event(&mut self, event: GuestEvent) -> Result<Said> {
        match event {
            GuestEvent::Gap(gap) => self.gap(gap),
            GuestEvent::StdinAccepted(offset) => {
                if !self.stdin || offset < self.accepted {
                    return Err(broken(format!("input accepted up to {offset} after {}", self.accepted)));
                }
                self.accepted = offset;
                Ok(Said::Output(Output::StdinAccepted { offset }))
            }
            GuestEvent::Exited(exit) => Ok(Said::Exited(convert::exit(exit)?)),
            GuestEvent::StdinTaken(_) => {
                Err(Error::wrong_state("STDIN_TAKEN", "somebody else writes standard input now"))
            }
            GuestEvent::Failed(failure) => Err(self.subject.error(failure)),
            GuestEvent::FileEvent(_) => Err(broken("a change of a file that nobody watches")),
        }
    }

    fn gap(&mut self, gap: Gap) -> Result<Said> {
        let stream = self.stream(gap.stream)?;
        let next = &mut self.next[stream as usize];
        if gap.from >= gap.to || next.is_some_and(|next| next != gap.from) {
            return Err(broken(format!("a gap from {} to {} where {next:?} was next", gap.from, gap.to)));
        }
        *next = Some(gap.to);
        Ok(Said::Output(Output::Gap { stream, missing: gap.from..gap.to }))
    }

    fn stream(&self, number: u32) -> Result<OutputStream> {
        const STDOUT: u32 = StreamId::Stdout as u32;
        const STDERR: u32 = StreamId::Stderr as u32;
        match number {
            STDOUT => Ok(OutputStream::Stdout),
            STDERR if !self.terminal => Ok(OutputStream::Stderr),
            _ => Err(broken(format!("the process has no output {number}"))),
        }
    }
}

/// The attachment's end where the connection fails.
pub(crate) fn lost(fault: Fault) -> Error {
    match fault {
        Fault::Gone(detail) => {
            Error::Unavailable { what: "guest", detail: format!("lost while attached: {detail}") }
        }
        fault @ Fault::Rule(_) => fault.into(),
    }
}
