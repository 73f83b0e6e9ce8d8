//! What is written for requests.

use super::claude;
use hostel_agent::{
    AgentDriver, AgentKind, Answer, Content, Decision, Error, HostAnswer, Meaning, PermissionMode, Prompt,
    Request, Stream,
};
use serde_json::{Value, json};

/// Sends a prompt.
pub(crate) fn prompt(driver: &mut dyn AgentDriver, uuid: &str) {
    let content = vec![Content::Text { text: "text".to_owned() }];
    driver.request(Request::Prompt(Prompt { uuid: uuid.to_owned(), content })).expect("a prompt");
}

/// The lines that wait.
fn said(driver: &mut dyn AgentDriver) -> Vec<Value> {
    let input = String::from_utf8(driver.take_input()).expect("text");
    assert!(input.is_empty() || input.ends_with('\n'));
    input.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn ask(driver: &mut dyn AgentDriver, id: &str, request: &Value) {
    let line = json!({ "type": "control_request", "request_id": id, "request": request });
    driver.output(Stream::Stdout, format!("{line}\n").as_bytes());
}

#[test]
fn the_first_words_and_a_prompt_wait_together() {
    let mut driver = claude();
    assert!(driver.is_idle());
    prompt(&mut *driver, "u");
    assert!(!driver.is_idle());
    // Not yet taken, so it is saved.
    let mut driver = AgentKind::Claude.restore(&driver.save()).expect("what was saved");
    let lines = said(&mut *driver);
    assert_eq!(lines[0]["request"]["subtype"], "initialize");
    assert_eq!((&lines[1]["type"], &lines[1]["uuid"]), (&json!("user"), &json!("u")));
    assert_eq!(lines.len(), 2);
    assert!(driver.take_input().is_empty());
}

#[test]
fn no_text_breaks_a_line() {
    let mut driver = claude();
    driver.take_input();
    let text = "a\nb\r\u{2028}\u{0}\"\\{\"type\":\"user\"}\n".to_owned();
    let content = vec![Content::Text { text: text.clone() }];
    driver.request(Request::Prompt(Prompt { uuid: "u\n".to_owned(), content })).expect("a prompt");
    let lines = said(&mut *driver);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["message"]["content"][0]["text"], json!(text));
}

#[test]
fn allowances_have_the_input_and_permissions_of_the_session_only() {
    let mut driver = claude();
    driver.take_input();
    let suggestion = json!({ "type": "addRules", "rules": [{ "toolName": "Bash", "ruleContent": "ls:*" }],
        "behavior": "allow", "destination": "localSettings" });
    let request = |suggestions: Value| {
        json!({ "subtype": "can_use_tool", "tool_name": "Bash", "input": { "command": "ls /" },
            "permission_suggestions": suggestions })
    };
    ask(&mut *driver, "with", &request(json!([suggestion, { "type": "setMode", "mode": "acceptEdits" }])));
    ask(&mut *driver, "without", &request(json!([])));
    for question in ["with", "without"] {
        let decision = Decision::Allow { input: None, for_session: true };
        driver
            .request(Request::Answer(Answer { question: question.to_owned(), decision }))
            .expect("an answer");
    }
    let lines = said(&mut *driver);
    let responses: Vec<&Value> = lines.iter().map(|line| &line["response"]["response"]).collect();
    for response in &responses {
        assert_eq!(response["behavior"], "allow");
        assert_eq!(response["updatedInput"], json!({ "command": "ls /" }));
        let permissions = response["updatedPermissions"].as_array().expect("permissions");
        assert!(permissions.iter().all(|permission| permission["destination"] == "session"));
    }
    assert_eq!(responses[0]["updatedPermissions"][0]["rules"], suggestion["rules"]);
    // Nothing was suggested: just this command.
    let rules = json!([{ "toolName": "Bash", "ruleContent": "ls /" }]);
    assert_eq!(responses[1]["updatedPermissions"][0]["rules"], rules);
}

#[test]
fn what_nobody_answers_is_answered_here() {
    let mut driver = claude();
    driver.take_input();
    ask(&mut *driver, "odd", &json!({ "subtype": "elicitation" }));
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    ask(&mut *driver, "note", &json!({ "subtype": "mcp_message", "server_name": "s", "message": note }));
    let lines = said(&mut *driver);
    assert_eq!(
        (&lines[0]["response"]["subtype"], &lines[0]["response"]["request_id"]),
        (&json!("error"), &json!("odd"))
    );
    assert_eq!(
        (&lines[1]["response"]["subtype"], &lines[1]["response"]["request_id"]),
        (&json!("success"), &json!("note"))
    );
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call" });
    ask(&mut *driver, "call", &json!({ "subtype": "mcp_message", "server_name": "s", "message": call }));
    let answer = HostAnswer { call: "call".to_owned(), result: Err("no".to_owned()) };
    driver.request(Request::HostAnswer(answer.clone())).expect("an answer");
    let lines = said(&mut *driver);
    let told = &lines[0]["response"]["response"]["mcp_response"];
    assert_eq!((&told["id"], &told["error"]["message"]), (&json!(7), &json!("no")));
    assert!(matches!(driver.request(Request::HostAnswer(answer)), Err(Error::UnknownQuestion { .. })));
}

#[test]
fn an_id_is_asked_about_once_at_a_time() {
    let mut driver = claude();
    driver.take_input();
    let question = |command: &str| json!({ "subtype": "can_use_tool", "tool_name": "Bash", "input": { "command": command } });
    ask(&mut *driver, "q", &question("ls"));
    ask(&mut *driver, "q", &question("rm -r /"));
    let lines = said(&mut *driver);
    assert_eq!((lines.len(), &lines[0]["response"]["subtype"]), (1, &json!("error")), "{lines:?}");
    let decision = Decision::Allow { input: None, for_session: false };
    driver.request(Request::Answer(Answer { question: "q".to_owned(), decision })).expect("an answer");
    let lines = said(&mut *driver);
    assert_eq!(lines[0]["response"]["response"]["updatedInput"], json!({ "command": "ls" }), "{lines:?}");
}

#[test]
fn requests_that_cannot_be() {
    let mut driver = claude();
    driver.take_input();
    let prompt = |content| Request::Prompt(Prompt { uuid: "u".to_owned(), content });
    let large = vec![Content::Text { text: "x".repeat((32 << 20) + 1) }];
    assert!(matches!(driver.request(prompt(large)), Err(Error::TooLarge { .. })));
    assert!(driver.request(prompt(Vec::new())).is_err());
    for (media_type, data) in [("image/tiff", "AAAA"), ("image/png", "no base64"), ("image/png", "")] {
        let (media_type, data) = (media_type.to_owned(), data.to_owned());
        let told = driver.request(prompt(vec![Content::Image { media_type, data }]));
        assert!(matches!(told, Err(Error::Options { field: "image", .. })));
    }
    let body = json!({ "no": "subtype" });
    assert!(driver.request(Request::Control { id: "c".to_owned(), body }).is_err());
    driver.request(Request::Cost { id: "c".to_owned() }).expect("a request");
    assert!(driver.request(Request::ContextUsage { id: "c".to_owned() }).is_err(), "the id is taken");
    assert_eq!(said(&mut *driver).len(), 1);
    let told = driver.exited(Some(0));
    assert!(matches!(&told[0].meaning, Meaning::Answered { id, result: Err(_) } if id == "c"));
    let mode = PermissionMode::Plan;
    assert!(driver.request(Request::SetPermissionMode { id: "m".to_owned(), mode }).is_err());
    assert!(driver.request(Request::End).is_err());
}

#[test]
fn only_what_was_saved_is_restored() {
    for saved in
        [json!(null), json!({}), json!({ "format": "exec-1" }), json!({ "format": "claude-0" }), json!([1])]
    {
        assert!(matches!(AgentKind::Claude.restore(&saved), Err(Error::Saved { .. })), "{saved}");
        if saved["format"] != "exec-1" {
            assert!(matches!(AgentKind::Exec.restore(&saved), Err(Error::Saved { .. })), "{saved}");
        }
    }
}
