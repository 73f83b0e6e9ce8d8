//! What a line means.

use super::state::State;
use super::{blocks, control, prompts, result, system};
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

/// How deep JSON is nested; of other bytes, something.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Deals with a line of stdout.
pub(super) fn line(state: &mut State, line: &Line<'_>, events: &mut Vec<AgentEvent>) {
    let malformed = |what: &str, bytes: &[u8]| {
        AgentEvent::new(Meaning::Malformed { problem: format!("{what}: {}", excerpt(bytes)) })
    };
    let bytes = match line {
        Line::Whole(bytes) => bytes,
        Line::TooLong(beginning) => return events.push(malformed("a line is too long", beginning)),
    };
    if bytes.trim_ascii().is_empty() {
        return;
    }
    // What is in it is kept in other documents, which must be readable too.
    if depth(bytes) > MAX_DEPTH {
        return events.push(malformed("a line is nested too deeply", bytes));
    }
    let value = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if value.is_object() => value,
        Ok(_) => return events.push(malformed("a line is no JSON object", bytes)),
        Err(_) => return events.push(malformed("a line is not JSON", bytes)),
    };
    let kind = text(&value, "type");
    let mut found =
        Found { subagent: nonempty(&value, "parent_tool_use_id").map(str::to_owned), events: Vec::new() };
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
    found.push(Meaning::Transcript { path: path.to_owned(), entries: entries.clone() });
    true
}

/// A member that is text, or nothing.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A member that is text and not empty.
pub(super) fn nonempty<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A member that is a whole number, or 0.
pub(super) fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// The same, bounded.
pub(super) fn small(value: &Value, key: &str) -> u32 {
    u32::try_from(count(value, key)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert_eq!(depth(br#"{"a": ["\"[[[", {"b\\": []}]}"#), 4);
        assert_eq!(depth(&b"[".repeat(1000)), 1000);
        assert_eq!(depth(b"]]]["), 1);
    }
}
