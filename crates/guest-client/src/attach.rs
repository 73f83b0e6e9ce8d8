//! Attachments: one task that carries output one way and input the other.

use crate::connection::Connection;
use crate::convert;
use crate::failure::{broken, closing};
use crate::guest::Guest;
use crate::outgoing::Outgoing;
use crate::rules::{Rules, Said, lost};
use crate::streams::channel;
use hostel_guest_protocol::Answer;
use hostel_sandbox::id::ProcessId;
use hostel_sandbox::process::{AttachOptions, Attachment, ExitStatus, Input, Output, OutputStream};
use hostel_sandbox::{Error, Result};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pieces of output on their way to the reader.
const OUTPUT_CAPACITY: usize = 8;
/// Pieces of input on their way from the writer.
const INPUT_CAPACITY: usize = 16;
/// Longest event, in bytes.
const MOST_EVENT: usize = 64 << 10;
/// Delivered bytes that are acknowledged at the latest.
const ACK_AT: u64 = 128 << 10;
/// Time for input that was sent before the reader left.
const LEAVE: Duration = Duration::from_secs(2);

/// How it ends.
enum Ending {
    Exited(ExitStatus),
    Failed(Error),
    /// The reader left.
    Left,
}

/// Acknowledgements in the reader's place: what its channel took it has.
#[derive(Debug, Default)]
struct Acks {
    delivered: [u64; 2],
    acknowledged: [u64; 2],
}

impl Acks {
    fn delivered(&mut self, stream: OutputStream, end: u64) {
        self.delivered[stream as usize] = end;
    }

    fn due(&self) -> u64 {
        (0..2).map(|stream| self.delivered[stream] - self.acknowledged[stream]).max().unwrap_or(0)
    }

    fn push(&mut self, outgoing: &mut Outgoing) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let index = stream as usize;
            if self.delivered[index] > self.acknowledged[index] {
                self.acknowledged[index] = self.delivered[index];
                outgoing.push_ack(stream, self.delivered[index]);
            }
        }
    }
}

impl Guest {
    /// Makes an attachment of a connection on which the guest answered `Attach` or `Exec`.
    pub(crate) fn attached(
        &self,
        connection: Connection,
        answer: Answer,
        id: &ProcessId,
        options: &AttachOptions,
    ) -> Result<Attachment> {
        let process = convert::process(answer, id)?;
        let outgoing = Outgoing::new(process.stdin_offset);
        // With input on its way nobody could say which of it the guest still has something to say about.
        let returns = connection.returns() && !options.stdin;
        let rules = Rules::new(&process, options);
        let (sender, last, output) = channel(OUTPUT_CAPACITY)?;
        let (input, inputs) = mpsc::channel(INPUT_CAPACITY);
        let opened = sender.try_send(Ok(Output::Opened(process)));
        opened.map_err(|_| Error::internal("make a channel", "no place in a new one"))?;
        let pump = Pump {
            connection,
            rules,
            outgoing,
            acks: (!options.acks).then(Acks::default),
            input: Some(inputs),
            output: sender,
            next: None,
            ending: None,
            returns,
            stop: self.stop().clone(),
        };
        let (guest, is_first) = (self.clone(), pump.connection.is_first());
        self.tasks().spawn(async move {
            match pump.run(last).await {
                // Where it cannot be kept the next call opens one.
                Some(connection) => drop(guest.keep(connection)),
                None if is_first => {}
                None => guest.stock_up().await,
            }
        });
        Ok(Attachment { input, output })
    }
}

struct Pump {
    connection: Connection,
    rules: Rules,
    outgoing: Outgoing,
    /// None where the reader acknowledges for itself.
    acks: Option<Acks>,
    /// None once the writer left.
    input: Option<mpsc::Receiver<Input>>,
    output: mpsc::Sender<Result<Output>>,
    /// Read and checked, but not delivered.
    next: Option<Output>,
    /// How it ends once everything is delivered.
    ending: Option<Ending>,
    /// The connection serves requests again after the end of the process.
    returns: bool,
    stop: CancellationToken,
}

impl Pump {
    /// → the connection where it takes requests again.
    async fn run(mut self, last: mpsc::OwnedPermit<Result<Output>>) -> Option<Connection> {
        match self.relay().await {
            Ending::Exited(status) => {
                // The reader sees the end of the channel too.
                let (closed, _) = mpsc::channel(1);
                self.output = closed;
                drop(last.send(Ok(Output::Exited(status))));
                // Whoever waits for the end has it before we clean up.
                tokio::task::yield_now().await;
                self.outgoing.drop_input();
                if self.returns && self.outgoing.is_idle() && !self.outgoing.is_broken() {
                    return Some(self.give_back());
                }
                self.leave().await;
                None
            }
            Ending::Failed(error) => {
                drop(last.send(Err(error)));
                None
            }
            Ending::Left => {
                drop(last);
                self.take_input();
                self.leave().await;
                None
            }
        }
    }

    /// Carries everything both ways until the end. Every branch can be dropped and taken up again.
    async fn relay(&mut self) -> Ending {
        loop {
            self.sort();
            if let Some(left) = self.deliver() {
                return left;
            }
            if self.next.is_none()
                && let Some(ending) = self.ending.take()
            {
                return ending;
            }
            let due = self.acks.as_ref().map_or(0, Acks::due);
            if due >= ACK_AT && self.outgoing.is_short() {
                self.acknowledge();
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ending::Failed(closing()),
                () = self.output.closed() => return Ending::Left,
                flushed = self.outgoing.flush(&self.connection.socket), if !self.outgoing.is_idle() => {
                    if flushed.is_err() {
                        self.outgoing.give_up();
                    }
                }
                permit = self.output.reserve(), if self.next.is_some() => {
                    let (Ok(permit), Some(output)) = (permit, self.next.take()) else { return Ending::Left };
                    note_delivered(&mut self.acks, &output);
                    permit.send(Ok(output));
                }
                input = next_input(&mut self.input), if self.input.is_some() && self.outgoing.has_room() => {
                    match input {
                        Some(input) => self.outgoing.push(input),
                        None => self.input = None,
                    }
                }
                filled = self.connection.inbox.fill_with_data(&self.connection.socket),
                    if self.next.is_none() && self.ending.is_none() => {
                    if let Err(fault) = filled {
                        self.ending = Some(Ending::Failed(lost(fault)));
                    }
                }
                // Nothing else can be done at the moment.
                () = std::future::ready(()), if due > 0 && self.outgoing.is_idle() => {
                    if let Some(acks) = &mut self.acks {
                        acks.push(&mut self.outgoing);
                    }
                    self.connection.inbox.release();
                }
            }
        }
    }

    /// Takes the next piece of what arrived, and checks it.
    fn sort(&mut self) {
        while self.next.is_none() && self.ending.is_none() {
            let said = match self.connection.inbox.next_piece(MOST_EVENT) {
                Ok(None) if self.connection.inbox.take_descriptor().is_none() => return,
                Ok(None) => Err(broken("a descriptor that nobody asked for")),
                Ok(Some(piece)) => self.rules.check(piece),
                Err(fault) => Err(lost(fault)),
            };
            match said {
                Ok(Said::Output(output)) => {
                    if let Output::StdinAccepted { offset } = output {
                        self.outgoing.accepted(offset);
                    }
                    self.next = Some(output);
                }
                Ok(Said::Exited(status)) if self.connection.inbox.is_empty() => {
                    self.ending = Some(Ending::Exited(status));
                }
                Ok(Said::Exited(_)) => {
                    self.ending = Some(Ending::Failed(broken("it went on after the end of the process")));
                }
                Err(error) => self.ending = Some(Ending::Failed(error)),
            }
        }
    }

    /// Hands on what is there, as far as the reader has room.
    fn deliver(&mut self) -> Option<Ending> {
        while let Some(output) = self.next.take() {
            match self.output.try_reserve() {
                Ok(permit) => {
                    note_delivered(&mut self.acks, &output);
                    permit.send(Ok(output));
                }
                Err(mpsc::error::TrySendError::Full(())) => {
                    self.next = Some(output);
                    return None;
                }
                Err(mpsc::error::TrySendError::Closed(())) => return Some(Ending::Left),
            }
            self.sort();
            if self.acks.as_ref().is_some_and(|acks| acks.due() >= ACK_AT) {
                return None;
            }
        }
        None
    }

    fn acknowledge(&mut self) {
        if let Some(acks) = &mut self.acks {
            acks.push(&mut self.outgoing);
        }
    }

    /// Takes the input that was given before the reader left.
    fn take_input(&mut self) {
        if let Some(mut input) = self.input.take() {
            input.close();
            while let Ok(input) = input.try_recv() {
                self.outgoing.push(input);
            }
        }
    }

    /// The connection, which takes requests again once it said what it owes.
    fn give_back(mut self) -> Connection {
        self.acknowledge();
        self.outgoing.push_return();
        self.connection.owe(self.outgoing.take_ready());
        self.connection
    }

    /// Sends what there is, and says goodbye.
    async fn leave(mut self) {
        self.acknowledge();
        let stop = self.stop.clone();
        let finish = async {
            let _ = tokio::time::timeout(LEAVE, self.finish_input()).await;
            self.outgoing.push_detach();
            let _ = tokio::time::timeout(LEAVE, self.outgoing.flush(&self.connection.socket)).await;
        };
        stop.run_until_cancelled(finish).await;
    }

    /// Output is read and forgotten meanwhile, because acceptance of input comes between it.
    async fn finish_input(&mut self) {
        while !self.outgoing.is_empty() {
            self.next = None;
            self.sort();
            if self.ending.is_some() {
                return;
            }
            if self.next.is_some() {
                continue;
            }
            tokio::select! {
                biased;
                flushed = self.outgoing.flush(&self.connection.socket), if !self.outgoing.is_idle() => {
                    if flushed.is_err() {
                        return;
                    }
                }
                filled = self.connection.inbox.fill_with_data(&self.connection.socket) => {
                    if filled.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

async fn next_input(input: &mut Option<mpsc::Receiver<Input>>) -> Option<Input> {
    match input {
        Some(input) => input.recv().await,
        None => None,
    }
}

fn note_delivered(acks: &mut Option<Acks>, output: &Output) {
    let Some(acks) = acks else { return };
    match output {
        Output::Data { stream, offset, data } => acks.delivered(*stream, offset + data.len() as u64),
        Output::Gap { stream, missing } => acks.delivered(*stream, missing.end),
        Output::Opened(_) | Output::StdinAccepted { .. } | Output::Exited(_) => {}
    }
}
