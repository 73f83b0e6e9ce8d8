//! One message's turn, as the journal tells it: for streams and for whole answers alike.

use super::app::App;
use super::reply::Done;
use hostel_session::agent::DeltaKind;
use hostel_session::{
    Accepted, ClientListener, Delivery, Disconnect, Error, Event, EventKind, EventTypes, Message,
    MessageOutcome, MessageState, SessionId,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// Types of the agent's protocol that its SDK keeps to itself, as it keeps all that begin with `control_`.
const INNER: &[&str] = &["keep_alive", "command_lifecycle", "transcript_mirror"];

/// What happens in a turn.
pub(super) enum Step {
    /// The agent wrote a line.
    Said {
        /// Its type.
        kind: String,
        /// The line.
        line: Box<RawValue>,
    },
    /// A part of an answer grew.
    Grew(Growth),
    /// The turn is over. Nothing follows.
    Done(Box<Done>),
}

/// A part of an answer that grew.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Growth {
    pub(super) conversation_id: String,
    pub(super) index: u32,
    pub(super) kind: DeltaKind,
    pub(super) delta: String,
}

/// Reads the journal from a message on until its turn is over.
pub(super) struct Turn {
    app: App,
    id: SessionId,
    message_id: String,
    client: ClientListener,
    tools: BTreeSet<String>,
    /// The journal has ended: what became of the message is asked for.
    over: bool,
}

impl Turn {
    /// Begins to read.
    ///
    /// # Errors
    /// Those of [`hostel_session::ClientHub::connect`].
    pub(super) async fn follow(app: App, id: SessionId, accepted: &Accepted) -> Result<Self, Error> {
        let Message { id: message, seq, .. } = &accepted.message;
        let client = app.hub.connect(&id, *seq, EventTypes::default()).await?;
        let message_id = message.clone();
        Ok(Self { app, id, message_id, client, tools: BTreeSet::new(), over: false })
    }

    /// What happens next. Cancel safe.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            if self.over {
                return Step::Done(Box::new(self.ended().await));
            }
            match self.client.next().await {
                Ok(Delivery::Event(event)) => {
                    if let Some(step) = self.meaning(&event) {
                        return step;
                    }
                }
                Ok(Delivery::Compacted { .. }) => {}
                Err(Disconnect::Deleted) => self.over = true,
                Err(Disconnect::Stopping) => {
                    return Step::Done(Box::new(self.unknown(Error::Stopping.to_string())));
                }
                Err(Disconnect::Failed(error)) => {
                    return Step::Done(Box::new(self.unknown(error.to_string())));
                }
            }
        }
    }

    fn meaning(&mut self, event: &Event) -> Option<Step> {
        if event.kind == EventKind::SessionEnded {
            self.over = true;
            return None;
        }
        if event.message_id.as_deref().is_some_and(|message| message != self.message_id) {
            return None;
        }
        let data = event.data.get();
        match event.kind {
            EventKind::TurnCompleted | EventKind::MessageCancelled => {
                let ended: Ended = serde_json::from_str(data).ok()?;
                if ended.message_id != self.message_id {
                    return None;
                }
                let reason = ended.reason.unwrap_or_else(|| "cancelled".to_owned());
                let outcome = ended.outcome.unwrap_or_else(|| cancelled(reason));
                Some(Step::Done(Box::new(self.done(outcome))))
            }
            _ if event.message_id.is_none() => None,
            EventKind::AgentMessage => {
                let Said { message } = serde_json::from_str(data).ok()?;
                let Typed { kind } = serde_json::from_str(message.get()).ok()?;
                // What the agent and the host settle between themselves is no message of its SDK.
                let inner = kind.starts_with("control_") || INNER.contains(&kind.as_str());
                (!inner).then_some(Step::Said { kind, line: message })
            }
            EventKind::BlockDelta => serde_json::from_str(data).ok().map(Step::Grew),
            EventKind::BlockStart | EventKind::BlockComplete => {
                let Part { block } = serde_json::from_str(data).ok()?;
                self.tools.extend(block.name.filter(|_| block.kind == "tool_use"));
                None
            }
            _ => None,
        }
    }

    /// What became of the message, when the journal ended before it said so.
    async fn ended(&mut self) -> Done {
        match self.app.host.message(&self.id, &self.message_id).await {
            Ok(Message { outcome: Some(outcome), .. }) => self.done(outcome),
            Ok(Message { state: MessageState::Cancelled, .. }) => {
                self.done(cancelled("cancelled".to_owned()))
            }
            Ok(_) => self.unknown("the session ended before the turn did".to_owned()),
            Err(_) => self.unknown("the session is gone".to_owned()),
        }
    }

    /// The turn may go on, and nobody can be told here how it ends.
    fn unknown(&self, why: String) -> Done {
        let outcome = MessageOutcome {
            is_error: true,
            result: "unknown".to_owned(),
            text: Some(why),
            ..MessageOutcome::default()
        };
        self.done(outcome)
    }

    fn done(&self, outcome: MessageOutcome) -> Done {
        Done::new(&self.id, &self.message_id, outcome, &self.tools)
    }
}

fn cancelled(reason: String) -> MessageOutcome {
    let text = Some(format!("the message was cancelled: {reason}"));
    MessageOutcome { is_error: true, result: "cancelled".to_owned(), text, ..MessageOutcome::default() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    message_id: String,
    outcome: Option<MessageOutcome>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    message: Box<RawValue>,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Part {
    block: PartBlock,
}

#[derive(Deserialize)]
struct PartBlock {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
}
