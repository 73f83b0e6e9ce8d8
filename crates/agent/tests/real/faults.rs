//! A model that fails.

use super::agent::{Agent, Place};
use hostel_agent::{Meaning, Request, Retry};
use hostel_testkit::{Script, Step};

fn retries(agent: &Agent) -> Vec<Retry> {
    let retries = agent.events.iter().filter_map(|event| match &event.meaning {
        Meaning::Retry(retry) => Some(retry.clone()),
        _ => None,
    });
    retries.collect()
}

#[tokio::test]
async fn refusals_are_tried_again() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let script = Script::new().error(429, 1).error(529, 1).text("at last");
    let result = agent.turn(&script.prompt("Try.")).await;
    assert!(!result.is_error);
    assert_eq!(result.text.as_deref(), Some("at last"));
    let retries = retries(&agent);
    let told: Vec<_> = retries.iter().map(|retry| (retry.attempt, retry.status)).collect();
    assert_eq!(told, [(1, Some(429)), (2, Some(529))]);
    assert!(retries[0].max_retries >= 2 && retries[0].error == "rate_limit", "{retries:?}");
}

#[tokio::test]
async fn a_model_that_never_answers_right_ends_the_turn_with_an_error() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.env.insert("CLAUDE_CODE_MAX_RETRIES".to_owned(), "1".to_owned());
    let mut agent = Agent::claude(&options);
    let script = Script::new().step(Step::error(429));
    let result = agent.turn(&script.prompt("Try.")).await;
    // The subtype lies.
    assert_eq!((result.subtype.as_str(), result.is_error), ("success", true));
    assert_eq!(result.terminal_reason.as_deref(), Some("api_error"));
    assert_eq!(result.api_error_status, Some(429));
    assert!(!result.interrupted && result.text.is_some());
    assert_eq!(retries(&agent).len(), 1);
    let result = agent.turn("And now? @@[{\"text\":\"better\"}]").await;
    assert_eq!((result.is_error, result.text.as_deref()), (false, Some("better")));
}

#[tokio::test]
async fn an_answer_that_is_cut_is_asked_for_again() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    for fault in [
        Step::cut(4).with_text("half of it").chunks(3),
        Step::sse_error("overloaded_error", 4).with_text("half of it").chunks(3),
    ] {
        let mut agent = Agent::claude(&options);
        let script = Script::new().step(fault.times(1)).text("whole");
        let result = agent.turn(&script.prompt("Try.")).await;
        assert_eq!((result.is_error, result.text.as_deref()), (false, Some("whole")));
        assert_eq!(agent.texts().last().map(String::as_str), Some("whole"));
        let mut starts: Vec<String> = agent
            .events
            .iter()
            .filter_map(|event| match &event.meaning {
                Meaning::BlockStart(block) => Some(block.id.clone()),
                _ => None,
            })
            .collect();
        let all = starts.len();
        let whole = agent.texts().len() - usize::from(!starts.contains(&agent.blocks()[0].id));
        // How much of it arrived before the cut is up to the network.
        assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::BlockAbandoned { .. })), all - whole);
        starts.sort();
        starts.dedup();
        assert_eq!(starts.len(), all, "no id is used twice");
    }
}

/// The CLI then asks the model once more, with words of its own in the user's name.
#[tokio::test]
async fn an_answer_that_the_model_breaks_off_is_one_turn() {
    let place = Place::new().await;
    let Some(options) = place.options() else { return };
    for reason in ["max_tokens", "refusal"] {
        let mut agent = Agent::claude(&options);
        let script = Script::new().step(Step::text("a half").stop(reason)).text("the rest");
        let before = place.asked();
        let result = agent.turn(&script.prompt("Go.")).await;
        assert!(place.asked() > before, "{reason}: {result:?}");
        assert_eq!(result.prompts.len(), 1, "{reason}: {result:?}");
        let again = agent.turn("And now?").await;
        assert!(!again.is_error && agent.driver.is_idle(), "{reason}: {again:?}");
    }
}

#[tokio::test]
async fn the_budget_and_the_turns_of_the_process_are_kept() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.max_turns = Some(1);
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("Read", serde_json::json!({ "file_path": "/nowhere" })).text("never");
    let result = agent.turn(&script.prompt("Go.")).await;
    assert_eq!((result.subtype.as_str(), result.is_error), ("error_max_turns", true));
    options.max_turns = None;
    options.max_budget_usd = Some(0.01);
    let mut agent = Agent::claude(&options);
    let first = agent.turn("Spend.").await;
    let second = agent.turn("Spend more.").await;
    assert_eq!((second.subtype.as_str(), second.is_error), ("error_max_budget_usd", true));
    assert!(first.cost_usd > 0.01 && second.cost_usd == 0.0, "{first:?} {second:?}");
}

#[tokio::test]
async fn the_budget_is_kept_over_processes() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    let mut agent = Agent::claude(&options);
    let first = agent.turn("Spend.").await;
    agent.ask(Request::End);
    agent.end().await;
    options.resume = options.conversation.clone();
    options.spent = first.cost_usd;
    // By itself the next process would take one turn for less than its budget.
    options.max_budget_usd = Some(first.cost_usd * 1.5);
    let mut agent = Agent::claude(&options);
    let second = agent.turn("Spend more.").await;
    assert_eq!((second.subtype.as_str(), second.is_error), ("error_max_budget_usd", true), "{first:?}");
    assert!(agent.driver.keeps_budget(options.max_budget_usd) && !agent.driver.keeps_budget(None));
}

#[tokio::test]
async fn answers_in_a_form() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    let schema = serde_json::json!({
        "type": "object", "properties": { "answer": { "type": "number" } }, "required": ["answer"],
    });
    options.json_schema = Some(schema);
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("StructuredOutput", serde_json::json!({ "answer": 42 })).text("done");
    let result = agent.turn(&script.prompt("Go.")).await;
    assert_eq!(result.structured_output, Some(serde_json::json!({ "answer": 42 })), "{result:?}");
}
