//! How often the model is asked in a turn: a new message of it each time.

use crate::event::{Event, EventKind};
use serde::Deserialize;
use serde_json::Value;

/// How often it was asked since the agent's last result, and since the turn began.
#[derive(Debug, Default)]
pub(super) struct ModelCalls {
    /// The last of its messages.
    message: String,
    count: u64,
}

impl ModelCalls {
    /// How often it was asked.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Notes a line of the agent itself, not of a subagent. → whether the model was asked once more.
    pub(super) fn note(&mut self, line: &Value) -> bool {
        let message = (line["type"] == "assistant").then(|| line["message"]["id"].as_str()).flatten();
        message.is_some_and(|id| self.asked(id))
    }

    /// Notes what an event of the journal says of it.
    pub(super) fn recall(&mut self, event: &Event) {
        #[derive(Deserialize)]
        struct Data {
            message: Line,
        }
        #[derive(Deserialize)]
        struct Line {
            parent_tool_use_id: Option<String>,
            #[serde(rename = "type")]
            kind: String,
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            id: String,
        }
        match event.kind {
            EventKind::AgentMessage => {
                // Most lines are something else, and of another form.
                let line = serde_json::from_str(event.data.get()).map(|data: Data| data.message);
                let own = |line: &Line| line.kind == "assistant" && line.parent_tool_use_id.is_none();
                if let Some(line) = line.ok().filter(own) {
                    self.asked(&line.message.id);
                }
            }
            // `Usage` is that of a result.
            EventKind::TurnStarted | EventKind::Usage => *self = Self::default(),
            _ => {}
        }
    }

    fn asked(&mut self, message: &str) -> bool {
        let again = self.message != message;
        if again {
            message.clone_into(&mut self.message);
            self.count += 1;
        }
        again
    }
}
