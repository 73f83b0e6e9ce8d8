//! What the driver knows: all of it is saved.

use super::turns::Turns;
use crate::error::{Error, Result};
use crate::event::Ready;
use crate::lines::Place;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// What is saved says so, so that nothing else is taken for it.
pub(super) const FORMAT: &str = "claude-1";

/// The conversation that is no subagent's.
pub(super) const MAIN: &str = "";

/// How many questions, calls and requests may be open, and how many tools, tasks and conversations are remembered.
pub(super) const MAX_OPEN: usize = 256;
/// The longest of their names, in bytes.
const MAX_KEY: usize = 1024;

/// How many permissions for the rest of a conversation are remembered, and the longest, in bytes.
const MAX_GRANTED: usize = 64;
const MAX_GRANT: usize = 4096;

/// What the driver knows.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// [`FORMAT`].
    pub(super) format: String,
    /// How far stdout is dealt with.
    pub(super) stdout: Place,
    /// How far stderr is dealt with.
    pub(super) stderr: Place,
    /// What waits to be written.
    pub(super) input: String,
    /// Whether stdin is to be closed after that.
    pub(super) end: bool,
    /// Whether the process is gone.
    pub(super) exited: bool,
    /// Whether it has said that it takes prompts.
    pub(super) is_ready: bool,
    /// Whether it has to be claimed for that.
    pub(super) claim: bool,
    /// What it says of itself.
    pub(super) ready: Ready,
    /// The model that it last said to speak with.
    pub(super) model: Option<String>,
    /// Whether it is busy.
    pub(super) busy: bool,
    /// Whether it tells when it is idle.
    pub(super) tells_state: bool,
    /// Prompts that it was sent and has not dealt with, in order.
    pub(super) prompts: VecDeque<String>,
    /// Whether a turn began that has no result.
    pub(super) in_turn: bool,
    /// Of those that it has dealt with: the ones that no result named.
    pub(super) unanswered: Vec<String>,
    /// Whether it tells what becomes of prompts.
    pub(super) tells_prompts: bool,
    /// Where it does not: those of the turn that runs.
    pub(super) turn: Vec<String>,
    /// Requests that it has not answered.
    pub(super) asked: BTreeMap<String, Asked>,
    /// Questions that we have not answered.
    pub(super) questions: BTreeMap<String, OpenQuestion>,
    /// What was allowed for the rest of the conversation: the agent forgets it with its process.
    pub(super) granted: Vec<Value>,
    /// Calls that we have not answered.
    pub(super) calls: BTreeMap<String, Call>,
    /// The message that is being written, by conversation: empty is the main one, others have the id of a tool call.
    pub(super) messages: BTreeMap<String, Message>,
    /// Names of tools whose calls have no result.
    pub(super) tools: BTreeMap<String, String>,
    /// What is done on the side.
    pub(super) tasks: BTreeMap<String, Task>,
    /// What the process had spent at its last result, in thousand-millionths of a dollar.
    pub(super) spent: u64,
    /// The most that may be spent, as it was started with, in the same.
    pub(super) budget: Option<u64>,
    /// How often the model may be asked, where we count that.
    pub(super) turns: Turns,
    /// Whether somebody wanted the turn to stop.
    pub(super) interrupting: bool,
    /// Plugins that it could not load, as it last told.
    pub(super) plugin_problems: Vec<String>,
    /// The last thing that it complained of.
    pub(super) complaint: String,
}

/// What a request of ours was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    /// To begin.
    Initialize,
    /// To become ours.
    Claim,
    /// One of the options, which can only be had so.
    Option,
    /// The same for MCP servers, each of which may fail.
    Servers,
    /// To take back a prompt that waits.
    Cancel,
    /// Something that our user asked for.
    Request,
}

/// A question that is open.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct OpenQuestion {
    /// The tool.
    pub(super) tool: String,
    /// Its input; null where it is too large to be kept.
    pub(super) input: Value,
    /// What would make it not ask again.
    pub(super) suggestions: Vec<Value>,
}

/// A call of something that the host provides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    /// A hook.
    Hook,
    /// A message to an MCP server, with its JSON-RPC id.
    Mcp(Value),
}

/// A message that is being written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    /// Its id.
    pub(super) id: String,
    /// Blocks that began and are not complete, in order.
    pub(super) open: Vec<OpenBlock>,
    /// The place of the block after those that were seen.
    pub(super) next: u32,
}

/// Something that is done on the side.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Task {
    /// What it is for.
    pub(super) description: String,
    /// Whether it is a command that was left running, which keeps nobody busy.
    pub(super) is_command: bool,
}

/// A block that is being written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct OpenBlock {
    /// Its place in its message.
    pub(super) index: u32,
    /// Its type.
    pub(super) kind: String,
    /// Its id.
    pub(super) id: String,
}

impl State {
    /// What somebody saved.
    pub(super) fn restore(saved: &Value) -> Result<Self> {
        let state = Self::deserialize(saved).map_err(|error| Error::Saved { problem: error.to_string() })?;
        if state.format != FORMAT {
            return Err(Error::Saved {
                problem: format!("its format is {:?}, not {FORMAT:?}", state.format),
            });
        }
        Ok(state)
    }

    /// Whether it has an ability, by its own name. It has none before it said so.
    pub(super) fn can(&self, ability: &str) -> bool {
        self.ready.capabilities.iter().any(|known| known == ability)
    }

    /// Takes note of abilities. The answer to `initialize` and the `init` line each name some.
    pub(super) fn learn(&mut self, abilities: &Value) {
        for ability in abilities.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let fits = self.ready.capabilities.len() < MAX_OPEN && ability.len() <= MAX_KEY;
            if fits && !self.can(ability) {
                self.ready.capabilities.push(ability.to_owned());
            }
        }
    }

    /// Keeps in mind what was allowed for the rest of the conversation. What is too much is asked for again.
    pub(super) fn grant(&mut self, updates: &[Value]) {
        for update in updates {
            let fits = self.granted.len() < MAX_GRANTED && update.to_string().len() <= MAX_GRANT;
            if fits && !self.granted.contains(update) {
                self.granted.push(update.clone());
            }
        }
    }

    /// Has one JSON line written.
    pub(super) fn say(&mut self, line: &Value) {
        self.input.push_str(&line.to_string());
        self.input.push('\n');
    }

    /// Has a request written.
    pub(super) fn ask(&mut self, id: &str, body: &Value, what: Asked) {
        self.asked.insert(id.to_owned(), what);
        self.say(&serde_json::json!({ "type": "control_request", "request_id": id, "request": body }));
    }
}

/// Keeps at most [`MAX_OPEN`] entries, by dropping some other one; none with a key that is too long.
pub(super) fn remember<T>(map: &mut BTreeMap<String, T>, key: &str, value: T) {
    if key.len() > MAX_KEY {
        return;
    }
    if map.len() >= MAX_OPEN && !map.contains_key(key) {
        map.pop_first();
    }
    map.insert(key.to_owned(), value);
}
