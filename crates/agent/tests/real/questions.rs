//! Questions, and stopping.

use super::agent::{Agent, Place};
use hostel_agent::{
    Answer, BlockKind, Content, Decision, Error, LaunchOptions, Meaning, MessageState, PermissionMode,
    Question, Request, ToolStatus,
};
use hostel_testkit::{Script, Step};
use serde_json::{Value, json};

fn asking(place: &Place) -> Option<LaunchOptions> {
    Some(LaunchOptions { ask: true, permission_mode: PermissionMode::Default, ..place.options()? })
}

async fn question(agent: &mut Agent, from: usize) -> (Question, usize) {
    let at = agent.until(from, |meaning| matches!(meaning, Meaning::Question(_))).await;
    match &agent.events[at].meaning {
        Meaning::Question(question) => (question.clone(), at + 1),
        _ => unreachable!(),
    }
}

fn answer(agent: &mut Agent, question: &Question, decision: Decision) {
    agent.ask(Request::Answer(Answer { question: question.id.clone(), decision }));
}

fn touch(name: &str) -> Value {
    json!({ "command": format!("touch {name}") })
}

#[tokio::test]
async fn allowing_once_changing_and_allowing_for_the_session() {
    let place = Place::new().await;
    let Some(options) = asking(&place) else { return };
    let mut agent = Agent::claude(&options);
    let script = Script::new()
        .tool("Bash", touch("first"))
        .tool("Bash", touch("second"))
        .tool("Bash", touch("third"))
        .tool("Bash", touch("third"))
        .text("done");
    agent.prompt(&script.prompt("Go."));
    let (asked, at) = question(&mut agent, 0).await;
    assert_eq!((asked.tool.as_str(), &asked.input), ("Bash", &touch("first")));
    let call = asked.tool_use_id.clone().expect("a call");
    assert!(agent.blocks().iter().any(|block| block.id == call));
    answer(&mut agent, &asked, Decision::Allow { input: None, for_session: false });
    let again = Request::Answer(Answer {
        question: asked.id.clone(),
        decision: Decision::Deny { message: String::new(), interrupt: false },
    });
    assert_eq!(agent.driver.request(again), Err(Error::UnknownQuestion { id: asked.id }));
    let (asked, at) = question(&mut agent, at).await;
    answer(&mut agent, &asked, Decision::Allow { input: Some(touch("other")), for_session: false });
    let (asked, at) = question(&mut agent, at).await;
    assert_eq!(asked.input, touch("third"));
    answer(&mut agent, &asked, Decision::Allow { input: None, for_session: true });
    let (results, _) = agent.idle(at).await;
    assert_eq!(results[0].text.as_deref(), Some("done"));
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Question(_))), 3);
    let there = |name: &str| place.workspace.path().join(name).exists();
    assert!(there("first") && there("other") && there("third") && !there("second"));
}

#[tokio::test]
async fn denying_goes_on_and_denying_with_interrupt_ends_the_turn() {
    let place = Place::new().await;
    let Some(options) = asking(&place) else { return };
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("Bash", touch("no")).text("as you like");
    agent.prompt(&script.prompt("Go."));
    let (asked, at) = question(&mut agent, 0).await;
    answer(&mut agent, &asked, Decision::Deny { message: "Not that one.".to_owned(), interrupt: false });
    let (results, idle) = agent.idle(at).await;
    assert_eq!(results[0].text.as_deref(), Some("as you like"));
    assert!(!results[0].interrupted);
    assert!(place.last_request().contains("Not that one."));
    let script = Script::new().tool("Bash", touch("neither")).text("never");
    agent.prompt(&script.prompt("Go on."));
    let (asked, at) = question(&mut agent, idle).await;
    answer(&mut agent, &asked, Decision::Deny { message: "Stop.".to_owned(), interrupt: true });
    let (results, _) = agent.idle(at).await;
    assert!(results[0].is_error && results[0].interrupted, "{results:?}");
    assert_eq!(results[0].terminal_reason.as_deref(), Some("aborted_tools"));
    assert!(!agent.turn("Still there?").await.is_error);
}

#[tokio::test]
async fn a_question_to_people_is_answered_by_its_input() {
    let place = Place::new().await;
    let Some(options) = asking(&place) else { return };
    let mut agent = Agent::claude(&options);
    let questions = json!({ "questions": [{
        "question": "Which color?", "header": "Color", "multiSelect": false,
        "options": [{ "label": "Blue", "description": "b" }, { "label": "Red", "description": "r" }],
    }] });
    let script = Script::new().tool("AskUserQuestion", questions).text("I see");
    agent.prompt(&script.prompt("Ask."));
    let (asked, at) = question(&mut agent, 0).await;
    let mut input = asked.input.clone();
    input["answers"] = json!({ "Which color?": "Blue" });
    answer(&mut agent, &asked, Decision::Allow { input: Some(input), for_session: false });
    let (results, _) = agent.idle(at).await;
    assert_eq!(results[0].text.as_deref(), Some("I see"));
    assert!(place.last_request().contains("Blue"));
}

#[tokio::test]
async fn a_plan_is_accepted() {
    let place = Place::new().await;
    let Some(mut options) = asking(&place) else { return };
    options.permission_mode = PermissionMode::Plan;
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("ExitPlanMode", json!({ "plan": "Do it." })).text("off we go");
    agent.prompt(&script.prompt("Plan."));
    let (asked, at) = question(&mut agent, 0).await;
    assert_eq!(asked.tool, "ExitPlanMode");
    answer(&mut agent, &asked, Decision::Allow { input: None, for_session: false });
    let (results, _) = agent.idle(at).await;
    assert_eq!((results[0].is_error, results[0].text.as_deref()), (false, Some("off we go")));
    let left = agent.events.iter().filter_map(|event| event.raw.as_ref());
    assert!(left.filter(|raw| raw["permissionMode"] == "default").count() > 0);
}

#[tokio::test]
async fn large_inputs_are_asked_for_and_allowed() {
    let place = Place::new().await;
    let Some(options) = asking(&place) else { return };
    let mut agent = Agent::claude(&options);
    let file = place.workspace.path().join("large").display().to_string();
    let input = json!({ "file_path": file, "content": "x".repeat(300_000) });
    let script = Script::new().tool("Write", input).text("written");
    agent.prompt(&script.prompt("Write."));
    let (asked, at) = question(&mut agent, 0).await;
    assert!(agent.driver.save().to_string().len() < 200_000);
    answer(&mut agent, &asked, Decision::Allow { input: None, for_session: true });
    let (results, _) = agent.idle(at).await;
    assert_eq!(results[0].text.as_deref(), Some("written"), "{results:?}");
    assert_eq!(std::fs::read(&file).expect("a file").len(), 300_000);
}

#[tokio::test]
async fn interrupting_withdraws_questions() {
    let place = Place::new().await;
    let Some(options) = asking(&place) else { return };
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("Bash", touch("no")).text("never");
    agent.prompt(&script.prompt("Go."));
    let (asked, at) = question(&mut agent, 0).await;
    agent.ask(Request::Interrupt { id: "stop".to_owned() });
    let (results, _) = agent.idle(at).await;
    assert!(results[0].interrupted, "{results:?}");
    let withdrawn = Meaning::QuestionWithdrawn { id: asked.id.clone() };
    assert_eq!(agent.count(|meaning| *meaning == withdrawn), 1);
    assert!(agent.answered("stop").await.is_ok());
    let late = Answer { question: asked.id, decision: Decision::Allow { input: None, for_session: false } };
    assert!(matches!(agent.driver.request(Request::Answer(late)), Err(Error::UnknownQuestion { .. })));
}

#[tokio::test]
async fn interrupting_an_answer_drops_what_waits() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let slow = Script::new().step(Step::text("slow ".repeat(100)).chunks(100).delay_ms(200));
    agent.prompt(&slow.prompt("Talk."));
    agent.until(0, |meaning| matches!(meaning, Meaning::BlockDelta { .. })).await;
    let waiting = agent.send(vec![Content::Text { text: "Later.".to_owned() }]);
    let queued = Meaning::Prompt { uuid: waiting.clone(), state: MessageState::Queued };
    agent.until(0, |meaning| *meaning == queued).await;
    agent.ask(Request::Interrupt { id: "stop".to_owned() });
    let (results, _) = agent.idle(0).await;
    assert_eq!(results.len(), 2, "{results:?}");
    assert!(results.iter().all(|result| result.is_error && result.interrupted));
    assert!(results[0].prompts.iter().eq([&waiting]));
    assert_eq!(results[1].terminal_reason.as_deref(), Some("aborted_streaming"));
    assert_eq!(results[1].subtype, "error_during_execution");
    let cancelled = Meaning::Prompt { uuid: waiting, state: MessageState::Cancelled };
    assert_eq!(agent.count(|meaning| *meaning == cancelled), 1);
    assert!(agent.driver.is_idle());
    // Nothing runs, so nothing happens.
    agent.ask(Request::Interrupt { id: "again".to_owned() });
    assert!(agent.answered("again").await.is_ok());
    assert!(!agent.turn("And now?").await.interrupted);
}

#[tokio::test]
async fn interrupting_before_the_turn_begins_gives_a_result_too() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    for id in ["cold", "warm"] {
        let from = agent.events.len();
        let uuid = agent.send(vec![Content::Text { text: "Never mind.".to_owned() }]);
        agent.ask(Request::Interrupt { id: id.to_owned() });
        let (results, _) = agent.idle(from).await;
        assert!(results.len() == 1 && results[0].interrupted, "{results:?}");
        assert!(results[0].prompts.iter().eq([&uuid]));
        assert!(agent.driver.is_idle());
    }
    assert!(!agent.turn("And now?").await.is_error);
}

#[tokio::test]
async fn interrupting_a_command_kills_it() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    let mut agent = Agent::claude(&options);
    let script =
        Script::new().tool("Bash", json!({ "command": "timeout 50 tail -f /dev/null" })).text("never");
    agent.prompt(&script.prompt("Go."));
    agent.until(0, |meaning| {
        matches!(meaning, Meaning::BlockComplete(block) if matches!(block.kind, BlockKind::ToolUse { .. }))
    })
    .await;
    agent.ask(Request::Interrupt { id: "stop".to_owned() });
    let (results, _) = agent.idle(0).await;
    assert!(results[0].interrupted, "{results:?}");
    let failed = agent.count(|meaning| {
        matches!(meaning, Meaning::BlockUpdate(block)
            if matches!(block.kind, BlockKind::ToolUse { status: ToolStatus::Error, .. }))
    });
    assert_eq!(failed, 1);
    assert!(agent.blocks().iter().any(|block| matches!(&block.kind, BlockKind::System { .. })));
}

#[tokio::test]
async fn what_is_allowed_for_the_session_outlives_the_process() {
    let place = Place::new().await;
    let Some(mut options) = asking(&place) else { return };
    options.conversation = Some(uuid::Uuid::new_v4().to_string());
    let mut agent = Agent::claude(&options);
    let odd = json!({ "command": "touch 'b (1), c'", "description": "touch" });
    let script = || Script::new().tool("Bash", touch("a")).tool("Bash", odd.clone()).text("done");
    agent.prompt(&script().prompt("Go."));
    let mut at = 0;
    for _ in 0..2 {
        let (asked, next) = question(&mut agent, at).await;
        answer(&mut agent, &asked, Decision::Allow { input: None, for_session: true });
        at = next;
    }
    agent.idle(at).await;
    options.granted = hostel_agent::claude::granted(&agent.driver.save());
    options.resume = options.conversation.take();
    agent.ask(Request::End);
    agent.end().await;
    let mut agent = Agent::claude(&options);
    agent.prompt(&script().prompt("Again."));
    let (results, _) = agent.idle(0).await;
    assert_eq!(results[0].text.as_deref(), Some("done"));
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Question(_))), 0, "it was allowed before");
    // Nothing else was; plain changes of files the agent itself takes as allowed with these.
    let other = json!({ "command": "python3 -c 'open(\"c\", \"w\")'", "description": "write" });
    agent.prompt(&Script::new().tool("Bash", other).text("done").prompt("More."));
    question(&mut agent, 0).await;
}
