//! One turn, from its message to its end.

use super::answer::{Asked, ask};
use super::happening::{Happening, Outcome, Question};
use super::keyboard::Keyboard;
use super::screen::Screen;
use crate::failure::Failure;
use crate::signals::Signals;
use hostel_client::model::{SessionDelivery, SessionEvent};
use hostel_client::{EventWatch, SessionClient};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;

/// How long asking for an interrupt may take; that the turn has ended is told by an event.
const INTERRUPT: Duration = Duration::from_secs(10);

/// Deliveries that are kept while a question is being answered; more are not read until it is.
const WAITING: usize = 1000;

/// How a turn ended for us.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// It has an outcome.
    Completed(Outcome),
    /// Its message was taken back.
    Cancelled,
    /// We were told to leave; it goes on.
    Left(i32),
    /// The session is gone.
    Gone,
}

/// What a turn needs.
pub(crate) struct Turn<'a> {
    pub(crate) client: &'a SessionClient,
    pub(crate) session: &'a str,
    pub(crate) message: &'a str,
    pub(crate) watch: &'a mut EventWatch,
    pub(crate) screen: &'a mut Screen,
    /// Who answers questions; without, they wait for somebody else.
    pub(crate) keyboard: Option<&'a mut Keyboard>,
    pub(crate) signals: &'a mut Signals,
    /// Questions that wait to be put.
    pub(crate) questions: VecDeque<Question>,
    /// Whether to say that the connection broke and is back.
    pub(crate) tells_of_reconnecting: bool,
}

impl Turn<'_> {
    /// Shows the turn until it has ended. The first signal interrupts it, the second leaves.
    ///
    /// # Errors
    /// Those of the server, of stdin and of stdout.
    pub(crate) async fn follow(mut self) -> Result<End, Failure> {
        let mut interrupted = false;
        loop {
            while let Some(question) = self.questions.pop_front() {
                if let Some(end) = self.question(&question).await? {
                    return Ok(end);
                }
            }
            let delivery = tokio::select! {
                delivery = self.watch.next() => delivery?,
                signal = self.signals.end() => {
                    if interrupted || signal != crate::signals::INTERRUPT {
                        self.screen.finish_line()?;
                        return Ok(End::Left(signal));
                    }
                    interrupted = true;
                    self.interrupt().await?;
                    continue;
                }
            };
            if let Some(end) = self.take(delivery)? {
                return Ok(end);
            }
        }
    }

    /// Takes notice of what was delivered, and says when it is the end.
    fn take(&mut self, delivery: Option<SessionDelivery>) -> Result<Option<End>, Failure> {
        let event = match delivery {
            None => return Ok(Some(End::Gone)),
            Some(SessionDelivery::Event(event)) => event,
            Some(delivery) => {
                let told = match delivery {
                    SessionDelivery::Disconnected => "reconnecting to the session server…",
                    SessionDelivery::Reconnected => "connected to the session server again",
                    _ => return Ok(None),
                };
                if self.tells_of_reconnecting {
                    self.screen.aside(&format!("hostel: {told}"))?;
                }
                return Ok(None);
            }
        };
        let happening = Happening::of(&event);
        if self.concerns(&event) {
            self.screen.show(&event, &happening)?;
        }
        Ok(match happening {
            Happening::TurnCompleted { message, outcome } if message == self.message => {
                Some(End::Completed(outcome))
            }
            Happening::Cancelled { message } if message == self.message => Some(End::Cancelled),
            Happening::Ended { .. } => Some(End::Gone),
            Happening::Asked(question) => {
                self.questions.push_back(question);
                None
            }
            Happening::Resolved { question, .. } => {
                self.questions.retain(|waiting| waiting.id != question);
                None
            }
            _ => None,
        })
    }

    fn concerns(&self, event: &SessionEvent) -> bool {
        event.message_id.as_deref().is_none_or(|message| message == self.message)
    }

    async fn interrupt(&mut self) -> Result<(), Failure> {
        self.screen.aside("interrupting… (Ctrl-C again leaves it to go on)")?;
        let asked = timeout(INTERRUPT, self.client.interrupt(self.session, Some(Duration::ZERO))).await;
        if let Ok(Err(error)) = asked {
            self.screen.aside(&format!("cannot interrupt it: {error}"))?;
        }
        Ok(())
    }

    /// Puts a question to who sits here, and goes on when it has its answer, from here or elsewhere.
    async fn question(&mut self, question: &Question) -> Result<Option<End>, Failure> {
        let Some(keyboard) = self.keyboard.as_deref_mut() else {
            let what = super::tool::describe(&question.tool, Some(&question.input));
            let (session, id) = (self.session, &question.id);
            let paint = self.screen.paint();
            self.screen.aside(&format!(
                "{} the agent asks to use {what}\n  hostel session approve {session} {id}\n  hostel session deny {session} {id}",
                paint.yellow("?")
            ))?;
            return Ok(None);
        };
        // What happens meanwhile is shown after the answer, but for what ends the question.
        let mut waiting = Vec::new();
        let asked = {
            let asking = ask(self.screen, keyboard, question);
            tokio::pin!(asking);
            loop {
                tokio::select! {
                    asked = &mut asking => break Some(asked?),
                    delivery = self.watch.next(), if waiting.len() < WAITING => {
                        let delivery = delivery?;
                        let over = ends(&delivery, question, self.message);
                        waiting.push(delivery);
                        if over {
                            break None;
                        }
                    }
                    signal = self.signals.end() => return Ok(Some(End::Left(signal))),
                }
            }
        };
        match asked {
            Some(Asked::Answer(answer)) => {
                match self.client.answer(self.session, &question.id, answer).await {
                    Ok(_) => {}
                    Err(error) if error.reason() == "ANSWERED" || error.is_not_found() => {
                        self.screen.aside(&format!("too late: {error}"))?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Some(Asked::Interrupt) => self.interrupt().await?,
            // Nobody is there to answer; it waits for somebody elsewhere.
            Some(Asked::End) => {
                self.keyboard = None;
                self.screen.aside("the question waits; `hostel session approve` or `deny` answers it")?;
            }
            None => self.screen.aside("\nanswered elsewhere, or needed no more; press Enter")?,
        }
        for delivery in waiting {
            if let Some(end) = self.take(delivery)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }
}

/// Whether a question needs no answer any more.
fn ends(delivery: &Option<SessionDelivery>, question: &Question, turn: &str) -> bool {
    let Some(SessionDelivery::Event(event)) = delivery else { return delivery.is_none() };
    match Happening::of(event) {
        Happening::Resolved { question: resolved, .. } => resolved == question.id,
        Happening::TurnCompleted { message, .. } => message == turn,
        Happening::Ended { .. } => true,
        _ => false,
    }
}
