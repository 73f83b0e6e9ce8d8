//! `hostel chat`: a conversation on a terminal, or through pipes.

mod slash;
mod start;

use super::conversation::{End, Keyboard, Question, Screen, Turn, Typed};
use super::{Context, Outcome, SUCCESS};
use crate::args::ChatArgs;
use crate::failure::Failure;
use crate::signals::{self, Signals};
use crate::{output, terminal};
use hostel_client::model::Session;
use hostel_client::{EventWatch, ReconnectPolicy, SendMessage, SessionClient};
use std::collections::VecDeque;
use std::time::Duration;

/// The turn failed.
const FAILED: u8 = 1;

pub(crate) async fn chat(context: &Context, args: ChatArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let client = signals.guard(context.connect_sessions()).await?;
    let mut screen = Screen::new(context.json, context.verbose);
    let keyboard = Keyboard::open(slash::COMMANDS)?;
    // The line editor changes the terminal while it reads, and a signal may end us there.
    let _kept = terminal::Kept::of_stdin();
    let session = Box::pin(start::start(context, &client, &mut screen, &mut signals, args)).await?;
    // Long enough for a server that is being updated.
    let policy = ReconnectPolicy { total: Duration::from_secs(120), ..ReconnectPolicy::default() };
    let watch = signals.guard(client.watch_events(&session.id, session.last_event, policy)).await?;
    let mut chat = Chat { context, client, session, watch, screen, keyboard, signals, failed: false };
    let result = Box::pin(chat.run()).await;
    chat.screen.finish_line()?;
    let leave = result?;
    chat.good_bye().await;
    match leave {
        Leave::Said if chat.failed && !chat.keyboard.is_terminal() => Ok(FAILED),
        Leave::Said => Ok(SUCCESS),
        Leave::Signal(signal) => Ok(signals::exit_code(signal)),
    }
}

/// Why a conversation ends for now.
enum Leave {
    /// Somebody said so, or the session ended.
    Said,
    /// A signal.
    Signal(i32),
}

struct Chat<'a> {
    context: &'a Context,
    client: SessionClient,
    /// As it was at the start.
    session: Session,
    watch: EventWatch,
    screen: Screen,
    keyboard: Keyboard,
    signals: Signals,
    /// Whether the last turn failed.
    failed: bool,
}

impl Chat<'_> {
    async fn run(&mut self) -> Result<Leave, Failure> {
        if let Some(turn) = self.session.active_turn.clone() {
            self.screen.aside("a turn is under way")?;
            let asked = self.signals.guard(self.client.questions(&self.session.id)).await?;
            let questions = asked.into_iter().map(|question| Question {
                id: question.id,
                tool: question.tool,
                input: question.input,
                description: question.description,
            });
            let questions = questions.collect();
            if let Some(leave) = self.turn(&turn.message_id, questions).await? {
                return Ok(leave);
            }
        }
        let mut interrupted = false;
        loop {
            let prompt = if self.keyboard.is_terminal() { "› " } else { "" };
            let typed = tokio::select! {
                typed = self.keyboard.line(prompt, true) => typed?,
                signal = self.signals.end() => return Ok(Leave::Signal(signal)),
            };
            let line = match typed {
                Typed::End => return Ok(Leave::Said),
                Typed::Interrupt if interrupted => return Ok(Leave::Said),
                Typed::Interrupt => {
                    interrupted = true;
                    self.screen.aside("(Ctrl-C again, or Ctrl-D, leaves)")?;
                    continue;
                }
                Typed::Line(line) => line,
            };
            interrupted = false;
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            // A path or anything else with a slash at the beginning is for the agent.
            if slash::COMMANDS.contains(&line) {
                let (client, id) = (&self.client, &self.session.id);
                let asked = slash::run(self.context, client, id, line, &mut self.screen);
                if self.signals.guard(Box::pin(asked)).await? {
                    return Ok(Leave::Said);
                }
                continue;
            }
            if let Some(leave) = self.say(line).await? {
                return Ok(leave);
            }
        }
    }

    /// Sends a message and shows its turn.
    async fn say(&mut self, text: &str) -> Result<Option<Leave>, Failure> {
        self.screen.spin("sending…");
        let sent = tokio::select! {
            sent = self.client.send(&self.session.id, SendMessage::text(text)) => sent,
            signal = self.signals.end() => return Ok(Some(Leave::Signal(signal))),
        };
        let sent = match sent {
            Ok(sent) => sent,
            // What the server refuses is told, and the conversation goes on where it can.
            Err(error) if error.refusal().is_some() && self.keyboard.is_terminal() => {
                self.screen.quiet();
                output::failure(&error.into(), self.context.json);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.turn(&sent.message.id, VecDeque::new()).await
    }

    async fn turn(&mut self, message: &str, questions: VecDeque<Question>) -> Result<Option<Leave>, Failure> {
        let turn = Turn {
            client: &self.client,
            session: &self.session.id,
            message,
            watch: &mut self.watch,
            screen: &mut self.screen,
            // Lines of a pipe are messages: none of them lets the agent do anything.
            keyboard: self.keyboard.is_terminal().then_some(&mut self.keyboard),
            signals: &mut self.signals,
            questions,
            tells_of_reconnecting: self.context.tells_of_reconnecting(),
        };
        let end = turn.follow().await?;
        self.screen.quiet();
        match end {
            End::Completed(outcome) => {
                self.failed = outcome.is_error;
                Ok(None)
            }
            End::Cancelled => Ok(None),
            End::Gone => {
                self.failed = true;
                Ok(Some(Leave::Said))
            }
            End::Left(signal) => Ok(Some(Leave::Signal(signal))),
        }
    }

    /// Says how to come back, where one can.
    async fn good_bye(&mut self) {
        self.screen.quiet();
        if self.context.json {
            return;
        }
        let id = &self.session.id;
        let session = tokio::select! {
            session = self.client.get(id) => session,
            // Who is in a hurry may ask `hostel session list`.
            _ = self.signals.end() => return,
        };
        match session {
            Ok(session) if session.is_over() => output::note(&format!("session {id} is {}", session.status)),
            Ok(session) => {
                let goes_on = if session.active_turn.is_some() { "its turn goes on; " } else { "" };
                output::note(&format!("{goes_on}come back with: hostel chat {id}"));
            }
            Err(error) => output::note(&error.to_string()),
        }
    }
}
