//! The daemon is killed while models answer: what is known of their usage, and budgets, are right after it.

use super::agent::Stage;
use super::setup::usable;
use hostel_tests::{Setup, eventually};
use serde_json::{Value, json};

/// Asks the model with the prompt's script, as a program does that knows nothing but HTTP; needs only bash.
pub(crate) const ASK: &str = r#"exec 3<>/dev/tcp/127.0.0.1/3129
printf 'POST /v1/messages HTTP/1.1\r\nHost: model\r\nConnection: close\r\nx-api-key: %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' "$ANTHROPIC_API_KEY" "${#BODY}" "$BODY" >&3
cat <&3"#;

pub(crate) fn body(script: &Value) -> String {
    let prompt = format!("@@{script}");
    let messages = json!([{ "role": "user", "content": prompt }]);
    let body =
        json!({ "model": "claude-haiku-4-5", "max_tokens": 100, "stream": true, "messages": messages });
    format!("BODY={body}")
}

/// Requests, tokens in and out, and requests that count towards the budget.
fn figures(stage: &Stage) -> (Value, Value, Value, Value) {
    let total = &stage.usage("sandbox")["total"];
    let told = stage.daemon.hostel(&["--json", "budget", "list"]);
    let listed: Value = serde_json::from_str(told.success()).unwrap();
    let field = |name: &str| total[name].clone();
    let used = listed["budgets"][0]["used"]["requests"].clone();
    (field("requests"), field("input_tokens"), field("output_tokens"), used)
}

#[test]
fn usage_and_budgets_are_right_after_the_daemon_was_killed() {
    if !usable("usage after a crash") {
        return;
    }
    let mut stage = Stage::new(Setup::default());
    let create = ["budget", "create", "team", "--label", "who=a", "--requests", "4"];
    assert_eq!(stage.daemon.hostel(&create).success(), "team");
    let sandbox = stage.daemon.sandbox(&["--model", "--label", "who=a"]);
    let usage = json!({ "input_tokens": 1000, "output_tokens": 50 });
    let whole = body(&json!([{ "text": "all of it", "usage": usage }]));
    // Silent after its beginning, which tells the input.
    let hanging = body(&json!([{ "text": "half of it", "usage": usage, "hang": 3 }]));
    let ask = ["exec", "--env", &whole, &sandbox, "--", "bash", "-c", ASK];
    let answer = stage.daemon.hostel(&ask);
    assert!(answer.success().contains("message_stop"), "{answer:?}");
    let three = format!("ask() {{ {ASK}; }}; for n in 1 2 3; do (ask) >/dev/null 2>&1 & done");
    let asked = stage.daemon.hostel(&["exec", "--env", &hanging, &sandbox, "--", "bash", "-c", &three]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let known = (json!(4), json!(4000), json!(53), json!(4));
    eventually("all four are known", || figures(&stage) == known);
    for _ in 0..2 {
        stage.daemon.kill();
        stage.daemon.restart();
        assert_eq!(figures(&stage), known, "what was interrupted counts once");
        let refused = stage.daemon.hostel(&ask);
        assert!(refused.success().contains("billing_error"), "{refused:?}");
    }
    assert_eq!(stage.asked(), 4, "nothing beyond the budget was sent");
    stage.daemon.finish();
}
