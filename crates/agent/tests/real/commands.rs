//! Plain commands.

use super::agent::{Agent, Place};
use hostel_agent::{AgentKind, BlockKind, Content, LaunchOptions, Meaning, Prompt, Request};

fn command(words: &[&str]) -> LaunchOptions {
    LaunchOptions {
        program: Some(words[0].to_owned()),
        extra_args: words[1..].iter().map(|word| (*word).to_owned()).collect(),
        ..LaunchOptions::default()
    }
}

#[tokio::test]
async fn what_a_command_prints_is_the_answer() {
    let mut agent = Agent::start(AgentKind::Exec, &command(&["/bin/cat"]));
    let text = "Grüße, 世界. ".repeat(1000);
    agent.prompt(&text);
    assert!(!agent.driver.is_idle());
    assert_eq!(agent.end().await, Some(0));
    let pieces: String = agent
        .events
        .iter()
        .filter_map(|event| match &event.meaning {
            Meaning::BlockDelta { delta, .. } => Some(delta.as_str()),
            _ => None,
        })
        .collect();
    assert!(pieces == text);
    assert!(agent.texts().iter().eq([&text]));
    let results = agent.events.iter().filter_map(|event| match &event.meaning {
        Meaning::Result(result) => Some(result),
        _ => None,
    });
    let results: Vec<_> = results.collect();
    assert_eq!(results.len(), 1);
    assert_eq!((results[0].subtype.as_str(), results[0].text.as_ref()), ("success", Some(&text)));
    assert!(matches!(agent.events.last().map(|event| &event.meaning), Some(Meaning::Idle)));
    assert!(agent.driver.is_idle());
}

#[tokio::test]
async fn long_answers_come_in_several_blocks() {
    let mut agent = Agent::start(AgentKind::Exec, &command(&["/bin/cat"]));
    let text = "世".repeat(40_000);
    agent.prompt(&text);
    assert_eq!(agent.end().await, Some(0));
    let texts = agent.texts();
    assert!(texts.len() == 4 && texts.iter().all(|text| text.len() <= 32 * 1024));
    assert!(texts.concat() == text);
    assert!(agent.driver.save().to_string().len() < 2000);
}

#[tokio::test]
async fn a_command_that_fails_says_so() {
    let mut agent =
        Agent::start(AgentKind::Exec, &command(&["/bin/sh", "-c", "echo part; echo oh no >&2; exit 3"]));
    agent.prompt("ignored");
    assert_eq!(agent.end().await, Some(3));
    let result = agent.events.iter().find_map(|event| match &event.meaning {
        Meaning::Result(result) => Some(result.clone()),
        _ => None,
    });
    let result = result.expect("a result");
    assert_eq!((result.subtype.as_str(), result.is_error), ("error_during_execution", true));
    assert_eq!(result.text.as_deref(), Some("oh no"));
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Log { .. })), 1);
    assert!(matches!(&agent.blocks()[0].kind, BlockKind::AssistantText { text } if text == "part\n"));
}

#[tokio::test]
async fn a_command_has_one_turn_of_text() {
    let place = Place::new().await;
    let mut options = command(&["/bin/pwd"]);
    options.workspace = place.workspace.path().display().to_string();
    let mut agent = Agent::start(AgentKind::Exec, &options);
    let picture = Content::Image { media_type: "image/png".to_owned(), data: String::new() };
    let prompt = Prompt { uuid: "a".to_owned(), content: vec![picture] };
    assert!(agent.driver.request(Request::Prompt(prompt)).is_err());
    agent.prompt("where");
    let second = Prompt { uuid: "b".to_owned(), content: vec![Content::Text { text: String::new() }] };
    assert!(agent.driver.request(Request::Prompt(second)).is_err());
    assert!(agent.driver.request(Request::Interrupt { id: "stop".to_owned() }).is_err());
    agent.end().await;
    assert_eq!(agent.texts(), [format!("{}\n", options.workspace)]);
}
