//! Output that nobody should write.

use super::{driver_for, recordings};
use hostel_agent::{AgentDriver, AgentEvent, Meaning, Stream};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Any JSON, not too large.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        Just(json!("")),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// How many values there are in one, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// Puts another in the place of the so-manieth.
fn replace(value: &mut Value, place: &mut usize, other: &Value) {
    if *place == 0 {
        *value = other.clone();
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, place, other)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, place, other)),
        _ => {}
    }
}

/// What holds whatever comes.
fn check(driver: &mut dyn AgentDriver, events: &mut Vec<AgentEvent>) {
    assert!(driver.save().to_string().len() < 500_000);
    events.extend(driver.exited(None));
    assert!(driver.is_idle());
    let mut busy = false;
    for event in events {
        match event.meaning {
            Meaning::Running => assert!(!std::mem::replace(&mut busy, true)),
            Meaning::Idle => assert!(std::mem::replace(&mut busy, false)),
            _ => {}
        }
    }
    assert!(!busy);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wrong_types_anywhere(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), value()), 1..40),
    ) {
        let all = recordings();
        let (name, bytes) = which.get(&all);
        let text = std::str::from_utf8(bytes).expect("text");
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        for (line, place, other) in &changes {
            let line = line.get_mut(&mut lines);
            let mut place = place.index(count(line));
            replace(line, &mut place, other);
        }
        let mut driver = driver_for(name);
        let mut events = Vec::new();
        for line in lines {
            events.extend(driver.output(Stream::Stdout, format!("{line}\n").as_bytes()));
        }
        check(&mut *driver, &mut events);
    }

    #[test]
    fn damaged_bytes(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
    ) {
        let all = recordings();
        let (name, bytes) = which.get(&all);
        let mut bytes = bytes.clone();
        for (place, byte) in changes {
            *place.get_mut(&mut bytes) = byte;
        }
        let mut driver = driver_for(name);
        let mut events = driver.output(Stream::Stdout, &bytes);
        events.extend(driver.output(Stream::Stderr, &bytes));
        check(&mut *driver, &mut events);
    }
}

#[test]
fn what_is_too_long_is_not_kept() {
    let mut driver = super::claude();
    let mut say = |line: Value| driver.output(Stream::Stdout, format!("{line}\n").as_bytes());
    let long = "x".repeat(200_000);
    for number in 0..10 {
        let id = format!("{number}-{long}");
        say(json!({ "type": "control_request", "request_id": id, "request": {
            "subtype": "can_use_tool", "tool_name": id, "input": {},
        } }));
        say(json!({ "type": "control_request", "request_id": number.to_string(), "request": {
            "subtype": "mcp_message", "server_name": "s", "message": { "id": id },
        } }));
        say(
            json!({ "type": "control_request", "request_id": format!("odd-{number}"), "request": { "subtype": id } }),
        );
        say(json!({ "type": "system", "subtype": "init", "session_id": id, "model": id,
            "claude_code_version": id, "capabilities": [id] }));
        say(json!({ "type": "system", "subtype": "task_started", "task_id": number.to_string(),
            "description": id }));
        say(json!({ "type": "assistant", "parent_tool_use_id": id, "message": { "id": id, "content": [
            { "type": "tool_use", "id": id, "name": id, "input": {} },
            { "type": "tool_use", "id": number.to_string(), "name": id, "input": {} },
        ] } }));
        say(json!({ "type": "stream_event", "event": { "type": "message_start", "message": { "id": id } } }));
        say(json!({ "type": "stream_event", "event": {
            "type": "content_block_start", "index": number, "content_block": { "type": "tool_use", "id": id },
        } }));
    }
    assert!(driver.take_input().len() < 100_000, "what is answered is short too");
    assert!(driver.save().to_string().len() < 100_000);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut driver = super::claude();
    let mut events = Vec::new();
    let mut say = |line: Value| events.extend(driver.output(Stream::Stdout, format!("{line}\n").as_bytes()));
    let long = "x".repeat(100);
    for number in 0..2000 {
        let id = format!("{number}-{long}");
        say(json!({ "type": "control_request", "request_id": id, "request": {
            "subtype": "can_use_tool", "tool_name": "Bash", "input": {},
        } }));
        say(json!({ "type": "control_request", "request_id": id, "request": {
            "subtype": "mcp_message", "server_name": "s", "message": { "id": 1 },
        } }));
        say(json!({ "type": "system", "subtype": "task_started", "task_id": id, "description": long }));
        say(json!({ "type": "assistant", "parent_tool_use_id": id, "message": { "id": id, "content": [
            { "type": "tool_use", "id": id, "name": "Bash", "input": {} },
        ] } }));
        say(json!({ "type": "stream_event", "event": { "type": "message_start", "message": { "id": id } } }));
        say(json!({ "type": "stream_event", "event": {
            "type": "content_block_start", "index": number, "content_block": { "type": "text" },
        } }));
    }
    let questions = events.iter().filter(|event| matches!(event.meaning, Meaning::Question(_))).count();
    assert!(questions <= 256);
    let answers = String::from_utf8(driver.take_input()).expect("text");
    assert!(answers.contains("too many requests are open"));
    check(&mut *driver, &mut events);
}
