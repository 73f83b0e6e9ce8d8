//! Attached connections: output to them, input from them.

use super::Supervisor;
use super::connection::{Attached, Mode};
use super::event_loop::{EventFlags, Key, Timer};
use super::failure::{Outcome, failure, invalid, wrong_state};
use super::process::Process;
use super::terminal;
use hostel_guest_protocol::{
    Attach, Failure, FailureKind, GuestEvent, HostEvent, StreamId, TerminalSize, ToGuest,
};
use prost::Message;
use rustix::io::Errno;
use rustix::process::Signal;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long output is held for a reader that was lost without a word.
const HOLD: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Attaches a connection to a process.
    pub(super) fn attach(
        &mut self,
        serial: u64,
        process_serial: u64,
        ask: &Attach,
        kill: bool,
    ) -> Outcome<()> {
        let Some(process) = self.processes.get_mut(&process_serial) else {
            return Err(failure(FailureKind::Internal, "the process is gone", ""));
        };
        let mut taken_from = None;
        if ask.stdin {
            let held = process.input.writer.filter(|_| process.input.fd.is_some() && !process.input.closing);
            if held.is_some() && !ask.takeover {
                return Err(wrong_state("STDIN_HELD", "somebody else writes to its standard input"));
            }
            taken_from = held;
            process.input.writer = Some(serial);
        }
        let [stdout, stderr] = &mut process.outputs;
        let next =
            [stdout.stream.attach(serial, ask.stdout_from), stderr.stream.attach(serial, ask.stderr_from)];
        process.attached.push(serial);
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.mode = Mode::Attached(Attached::new(process_serial, next, kill));
        }
        if let Some(other) = taken_from {
            if let Some(connection) = self.connections.get_mut(&other) {
                connection.tell_taken();
            }
            self.pump(other);
        }
        Ok(())
    }

    /// The connection had everything, the end included.
    pub(super) fn leave(&mut self, serial: u64) {
        let Some(connection) = self.connections.get(&serial) else { return };
        let Mode::Attached(attached) = &connection.mode else { return };
        if let Some(process) = self.processes.get_mut(&attached.process) {
            forget_reader(process, serial, attached.next, None);
        }
    }

    /// Takes a connection off its process. One that is lost may come back for what it has not acknowledged.
    pub(super) fn detach(&mut self, serial: u64, lost: bool) {
        let Some(connection) = self.connections.get_mut(&serial) else { return };
        let Mode::Attached(attached) = std::mem::replace(&mut connection.mode, Mode::Idle) else { return };
        let Some(process) = self.processes.get_mut(&attached.process) else { return };
        let may_return = (lost && !attached.exited).then(|| Instant::now() + HOLD);
        forget_reader(process, serial, attached.next, may_return);
        if let Some(until) = may_return {
            self.timers.add(until, Timer::Hold(attached.process));
        }
        if attached.kill {
            let _ = process.signal(Signal::KILL);
        }
        self.resume(attached.process);
        self.forget_unlisted(attached.process);
    }

    /// Nobody came back.
    pub(super) fn forget_lost(&mut self, serial: u64) {
        let Some(process) = self.processes.get_mut(&serial) else { return };
        let now = Instant::now();
        process.outputs.iter_mut().for_each(|output| output.stream.forget_lost(now));
        self.resume(serial);
        self.trim();
    }

    /// A message of an attached host. → whether it keeps to the rules.
    pub(super) fn host_event(&mut self, serial: u64, payload: &[u8]) -> bool {
        let Ok(ToGuest { event }) = ToGuest::decode(payload) else { return false };
        let Some(connection) = self.connections.get(&serial) else { return false };
        let Mode::Attached(attached) = &connection.mode else { return false };
        let (process_serial, next, exited) = (attached.process, attached.next, attached.exited);
        // Also where the process is forgotten by now.
        if let Some(HostEvent::Detach(_) | HostEvent::Return(_)) = event {
            let returns = exited && matches!(event, Some(HostEvent::Return(_)));
            self.detach(serial, false);
            if let Some(connection) = self.connections.get_mut(&serial) {
                connection.closing |= !returns;
            }
            return true;
        }
        let Some(process) = self.processes.get_mut(&process_serial) else { return true };
        match event {
            Some(HostEvent::Ack(ack)) => {
                let index = match ack.stream {
                    stream if stream == StreamId::Stdout as u32 => 0,
                    stream if stream == StreamId::Stderr as u32 => 1,
                    _ => return false,
                };
                process.outputs[index].stream.acknowledge(serial, ack.offset, next[index]);
                self.resume(process_serial);
            }
            Some(HostEvent::CloseStdin(_)) if process.input.writer == Some(serial) => {
                process.input.closing = true;
                self.write_input(process_serial);
            }
            Some(HostEvent::Resize(size)) => drop(resize(process, size)),
            Some(HostEvent::Signal(number)) => drop(signal(process, number)),
            // Not the writer's, said before, or something a newer host knows.
            Some(HostEvent::CloseStdin(_) | HostEvent::Detach(_) | HostEvent::Return(_)) | None => {}
        }
        true
    }

    /// Standard input from the host.
    pub(super) fn take_input(&mut self, serial: u64, offset: u64, data: &[u8]) {
        let Some(connection) = self.connections.get_mut(&serial) else { return };
        let Mode::Attached(attached) = &mut connection.mode else { return };
        let process_serial = attached.process;
        let Some(process) = self.processes.get_mut(&process_serial) else { return };
        let input = &mut process.input;
        if input.writer != Some(serial) {
            return;
        }
        let known =
            usize::try_from(input.offset.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
        let new = &data[known..];
        let broken = if offset > input.offset {
            Some(format!("standard input begins at {offset}, wanted is {}", input.offset))
        } else {
            (input.closing && !new.is_empty()).then(|| "standard input was closed".to_owned())
        };
        if let Some(message) = broken {
            connection.tell(GuestEvent::Failed(invalid("stdin", message)));
            connection.closing = true;
            return;
        }
        input.offset += new.len() as u64;
        if input.fd.is_some() && !new.is_empty() {
            let idle = input.buffer.is_empty();
            input.buffer.extend_from_slice(new);
            if idle {
                self.write_input(process_serial);
            }
        } else {
            attached.accepted = Some(input.passed());
        }
    }

    /// Writes what waits to a process's standard input, as far as it takes it.
    pub(super) fn write_input(&mut self, serial: u64) {
        let Some(process) = self.processes.get_mut(&serial) else { return };
        let is_terminal = process.terminal;
        let input = &mut process.input;
        let Some(fd) = &input.fd else { return };
        let mut written = 0;
        let mut broken = false;
        while written < input.buffer.len() {
            match rustix::io::write(fd, &input.buffer[written..]) {
                Ok(count) => written += count,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if written > 0 {
            input.last_byte = input.buffer[written - 1];
            input.buffer.drain(..written);
        }
        let empty = input.buffer.is_empty();
        if empty && input.closing && is_terminal && !broken {
            // In the middle of a line the first one only hands the line over.
            let end = terminal::end_of_input(fd.as_fd());
            let count = if matches!(input.last_byte, 0 | b'\n' | b'\r') { 1 } else { 2 };
            let told = rustix::io::write(fd, &[end; 2][..count]);
            // No room for it yet: once more when there is. After one of two the line has been handed over.
            if told == Err(Errno::AGAIN) || told.is_ok_and(|told| told < count) {
                if told.is_ok() {
                    input.last_byte = 0;
                }
                if !input.polled {
                    input.polled = self.poll.add(fd, Key::Stdin(serial), EventFlags::OUT).is_ok();
                }
                return;
            }
        }
        let over = broken || (empty && input.closing);
        if (over || empty) && input.polled {
            self.poll.remove(fd);
            input.polled = false;
        } else if !empty && !over && !input.polled {
            input.polled = self.poll.add(fd, Key::Stdin(serial), EventFlags::OUT).is_ok();
        }
        if over {
            input.fd = None;
        }
        if empty || over {
            input.buffer = Vec::new();
        }
        if written == 0 && !over {
            return;
        }
        let (passed, writer) = (input.passed(), input.writer);
        if let Some(writer) = writer {
            if let Some(Mode::Attached(attached)) = self.connections.get_mut(&writer).map(|it| &mut it.mode) {
                attached.accepted = Some(passed);
            }
            self.proceed(writer);
        }
    }
}

/// `sent` is how far it can have read, `may_return` until when it may come back.
fn forget_reader(process: &mut Process, serial: u64, sent: [u64; 2], may_return: Option<Instant>) {
    process.attached.retain(|attached| *attached != serial);
    for (output, sent) in process.outputs.iter_mut().zip(sent) {
        output.stream.detach(serial, sent, may_return);
    }
    if process.input.writer == Some(serial) {
        process.input.writer = None;
    }
}

/// A signal for a process group.
pub(super) fn signal(process: &mut Process, number: i32) -> Result<(), Failure> {
    if !(1..=64).contains(&number) {
        return Err(invalid("signal", format!("{number} is no signal, 1 to 64 are")));
    }
    if !process.is_running() {
        return Err(wrong_state("PROCESS_ENDED", "the process has ended"));
    }
    process.killed |= number == libc::SIGKILL;
    // SAFETY: plain kill(2) on the group of a child that has not been reaped.
    match unsafe { libc::kill(-process.pid.as_raw_nonzero().get(), number) } {
        0 => Ok(()),
        _ => Err(super::failure::refused(Errno::PERM, "send the signal")),
    }
}

/// A new terminal size.
pub(super) fn resize(process: &Process, size: TerminalSize) -> Result<(), Failure> {
    if !process.terminal {
        return Err(wrong_state("NO_TERMINAL", "the process has no terminal"));
    }
    let Some(terminal) = process.outputs[0].fd.as_ref().filter(|_| process.is_running()) else {
        return Err(wrong_state("PROCESS_ENDED", "the process has ended"));
    };
    terminal::resize(terminal, size).map_err(|errno| super::failure::refused(errno, "resize the terminal"))
}
