//! Keeps a session attached: moves input and output between the caller and whatever connection there is.

use super::backoff::{Backoff, ReconnectPolicy};
use super::connection::{Connection, Offsets, Target};
use super::position::Position;
use super::stdin::PendingStdin;
use super::{Acknowledge, Event, Stdin};
use crate::client::Client;
use crate::convert;
use crate::error::{Error, Result};
use crate::model::Process;
use bytes::Bytes;
use hostel_proto::v1;
use hostel_proto::v1::process_event::Event as WireEvent;
use hostel_proto::v1::process_input::Input;
use hostel_sandbox::SandboxId;
use hostel_sandbox::process::{OutputStream, TerminalSize};
use std::collections::VecDeque;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Signals and sizes that may wait for the connection.
const LOOSE: usize = 16;

/// What the caller gives for stdin.
#[derive(Debug)]
pub(super) enum Given {
    Bytes(Bytes),
    End,
}

/// What else the caller wants sent.
#[derive(Debug)]
pub(super) enum Control {
    Resize(TerminalSize),
    Signal(i32),
    Acknowledge(OutputStream, u64),
}

/// What a session knows, whatever connection it has.
pub(super) struct Driver {
    client: Client,
    sandbox: SandboxId,
    target: Target,
    access: Stdin,
    acknowledge: Acknowledge,
    stdout: Position,
    stderr: Position,
    stdin: PendingStdin,
    /// How far stdin was accepted, for the caller.
    accepted: watch::Sender<u64>,
    /// Signals and sizes, in order.
    loose: VecDeque<Input>,
    /// The last size that was asked for: told again to a new connection, in case it was lost with the old one.
    size: Option<TerminalSize>,
    /// Events that the caller has not taken yet: nothing more is read meanwhile.
    inbox: VecDeque<Event>,
    /// Whether we were ever attached.
    known: bool,
    /// Whether this connection is attached.
    attached: bool,
}

/// The caller's ends of a session.
struct Caller {
    given: mpsc::Receiver<Given>,
    controls: mpsc::Receiver<Control>,
    events: mpsc::Sender<Result<Event>>,
    /// Taken when the process was told.
    opened: Option<mpsc::Sender<Process>>,
    /// Whether we are attached, once we were.
    connected: watch::Sender<bool>,
}

/// Why a connection is no longer used.
enum End {
    /// The process has ended, and the caller knows it or has gone.
    Done,
    /// It broke.
    Broke(Error),
}

impl Driver {
    pub(super) fn new(
        client: Client,
        sandbox: SandboxId,
        target: Target,
        access: Stdin,
        from: Offsets,
        acknowledge: Acknowledge,
    ) -> Self {
        Self {
            client,
            sandbox,
            target,
            access,
            acknowledge,
            stdout: Position::from(from.map(|(stdout, _)| stdout)),
            stderr: Position::from(from.map(|(_, stderr)| stderr)),
            stdin: PendingStdin::default(),
            accepted: watch::Sender::new(0),
            loose: VecDeque::new(),
            size: None,
            inbox: VecDeque::new(),
            known: false,
            attached: false,
        }
    }

    /// How far stdin was accepted, from now on.
    pub(super) fn accepted(&self) -> watch::Receiver<u64> {
        self.accepted.subscribe()
    }

    /// Runs until the process has ended, or the connection breaks for good. Tells `opened` once.
    pub(super) async fn run(
        mut self,
        given: mpsc::Receiver<Given>,
        controls: mpsc::Receiver<Control>,
        events: mpsc::Sender<Result<Event>>,
        opened: mpsc::Sender<Process>,
        connected: watch::Sender<bool>,
        policy: ReconnectPolicy,
    ) {
        let mut caller = Caller { given, controls, events, opened: Some(opened), connected };
        let mut backoff = Backoff::new(policy);
        loop {
            let error = match self.connect().await {
                Err(error) => error,
                Ok(connection) => match self.pump(connection, &mut caller, &mut backoff).await {
                    End::Done => return,
                    End::Broke(error) => error,
                },
            };
            // A process that is there is worth waiting for, whatever is away; one that is not yet only where the
            // daemon may come back.
            let again = if self.known { error.is_connection() } else { error.is_restart() };
            let error = match backoff.broke() {
                Ok(delay) if again => {
                    caller.connected.send_if_modified(|connected| std::mem::replace(connected, false));
                    sleep(delay).await;
                    continue;
                }
                Err(waited) if self.known && error.is_restart() && !policy.total.is_zero() => {
                    Error::GaveUp { waited, detail: error.to_string() }
                }
                _ => error,
            };
            // What arrived before is the caller's, then the reason why no more comes.
            for event in self.inbox.drain(..) {
                let _ = caller.events.send(Ok(event)).await;
            }
            let _ = caller.events.send(Err(error)).await;
            return;
        }
    }

    async fn connect(&mut self) -> Result<Connection> {
        self.attached = false;
        let offsets = self.stdout.next().zip(self.stderr.next());
        // The daemon may not have noticed yet that the connection before is gone, and stdin was ours.
        let access = match self.access {
            Stdin::Write if self.known => Stdin::TakeOver,
            access => access,
        };
        Connection::open(&self.client, &self.sandbox, &self.target, offsets, access).await
    }

    async fn pump(&mut self, connection: Connection, caller: &mut Caller, backoff: &mut Backoff) -> End {
        let Connection { input, events: mut incoming } = connection;
        let mut writable = true;
        loop {
            let due = [self.stdout.due(), self.stderr.due()].into_iter().flatten().min();
            let takes_stdin = self.attached && self.stdin.has_room();
            let takes_control = self.attached && self.loose.len() < LOOSE;
            tokio::select! {
                permit = input.reserve(), if writable && self.wants_to_send() => match permit {
                    Ok(permit) => if let Some(input) = self.next_input() {
                        permit.send(input);
                    },
                    // The call is over; its other direction says why.
                    Err(_) => writable = false,
                },
                permit = caller.events.reserve(), if !self.inbox.is_empty() => match (permit, self.inbox.pop_front()) {
                    (Ok(permit), Some(event)) => if self.hand_over(event, permit) {
                        return End::Done;
                    },
                    _ => return End::Done,
                },
                message = incoming.next(), if self.inbox.is_empty() => match self.receive(message, &mut caller.opened) {
                    Ok(false) => {
                        caller.connected.send_if_modified(|connected| !std::mem::replace(connected, true));
                        backoff.attached();
                    }
                    Ok(true) => backoff.progress(),
                    Err(error) => return End::Broke(error),
                },
                // A caller that gives nothing any more may still want the output.
                Some(given) = caller.given.recv(), if takes_stdin => match given {
                    Given::Bytes(data) => self.stdin.push(data),
                    Given::End => self.stdin.close(),
                },
                Some(control) = caller.controls.recv(), if takes_control => self.obey(control),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some_and(|due| due > Instant::now()) => {}
            }
        }
    }

    /// Gives an event to the caller. `true` after the last one.
    fn hand_over(&mut self, event: Event, permit: mpsc::Permit<'_, Result<Event>>) -> bool {
        if let (Event::Output { stream, offset, data }, Acknowledge::Automatic) = (&event, self.acknowledge) {
            let end = offset + u64::try_from(data.len()).unwrap_or(0);
            self.position(*stream).safe_to(end);
        }
        let last = matches!(event, Event::Exited(_));
        permit.send(Ok(event));
        last
    }

    /// Takes what came from the daemon. `false` for the first event of a connection, `true` for any other.
    fn receive(
        &mut self,
        message: Result<Option<v1::ProcessEvent>>,
        opened: &mut Option<mpsc::Sender<Process>>,
    ) -> Result<bool> {
        let Some(event) = message? else {
            return Err(Error::ConnectionLost { detail: "the daemon ended the call early".to_owned() });
        };
        let event = convert::required(event.event, "an event")?;
        if self.attached == matches!(event, WireEvent::Opened(_)) {
            return Err(Error::Protocol("an attachment that does not begin with its opening".to_owned()));
        }
        match event {
            WireEvent::Opened(event) => {
                self.attach(convert::process(convert::required(event.process, "the process")?)?, opened)?;
                return Ok(false);
            }
            WireEvent::Output(output) => {
                let stream = convert::output_stream(output.stream)?;
                let (missing, offset, data) = self.position(stream).take(output.offset, output.data);
                self.inbox.extend(missing.map(|missing| Event::Gap { stream, missing }));
                if !data.is_empty() {
                    self.inbox.push_back(Event::Output { stream, offset, data });
                }
            }
            WireEvent::Gap(gap) => {
                let stream = convert::output_stream(gap.stream)?;
                self.position(stream).skip_to(gap.to_offset);
                self.inbox.push_back(Event::Gap { stream, missing: gap.from_offset..gap.to_offset });
            }
            WireEvent::StdinAccepted(accepted) => {
                if !self.stdin.accepted(accepted.offset) {
                    return Err(Error::Protocol("stdin accepted that was never given".to_owned()));
                }
                self.accepted.send_replace(accepted.offset);
            }
            WireEvent::Exited(status) => self.inbox.push_back(Event::Exited(convert::exit_status(status)?)),
        }
        Ok(true)
    }

    /// The connection is attached: stdin goes on where the sandbox has it.
    fn attach(&mut self, process: Process, opened: &mut Option<mpsc::Sender<Process>>) -> Result<()> {
        self.attached = true;
        self.accepted.send_if_modified(|offset| {
            let more = process.stdin_offset > *offset;
            *offset = (*offset).max(process.stdin_offset);
            more
        });
        self.stdout.default_to(process.stdout.end_offset);
        self.stderr.default_to(process.stderr.end_offset);
        if self.known {
            if self.access != Stdin::None && !self.stdin.rewind(process.stdin_offset) {
                return Err(Error::Protocol("stdin accepted that was never given".to_owned()));
            }
            self.stdout.rewind();
            self.stderr.rewind();
            self.loose.extend(self.size.map(|size| Input::Resize(convert::terminal_size(size))));
            return Ok(());
        }
        self.known = true;
        self.stdin.start_at(process.stdin_offset);
        self.target = Target::Process(process.id.clone());
        if let Some(opened) = opened.take() {
            // There is room: it is sent once. Where nobody waits the events say so.
            let _ = opened.try_send(process);
        }
        Ok(())
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Resize(size) => {
                self.size = Some(size);
                self.loose.push_back(Input::Resize(convert::terminal_size(size)));
            }
            Control::Signal(signal) => self.loose.push_back(convert::signal_input(signal)),
            Control::Acknowledge(stream, offset) => self.position(stream).safe_to(offset),
        }
    }

    fn position(&mut self, stream: OutputStream) -> &mut Position {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    fn wants_to_send(&self) -> bool {
        let stdin = self.access != Stdin::None && self.stdin.wants_to_send();
        self.attached && (stdin || !self.loose.is_empty() || self.stdout.is_due() || self.stderr.is_due())
    }

    /// What to send next.
    fn next_input(&mut self) -> Option<Input> {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if let Some(offset) = self.position(stream).acknowledge() {
                let stream = convert::stream_to_wire(stream);
                return Some(Input::Ack(v1::OutputAck { stream, offset }));
            }
        }
        if let Some(loose) = self.loose.pop_front() {
            return Some(loose);
        }
        if self.access == Stdin::None {
            return None;
        }
        if let Some((offset, data)) = self.stdin.next() {
            return Some(convert::stdin_input(offset, data));
        }
        self.stdin.take_close().then_some(Input::CloseStdin(v1::StdinEnd {}))
    }
}
