//! Requests of the agent, and its answers to ours.

use super::prompts;
use super::read::{Found, nonempty, text, word};
use super::say::{CANCEL, respond};
use super::state::{Asked, Call, MAX_OPEN, OpenQuestion, State};
use crate::event::{Meaning, Question};
use crate::lines::clip;
use serde_json::{Value, json};

/// The largest input of a tool that is kept until its question is answered, in bytes.
const MAX_INPUT: usize = 128 * 1024;
/// The longest id of a call of a host's tool, in bytes.
const MAX_CALL: usize = 1024;

/// Refuses a request that cannot be read, as far as its id can: whoever asked waits for an answer.
pub(super) fn refuse_unread(state: &mut State, line: &[u8]) {
    let Some(rest) = line.strip_prefix(br#"{"type":"control_request","request_id":""#) else { return };
    let id = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
    let plain = |byte: &u8| *byte == b'-' || byte.is_ascii_alphanumeric();
    if let Ok(id) = std::str::from_utf8(id)
        && (1..=MAX_CALL).contains(&id.len())
        && id.bytes().all(|byte| plain(&byte))
    {
        respond(state, id, Err("this request is too large to be read".to_owned()));
    }
}

/// The agent wants something of us.
pub(super) fn request(state: &mut State, line: &Value, found: &mut Found) -> bool {
    let (Some(id), request) = (word(line, "request_id"), &line["request"]) else { return false };
    let subtype = word(request, "subtype").unwrap_or_default();
    if state.questions.len() + state.calls.len() >= MAX_OPEN {
        respond(state, id, Err("too many requests are open".to_owned()));
        return true;
    }
    if state.questions.contains_key(id) || state.calls.contains_key(id) {
        respond(state, id, Err("a request of this id is open".to_owned()));
        return true;
    }
    match subtype {
        "can_use_tool" => ask(state, id, request, found),
        "hook_callback" => {
            state.calls.insert(id.to_owned(), Call::Hook);
            found.push(Meaning::HostCall {
                id: id.to_owned(),
                name: word(request, "callback_id").unwrap_or_default().to_owned(),
                hook: true,
                message: request["input"].clone(),
            });
        }
        "mcp_message" => mcp(state, id, request, found),
        // Whatever it is, nobody here answers it, and it must not wait for ever.
        _ => respond(state, id, Err(format!("this host does not know {subtype}"))),
    }
    true
}

fn ask(state: &mut State, id: &str, request: &Value, found: &mut Found) {
    let input = request["input"].clone();
    let suggestions = &request["permission_suggestions"];
    let fits = suggestions.to_string().len() <= MAX_INPUT;
    let suggestions = suggestions.as_array().filter(|_| fits).cloned().unwrap_or_default();
    // Older versions take an allowance without the input for a denial.
    let keep = !state.can("interrupt_receipt_v1") || input.to_string().len() <= MAX_INPUT;
    let kept = if keep { input.clone() } else { Value::Null };
    let tool = word(request, "tool_name").unwrap_or_default().to_owned();
    let open = OpenQuestion { tool: tool.clone(), input: kept, suggestions: suggestions.clone() };
    state.questions.insert(id.to_owned(), open);
    let description = word(request, "description").or(word(request, "display_name"));
    found.push(Meaning::Question(Question {
        id: id.to_owned(),
        tool,
        input,
        description: description.map(str::to_owned),
        tool_use_id: word(request, "tool_use_id").map(str::to_owned),
        suggestions,
    }));
}

fn mcp(state: &mut State, id: &str, request: &Value, found: &mut Found) {
    let message = &request["message"];
    let Some(call) = message.get("id").filter(|call| !call.is_null()) else {
        // A notification has no answer in JSON-RPC, but the request around it has.
        let nothing = json!({ "jsonrpc": "2.0", "id": 0, "result": {} });
        return respond(state, id, Ok(json!({ "mcp_response": nothing })));
    };
    if call.to_string().len() > MAX_CALL {
        return respond(state, id, Err("the id of the call is too long".to_owned()));
    }
    state.calls.insert(id.to_owned(), Call::Mcp(call.clone()));
    found.push(Meaning::HostCall {
        id: id.to_owned(),
        name: word(request, "server_name").unwrap_or_default().to_owned(),
        hook: false,
        message: message.clone(),
    });
}

/// The agent does not want it any more.
pub(super) fn cancel(state: &mut State, line: &Value, found: &mut Found) -> bool {
    let id = text(line, "request_id");
    state.calls.remove(id);
    if state.questions.remove(id).is_some() {
        found.push(Meaning::QuestionWithdrawn { id: id.to_owned() });
    }
    true
}

/// The agent answers.
pub(super) fn response(state: &mut State, line: &Value, found: &mut Found) -> bool {
    let response = &line["response"];
    let id = text(response, "request_id");
    let answer = match text(response, "subtype") {
        "success" => Ok(response["response"].clone()),
        _ => Err(nonempty(response, "error").unwrap_or("refused").to_owned()),
    };
    match (state.asked.remove(id), answer) {
        (Some(Asked::Request), result) => found.push(Meaning::Answered { id: id.to_owned(), result }),
        (Some(Asked::Initialize), Ok(answer)) => {
            initialized(state, &answer);
            if !state.claim {
                ready(state, found);
            }
        }
        (Some(Asked::Claim), Ok(answer)) => {
            let conversation = word(&answer, "session_id").map(str::to_owned);
            state.ready.conversation = conversation.or(state.ready.conversation.take());
            ready(state, found);
        }
        (Some(what @ (Asked::Initialize | Asked::Claim)), Err(problem)) => {
            // It is of no use like this. The end of its input makes it end.
            state.end = true;
            let what = if what == Asked::Claim { "be claimed" } else { "begin" };
            found.push(Meaning::Log {
                level: "error",
                message: format!("the agent could not {what}: {problem}"),
            });
        }
        (Some(Asked::Servers), Ok(answer)) => {
            for (name, problem) in answer["errors"].as_object().into_iter().flatten() {
                let problem = problem.as_str().unwrap_or_default();
                let message =
                    format!("the MCP server {:?} does not work: {}", clip(name, 100), clip(problem, 500));
                found.push(Meaning::Log { level: "warn", message });
            }
        }
        (Some(Asked::Option | Asked::Servers), Err(problem)) => found.push(Meaning::Log {
            level: "error",
            message: format!("the agent did not take the option {id:?}: {problem}"),
        }),
        (Some(Asked::Cancel), Ok(answer)) if answer["cancelled"] == true => {
            let uuid = id.strip_prefix(CANCEL).unwrap_or_default();
            prompts::cancelled(state, uuid, found);
        }
        (Some(Asked::Option), Ok(_)) | (Some(Asked::Cancel) | None, _) => {}
    }
    true
}

fn initialized(state: &mut State, answer: &Value) {
    if let Some(version) = word(answer, "claude_code_version") {
        state.ready.version = Some(version.to_owned());
    }
    state.learn(&answer["capabilities"]);
}

fn ready(state: &mut State, found: &mut Found) {
    if !std::mem::replace(&mut state.is_ready, true) {
        found.push(Meaning::Ready(state.ready.clone()));
    }
}
