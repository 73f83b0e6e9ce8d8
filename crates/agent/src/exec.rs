//! Any command: each turn is one run of it.
//!
//! The prompt's text is the command's stdin, and its stdout is the answer's text: one block, and more where it is long.
//! It succeeds with exit code 0.

use crate::driver::{AgentDriver, Stream};
use crate::error::{Error, Result};
use crate::event::{AgentEvent, Block, BlockKind, DeltaKind, Meaning, MessageState, Ready, TurnResult};
use crate::launch::{Launch, LaunchOptions};
use crate::lines::{Line, Lines, Place, clip, excerpt, incomplete};
use crate::request::{Content, Prompt, Request};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What is saved says so.
const FORMAT: &str = "exec-1";
/// The most bytes of text of one block; what is more comes in further blocks.
const MAX_TEXT: usize = 32 * 1024;
/// The most bytes of a prompt.
const MAX_PROMPT: usize = 32 << 20;
/// The longest line of stderr that is passed on, in bytes.
const MAX_COMPLAINT: usize = 4096;
/// What to start, and the driver.
pub(crate) fn launch(options: &LaunchOptions) -> Result<(Launch, Box<dyn AgentDriver>)> {
    let Some(program) = options.program.clone().filter(|program| !program.is_empty()) else {
        return Err(Error::Options { field: "program", problem: "say which command to run".to_owned() });
    };
    let impossible = [
        ("resume", options.resume.is_some()),
        ("claimed_spare", options.claimed_spare),
        ("mcp_servers", !options.mcp_servers.is_empty()),
        ("host_mcp_servers", !options.host_mcp_servers.is_empty()),
        ("hooks", options.hooks.is_some() || options.host_hooks.is_some()),
        ("plugins", !options.plugins.is_empty()),
        ("json_schema", options.json_schema.is_some()),
    ];
    if let Some((field, _)) = impossible.into_iter().find(|(_, wanted)| *wanted) {
        return Err(Error::Options { field, problem: "is nothing that a plain command can".to_owned() });
    }
    let argv = std::iter::once(program).chain(options.extra_args.iter().cloned()).collect();
    let cwd = Some(options.workspace.clone()).filter(|directory| !directory.is_empty());
    let state = State { format: FORMAT.to_owned(), ..State::default() };
    let env = options.env.clone().into_iter().chain(options.session_env.clone()).collect();
    Ok((Launch { argv, env, cwd }, Box::new(Exec::new(state))))
}

/// A driver as it was.
pub(crate) fn restore(saved: &serde_json::Value) -> Result<Box<dyn AgentDriver>> {
    let state = State::deserialize(saved).map_err(|error| Error::Saved { problem: error.to_string() })?;
    if state.format != FORMAT {
        return Err(Error::Saved { problem: format!("its format is {:?}, not {FORMAT:?}", state.format) });
    }
    Ok(Box::new(Exec::new(state)))
}

/// What the driver knows.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    format: String,
    stderr: Place,
    /// Bytes of stdout that are dealt with.
    consumed: u64,
    /// How many blocks are complete.
    blocks: u64,
    /// The id of the block that grows.
    block: String,
    /// The text of the block that grows; empty before its beginning.
    text: String,
    /// What waits to be written.
    input: String,
    /// The prompt that was given.
    prompt: Option<String>,
    /// Whether stdin is to be closed.
    end: bool,
    is_ready: bool,
    running: bool,
    exited: bool,
    complaint: String,
}

/// The driver.
#[derive(Debug)]
struct Exec {
    state: State,
    /// The beginning of a character.
    partial: Vec<u8>,
    stderr: Lines,
}

impl Exec {
    fn new(state: State) -> Self {
        let stderr = Lines::new(state.stderr, MAX_COMPLAINT);
        Self { state, partial: Vec::new(), stderr }
    }

    /// What comes before everything else.
    fn begin(&mut self, events: &mut Vec<AgentEvent>) {
        if !std::mem::replace(&mut self.state.is_ready, true) {
            events.push(AgentEvent::new(Meaning::Ready(Ready::default())));
        }
        let Some(uuid) = self.state.prompt.clone().filter(|_| !self.state.running) else { return };
        self.state.running = true;
        events.push(AgentEvent::new(Meaning::Running));
        events.push(AgentEvent::new(Meaning::Prompt { uuid, state: MessageState::Started }));
    }

    fn grow(&mut self, mut text: &str, events: &mut Vec<AgentEvent>) {
        while !text.is_empty() {
            self.begin(events);
            let state = &mut self.state;
            let piece = clip(text, MAX_TEXT - state.text.len());
            if piece.is_empty() {
                complete(state, events);
                continue;
            }
            if state.text.is_empty() {
                // Each turn is another run, whose blocks are others.
                let prompt = state.prompt.as_deref().unwrap_or_default();
                state.block = format!("answer:{prompt}:{}", state.blocks);
                let kind = BlockKind::AssistantText { text: String::new() };
                events.push(AgentEvent::new(Meaning::BlockStart(Block { id: state.block.clone(), kind })));
            }
            state.text.push_str(piece);
            events.push(AgentEvent::new(Meaning::BlockDelta {
                block: state.block.clone(),
                index: 0,
                kind: DeltaKind::Text,
                delta: piece.to_owned(),
            }));
            text = &text[piece.len()..];
        }
    }

    fn stdout(&mut self, data: &[u8], events: &mut Vec<AgentEvent>) {
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(data);
        let whole = bytes.len() - incomplete(&bytes);
        self.partial = bytes.split_off(whole);
        self.state.consumed += whole as u64;
        self.grow(&String::from_utf8_lossy(&bytes), events);
    }
}

/// The block that grows has all that it may, or there is no more. Gives its text.
fn complete(state: &mut State, events: &mut Vec<AgentEvent>) -> String {
    let text = std::mem::take(&mut state.text);
    if !text.is_empty() {
        let kind = BlockKind::AssistantText { text: text.clone() };
        let id = std::mem::take(&mut state.block);
        events.push(AgentEvent::new(Meaning::BlockComplete(Block { id, kind })));
        state.blocks += 1;
    }
    text
}

impl AgentDriver for Exec {
    fn output(&mut self, stream: Stream, data: &[u8]) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        match stream {
            Stream::Stdout => self.stdout(data, &mut events),
            Stream::Stderr => {
                let Self { state, stderr, .. } = self;
                stderr.feed(data, |line| complaint(state, &line, &mut events));
            }
        }
        events
    }

    fn skipped(&mut self, stream: Stream, missing: Range<u64>) -> Vec<AgentEvent> {
        let is_new = match stream {
            Stream::Stderr => self.stderr.skip(&missing),
            Stream::Stdout if missing.end > self.state.consumed => {
                self.partial.clear();
                self.state.consumed = missing.end;
                true
            }
            Stream::Stdout => false,
        };
        let problem = format!("bytes {} to {} of {stream:?} are lost", missing.start, missing.end);
        if is_new { vec![AgentEvent::new(Meaning::Malformed { problem })] } else { Vec::new() }
    }

    fn consumed(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.state.consumed,
            Stream::Stderr => self.stderr.place().consumed,
        }
    }

    fn request(&mut self, request: Request) -> Result<()> {
        let unsupported = |what: &str| Err(Error::Unsupported { what: what.to_owned() });
        match request {
            Request::Prompt(_) if self.state.exited => unsupported("be asked for anything: it has ended"),
            Request::Prompt(_) if self.state.end => unsupported("have a second turn in one run"),
            Request::Prompt(prompt) => self.prompt(prompt),
            Request::End => {
                self.state.end = true;
                Ok(())
            }
            Request::Answer(answer) => Err(Error::UnknownQuestion { id: answer.question }),
            Request::HostAnswer(answer) => Err(Error::UnknownQuestion { id: answer.call }),
            Request::Interrupt { .. } => unsupported("be interrupted: end its process"),
            _ => unsupported("do this: it is a plain command"),
        }
    }

    fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.input).into_bytes()
    }

    fn wants_end_of_input(&self) -> bool {
        self.state.end
    }

    fn exited(&mut self, code: Option<i32>) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        if self.state.exited {
            return events;
        }
        let rest = std::mem::take(&mut self.partial);
        self.state.consumed += rest.len() as u64;
        self.begin(&mut events);
        self.grow(&String::from_utf8_lossy(&rest), &mut events);
        let Self { state, stderr, .. } = self;
        stderr.end(|line| complaint(state, &line, &mut events));
        state.exited = true;
        finish(state, code, &mut events);
        events
    }

    fn is_idle(&self) -> bool {
        self.state.prompt.is_none() || self.state.exited
    }

    fn has_tasks(&self) -> bool {
        false
    }

    fn save(&self) -> serde_json::Value {
        let mut saved = serde_json::to_value(&self.state).unwrap_or_default();
        saved["stderr"] = serde_json::json!(self.stderr.place());
        saved
    }
}

impl Exec {
    fn prompt(&mut self, prompt: Prompt) -> Result<()> {
        let mut text = String::new();
        for content in &prompt.content {
            let Content::Text { text: more } = content else {
                return Err(Error::Unsupported { what: "see pictures".to_owned() });
            };
            if text.len() + more.len() > MAX_PROMPT {
                let bytes = text.len() + more.len();
                return Err(Error::TooLarge { what: "the prompt", bytes, limit: MAX_PROMPT });
            }
            text.push_str(more);
        }
        self.state.input.push_str(&text);
        self.state.prompt = Some(prompt.uuid);
        self.state.end = true;
        Ok(())
    }
}

/// How the run ended.
fn finish(state: &mut State, code: Option<i32>, events: &mut Vec<AgentEvent>) {
    let Some(uuid) = state.prompt.clone() else { return };
    let text = complete(state, events);
    let mut add = |meaning| events.push(AgentEvent::new(meaning));
    let complaint = Some(state.complaint.clone()).filter(|complaint| !complaint.is_empty());
    let (subtype, words) = match code {
        Some(0) => ("success", Some(text)),
        Some(code) => {
            ("error_during_execution", Some(complaint.unwrap_or_else(|| format!("exit code {code}"))))
        }
        None => ("agent_exited", Some("the command was killed".to_owned())),
    };
    add(Meaning::Result(TurnResult {
        subtype: subtype.to_owned(),
        is_error: code != Some(0),
        text: words,
        num_turns: 1,
        prompts: vec![uuid.clone()],
        ..TurnResult::default()
    }));
    add(Meaning::Prompt { uuid, state: MessageState::Completed });
    add(Meaning::Idle);
}

/// A line of stderr.
fn complaint(state: &mut State, line: &Line<'_>, events: &mut Vec<AgentEvent>) {
    let message = match line {
        Line::Whole(line) => String::from_utf8_lossy(line).trim().to_owned(),
        Line::TooLong(beginning) => excerpt(beginning) + "…",
    };
    if !message.is_empty() {
        state.complaint = clip(&message, 500).to_owned();
        events.push(AgentEvent::new(Meaning::Log { level: "info", message }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_different_turns_have_different_ids() {
        let blocks = |uuid: &str| {
            let options = LaunchOptions { program: Some("cat".to_owned()), ..LaunchOptions::default() };
            let (_, mut driver) = launch(&options).unwrap();
            let content = vec![Content::Text { text: "say it".to_owned() }];
            driver.request(Request::Prompt(Prompt { uuid: uuid.to_owned(), content })).unwrap();
            let mut events = driver.output(Stream::Stdout, "x".repeat(MAX_TEXT + 1).as_bytes());
            events.extend(driver.exited(Some(0)));
            let ids = events.into_iter().filter_map(|event| match event.meaning {
                Meaning::BlockStart(block) | Meaning::BlockComplete(block) => Some(block.id),
                Meaning::BlockDelta { block, .. } => Some(block),
                _ => None,
            });
            ids.collect::<Vec<_>>()
        };
        let (one, two) = (blocks("one"), blocks("two"));
        let (first, second) = ("answer:one:0", "answer:one:1");
        assert_eq!(one, [first, first, first, second, second, second]);
        assert!(two.iter().all(|id| !one.contains(id)), "{two:?}");
    }
}
