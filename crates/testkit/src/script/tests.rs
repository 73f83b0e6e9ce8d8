use super::{Script, Step, Usage};
use serde_json::json;
use std::time::Duration;

#[test]
fn what_is_built_is_what_is_found_in_the_prompt() {
    let script = Script::new()
        .tool("Bash", json!({ "command": "echo ']' @@[", "nothing": null }))
        .step(Step::text("one\n\"two\"").chunks(3).delay_ms(5).stop("max_tokens").model("other"))
        .step(Step::generated(10).usage(Usage { cache_creation_1h: Some(7), ..Usage::default() }))
        .step(Step::error(429).times(2).retry_after(1).should_retry(false).message("slow down"))
        .step(Step::tools([("A".to_owned(), json!({})), ("B".to_owned(), json!([1]))]).with_thinking("hm"))
        .step(Step::sse_error("overloaded_error", 3).with_text("so far"));
    let prompt = script.prompt("Do it:") + " and thank you]";
    assert_eq!(Script::find(&prompt).unwrap().unwrap(), script);
    assert_eq!(script.steps().len(), 6);
    assert!(Script::find("nothing @@ here [").is_none());
}

#[test]
fn answers_pass_steps_and_attempts_pass_faults() {
    let script = r#"[{"wait_ms":5},{"error":529,"times":2},{"cut":0,"times":1},{"text":"a"},
        {"wait_ms":7},{"text":"b","wait_ms":1},{"hang":0}]"#;
    let script = Script::parse(script).unwrap();
    let number = |answers, attempt| script.next(answers, attempt).map(|play| play.number);
    assert_eq!(
        (number(0, 0), number(0, 1), number(0, 2), number(0, 3)),
        (Some(2), Some(2), Some(3), Some(4))
    );
    assert_eq!((number(1, 0), number(2, 0), number(2, 99)), (Some(6), Some(7), Some(7)));
    assert_eq!(script.next(0, 0).unwrap().wait, Duration::from_millis(5));
    assert_eq!(script.next(1, 0).unwrap().wait, Duration::from_millis(8));
    assert_eq!(Script::new().text("x").next(1, 0), None);
}

#[test]
fn what_cannot_be_played_is_refused_with_its_place() {
    for (script, problem) in [
        (r#"[{"txet":"x"}]"#, "txet"),
        (r#"[{"text":"x"},{}]"#, "step 2: it says nothing"),
        (r#"[{"error":200}]"#, "400 to 599"),
        (r#"[{"error":500,"hang":1}]"#, "only one"),
        (r#"[{"error":500},{"text":"x"}]"#, "never comes"),
        (r#"[{"text":"x","times":2}]"#, "`times`"),
        (r#"[{"error":500,"times":0}]"#, "at least 1"),
        (r#"[{"text":"x","chunks":0}]"#, "`chunks`"),
        (r#"[{"gen":99999999999}]"#, "`gen`"),
        (r#"[{"usage":{"input":1}}]"#, "input"),
        (r#"[{"usage":{"input_tokens":-1}}]"#, "-1"),
        ("[", "EOF"),
    ] {
        let refused = Script::parse(script).unwrap_err().to_string();
        assert!(refused.contains(problem), "{script}: {refused}");
    }
}
