//! What a line means.

use super::state::State;
use super::{blocks, control, prompts, result, system, turns};
use crate::event::{AgentEvent, Meaning};
use crate::lines::{Line, excerpt};
use serde_json::Value;

/// The events of one line.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The subagent that the line comes from.
    pub(super) subagent: Option<String>,
    events: Vec<AgentEvent>,
}

impl Found {
    /// One more.
    pub(super) fn push(&mut self, meaning: Meaning) {
        self.events.push(AgentEvent { raw: None, subagent: self.subagent.clone(), meaning });
    }
}

/// How deep a line may be nested. The reader of JSON takes 127.
const MAX_DEPTH: usize = 100;
/// How many values a line may hold. Each takes up to some hundred bytes of memory, however short it is written.
const MAX_VALUES: usize = 500_000;
/// The longest word that is kept: an id, the name of a tool, a path. In bytes.
const MAX_WORD: usize = 1024;

/// What JSON would take to read; of other bytes, something.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extent {
    /// How deep it is nested.
    depth: usize,
    /// How many commas and colons there are outside of texts: there are hardly more values.
    parts: usize,
}

impl Extent {
    fn of(bytes: &[u8]) -> Self {
        let (mut extent, mut depth, mut in_string, mut escaped) = (Self::default(), 0_usize, false, false);
        for byte in bytes {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => {
                    depth += 1;
                    extent.depth = extent.depth.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b',' | b':' => extent.parts += 1,
                _ => {}
            }
        }
        extent
    }
}

/// The JSON object of a line, or what is wrong with it.
fn object(line: &[u8]) -> Result<Value, &'static str> {
    // What is in it is kept in other documents, which must be readable too.
    let extent = Extent::of(line);
    if extent.depth > MAX_DEPTH {
        return Err("a line is nested too deeply");
    }
    if extent.parts > MAX_VALUES {
        return Err("a line has too many values");
    }
    match serde_json::from_slice::<Value>(line) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err("a line is no JSON object"),
        Err(_) => Err("a line is not JSON"),
    }
}

/// Deals with a line of stdout.
pub(super) fn line(state: &mut State, line: &Line<'_>, events: &mut Vec<AgentEvent>) {
    let (bytes, object) = match line {
        Line::Whole(bytes) if bytes.trim_ascii().is_empty() => return,
        Line::Whole(bytes) => (bytes, object(bytes)),
        Line::TooLong(beginning) => (beginning, Err("a line is too long")),
    };
    let mut value = match object {
        Ok(value) => value,
        Err(problem) => {
            control::refuse_unread(state, bytes);
            let problem = format!("{problem}: {}", excerpt(bytes));
            return events.push(AgentEvent::new(Meaning::Malformed { problem }));
        }
    };
    if text(&value, "type") == "result" {
        turns::close(&mut state.turns, &mut value);
    }
    let kind = text(&value, "type");
    let mut found =
        Found { subagent: word(&value, "parent_tool_use_id").map(str::to_owned), events: Vec::new() };
    let known = match kind {
        "assistant" => blocks::assistant(state, &value, &mut found),
        "user" => blocks::user(state, &value, &mut found),
        "stream_event" => blocks::stream(state, &value, &mut found),
        "result" => result::result(state, &value, &mut found),
        "system" => system::system(state, &value, &mut found),
        "control_request" => control::request(state, &value, &mut found),
        "control_response" => control::response(state, &value, &mut found),
        "control_cancel_request" => control::cancel(state, &value, &mut found),
        "command_lifecycle" => prompts::lifecycle(state, &value, &mut found),
        "transcript_mirror" => transcript(&value, &mut found),
        _ => false,
    };
    // Deltas and transcripts are large and many, and all that is in them is said by their events.
    let keep = !matches!(kind, "stream_event" | "transcript_mirror");
    if found.events.is_empty() && (keep || !known) {
        let subtype = nonempty(&value, "subtype").map(|subtype| format!("/{subtype}")).unwrap_or_default();
        found.push(Meaning::Other { kind: format!("{kind}{subtype}") });
    }
    if let Some(first) = found.events.first_mut().filter(|_| keep || !known) {
        first.raw = Some(value);
    }
    events.append(&mut found.events);
}

fn transcript(line: &Value, found: &mut Found) -> bool {
    let (Some(path), Some(entries)) = (nonempty(line, "filePath"), line["entries"].as_array()) else {
        return false;
    };
    found.push(if is_transcript(path) {
        Meaning::Transcript { path: path.to_owned(), entries: entries.clone() }
    } else {
        Meaning::Malformed { problem: format!("no transcript is kept there: {}", excerpt(path.as_bytes())) }
    });
    true
}

/// Whether an agent may keep a transcript there: `…/projects/DIRECTORY/….jsonl`. It is the sandbox that says so, and
/// the file is written into others when they go on with its conversation.
#[must_use]
pub fn is_transcript(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/').filter(|_| path.len() <= MAX_WORD) else { return false };
    let parts: Vec<&str> = rest.split('/').collect();
    let plain = |part: &&str| !matches!(*part, "" | "." | "..") && !part.chars().any(char::is_control);
    let below = parts.iter().position(|part| *part == "projects").map(|at| parts.len() - at - 1);
    parts.iter().all(plain) && below.is_some_and(|below| below >= 2) && rest.ends_with(".jsonl")
}

/// Where an agent keeps the output of tools that is too large for a transcript, which then names the files there by
/// their absolute paths: `….jsonl` has `…/tool-results`. `None` for what is no transcript.
#[must_use]
pub fn tool_results(transcript: &str) -> Option<String> {
    let conversation = transcript.strip_suffix(".jsonl").filter(|_| is_transcript(transcript))?;
    Some(format!("{conversation}/tool-results"))
}

/// A member that is text, or nothing.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A member that is text and not empty.
pub(super) fn nonempty<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A member that is text, not empty, and short enough to be kept.
pub(super) fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    nonempty(value, key).filter(|text| text.len() <= MAX_WORD)
}

/// A member that is a whole number, or 0; at most what floating point has exactly.
pub(super) fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default().min(1 << 53)
}

/// The same, bounded.
pub(super) fn small(value: &Value, key: &str) -> u32 {
    u32::try_from(count(value, key)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Extent, is_transcript};

    #[test]
    fn what_is_in_strings_does_not_count() {
        assert_eq!(Extent::of(br#"{"a": ["\"[[[,:", {"b\\": []}]}"#), Extent { depth: 4, parts: 3 });
        assert_eq!(Extent::of(&b"[".repeat(1000)).depth, 1000);
        assert_eq!(Extent::of(b"]]]["), Extent { depth: 1, parts: 0 });
    }

    #[test]
    fn transcripts_are_where_agents_keep_them() {
        for path in ["/state/projects/-workspace/a.jsonl", "/h/.claude/projects/p/a/subagents/agent-b.jsonl"]
        {
            assert!(is_transcript(path), "{path}");
        }
        let long = format!("/projects/p/{}.jsonl", "a".repeat(1024));
        for path in [
            "projects/p/a.jsonl",
            "/state/projects/a.jsonl",
            "/state/projects/p/a.json",
            "/state/projects/../../etc/a.jsonl",
            "/state/projects//a.jsonl",
            "/state/projects/./a.jsonl",
            "/state/projects/p/a\0.jsonl",
            "/state/p/a.jsonl",
            "/etc/passwd",
            &long,
        ] {
            assert!(!is_transcript(path), "{path}");
        }
    }
}
