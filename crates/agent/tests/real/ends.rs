//! How processes end, and going on after that.

use super::agent::{Agent, Place};
use hostel_agent::{BlockKind, Content, Meaning, MessageState, PermissionMode, Prompt, Request, TurnResult};
use hostel_testkit::{Script, Step};
use serde_json::json;

fn results(agent: &Agent) -> Vec<TurnResult> {
    let results = agent.events.iter().filter_map(|event| match &event.meaning {
        Meaning::Result(result) => Some(result.clone()),
        _ => None,
    });
    results.collect()
}

fn conversation(agent: &Agent) -> String {
    let last = agent.events.iter().rev().find_map(|event| match &event.meaning {
        Meaning::Conversation { id, .. } => Some(id.clone()),
        _ => None,
    });
    last.expect("a conversation")
}

/// The file that the CLI keeps a conversation in.
fn transcript(agent: &Agent) -> String {
    let first = agent.events.iter().find_map(|event| match &event.meaning {
        Meaning::Transcript { path, .. } => Some(path.clone()),
        _ => None,
    });
    first.expect("a transcript")
}

#[tokio::test]
async fn the_end_of_input_lets_it_finish() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let slow = Script::new().step(Step::text("slow ".repeat(8)).chunks(8).delay_ms(50));
    agent.prompt(&slow.prompt("Talk."));
    agent.prompt("And that.");
    agent.ask(Request::End);
    assert!(agent.driver.request(Request::Interrupt { id: "late".to_owned() }).is_err());
    assert_eq!(agent.end().await, Some(0));
    let results = results(&agent);
    assert!(!results.is_empty() && results.iter().all(|result| !result.is_error), "{results:?}");
    assert_eq!(results.iter().map(|result| result.prompts.len()).sum::<usize>(), 2);
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Idle)), 1);
    assert!(agent.driver.is_idle());
}

#[tokio::test]
async fn a_killed_agent_ends_its_turn_and_a_new_one_goes_on_without_repeating() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    options.conversation = Some(uuid::Uuid::new_v4().to_string());
    let mut agent = Agent::claude(&options);
    let before = agent.turn("Before.").await;
    let hold = json!({ "command": "echo x >> runs; timeout 20 tail -f /dev/null" });
    let script = Script::new().tool("Bash", hold).text("never");
    let prompt = Prompt {
        uuid: uuid::Uuid::new_v4().to_string(),
        content: vec![Content::Text { text: script.prompt("Go.") }],
    };
    let from = agent.events.len();
    agent.ask(Request::Prompt(prompt.clone()));
    agent.until(from, |meaning| {
        matches!(meaning, Meaning::BlockComplete(block) if matches!(block.kind, BlockKind::ToolUse { .. }))
    })
    .await;
    let runs = place.workspace.path().join("runs");
    let file = transcript(&agent);
    // It writes down a moment later what it works on, and knows only that again.
    let is_written = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&prompt.uuid));
    while !runs.exists() || !is_written() {
        tokio::task::yield_now().await;
    }
    agent.child.start_kill().expect("a kill");
    assert_eq!(agent.end().await, None);
    let last = results(&agent).pop().expect("a result");
    assert_eq!((last.subtype.as_str(), last.is_error), ("agent_exited", true));
    assert!(last.prompts.iter().eq([&prompt.uuid]));
    assert!(agent.driver.is_idle());
    assert!(agent.driver.exited(None).is_empty());

    options.resume = options.conversation.clone();
    let mut agent = Agent::claude(&options);
    // It knows this one: it does not run it again.
    agent.ask(Request::Prompt(prompt.clone()));
    let next = agent.prompt("@@[{\"text\":\"goes on\"}]");
    let done = |uuid: &str| {
        let uuid = uuid.to_owned();
        move |meaning: &Meaning| matches!(meaning, Meaning::Prompt { uuid: of, state: MessageState::Completed } if *of == uuid)
    };
    agent.until(0, done(&next)).await;
    agent.until(0, |meaning| matches!(meaning, Meaning::Idle)).await;
    assert!(agent.driver.is_idle(), "{:?}", agent.driver);
    let repeated = done(&prompt.uuid);
    assert_eq!(agent.count(repeated), 1);
    let results = results(&agent);
    assert_eq!(results.last().and_then(|result| result.text.as_deref()), Some("goes on"), "{results:?}");
    assert_eq!(results[0].terminal_reason.as_deref(), Some("repeated"));
    assert!(results.len() == 2 && results[0].prompts.iter().eq([&prompt.uuid]));
    assert_eq!(std::fs::read_to_string(&runs).expect("a file"), "x\n");
    let cost = results.iter().map(|result| result.cost_usd).sum::<f64>();
    assert!(
        cost > 0.0 && cost < 2.0 * before.cost_usd,
        "what was spent before is not counted again: {results:?}"
    );
    assert_eq!(conversation(&agent), options.resume.clone().expect("an id"));
    assert!(place.last_request().contains("Before."));
}

#[tokio::test]
async fn a_conversation_is_forked_and_cut_and_gone_on_with_by_its_file() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    agent.turn("The first word.").await;
    let first = conversation(&agent);
    let said = agent.events.iter().rev().find_map(|event| {
        let raw = event.raw.as_ref()?;
        (raw["type"] == "assistant").then(|| raw["uuid"].as_str().map(str::to_owned))?
    });
    let file = transcript(&agent);
    agent.turn("The second word.").await;
    agent.ask(Request::End);
    agent.end().await;

    options.resume = Some(first.clone());
    options.fork = true;
    options.resume_at = said;
    let fork = uuid::Uuid::new_v4().to_string();
    options.conversation = Some(fork.clone());
    let mut agent = Agent::claude(&options);
    agent.turn("The third word.").await;
    assert_eq!(conversation(&agent), fork);
    let request = place.last_request();
    assert!(request.contains("The first word.") && !request.contains("The second word."));

    options = place.options().expect("a CLI");
    options.resume = Some(file);
    let mut agent = Agent::claude(&options);
    agent.turn("The fourth word.").await;
    assert_eq!(conversation(&agent), first);
    assert!(place.last_request().contains("The second word."));
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.resume = Some(uuid::Uuid::new_v4().to_string());
    let mut agent = Agent::claude(&options);
    agent.prompt("Hello?");
    assert_eq!(agent.end().await, Some(1));
    let results = results(&agent);
    assert!(results.iter().all(|result| result.is_error) && !results.is_empty());
    let told = results
        .iter()
        .any(|result| result.text.as_ref().is_some_and(|text| text.contains("No conversation found")));
    assert!(told, "{results:?}");
    assert!(agent.driver.is_idle());
    options = place.options().expect("a CLI");
    options.extra_args = vec!["--no-such-flag".to_owned()];
    let mut agent = Agent::claude(&options);
    agent.prompt("Hello?");
    assert_eq!(agent.end().await, Some(1));
    let last = self::results(&agent).pop().expect("a result");
    assert!(last.text.as_ref().is_some_and(|text| text.contains("--no-such-flag")), "{last:?}");
    assert_eq!(place.asked(), 0);
}

#[tokio::test]
async fn the_end_of_input_denies_what_is_asked() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.ask = true;
    options.permission_mode = PermissionMode::Default;
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("Bash", json!({ "command": "touch no" })).text("as you like");
    agent.prompt(&script.prompt("Go."));
    agent.until(0, |meaning| matches!(meaning, Meaning::Question(_))).await;
    agent.ask(Request::End);
    assert_eq!(agent.end().await, Some(0));
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::QuestionWithdrawn { .. })), 1);
    assert_eq!(results(&agent)[0].text.as_deref(), Some("as you like"));
    assert!(!place.workspace.path().join("no").exists());
}

#[tokio::test]
async fn a_terminated_agent_leaves_no_result() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.conversation = Some(uuid::Uuid::new_v4().to_string());
    let mut agent = Agent::claude(&options);
    let slow = Script::new().step(Step::text("slow ".repeat(100)).chunks(100).delay_ms(100));
    agent.prompt(&slow.prompt("Talk."));
    agent.until(0, |meaning| matches!(meaning, Meaning::BlockDelta { .. })).await;
    let pid = agent.child.id().expect("a process").to_string();
    let killed = std::process::Command::new("kill").arg(pid).status().expect("kill");
    assert!(killed.success());
    assert_eq!(agent.end().await, Some(143));
    let results = results(&agent);
    assert!(results.len() == 1 && results[0].subtype == "agent_exited", "{results:?}");
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::BlockAbandoned { .. })), 1);
    // Its id cannot be had again, but resumed.
    let mut agent = Agent::claude(&options);
    agent.prompt("Hello?");
    assert_eq!(agent.end().await, Some(1));
    let last = self::results(&agent).pop().expect("a result");
    assert!(last.text.is_some_and(|text| text.contains("already in use")));
}

#[tokio::test]
async fn an_agent_that_is_sent_ctrl_c_gives_its_result() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let slow = Script::new().step(Step::text("slow ".repeat(100)).chunks(100).delay_ms(100));
    agent.prompt(&slow.prompt("Talk."));
    agent.until(0, |meaning| matches!(meaning, Meaning::BlockDelta { .. })).await;
    let pid = agent.child.id().expect("a process").to_string();
    let sent = std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill");
    assert!(sent.success());
    assert_eq!(agent.end().await, Some(0));
    let results = results(&agent);
    assert!(results.len() == 1 && results[0].interrupted && results[0].is_error, "{results:?}");
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Idle)), 1);
}

/// It does not wait for its reader, and keeps what nobody has read.
#[tokio::test]
async fn output_that_is_read_late_is_whole() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let script = Script::new().step(Step::generated(1 << 20).chunks(100)).text("the end");
    let before = place.asked();
    agent.prompt(&script.prompt("Talk."));
    agent.ask(Request::End);
    agent.write().await;
    // The model has answered, and a pipe holds far less than that.
    while place.asked() == before {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(agent.end().await, Some(0));
    let results = results(&agent);
    assert!(results.len() == 1 && !results[0].is_error, "{results:?}");
    assert_eq!(agent.texts().first().map(String::len), Some(1 << 20));
}

#[tokio::test]
async fn an_agent_whose_last_turn_failed_ends_with_an_error() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let script = Script::new().step(Step::error(400));
    assert!(agent.turn(&script.prompt("Go.")).await.is_error);
    agent.ask(Request::End);
    // The turn has its result already.
    let from = agent.events.len();
    assert_eq!(agent.end().await, Some(1));
    let more = agent.events[from..].iter();
    assert_eq!(more.filter(|event| matches!(event.meaning, Meaning::Result(_) | Meaning::Idle)).count(), 0);
}

#[tokio::test]
async fn clearing_makes_another_conversation() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    agent.turn("Remember this word.").await;
    let first = conversation(&agent);
    let from = agent.events.len();
    agent.prompt("/clear");
    agent.idle(from).await;
    agent.turn("What was the word?").await;
    assert_ne!(conversation(&agent), first);
    assert!(!place.last_request().contains("Remember this word."));
    assert!(agent.driver.is_idle());
}
