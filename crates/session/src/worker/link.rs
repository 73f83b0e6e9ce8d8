//! The process that the agent is: its output comes in, what the driver says goes out.

use super::Worker;
use crate::event::EventKind;
use crate::machine::{Input, Phase};
use crate::status::EndReason;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hostel_agent::{Request, Stream};
use hostel_client::domain::process::{ExitReason, OutputStream};
use hostel_client::model::ExitStatus;
use hostel_client::{Event, ExecInput, ExecOutput, ExecSession};
use serde_json::json;

/// Bytes given to the process at a time.
const PIECE: usize = 256 << 10;

/// Bytes for its stdin that an agent may leave unread. A message of the largest size is less.
const MAX_UNREAD: usize = 64 << 20;

/// Bytes of answers among them that nobody was asked for. All that is unread is written with each commit, so that these,
/// which an agent has for nothing, may not be much.
const MAX_ANSWERS: usize = 1 << 20;

/// Bytes of a line that is not complete which the sandbox is to keep for us. It keeps 2 MiB for a reader before the agent
/// has to wait, which it would do for ever in the middle of a longer line.
const MAX_HELD: u64 = 3 << 19;

/// An attached process.
pub(super) struct Link {
    input: ExecInput,
    output: ExecOutput,
    /// How far stdin was handed to the client.
    handed: u64,
    /// Stdin is to be closed after that.
    closes: bool,
    closed: bool,
    writing: Option<BoxFuture<'static, hostel_client::Result<()>>>,
    /// How many bytes are being handed over.
    under_way: u64,
}

impl Link {
    /// Goes on where the process's stdin is.
    pub(super) fn new(session: ExecSession) -> Self {
        let handed = session.process.stdin_offset;
        Self {
            input: session.input,
            output: session.output,
            handed,
            closes: false,
            closed: false,
            writing: None,
            under_way: 0,
        }
    }
}

/// What moved between us and the process.
pub(super) enum Moved {
    /// This came from it.
    Output(Option<hostel_client::Result<Event>>),
    /// What it was given is on its way.
    Written(hostel_client::Result<()>),
}

/// What moves next; never without a process.
pub(super) async fn moved(link: &mut Option<Link>, reads: bool) -> Moved {
    let Some(Link { output, writing, .. }) = link else { return std::future::pending().await };
    let written = async {
        match writing {
            Some(writing) => writing.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        event = output.next(), if reads => Moved::Output(event),
        written = written => Moved::Written(written),
    }
}

impl Worker {
    /// Takes what came from the process, and what else is there already.
    pub(super) fn output(&mut self, first: Option<hostel_client::Result<Event>>) {
        let mut next = Some(first);
        for _ in 0..super::AT_ONCE {
            let Some(event) = next else { return };
            self.take_output(event);
            if !self.draft.has_room() {
                return;
            }
            next = self.link.as_mut().and_then(|link| link.output.next().now_or_never());
        }
        if let Some(event) = next {
            self.take_output(event);
        }
    }

    fn take_output(&mut self, event: Option<hostel_client::Result<Event>>) {
        match event {
            Some(Ok(Event::Output { stream, offset, data })) => {
                let is_lost = self.is_full() && self.machine.agent() == crate::machine::Agent::Sweeping;
                let Some(driver) = &mut self.driver else { return };
                if is_lost {
                    // It says so much that it is being killed for it. There is no room to tell even that.
                    let end = offset.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    driver.skipped(which(stream), offset..end);
                    self.draft.agent = true;
                    return;
                }
                let events = driver.output(which(stream), &data);
                self.draft.agent = true;
                // What it has to say now is in answer to that.
                self.counting_answers(Self::listen_to_driver);
                self.understand(events);
                self.check_unread();
                self.check_written();
            }
            Some(Ok(Event::Gap { stream, missing })) => {
                tracing::warn!(session = %self.id, ?stream, ?missing, "output of an agent is lost");
                let problem = format!("{} bytes of the agent's output are lost", missing.end - missing.start);
                self.journal(EventKind::OutputDamaged, &json!({ "problem": problem }));
                let Some(driver) = &mut self.driver else { return };
                let events = driver.skipped(which(stream), missing);
                self.draft.agent = true;
                self.understand(events);
            }
            Some(Ok(Event::Exited(status))) => self.exited(&status),
            Some(Err(error)) => self.detached(Some(error)),
            None => self.detached(None),
        }
    }

    fn exited(&mut self, status: &ExitStatus) {
        self.link = None;
        let Some(mut driver) = self.driver.take() else { return };
        let events = driver.exited(status.exit_code);
        // Also what was granted since the last commit: the next agent is to know it.
        self.agent.driver = driver.save();
        // A plain command that is interrupted ends by the signal.
        let asked = self
            .machine
            .turn()
            .is_some_and(|turn| matches!(turn.phase, Phase::Interrupting | Phase::Stopping));
        let expected = driver.wants_end_of_input() && (status.exit_code.is_some() || asked);
        if !expected {
            self.session.environment.message = Some(format!("the agent ended: {}", how(status)));
        }
        self.understand(events);
        self.forget_process();
        if self.swept() {
            return;
        }
        if status.reason == ExitReason::SandboxGone {
            return self.sandbox_gone();
        }
        if !expected {
            let message = format!("the agent ended: {}", how(status));
            self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
        }
        self.happened(Input::Exited { expected });
    }

    /// Where everything was killed and the agent has ended too, that is told. Whether it was so.
    pub(super) fn swept(&mut self) -> bool {
        let swept = self.has_swept && self.driver.is_none();
        if swept {
            self.has_swept = false;
            self.happened(Input::Swept);
        }
        swept
    }

    /// The process cannot be attached to any more.
    pub(super) fn detached(&mut self, error: Option<hostel_client::Error>) {
        self.link = None;
        match error {
            Some(error) if error.is_not_found() => {
                let sandbox =
                    error.metadata().and_then(|known| known.get("kind")).is_none_or(|kind| kind != "process");
                self.lose_process();
                if self.swept() {
                    return;
                }
                if sandbox {
                    self.sandbox_gone();
                } else {
                    self.happened(Input::Exited { expected: false });
                }
            }
            error => {
                let error = error.map_or_else(|| "it was closed".to_owned(), |error| error.to_string());
                tracing::warn!(session = %self.id, %error, "the connection to an agent is lost; it is tried again");
                self.attach_again();
            }
        }
    }

    pub(super) fn sandbox_gone(&mut self) {
        self.epoch += 1;
        self.journal(
            EventKind::Error,
            &json!({ "code": "environment_lost", "message": "the sandbox of the session is gone" }),
        );
        self.agent.sandbox_id = None;
        self.session.environment.sandbox_id = None;
        self.happened(Input::SandboxGone);
    }

    /// The process is gone without having said how.
    pub(super) fn lose_process(&mut self) {
        self.link = None;
        if let Some(mut driver) = self.driver.take() {
            let events = driver.exited(None);
            self.agent.driver = driver.save();
            self.understand(events);
        }
        self.forget_process();
    }

    fn forget_process(&mut self) {
        self.agent.process_id = None;
        self.agent.input.clear();
        self.agent.input_offset = 0;
        self.answers = 0;
        self.draft.agent = true;
        self.deltas.clear();
    }

    /// Takes what the driver has to say, to be written when it is durable.
    pub(super) fn listen_to_driver(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        let said = driver.take_input();
        // One that is being killed needs no more answers.
        if !said.is_empty() && self.machine.agent() != crate::machine::Agent::Sweeping {
            self.agent.input.extend_from_slice(&said);
            self.draft.agent = true;
        }
        if driver.wants_end_of_input()
            && let Some(link) = &mut self.link
        {
            link.closes = true;
        }
    }

    /// Gives the agent an answer that nobody was asked for.
    pub(super) fn answer_by_itself(&mut self, request: Request) {
        self.counting_answers(|worker| worker.ask(request));
    }

    fn counting_answers(&mut self, answer: impl FnOnce(&mut Self)) {
        let before = self.agent.input.len();
        answer(self);
        self.answers += self.agent.input.len().saturating_sub(before);
    }

    /// An agent that asks and asks, and reads no answer, is killed.
    fn check_unread(&mut self) {
        let is_fine = |worker: &Self| {
            worker.agent.input.len() <= MAX_UNREAD && worker.answers <= MAX_ANSWERS
                || worker.machine.agent() == crate::machine::Agent::Sweeping
        };
        if is_fine(self) {
            return;
        }
        self.trim_input();
        if !is_fine(self) {
            let message =
                format!("the agent leaves {} bytes unread that it asked for", self.agent.input.len());
            self.journal(EventKind::Error, &json!({ "code": "agent_broke", "message": message }));
            self.happened(Input::Kill);
        }
    }

    /// An agent that has more written than may be kept is killed: what it asks for then takes no room either.
    fn check_written(&mut self) {
        if !self.is_full() || self.machine.agent() == crate::machine::Agent::Sweeping {
            return;
        }
        self.limit(EndReason::StorageExceeded);
        // No time to end by itself: in that it would go on writing. A kill is for one that has no turn.
        self.inputs.extend([Input::GraceOver, Input::Kill]);
        self.run_inputs();
    }

    /// The offset after the last byte that the driver had to say.
    pub(super) fn input_end(&self) -> u64 {
        self.agent.input_offset + u64::try_from(self.agent.input.len()).unwrap_or(u64::MAX)
    }

    /// Forgets what has arrived in the sandbox.
    pub(super) fn trim_input(&mut self) {
        let Some(link) = &self.link else { return };
        let arrived = link.input.accepted().saturating_sub(self.agent.input_offset);
        let arrived = usize::try_from(arrived).unwrap_or(usize::MAX).min(self.agent.input.len());
        self.agent.input.drain(..arrived);
        self.agent.input_offset += u64::try_from(arrived).unwrap_or(0);
        if self.agent.input.is_empty() {
            self.answers = 0;
        }
    }

    /// Hands over what is durable and was not handed over.
    pub(super) fn write_on(&mut self) {
        let end = self.input_end();
        let (offset, input, durable) = (self.agent.input_offset, &self.agent.input, self.durable_input);
        let Some(link) = &mut self.link else { return };
        if link.writing.is_some() {
            return;
        }
        let until = durable.min(end);
        if link.handed < until && link.handed >= offset {
            let from = usize::try_from(link.handed - offset).unwrap_or(usize::MAX);
            let to = usize::try_from(until - offset).unwrap_or(usize::MAX).min(from.saturating_add(PIECE));
            let data = Bytes::copy_from_slice(input.get(from..to).unwrap_or_default());
            link.under_way = u64::try_from(data.len()).unwrap_or(0);
            let way = link.input.clone();
            link.writing = Some(async move { way.write(data).await }.boxed());
        } else if link.closes && !link.closed && link.handed >= end {
            link.closed = true;
            let way = link.input.clone();
            link.writing = Some(async move { way.close().await }.boxed());
        }
    }

    pub(super) fn written(&mut self, written: hostel_client::Result<()>) {
        let Some(link) = &mut self.link else { return };
        link.writing = None;
        let under_way = std::mem::take(&mut link.under_way);
        // A process that is gone says so on its way out.
        if written.is_ok() {
            link.handed += under_way;
            self.write_on();
        }
    }

    /// Tells the sandbox which output is safe with us, so that it need not be kept there.
    pub(super) fn acknowledge(&mut self, unneeded: (u64, u64)) {
        let Some(link) = &self.link else { return };
        for (stream, offset) in [(OutputStream::Stdout, unneeded.0), (OutputStream::Stderr, unneeded.1)] {
            // Where there is no room now, the next one says it too.
            let _ = link.input.acknowledge(stream, offset).now_or_never();
        }
    }

    /// How far the agent's output is dealt with.
    pub(super) fn consumed(&self) -> (u64, u64) {
        let of = |stream| self.driver.as_ref().map_or(0, |driver| driver.consumed(stream));
        (of(Stream::Stdout), of(Stream::Stderr))
    }

    /// How far the sandbox need not keep the agent's output. Who dies in the middle of a large line loses that line.
    pub(super) fn unneeded(&self) -> (u64, u64) {
        let of = |stream| {
            self.driver.as_ref().map_or(0, |driver| {
                let (consumed, received) = (driver.consumed(stream), driver.received(stream));
                if received.saturating_sub(consumed) > MAX_HELD { received } else { consumed }
            })
        };
        (of(Stream::Stdout), of(Stream::Stderr))
    }
}

fn which(stream: OutputStream) -> Stream {
    match stream {
        OutputStream::Stdout => Stream::Stdout,
        OutputStream::Stderr => Stream::Stderr,
    }
}

fn how(status: &ExitStatus) -> String {
    match (status.reason, status.exit_code, status.signal) {
        (ExitReason::OutOfMemory, ..) => "the sandbox's memory was used up".to_owned(),
        (_, Some(code), _) => format!("exit code {code}"),
        (_, None, Some(signal)) => format!("signal {signal}"),
        _ => "it is not known how".to_owned(),
    }
}
