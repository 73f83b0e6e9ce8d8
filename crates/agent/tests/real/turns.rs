//! Turns.

use super::agent::{Agent, Place};
use hostel_agent::{
    BlockKind, Content, DeltaKind, Meaning, MessageState, PermissionMode, Request, SubagentState, ToolStatus,
};
use hostel_testkit::{Script, Step};
use serde_json::json;

#[tokio::test]
async fn text_comes_in_pieces_and_then_whole() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let script = Script::new().step(Step::text("One, two, three, four.").with_thinking("Count.").chunks(4));
    let uuid = agent.prompt(&script.prompt("Count."));
    let (results, idle) = agent.idle(0).await;
    assert_eq!(results.len(), 1);
    let result = &results[0];
    assert_eq!((result.subtype.as_str(), result.is_error, result.num_turns), ("success", false, 1));
    assert_eq!(result.text.as_deref(), Some("One, two, three, four."));
    assert!(result.prompts.iter().eq([&uuid]));
    assert!(result.usage.input > 0 && result.usage.output > 0 && result.cost_usd > 0.0);
    let at = |what: fn(&Meaning) -> bool| {
        agent.events.iter().position(|event| what(&event.meaning)).expect("an event")
    };
    let order = [
        at(|meaning| matches!(meaning, Meaning::Ready(ready) if ready.version.is_some())),
        at(|meaning| matches!(meaning, Meaning::Running)),
        at(|meaning| matches!(meaning, Meaning::Conversation { model: Some(_), .. })),
        at(|meaning| matches!(meaning, Meaning::BlockStart(_))),
        at(|meaning| matches!(meaning, Meaning::BlockDelta { .. })),
        at(|meaning| matches!(meaning, Meaning::BlockComplete(_))),
        at(|meaning| matches!(meaning, Meaning::Result(_))),
        at(|meaning| matches!(meaning, Meaning::Idle)),
    ];
    assert!(order.is_sorted(), "{order:?}");
    let blocks = agent.blocks();
    assert!(matches!(&blocks[0].kind, BlockKind::Thinking { text } if text == "Count."));
    let pieces = agent.events.iter().filter_map(|event| match &event.meaning {
        Meaning::BlockDelta { block, kind: DeltaKind::Text, delta, .. } => {
            assert_eq!(*block, blocks[1].id);
            Some(delta.as_str())
        }
        _ => None,
    });
    assert_eq!(pieces.collect::<Vec<_>>().len(), 4);
    for state in [MessageState::Queued, MessageState::Started, MessageState::Completed] {
        let prompt = Meaning::Prompt { uuid: uuid.clone(), state };
        assert_eq!(agent.count(|meaning| *meaning == prompt), 1, "{state:?}");
    }
    assert!(agent.count(|meaning| matches!(meaning, Meaning::Transcript { .. })) > 0);
    assert!(agent.driver.is_idle());
    let second = agent.turn("And again.").await;
    assert_eq!(second.text.as_deref(), Some("echo: And again."));
    assert!(agent.events[..idle].len() < agent.events.len());
    agent.ask(Request::End);
    assert_eq!(agent.end().await, Some(0));
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Idle)), 2);
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Malformed { .. })), 0);
}

#[tokio::test]
async fn tools_run_and_their_results_are_told() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    let mut agent = Agent::claude(&options);
    let script = Script::new()
        .step(Step::tools([
            ("Bash".to_owned(), json!({ "command": "echo out" })),
            ("Read".to_owned(), json!({ "file_path": "/nowhere" })),
        ]))
        .text("done");
    let result = agent.turn(&script.prompt("Go.")).await;
    assert_eq!(result.num_turns, 3);
    let blocks = agent.blocks();
    for (name, status, failed) in [("Bash", ToolStatus::Success, false), ("Read", ToolStatus::Error, true)] {
        let call = blocks
            .iter()
            .find(|block| matches!(&block.kind, BlockKind::ToolUse { name: tool, .. } if tool == name))
            .expect("a call");
        assert!(
            matches!(&call.kind, BlockKind::ToolUse { input, status: ToolStatus::Running, .. } if input.is_object())
        );
        let results = blocks.iter().filter(|block| {
            matches!(&block.kind, BlockKind::ToolResult { tool_use_id, is_error, .. }
                if *tool_use_id == call.id && *is_error == failed)
        });
        assert_eq!(results.count(), 1, "{name}");
        let became = agent.count(|meaning| {
            matches!(meaning, Meaning::BlockUpdate(block) if block.id == call.id
                && matches!(&block.kind, BlockKind::ToolUse { status: now, .. } if *now == status))
        });
        assert_eq!(became, 1, "{name}");
        let pieces = agent.count(|meaning| {
            matches!(meaning, Meaning::BlockDelta { block, kind: DeltaKind::Input, .. } if *block == call.id)
        });
        assert!(pieces > 0, "{name}");
    }
}

#[tokio::test]
async fn pictures_reach_the_model() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    // A picture of one point.
    let data =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let picture = Content::Image { media_type: "image/png".to_owned(), data: data.to_owned() };
    agent.send(vec![Content::Text { text: "What is it?".to_owned() }, picture]);
    let (results, _) = agent.idle(0).await;
    assert!(!results[0].is_error, "{:?}", results[0]);
    assert!(place.last_request().contains("\"image/png\""));
}

#[tokio::test]
async fn messages_that_wait_become_one_turn() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let slow = Script::new().step(Step::text("slow ".repeat(20)).chunks(20).delay_ms(150));
    let first = agent.prompt(&slow.prompt("Wait."));
    agent.until(0, |meaning| matches!(meaning, Meaning::BlockDelta { .. })).await;
    let three = ["a", "b", "c"].map(|text| agent.prompt(text));
    let (results, _) = agent.idle(0).await;
    assert_eq!(results.len(), 2);
    assert_eq!(results[0].prompts, [first]);
    let mut answered = results[1].prompts.clone();
    answered.sort();
    let mut wanted = three.to_vec();
    wanted.sort();
    assert_eq!(answered, wanted);
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Idle)), 1);
    assert!(agent.driver.is_idle());
}

#[tokio::test]
async fn a_message_while_a_tool_runs_joins_the_turn() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("Bash", json!({ "command": "timeout 4 tail -f /dev/null" })).text("done");
    let first = agent.prompt(&script.prompt("Go."));
    agent.until(0, |meaning| {
        matches!(meaning, Meaning::BlockComplete(block) if matches!(block.kind, BlockKind::ToolUse { .. }))
    })
    .await;
    let second = agent.prompt("And mind the step.");
    let (results, _) = agent.idle(0).await;
    assert_eq!(results.len(), 1, "{results:#?}");
    assert!(results[0].prompts.contains(&first) && results[0].prompts.contains(&second));
    let completed = [first, second].map(|uuid| Meaning::Prompt { uuid, state: MessageState::Completed });
    for prompt in completed {
        assert_eq!(agent.count(|meaning| *meaning == prompt), 1);
    }
    assert!(agent.driver.is_idle());
    assert!(place.last_request().contains("And mind the step."));
}

#[tokio::test]
async fn subagents_in_the_background_keep_it_busy() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    let mut agent = Agent::claude(&options);
    let inner = Script::new().step(Step::text("inner done").delay_ms(4000));
    let task = json!({ "description": "look", "prompt": inner.prompt("Look."), "run_in_background": true,
        "subagent_type": "general-purpose" });
    let script = Script::new().tool("Agent", task).text("sent off").text("it is back");
    agent.prompt(&script.prompt("Go."));
    let (results, _) = agent.idle(0).await;
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Idle)), 1);
    assert!(results.len() == 2 && !results[0].unasked && results[1].unasked, "{results:#?}");
}

#[tokio::test]
async fn what_is_done_on_the_side_goes_on_after_a_result() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    let mut agent = Agent::claude(&options);
    let command = json!({ "command": "timeout 4 tail -f /dev/null; echo over", "run_in_background": true });
    let script = Script::new().tool("Bash", command).text("started").text("and it is over");
    agent.prompt(&script.prompt("Go."));
    // A command that it left running does not keep it busy. When it is over, the agent begins again by itself.
    let (results, idle) = agent.idle(0).await;
    assert!(results.len() == 1 && !results[0].unasked, "{results:#?}");
    let (results, _) = agent.idle(idle).await;
    assert!(results.len() == 1 && results[0].unasked && results[0].prompts.is_empty(), "{results:#?}");
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Running)), 2);
    let became = |wanted| {
        agent.count(|meaning| matches!(meaning, Meaning::Subagent { state, .. } if *state == wanted))
    };
    assert_eq!(became(SubagentState::Started), 1);
    assert_eq!(became(SubagentState::Completed), 1);
}

#[tokio::test]
async fn subagents_are_told_apart() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    options.agents.insert("helper".to_owned(), json!({ "description": "helps", "prompt": "You help." }));
    let mut agent = Agent::claude(&options);
    let inner = Script::new().tool("Bash", json!({ "command": "echo inner" })).text("inner done");
    let task = json!({
        "description": "look", "subagent_type": "helper", "prompt": inner.prompt("Look."), "run_in_background": false,
    });
    let script = Script::new().tool("Agent", task).text("outer done").text("over");
    agent.prompt(&script.prompt("Go."));
    let (results, _) = agent.idle(0).await;
    assert!(results.iter().all(|result| !result.is_error), "{results:#?}");
    let inside = agent.events.iter().filter(|event| event.subagent.is_some()).count();
    assert!(inside > 0);
    let calls = agent.blocks();
    let call = calls.iter().find(|block| matches!(&block.kind, BlockKind::ToolUse { .. })).expect("a call");
    assert!(agent.events.iter().filter_map(|event| event.subagent.as_ref()).all(|id| *id == call.id));
    assert!(!agent.texts().contains(&"inner done".to_owned()));
    let told =
        agent.count(|meaning| matches!(meaning, Meaning::Subagent { id, state, .. } if *id == call.id && *state == SubagentState::Completed));
    assert_eq!(told, 1);
}
