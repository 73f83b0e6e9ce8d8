//! What is written for a request.

use super::start::word;
use super::state::{Asked, Call, MAX_OPEN, OpenQuestion, State};
use crate::error::{Error, Result};
use crate::request::{Answer, Content, Decision, HostAnswer, Prompt, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The most bytes of one line that is written. The agent takes more than its model does.
const MAX_MESSAGE: usize = 32 << 20;

/// The types of pictures that models take.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// How the ids of those requests begin that take a prompt back. The prompt's uuid follows.
pub(super) const CANCEL: &str = "hostel:cancel:";

/// Has a request written.
pub(super) fn request(state: &mut State, request: Request) -> Result<()> {
    if state.exited {
        return Err(Error::Unsupported { what: "be asked for anything: it has ended".to_owned() });
    }
    if state.end && !matches!(request, Request::Answer(_) | Request::HostAnswer(_) | Request::End) {
        return Err(Error::Unsupported { what: "be asked for more: its input is closed".to_owned() });
    }
    match request {
        Request::Prompt(prompt) => self::prompt(state, prompt),
        Request::Interrupt { id } => {
            ask(state, &id, &json!({ "subtype": "interrupt", "cancel_queued": true }))?;
            state.interrupting = state.busy || !state.prompts.is_empty();
            if !state.can("interrupt_cancel_queued_v1") {
                cancel(state);
            }
            Ok(())
        }
        Request::Answer(given) => answer(state, given),
        Request::HostAnswer(given) => host_answer(state, given),
        Request::SetModel { id, model } => {
            ask(state, &id, &json!({ "subtype": "set_model", "model": model }))
        }
        Request::SetPermissionMode { id, mode } => {
            // What is said now holds, whatever was allowed before.
            state.granted.retain(|update| update["type"] != "setMode");
            ask(state, &id, &json!({ "subtype": "set_permission_mode", "mode": word(mode) }))
        }
        Request::SetMcpServers { id, servers } => {
            ask(state, &id, &json!({ "subtype": "mcp_set_servers", "servers": servers }))
        }
        Request::ContextUsage { id } => ask(state, &id, &json!({ "subtype": "get_context_usage" })),
        Request::Cost { id } => ask(state, &id, &json!({ "subtype": "get_session_cost" })),
        Request::Control { id, body } => {
            if !body.get("subtype").is_some_and(Value::is_string) {
                return Err(Error::Options { field: "body", problem: "needs a subtype".to_owned() });
            }
            ask(state, &id, &body)
        }
        Request::End => {
            state.end = true;
            Ok(())
        }
    }
}

fn ask(state: &mut State, id: &str, body: &Value) -> Result<()> {
    if state.asked.contains_key(id) || id.is_empty() {
        return Err(Error::Options { field: "id", problem: "must be new and not empty".to_owned() });
    }
    if state.asked.len() >= MAX_OPEN {
        return Err(Error::TooLarge { what: "the list of open requests", bytes: MAX_OPEN, limit: MAX_OPEN });
    }
    state.ask(id, body, Asked::Request);
    Ok(())
}

/// Takes back prompts that wait, where an interrupt does not.
fn cancel(state: &mut State) {
    for prompt in state.prompts.clone() {
        if !state.turn.contains(&prompt) {
            let body = json!({ "subtype": "cancel_async_message", "message_uuid": prompt });
            state.ask(&format!("{CANCEL}{prompt}"), &body, Asked::Cancel);
        }
    }
}

fn prompt(state: &mut State, prompt: Prompt) -> Result<()> {
    if state.prompts.len() >= MAX_OPEN {
        return Err(Error::TooLarge { what: "the queue of prompts", bytes: MAX_OPEN, limit: MAX_OPEN });
    }
    let bytes = prompt.content.iter().map(size).sum();
    if bytes > MAX_MESSAGE {
        return Err(Error::TooLarge { what: "the prompt", bytes, limit: MAX_MESSAGE });
    }
    if prompt.content.is_empty() {
        return Err(Error::Options { field: "content", problem: "must not be empty".to_owned() });
    }
    prompt.content.iter().try_for_each(check)?;
    let content: Vec<Value> = prompt.content.into_iter().map(block).collect();
    state.say(&json!({
        "type": "user",
        "uuid": prompt.uuid,
        "session_id": "",
        "parent_tool_use_id": null,
        "message": { "role": "user", "content": content },
    }));
    state.prompts.push_back(prompt.uuid);
    Ok(())
}

fn size(content: &Content) -> usize {
    match content {
        Content::Text { text } => text.len(),
        Content::Image { data, .. } => data.len(),
    }
}

/// What the model would refuse is not put into the conversation, where it would be refused again with every turn.
fn check(content: &Content) -> Result<()> {
    let Content::Image { media_type, data } = content else { return Ok(()) };
    let problem = if !IMAGES.contains(&media_type.as_str()) {
        format!("{media_type:?} is none of {}", IMAGES.join(", "))
    } else if data.is_empty() || STANDARD.decode(data).is_err() {
        "is not base64".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Options { field: "image", problem })
}

fn block(content: Content) -> Value {
    match content {
        Content::Text { text } => json!({ "type": "text", "text": text }),
        Content::Image { media_type, data } => json!({
            "type": "image",
            "source": { "type": "base64", "media_type": media_type, "data": data },
        }),
    }
}

fn answer(state: &mut State, answer: Answer) -> Result<()> {
    let Some(question) = state.questions.remove(&answer.question) else {
        return Err(Error::UnknownQuestion { id: answer.question });
    };
    let response = match answer.decision {
        Decision::Deny { message, interrupt } => {
            state.interrupting |= interrupt;
            let message = if message.is_empty() { "Denied.".to_owned() } else { message };
            json!({ "behavior": "deny", "message": message, "interrupt": interrupt })
        }
        Decision::Allow { input, for_session } => {
            let rules = for_session.then(|| rules(&question));
            state.grant(rules.as_deref().unwrap_or_default());
            // Older versions take an allowance without the input for a denial, so it is always said.
            let input = input.unwrap_or(question.input);
            let mut response = json!({ "behavior": "allow" });
            if !input.is_null() {
                response["updatedInput"] = input;
            }
            if let Some(rules) = rules {
                response["updatedPermissions"] = Value::Array(rules);
            }
            response
        }
    };
    respond(state, &answer.question, Ok(response));
    Ok(())
}

/// What makes it not ask for the like again: as it suggests itself, for this conversation only; else this very tool.
fn rules(question: &OpenQuestion) -> Vec<Value> {
    let mut rules = question.suggestions.clone();
    if rules.is_empty() {
        let mut rule = json!({ "toolName": question.tool });
        if let Some(command) = question.input.get("command").filter(|_| question.tool == "Bash") {
            rule["ruleContent"] = command.clone();
        }
        rules.push(json!({ "type": "addRules", "rules": [rule], "behavior": "allow" }));
    }
    for rule in &mut rules {
        if let Some(rule) = rule.as_object_mut() {
            rule.insert("destination".to_owned(), json!("session"));
        }
    }
    rules
}

fn host_answer(state: &mut State, answer: HostAnswer) -> Result<()> {
    let Some(call) = state.calls.remove(&answer.call) else {
        return Err(Error::UnknownQuestion { id: answer.call });
    };
    let response = match (call, answer.result) {
        (Call::Hook, result) => result,
        (Call::Mcp(_), Ok(message)) => Ok(json!({ "mcp_response": message })),
        (Call::Mcp(id), Err(problem)) => Ok(json!({
            // JSON-RPC 2.0, 5.1: internal error.
            "mcp_response": { "jsonrpc": "2.0", "id": id, "error": { "code": -32603, "message": problem } },
        })),
    };
    respond(state, &answer.call, response);
    Ok(())
}

/// Answers a request of the agent.
pub(super) fn respond(state: &mut State, id: &str, answer: std::result::Result<Value, String>) {
    let response = match answer {
        Ok(response) => json!({ "subtype": "success", "request_id": id, "response": response }),
        Err(error) => json!({ "subtype": "error", "request_id": id, "error": error }),
    };
    state.say(&json!({ "type": "control_response", "response": response }));
}
