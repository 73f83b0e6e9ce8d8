//! `hostel session attach`: what happened, what happens, and a way to say something.

use super::super::conversation::{Happening, Screen};
use super::super::{Context, Outcome, SUCCESS};
use super::PAGE;
use crate::args::AttachSessionArgs;
use crate::failure::Failure;
use crate::signals::{self, Signals};
use crate::{output, terminal};
use hostel_client::model::{SessionDelivery, SessionEvent};
use hostel_client::{ReconnectPolicy, SendMessage, SessionClient};
use std::collections::HashSet;
use tokio::io::{AsyncBufReadExt as _, BufReader};

pub(super) async fn attach(context: &Context, client: &SessionClient, args: AttachSessionArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let session = signals.guard(client.get(&args.id)).await?;
    let mut shown = Shown { screen: Screen::new(context.json, context.verbose), sent: HashSet::new() };
    if args.no_follow {
        signals.guard(Box::pin(shown.history(client, &args.id))).await?;
        return Ok(SUCCESS);
    }
    if args.new && session.is_over() {
        if !context.json {
            output::note(&format!("session {} is {}: nothing new comes", args.id, session.status));
        }
        return Ok(SUCCESS);
    }
    let from = if args.new { session.last_event } else { 0 };
    let watch = client.watch_events(&args.id, from, ReconnectPolicy::default());
    let mut watch = signals.guard(watch).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut reads = !session.is_over();
    loop {
        tokio::select! {
            delivery = watch.next() => match delivery? {
                Some(SessionDelivery::Event(event)) => {
                    if shown.event(&args.id, &event)? {
                        return Ok(SUCCESS);
                    }
                }
                Some(SessionDelivery::Disconnected) if context.tells_of_reconnecting() => {
                    output::note("reconnecting to the session server…");
                }
                Some(_) => {}
                None => return Ok(SUCCESS),
            },
            line = lines.next_line(), if reads => match line {
                Ok(Some(line)) if line.trim().is_empty() => {}
                Ok(Some(line)) => {
                    // A message that is refused is no reason to look away from those that were not.
                    match signals.guard(client.send(&args.id, SendMessage::text(line))).await {
                        Ok(sent) => drop(shown.sent.insert(sent.message.id)),
                        Err(Failure::Signal(signal)) => {
                            return left(context, &args.id, signals::exit_code(signal));
                        }
                        Err(failure) => output::note(&format!("not sent: {}", failure.message())),
                    }
                }
                // Somebody at a keyboard said that it is enough; a pipe that ran dry says nothing.
                Ok(None) | Err(_) if terminal::stdin_is_terminal() => return left(context, &args.id, SUCCESS),
                Ok(None) | Err(_) => reads = false,
            },
            signal = signals.end() => return left(context, &args.id, signals::exit_code(signal)),
        }
    }
}

fn left(context: &Context, id: &str, code: u8) -> Outcome {
    if !context.json {
        output::note(&format!("left; session {id} goes on"));
    }
    Ok(code)
}

/// What is shown of a session from outside.
struct Shown {
    screen: Screen,
    /// Messages from here, which are on the screen already.
    sent: HashSet<String>,
}

impl Shown {
    async fn history(&mut self, client: &SessionClient, id: &str) -> Result<(), Failure> {
        let mut after = 0;
        loop {
            let page = client.events(id, after, PAGE).await?;
            for event in &page.events {
                self.event(id, event)?;
            }
            if page.next == after {
                break;
            }
            after = page.next;
        }
        self.screen.finish_line()
    }

    /// Shows an event, and says whether it was the last.
    fn event(&mut self, id: &str, event: &SessionEvent) -> Result<bool, Failure> {
        let happening = Happening::of(event);
        self.screen.show(event, &happening)?;
        match &happening {
            Happening::Queued { message, text } if !self.sent.remove(message) => self.screen.user(text)?,
            Happening::Asked(question) => {
                // The agent names its tools.
                let (tool, question) = (output::human::printable(&question.tool), &question.id);
                self.screen.aside(&format!(
                    "? the agent asks to use {tool}: `hostel session approve {id} {question}`, or deny"
                ))?;
            }
            Happening::Ended { .. } => return Ok(true),
            _ => {}
        }
        Ok(false)
    }
}
