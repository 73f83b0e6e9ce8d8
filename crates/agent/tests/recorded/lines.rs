//! Lines that are not as they should be, and lines of other versions.

use super::claude;
use hostel_agent::{AgentDriver, AgentEvent, AgentKind, LaunchOptions, Meaning, MessageState, Stream};
use serde_json::{Value, json};

fn say(driver: &mut dyn AgentDriver, line: &Value) -> Vec<Meaning> {
    meanings(driver.output(Stream::Stdout, format!("{line}\n").as_bytes()))
}

fn meanings(events: Vec<AgentEvent>) -> Vec<Meaning> {
    events.into_iter().map(|event| event.meaning).collect()
}

fn is_malformed(meanings: &[Meaning]) -> bool {
    matches!(meanings, [Meaning::Malformed { problem }] if problem.len() < 400)
}

#[test]
fn what_is_no_json_object_is_told_and_bounded() {
    let mut driver = claude();
    let deep = "[".repeat(100_000);
    for line in ["not JSON", "[]", "3", "\"text\"", "{\"a\":", &deep, "\u{fffd}\u{0}", "{\"a\":1e999}"] {
        let told = meanings(driver.output(Stream::Stdout, format!("{line}\n").as_bytes()));
        assert!(is_malformed(&told), "{told:?}");
    }
    assert!(is_malformed(&meanings(driver.output(Stream::Stdout, b"\xff\xfe\n"))));
    assert!(driver.output(Stream::Stdout, b"\n  \r\n").is_empty());
    let told = say(&mut *driver, &json!({ "brand": "new", "type": "never_seen", "subtype": "either" }));
    assert_eq!(told, [Meaning::Other { kind: "never_seen/either".to_owned() }]);
    let number = "1".repeat(10_000);
    let told = driver.output(Stream::Stdout, format!("{{\"a\":{number},\"type\":\"x\"}}\n").as_bytes());
    assert_eq!(told.len(), 1);
}

#[test]
fn lines_up_to_64_mebibytes_are_taken_and_longer_ones_skipped() {
    let mut driver = claude();
    let frame = "{\"type\":\"user\",\"uuid\":\"u\",\"message\":{\"content\":\"\"}}";
    let mut line = frame.replace("\"\"", &format!("\"{}\"", "y".repeat((64 << 20) - frame.len())));
    assert_eq!(line.len(), 64 << 20);
    line.push('\n');
    for piece in line.as_bytes().chunks(1 << 20) {
        for told in meanings(driver.output(Stream::Stdout, piece)) {
            assert!(matches!(told, Meaning::BlockComplete(_)));
        }
    }
    assert_eq!(driver.consumed(Stream::Stdout), line.len() as u64);
    line.insert(1, ' ');
    let mut told = Vec::new();
    for piece in line.as_bytes().chunks(1 << 20) {
        told.extend(meanings(driver.output(Stream::Stdout, piece)));
    }
    assert!(is_malformed(&told), "{told:?}");
    // In the middle of a line that is being skipped, nothing is kept and nothing is told again.
    let before = driver.consumed(Stream::Stdout);
    for piece in line.as_bytes()[..line.len() - 1].chunks(1 << 20) {
        driver.output(Stream::Stdout, piece);
    }
    let mut driver = AgentKind::Claude.restore(&driver.save()).expect("what was saved");
    assert_eq!(driver.consumed(Stream::Stdout), before + line.len() as u64 - 1);
    let told = meanings(driver.output(Stream::Stdout, b"rest of it\n{\"type\":\"next\"}\n"));
    assert_eq!(told, [Meaning::Other { kind: "next".to_owned() }]);
}

/// Each value takes much more memory than its two bytes.
#[test]
fn lines_of_too_many_values_are_not_read() {
    let mut driver = claude();
    let mut say = |values: usize| {
        let line = format!("{{\"type\":\"x\",\"a\":[{}0]}}\n", "0,".repeat(values));
        meanings(driver.output(Stream::Stdout, line.as_bytes()))
    };
    assert!(is_malformed(&say(30 << 20)));
    assert_eq!(say(400_000), [Meaning::Other { kind: "x".to_owned() }]);
}

#[test]
fn requests_that_cannot_be_read_are_refused() {
    let mut driver = claude();
    driver.take_input();
    let deep = format!("{}0{}", "[".repeat(120), "]".repeat(120));
    let request = format!(r#"{{"type":"control_request","request_id":"r-1","request":{deep}}}"#);
    assert!(is_malformed(&meanings(driver.output(Stream::Stdout, format!("{request}\n").as_bytes()))));
    let said = String::from_utf8(driver.take_input()).expect("text");
    let said: serde_json::Value = serde_json::from_str(&said).expect("a line");
    assert_eq!(
        (&said["response"]["subtype"], &said["response"]["request_id"]),
        (&"error".into(), &"r-1".into())
    );
    // Whoever has no id that can be told apart gets nothing.
    for id in ["", "a\\u0022", "\u{1}", &"x".repeat(2000)] {
        let request = request.replace("r-1", id);
        assert!(is_malformed(&meanings(driver.output(Stream::Stdout, format!("{request}\n").as_bytes()))));
        assert!(driver.take_input().is_empty(), "{id}");
    }
}

#[test]
fn transcripts_that_are_kept_elsewhere_are_not_taken() {
    let mut driver = claude();
    let mut say = |path: &str| {
        let line = json!({ "type": "transcript_mirror", "filePath": path, "entries": [{ "a": 1 }] });
        say(&mut *driver, &line)
    };
    let path = "/state/projects/-workspace/a.jsonl";
    assert!(matches!(&say(path)[..], [Meaning::Transcript { path: told, .. }] if told == path));
    let long = "x".repeat(1 << 20);
    for path in ["/home/agent/.bashrc", "/state/projects/p/../../../etc/a.jsonl", "a.jsonl", &long] {
        assert!(is_malformed(&say(path)), "{path:.100}");
    }
}

#[test]
fn transcripts_that_are_not_complete_are_told() {
    for subtype in ["mirror_error", "session_writes_lost"] {
        let told = say(&mut *claude(), &json!({ "type": "system", "subtype": subtype }));
        assert!(matches!(&told[..], [Meaning::Log { level: "error", .. }]), "{told:?}");
    }
}

/// An agent that goes on with a conversation counts on from what that has cost.
#[test]
fn what_a_conversation_cost_before_is_not_counted_again() {
    let resumed = LaunchOptions {
        resume: Some("00000000-0000-4000-8000-000000000002".to_owned()),
        spent: 0.5,
        ..LaunchOptions::default()
    };
    let mut driver = AgentKind::Claude.launch(&resumed).expect("options").1;
    let mut cost = |total: f64| {
        let line = json!({ "type": "result", "subtype": "success", "total_cost_usd": total });
        let results = say(&mut *driver, &line);
        results.iter().find_map(|meaning| match meaning {
            Meaning::Result(result) => Some((result.cost_usd * 1e6).round()),
            _ => None,
        })
    };
    assert_eq!((cost(0.75), cost(0.875)), (Some(250_000.0), Some(125_000.0)));
}

#[test]
fn lost_bytes_cost_the_lines_they_cut() {
    let mut driver = claude();
    driver.output(Stream::Stdout, b"{\"type\":\"a\"}\n{\"type\":\"b");
    assert_eq!(driver.consumed(Stream::Stdout), 13);
    assert!(driver.skipped(Stream::Stdout, 3..10).is_empty(), "these were had");
    let told = meanings(driver.skipped(Stream::Stdout, 22..1000));
    assert!(is_malformed(&told));
    assert_eq!(driver.consumed(Stream::Stdout), 1000);
    let told = meanings(driver.output(Stream::Stdout, b"c\"}\n{\"type\":\"d\"}\n"));
    assert_eq!(told, [Meaning::Other { kind: "d".to_owned() }]);
}

#[test]
fn complaints_are_told_and_bounded() {
    let mut driver = claude();
    let long = "z".repeat(10_000);
    let told = meanings(driver.output(Stream::Stderr, format!("one\r\n\n{long}\ntwo").as_bytes()));
    assert!(matches!(&told[..], [Meaning::Log { message: one, .. }, Meaning::Log { message: cut, .. }]
        if one == "one" && cut.len() < 300));
    let told = meanings(driver.exited(Some(1)));
    assert!(matches!(&told[..], [Meaning::Log { message, .. }] if message == "two"), "{told:?}");
}

#[test]
fn an_agent_that_speaks_is_not_gone() {
    let mut driver = super::claude();
    let told = say(&mut *driver, &json!({ "type": "result", "subtype": "agent_exited", "result": "bye" }));
    let subtype = told.iter().find_map(|meaning| match meaning {
        Meaning::Result(result) => Some(result.subtype.as_str()),
        _ => None,
    });
    assert_eq!(subtype, Some("error"));
}

#[test]
fn an_end_in_the_middle_of_a_line() {
    let mut driver = claude();
    driver.output(
        Stream::Stdout,
        b"{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"s\"}\n{\"type\":\"resu",
    );
    let told = meanings(driver.exited(None));
    assert!(
        matches!(&told[..], [Meaning::Malformed { .. }, Meaning::Result(result), Meaning::Idle]
        if result.subtype == "agent_exited" && result.is_error),
        "{told:?}"
    );
}

/// As after SIGINT.
#[test]
fn an_end_between_the_result_and_idleness_is_no_second_result() {
    let mut driver = claude();
    super::requests::prompt(&mut *driver, "one");
    for line in [
        json!({ "type": "system", "subtype": "session_state_changed", "state": "running" }),
        json!({ "type": "system", "subtype": "init", "session_id": "s" }),
        json!({ "type": "result", "subtype": "error_during_execution", "terminal_reason": "aborted_streaming",
            "user_message_uuids": ["one"] }),
    ] {
        say(&mut *driver, &line);
    }
    assert_eq!(meanings(driver.exited(Some(0))), [Meaning::Idle]);
}

/// Versions without `session_state_changed` are idle after a result, but for subagents.
#[test]
fn idleness_of_versions_that_do_not_tell_it() {
    let mut driver = claude();
    let init = json!({ "type": "system", "subtype": "init", "session_id": "s", "model": "m" });
    let result = json!({ "total_cost_usd": 0.5, "type": "result", "subtype": "success", "is_error": false });
    assert_eq!(say(&mut *driver, &init)[0], Meaning::Running);
    let told = say(&mut *driver, &result);
    assert!(matches!(&told[..], [Meaning::Result(_), Meaning::Idle]), "{told:?}");
    assert_eq!(say(&mut *driver, &init), [Meaning::Running]);
    let task =
        json!({ "type": "system", "subtype": "task_started", "task_id": "t", "task_type": "local_agent" });
    say(&mut *driver, &task);
    let more = json!({ "total_cost_usd": 0.75, "type": "result", "subtype": "success" });
    let told = say(&mut *driver, &more);
    assert!(
        matches!(&told[..], [Meaning::Result(result)] if (result.cost_usd - 0.25).abs() < 1e-12),
        "{told:?}"
    );
    let over =
        json!({ "type": "system", "subtype": "task_notification", "task_id": "t", "status": "completed" });
    say(&mut *driver, &over);
    let told = say(&mut *driver, &more);
    assert!(
        matches!(&told[..], [Meaning::Result(result), Meaning::Idle] if result.cost_usd == 0.0),
        "{told:?}"
    );
}

/// And those without `command_lifecycle` work on what they were sent when a turn begins.
#[test]
fn prompts_of_versions_that_do_not_tell_them() {
    let mut driver = claude();
    let init = json!({ "type": "system", "subtype": "init", "session_id": "s" });
    let result = json!({ "type": "result", "subtype": "success" });
    let busy = |state: &str| json!({ "type": "system", "subtype": "session_state_changed", "state": state });
    let prompt = |uuid: &str, state| Meaning::Prompt { uuid: uuid.to_owned(), state };
    super::requests::prompt(&mut *driver, "one");
    say(&mut *driver, &busy("running"));
    assert!(say(&mut *driver, &init).contains(&prompt("one", MessageState::Started)));
    super::requests::prompt(&mut *driver, "two");
    let told = say(&mut *driver, &result);
    assert!(
        matches!(&told[..], [Meaning::Result(result), completed]
        if result.prompts == ["one"] && *completed == prompt("one", MessageState::Completed)),
        "{told:?}"
    );
    assert!(say(&mut *driver, &init).contains(&prompt("two", MessageState::Started)));
    super::requests::prompt(&mut *driver, "folded");
    say(&mut *driver, &result);
    let told = say(&mut *driver, &busy("idle"));
    assert_eq!(told, [prompt("folded", MessageState::Completed), Meaning::Idle]);
    assert!(driver.is_idle());
}
