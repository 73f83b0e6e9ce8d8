use super::{Attempts, MessagesRequest, choose};
use crate::script::Script;
use serde_json::{Value, json};

/// What is played for a conversation.
fn played(messages: Value, default: &Script, attempts: &Attempts) -> String {
    let body = json!({ "model": "m", "max_tokens": 1, "messages": messages }).to_string();
    let request = MessagesRequest::read(body.as_bytes(), true).unwrap();
    match choose(&request, "session", default, attempts) {
        Ok(choice) => choice.step.text.unwrap_or(choice.what),
        Err(error) => error.message,
    }
}

fn plainly(messages: Value) -> String {
    played(messages, &Script::new(), &Attempts::default())
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

fn assistant() -> Value {
    json!({ "role": "assistant", "content": [{ "type": "text", "text": "@@[ not a prompt" }] })
}

fn tool_result() -> Value {
    json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "@@[ nor this" }] })
}

#[test]
fn answers_since_the_prompt_say_which_step_is_next() {
    let prompt = user(&Script::new().text("a").text("b").prompt("go"));
    let system = json!({ "role": "system", "content": "by the way" });
    assert_eq!(plainly(json!([prompt])), "a");
    assert_eq!(plainly(json!([user("x"), assistant(), prompt])), "a");
    assert_eq!(plainly(json!([prompt, assistant(), tool_result(), system])), "b");
    // One answer may come back as several messages.
    assert_eq!(plainly(json!([prompt, assistant(), system, assistant(), tool_result()])), "b");
    assert_eq!(plainly(json!([prompt, assistant(), tool_result(), assistant(), tool_result()])), "ok");
    // What the CLI says by itself in the middle of a script does not end it.
    assert_eq!(plainly(json!([prompt, assistant(), user("Go on.")])), "b");
}

#[test]
fn what_has_no_script_is_echoed() {
    let prompt = user(&Script::new().text("a").prompt("go"));
    let blocks = json!({ "role": "user", "content": [
        { "type": "text", "text": "<system-reminder>be good</system-reminder>" },
        { "type": "text", "text": "hello" },
        { "type": "image", "source": {} },
    ] });
    assert_eq!(plainly(json!([blocks])), "echo: hello");
    assert_eq!(plainly(json!([prompt, assistant(), user("and now?")])), "echo: and now?");
    let two = user(&Script::new().text("a").text("b").prompt("go"));
    let interrupted = user("[Request interrupted by user for tool use]");
    assert_eq!(plainly(json!([two, assistant(), interrupted, user("stop that")])), "echo: stop that");
    assert!(plainly(json!([user("@@[{\"nonsense\":1}]")])).contains("nonsense"));
}

#[test]
fn a_default_is_played_where_there_is_no_script() {
    let default = Script::new().text("one").text("two");
    let attempts = Attempts::default();
    let prompt = user(&Script::new().text("mine").prompt(""));
    assert_eq!(played(json!([user("x")]), &default, &attempts), "one");
    assert_eq!(played(json!([user("x"), assistant(), tool_result()]), &default, &attempts), "two");
    assert_eq!(played(json!([prompt]), &default, &attempts), "mine");
}

#[test]
fn faults_are_counted_by_place() {
    let attempts = Attempts::default();
    let ask = |messages| played(messages, &Script::new(), &attempts);
    let prompt = user(&Script::new().error(529, 2).text("a").error(500, 1).text("b").prompt("go"));
    let replies = [(); 4].map(|()| ask(json!([prompt])));
    assert_eq!(replies, ["step 1/4: error 529", "step 1/4: error 529", "a", "a"]);
    let replies = [(); 2].map(|()| ask(json!([prompt, assistant(), tool_result()])));
    assert_eq!(replies, ["step 3/4: error 500", "b"]);
    // The same words again later are another place.
    assert_eq!(ask(json!([prompt, assistant(), prompt])), "step 1/4: error 529");
}
