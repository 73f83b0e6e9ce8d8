//! Turns, from the message to the end.

use super::stage::{Stage, unasked, work};
use hostel_session::client::model::WriteFile;
use hostel_session::{
    Change, Delivery, EndReason, EventKind, HostConfig, Pattern, QuestionAnswer, SendMessage,
    SessionHost as _, SessionStatus, UpdateSession, Usd, Verdict, agent::Content,
};
use hostel_testkit::Script;
use hostel_tests::{LOOK, TestDaemon};
use serde_json::{Value, json};
use std::time::Duration;

/// Something that goes on until it is stopped, and leaves a trace each second.
fn endless() -> Script {
    let command = "touch began; while :; do date +%s%N > beat; timeout 0.1 tail -f /dev/null; done";
    Script::new().tool("Bash", json!({ "command": command, "description": "go on" })).text("never said")
}

/// Waits until the tool of a turn runs.
async fn tool_runs(stage: &Stage, id: &hostel_session::SessionId) {
    let (client, sandbox) = stage.host.environment(id).await.unwrap();
    let began = async {
        while client.stat_file(&sandbox, "/workspace/beat", true).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(super::stage::PATIENCE, began).await.expect("the tool runs");
}

/// The processes of the sandbox beside our own look.
async fn programs(stage: &Stage, id: &hostel_session::SessionId) -> String {
    let session = stage.host.get(id).await.unwrap();
    let sandbox = session.environment.sandbox_id.unwrap();
    let look = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done";
    stage.daemon.hostel(&["exec", &sandbox, "--", "sh", "-c", look]).stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_session_does_its_task_and_completes() {
    let Some(stage) = Stage::start().await else { return };
    let session = stage.create(Pattern::Ephemeral, unasked()).await;
    assert_eq!(session.status, SessionStatus::Initializing);
    let message = stage.send(&session.id, work()).await;
    let (outcome, events) = stage.turn(&session.id, &message).await;
    assert_eq!((&outcome["result"], &outcome["text"]), (&"success".into(), &"all done".into()), "{outcome}");
    assert!(outcome["cost"].as_f64().unwrap() > 0.0, "{outcome}");
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    let after = events.last().unwrap().seq;
    stage.events_until(&session.id, after, |event| event.kind == EventKind::SessionEnded).await;
    let session = stage.host.get(&session.id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Completed, Some(EndReason::Completed)));
    assert_eq!(session.tools_used, ["Bash"]);
    assert!(session.total_cost.micros() > 0 && session.num_turns == 2, "{session:?}");
    let (client, sandbox) = stage.host.environment(&session.id).await.unwrap();
    let mut made = client.read_file(&sandbox, "/workspace/made", 0, None).await.unwrap();
    assert_eq!(made.next().await.unwrap().unwrap(), "by-the-agent\n");
    // A second message comes too late.
    let late =
        SendMessage { content: vec![Content::Text { text: "more".to_owned() }], idempotency_key: None };
    assert!(matches!(
        stage.host.send(&session.id, late).await,
        Err(hostel_session::Error::NotActive { status: SessionStatus::Completed, .. })
    ));
    stage.host.terminate(&session.id, EndReason::UserRequested).await.unwrap();
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).stdout, "");
    stage.host.delete(&session.id).await.unwrap();
    assert!(stage.host.get(&session.id).await.is_err());
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_come_one_after_another_and_go_on_while_the_host_is_away() {
    let Some(mut stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, unasked()).await.id;
    let first = stage.send(&id, Script::new().text("one")).await;
    // The second is slow, so that the host goes away in the middle of it.
    let slow = Script::new().step(hostel_testkit::Step::text("slowly told").chunks(11).delay_ms(300));
    let second = stage.send(&id, slow).await;
    let third = stage.send(&id, Script::new().text("three")).await;
    let (outcome, _) = stage.turn(&id, &first).await;
    assert_eq!(outcome["text"], "one");
    let deltas = |event: &hostel_session::Event| {
        event.kind == EventKind::BlockDelta && event.message_id.as_deref() == Some(second.as_str())
    };
    let before = stage.events_until(&id, 0, deltas).await;
    stage.restart_host().await;
    let (outcome, events) = stage.turn(&id, &second).await;
    assert_eq!((&outcome["text"], &outcome["isError"]), (&"slowly told".into(), &false.into()), "{outcome}");
    let (outcome, all) = stage.turn(&id, &third).await;
    assert_eq!(outcome["text"], "three");
    // What was seen before is there after, the same; nothing is there twice.
    for event in before.iter().filter(|event| event.kind != EventKind::BlockDelta) {
        let same = all.iter().find(|one| one.seq == event.seq).expect("it is still there");
        assert_eq!((same.kind, same.data.get()), (event.kind, event.data.get()));
    }
    let results = |events: &[std::sync::Arc<hostel_session::Event>]| {
        let result = |event: &&std::sync::Arc<hostel_session::Event>| {
            event.kind == EventKind::AgentMessage && event.data.get().contains("\"type\":\"result\"")
        };
        events.iter().filter(result).count()
    };
    assert_eq!((results(&events), results(&all)), (2, 3));
    let asked = stage.model.requests().iter().filter(|request| request.path == "/v1/messages").count();
    assert_eq!(asked, 3, "no request was made twice");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_interrupted_stopped_and_killed_and_nothing_of_it_goes_on() {
    let Some(stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, unasked()).await.id;
    let message = stage.send(&id, endless()).await;
    stage.events_until(&id, 0, |event| event.data.get().contains("\"tool_use\"")).await;
    tool_runs(&stage, &id).await;
    let session = stage.host.interrupt(&id, Duration::from_secs(30)).await.unwrap();
    assert_eq!((session.status, session.active_turn), (SessionStatus::Idle, None));
    assert_eq!(stage.turn(&id, &message).await.0["result"], "interrupted");
    // The agent ends its command by itself; only after a stop or a kill it is certain that nothing runs.
    let gone = async {
        while programs(&stage, &id).await.contains("while :") {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(super::stage::PATIENCE, gone).await.expect("its command ends");

    let message = stage.send(&id, Script::new().text("it still listens")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "it still listens");
    for halt in ["stop", "kill"] {
        let message = stage.send(&id, endless()).await;
        let (client, sandbox) = stage.host.environment(&id).await.unwrap();
        client.remove_file(&sandbox, "/workspace/beat", false).await.unwrap();
        tool_runs(&stage, &id).await;
        let session = match halt {
            "stop" => stage.host.stop(&id, Duration::from_secs(10)).await.unwrap(),
            _ => stage.host.kill(&id).await.unwrap(),
        };
        assert_eq!((session.status, session.active_turn), (SessionStatus::Idle, None), "{halt}");
        let (outcome, _) = stage.turn(&id, &message).await;
        assert_eq!(outcome["result"], if halt == "stop" { "stopped" } else { "killed" });
        let left = programs(&stage, &id).await;
        assert!(!left.contains("while :") && !left.contains("stream-json"), "{halt}: {left}");
    }
    // The conversation is the same one.
    let message = stage.send(&id, Script::new().text("back again")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "back again");
    let last = stage.model.requests().into_iter().rfind(|request| request.path == "/v1/messages").unwrap();
    assert!(
        String::from_utf8_lossy(&last.body).contains("it still listens"),
        "it knows what was said before"
    );
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_also_ends_what_a_turn_left_in_the_background() {
    let Some(stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, unasked()).await.id;
    let command = "while :; do date +%s%N > beat; timeout 0.1 tail -f /dev/null; done";
    let input = json!({ "command": command, "description": "go on", "run_in_background": true });
    let message = stage.send(&id, Script::new().tool("Bash", input).text("left it running")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "left it running");
    tool_runs(&stage, &id).await;
    let session = stage.host.stop(&id, Duration::from_secs(10)).await.unwrap();
    assert_eq!((session.status, session.active_turn), (SessionStatus::Idle, None));
    let left = programs(&stage, &id).await;
    assert!(!left.contains("while :"), "{left}");
    // What is not in the way of anything stays.
    let message = stage.send(&id, Script::new().text("back again")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "back again");
    stage.host.stop(&id, Duration::from_secs(10)).await.unwrap();
    assert!(programs(&stage, &id).await.contains("stream-json"), "an agent with nothing to do stays");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_asks_and_somebody_decides() {
    let Some(mut stage) = Stage::start().await else { return };
    let config = json!({ "permissionMode": "default", "askPermissions": true });
    let id = stage.create(Pattern::LongRunning, config).await.id;
    let write = |name: &str| {
        let input = json!({ "file_path": format!("/workspace/{name}"), "content": "x" });
        Script::new().tool("Write", input).text("tried")
    };
    let answer = |verdict| QuestionAnswer {
        verdict,
        message: Some("not that one".to_owned()),
        input: None,
        interrupt: false,
        decided_by: Some("ops".to_owned()),
    };
    let mut after = 0;
    for (name, verdict, exists) in [("denied", Verdict::Deny, false), ("allowed", Verdict::Allow, true)] {
        let message = stage.send(&id, write(name)).await;
        let asked =
            stage.events_until(&id, after, |event| event.kind == EventKind::PermissionRequested).await;
        after = asked.last().unwrap().seq;
        if exists {
            // It waits for its answer through a change of hosts.
            stage.restart_host().await;
        }
        let questions = stage.host.questions(&id).await.unwrap();
        assert_eq!((questions.len(), questions[0].tool.as_str()), (1, "Write"));
        stage.host.answer(&id, &questions[0].id, answer(verdict)).await.unwrap();
        let again = stage.host.answer(&id, &questions[0].id, answer(verdict)).await;
        assert!(matches!(again, Err(hostel_session::Error::Answered { by, .. }) if by == "ops"));
        stage.turn(&id, &message).await;
        let (client, sandbox) = stage.host.environment(&id).await.unwrap();
        let there = client.stat_file(&sandbox, &format!("/workspace/{name}"), true).await.is_ok();
        assert_eq!(there, exists, "{name}");
    }
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

/// What the agent says of itself at the beginning of a turn.
fn init(events: &[std::sync::Arc<hostel_session::Event>]) -> Value {
    let lines = events.iter().filter(|event| event.kind == EventKind::AgentMessage);
    let lines = lines.map(|event| serde_json::from_str::<Value>(event.data.get()).unwrap());
    lines.map(|line| line["message"].clone()).find(|line| line["subtype"] == "init").expect("what it is like")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_there_before_is_what_the_session_wants() {
    let Some(mut stage) = Stage::start().await else { return };
    stage.keep_warm().await;
    for (mode, asks) in [("acceptEdits", false), ("plan", true)] {
        let create = json!({
            "pattern": "long-running", "maxBudgetUsd": 3.0, "maxTurns": 4, "onLimit": "pause",
            "config": {
                "model": "claude-haiku-4-5", "permissionMode": mode, "systemPrompt": "Your name is Vendela.",
                "workingDirectory": "/workspace/below", "disallowedTools": ["WebFetch"], "maxTurns": 1,
                "env": { "COLOUR": "green" },
                "hooks": { "PreToolUse": [{ "hooks": [{ "type": "command", "command": "echo $COLOUR > ../seen" }] }] },
            },
        });
        let id = stage.host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
        let message = stage.send(&id, Script::new().text("hello")).await;
        let (outcome, events) = stage.turn(&id, &message).await;
        assert_eq!(outcome["text"], "hello", "{outcome}");
        let session = stage.host.get(&id).await.unwrap();
        assert_eq!(session.environment.start.as_deref(), Some("claimed"), "{mode}");
        // As the agent says of itself, and as it asks.
        let init = init(&events);
        assert_eq!(init["permissionMode"], mode);
        assert_eq!(init["cwd"], "/workspace/below");
        assert_eq!(init["model"], "claude-haiku-4-5");
        let may_ask = init["tools"].as_array().unwrap().contains(&json!("AskUserQuestion"));
        assert_eq!(may_ask, asks, "without anybody who answers it has no such tool");
        let requests = stage.model.requests();
        let asked = requests.into_iter().rfind(|request| request.path == "/v1/messages").unwrap();
        let asked: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(asked["model"], "claude-haiku-4-5");
        assert!(asked["system"].to_string().contains("Your name is Vendela."));
        let (client, sandbox) = stage.host.environment(&id).await.unwrap();
        let processes = client.list_processes(&sandbox).await.unwrap();
        let running: Vec<_> = processes.iter().filter(|one| one.running).map(|one| one.id.as_str()).collect();
        assert_eq!(running, ["warm"], "no other agent was started");
        let sandbox = client.get_sandbox(&sandbox).await.unwrap();
        let budget = sandbox.model.unwrap().budget.cost_micros;
        assert_eq!(budget, Some(3_000_000), "and the gateway knows its budget");
        let read =
            || Script::new().tool("Read", json!({ "file_path": "/workspace/below/none" })).text("too much");
        let before = stage.model.requests().len();
        let message = stage.send(&id, read()).await;
        let (outcome, _) = stage.turn(&id, &message).await;
        assert_eq!(outcome["result"], "error_max_turns", "{outcome}");
        assert_eq!(stage.model.requests().len(), before + 1, "the model is not asked beyond that");
        let message = stage.send(&id, read()).await;
        let (outcome, _) = stage.turn(&id, &message).await;
        assert_eq!(outcome["result"], "max_turns", "the session has no more: {outcome}");
        let mut seen = client.read_file(&sandbox.id, "/workspace/seen", 0, None).await.unwrap();
        assert_eq!(
            seen.next().await.unwrap().as_deref(),
            Some(b"green\n".as_slice()),
            "what it starts knows"
        );
        stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    }
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_of_an_agent_that_was_there_before_are_counted_while_the_host_is_away() {
    let Some(mut stage) = Stage::start().await else { return };
    stage.keep_warm().await;
    let config = json!({ "permissionMode": "bypassPermissions", "maxTurns": 2 });
    let id = stage.create(Pattern::LongRunning, config).await.id;
    let command = |command: &str| json!({ "command": command, "description": "work" });
    let script = Script::new()
        .tool("Bash", command("touch beat; until [ -e go ]; do timeout 0.1 tail -f /dev/null; done"))
        .tool("Bash", command("touch second"))
        .tool("Bash", command("touch third"));
    let message = stage.send(&id, script.text("never said")).await;
    stage.events_until(&id, 0, |event| event.kind == EventKind::AgentMessage).await;
    tool_runs(&stage, &id).await;
    assert_eq!(stage.host.get(&id).await.unwrap().environment.start.as_deref(), Some("claimed"));
    let (client, sandbox) = stage.host.environment(&id).await.unwrap();
    stage.host.shutdown().await;
    let go = WriteFile { path: "/workspace/go".to_owned(), permissions: None, create_parents: false };
    client.write_file(&sandbox, go, b"".as_slice()).await.unwrap();
    let goes_on = async {
        while client.stat_file(&sandbox, "/workspace/second", true).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(super::stage::PATIENCE, goes_on).await.expect("it waits for no host");
    stage.restart_host().await;
    let (outcome, _) = stage.turn(&id, &message).await;
    assert_eq!((&outcome["result"], &outcome["numTurns"]), (&json!("max_turns"), &json!(3)), "{outcome}");
    assert_eq!(outcome["raw"]["subtype"], "error_max_turns", "{outcome}");
    assert!(client.stat_file(&sandbox, "/workspace/third", true).await.is_err());
    let asked = stage.model.requests().iter().filter(|request| request.path == "/v1/messages").count();
    assert_eq!(asked, 2);
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_command_is_an_agent_and_is_interrupted_as_on_a_terminal() {
    let Some(stage) = Stage::start().await else { return };
    let command = "trap 'echo told to stop; exit 0' INT; read -r line; echo \"heard: $line\"; \
                   while :; do sleep 0.1; done";
    let config = json!({ "agent": "exec", "executable": "sh", "executableArgs": ["-c", command] });
    let id = stage.create(Pattern::Ephemeral, config).await.id;
    let message = stage.send(&id, Script::new()).await;
    stage.events_until(&id, 0, |event| event.data.get().contains("heard: ")).await;
    let session = stage.host.interrupt(&id, super::stage::PATIENCE).await.unwrap();
    assert_eq!(session.active_turn, None);
    let (outcome, events) = stage.turn(&id, &message).await;
    assert_eq!(outcome["result"], "interrupted", "{outcome}");
    assert!(
        events.iter().any(|event| event.data.get().contains("told to stop")),
        "it could say its last words"
    );
    let session = stage.host.get(&id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Idle, None), "its task is not done");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_before_somebody_can_be_told_holds_from_then_on() {
    let Some(mut stage) = Stage::start().await else { return };
    let create = json!({ "pattern": "long-running", "config": unasked(), "maxBudgetUsd": 1.5 });
    let id = stage.host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
    // The agent starts, with the model of before.
    let message = stage.send(&id, Script::new().text("one")).await;
    let model = Some("claude-haiku-4-5".to_owned());
    stage.host.update(&id, UpdateSession { model: model.into(), ..Default::default() }).await.unwrap();
    assert_eq!(stage.turn(&id, &message).await.0["text"], "one");
    let asked = stage.model.requests().into_iter().find(|request| request.path == "/v1/messages").unwrap();
    assert!(String::from_utf8_lossy(&asked.body).contains("\"model\":\"claude-haiku-4-5\""));
    // The gateway goes away, and knows the new budget when it is back.
    let (_, sandbox) = stage.host.environment(&id).await.unwrap();
    stage.daemon.kill();
    let budget = Usd::from_dollars(7.25);
    stage
        .host
        .update(&id, UpdateSession { max_budget_usd: budget.into(), ..Default::default() })
        .await
        .unwrap();
    stage.daemon.restart();
    let known = || {
        let sandbox = stage.daemon.hostel(&["sandbox", "get", sandbox.as_str(), "--json"]).stdout;
        let sandbox: Value = serde_json::from_str(&sandbox).unwrap();
        sandbox["model"]["budget"]["cost_micros"].as_u64()
    };
    hostel_tests::eventually("the gateway knows the new budget", || known() == Some(7_250_000));
    let none = UpdateSession { max_budget_usd: Change::Clear, ..Default::default() };
    assert_eq!(stage.host.update(&id, none).await.unwrap().limits.max_budget_usd, None);
    hostel_tests::eventually("the gateway knows that there is none", || known().is_none());
    let nothing = UpdateSession { max_turns: Change::Set(0), ..Default::default() };
    assert!(matches!(stage.host.update(&id, nothing).await, Err(hostel_session::Error::Invalid { .. })));
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_may_live_as_long_as_its_session_also_where_there_is_no_gateway() {
    let (daemon, place) = (TestDaemon::start(), tempfile::tempdir().unwrap());
    let config = HostConfig { gateway: false, template: "host".to_owned(), ..HostConfig::default() };
    let host = super::stage::open(&daemon, &place, config).await;
    let config = json!({ "agent": "exec", "executable": "sh", "executableArgs": ["-c", "read -r line"] });
    let create = json!({ "pattern": "long-running", "config": config, "maxLifetimeMs": 3_600_000 });
    let id = host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
    let content = vec![Content::Text { text: "begin".to_owned() }];
    host.send(&id, SendMessage { content, idempotency_key: None }).await.unwrap();
    let mut told = host.subscribe(&id, 0).await.unwrap();
    while !matches!(told.next().await.unwrap().expect("more"), Delivery::Event(event) if event.kind == EventKind::TurnCompleted)
    {
    }
    let (_, sandbox) = host.environment(&id).await.unwrap();
    // An hour more than the session: nobody else takes away what a server forgot.
    let hours = || {
        let sandbox = daemon.hostel(&["sandbox", "get", sandbox.as_str(), "--json"]).stdout;
        let sandbox: Value = serde_json::from_str(&sandbox).unwrap();
        let expires: jiff::Timestamp = sandbox["expire_time"].as_str().unwrap().parse().unwrap();
        (expires.as_second() - jiff::Timestamp::now().as_second() + 600) / 3600
    };
    assert_eq!(hours(), 2);
    let longer = UpdateSession { max_lifetime_ms: Change::Set(4 * 3_600_000), ..Default::default() };
    host.update(&id, longer).await.unwrap();
    hostel_tests::eventually("the sandbox may live longer", || hours() == 5);
    let endless = UpdateSession { max_lifetime_ms: Change::Clear, ..Default::default() };
    host.update(&id, endless).await.unwrap();
    hostel_tests::eventually("the sandbox may live on", || hours() == 366 * 24);
    host.terminate(&id, EndReason::UserRequested).await.unwrap();
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_any_length_is_read() {
    let Some(stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, unasked()).await.id;
    // The agent tells of all that it was told, in one line: more than a sandbox keeps for a reader.
    let picture = || Content::Image {
        media_type: "image/png".to_owned(),
        data: format!("iVBORw0KGgo{}", "A".repeat(2_000_001)),
    };
    let text = Content::Text { text: Script::new().text("read").prompt("Do it.") };
    let content = vec![text, picture(), picture()];
    let message = SendMessage { content, idempotency_key: None };
    let message = stage.host.send(&id, message).await.unwrap().message.id;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "read");
    let files = stage.host.transcripts(&id).await.unwrap();
    let longest = files.iter().flat_map(|(_, text)| text.lines()).map(str::len).max();
    assert!(longest.unwrap() > 4_000_000, "the line was no long one: {longest:?}");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}
