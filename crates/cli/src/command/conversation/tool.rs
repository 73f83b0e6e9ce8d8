//! Tools: one line each.

use super::happening::Block;
use crate::output::human::printable;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Instant;

/// Calls that are kept in mind: far more than an agent has under way.
const MOST: usize = 256;

/// A call of a tool.
#[derive(Debug)]
struct Call {
    name: String,
    input: Option<Value>,
    since: Instant,
}

/// A call that has ended.
#[derive(Debug, PartialEq)]
pub(super) struct Ended {
    /// The tool, and what it was asked for.
    pub(super) what: String,
    /// Whether it failed.
    pub(super) failed: bool,
    /// Seconds that it took, as seen from here.
    pub(super) seconds: f64,
}

/// Calls under way.
#[derive(Debug, Default)]
pub(super) struct Tools(HashMap<String, Call>);

impl Tools {
    /// More is known of a call. Says when that is its end, once.
    pub(super) fn told(&mut self, block: &Block) -> Option<Ended> {
        if block.kind == "tool_use" && !self.0.contains_key(&block.id) && !is_over(block) {
            if self.0.len() >= MOST {
                self.0.clear();
            }
            let call = Call { name: String::new(), input: None, since: Instant::now() };
            self.0.insert(block.id.clone(), call);
        }
        if let Some(call) = self.0.get_mut(&block.id) {
            call.name = block.name.clone().unwrap_or_else(|| std::mem::take(&mut call.name));
            call.input = block.input.clone().filter(|input| !input.is_null()).or_else(|| call.input.take());
        }
        match (block.kind.as_str(), block.status.as_deref()) {
            ("tool_result", _) => self.end(block.tool_use_id.as_deref()?, block.is_error),
            (_, Some("success")) => self.end(&block.id, false),
            (_, Some("error")) => self.end(&block.id, true),
            _ => None,
        }
    }

    fn end(&mut self, id: &str, failed: bool) -> Option<Ended> {
        let call = self.0.remove(id)?;
        let what = describe(&call.name, call.input.as_ref());
        Some(Ended { what, failed, seconds: call.since.elapsed().as_secs_f64() })
    }

    /// What is under way, in a few words.
    pub(super) fn running(&self) -> Option<String> {
        let newest = self.0.values().max_by_key(|call| call.since)?;
        Some(describe(&newest.name, newest.input.as_ref()))
    }

    /// Nothing is under way any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn is_over(block: &Block) -> bool {
    matches!(block.status.as_deref(), Some("success" | "error"))
}

/// A tool and what it is asked for, on one line.
pub(crate) fn describe(name: &str, input: Option<&Value>) -> String {
    const TELLING: [&str; 9] =
        ["command", "file_path", "path", "pattern", "url", "query", "description", "plan", "prompt"];
    let told = TELLING.iter().find_map(|key| input?.get(key)?.as_str()).map(str::to_owned);
    let whole =
        || input.filter(|input| input.as_object().is_some_and(|keys| !keys.is_empty())).map(Value::to_string);
    let asked = told.or_else(whole).unwrap_or_default();
    let name = if name.is_empty() { "tool" } else { name };
    let lines: Vec<_> = asked.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    printable(&format!("{name} {}", lines.join("; ")).trim_end().replace('\t', " "))
}

/// The first lines of what a tool gave, where it failed.
pub(super) fn complaint(content: Option<&Value>) -> Option<String> {
    let text = match content? {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().find_map(|part| part.get("text")?.as_str())?.to_owned(),
        _ => return None,
    };
    // Of a command the first line is its exit code alone.
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
    (!lines.is_empty()).then(|| printable(&lines.join(": ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_call_ends_once_however_it_is_told() {
        let mut tools = Tools::default();
        let block = |value: Value| serde_json::from_value::<Block>(value).unwrap();
        let start = json!({"id":"t","type":"tool_use","name":"Bash","input":null,"status":"pending"});
        assert_eq!(tools.told(&block(start)), None);
        let known = json!({"id":"t","type":"tool_use","name":"Bash","input":{"command":"ls\n\n pwd"},"status":"running"});
        assert_eq!(tools.told(&block(known)), None);
        assert_eq!(tools.running().as_deref(), Some("Bash ls; pwd"));
        let ended = tools.told(&block(json!({"id":"t","status":"error"}))).unwrap();
        assert!(ended.failed && ended.what == "Bash ls; pwd");
        let result = json!({"id":"r","type":"tool_result","toolUseId":"t","content":"no","isError":true});
        assert_eq!(tools.told(&block(result)), None);
        assert_eq!(tools.running(), None);
    }

    #[test]
    fn what_a_tool_is_asked_for_is_one_safe_line() {
        assert_eq!(describe("Odd", Some(&json!({"n": 1}))), r#"Odd {"n":1}"#);
        assert_eq!(describe("Read", Some(&json!({"file_path": "/a\u{1b}[2J"}))), "Read /a\\u{1b}[2J");
        assert_eq!(describe("", None), "tool");
        let content = json!([{"type":"text","text":"\n  it is\nbroken"}]);
        assert_eq!(complaint(Some(&content)).as_deref(), Some("it is: broken"));
    }
}
