//! Budgets, whoever keeps them.

use super::stage::{Stage, unasked, work};
use hostel_session::client::model::Process;
use hostel_session::{
    Change, EndReason, EventKind, HostConfig, Pattern, SendMessage, SessionHost as _, SessionStatus,
    UpdateSession, Usd, agent::Content,
};
use hostel_testkit::Script;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_pauses_or_ends_a_session_and_raising_it_goes_on() {
    let Some(stage) = Stage::start().await else { return };
    let create = |on_limit: &str| {
        let create = json!({
            "pattern": "long-running", "config": unasked(), "maxBudgetUsd": 0.000_001, "onLimit": on_limit
        });
        serde_json::from_value(create).unwrap()
    };
    let id = stage.host.create(create("pause")).await.unwrap().session.id;
    let message = stage.send(&id, work()).await;
    let (outcome, _) = stage.turn(&id, &message).await;
    assert_eq!(outcome["result"], "budget_exceeded", "{outcome}");
    let session = stage.host.get(&id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Idle, Some(EndReason::BudgetExceeded)));
    let more =
        SendMessage { content: vec![Content::Text { text: "more".to_owned() }], idempotency_key: None };
    assert!(matches!(
        stage.host.send(&id, more).await,
        Err(hostel_session::Error::LimitReached { reason: EndReason::BudgetExceeded, .. })
    ));
    let budget = Usd::from_dollars(5.0);
    let raised =
        stage.host.update(&id, UpdateSession { max_budget_usd: budget.into(), ..Default::default() }).await;
    assert_eq!(raised.unwrap().limits.max_budget_usd, budget);
    let message = stage.send(&id, Script::new().text("rich again")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "rich again");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();

    let id = stage.host.create(create("terminate")).await.unwrap().session.id;
    stage.send(&id, work()).await;
    stage.events_until(&id, 0, |event| event.kind == EventKind::SessionEnded).await;
    let session = stage.host.get(&id).await.unwrap();
    assert_eq!(
        (session.status, session.reason),
        (SessionStatus::Terminated, Some(EndReason::BudgetExceeded))
    );
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).stdout, "", "its sandbox is gone");
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_keeps_the_budget_itself_follows_when_it_is_changed() {
    let Some(mut stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, unasked()).await.id;
    let message = stage.send(&id, Script::new().text("one")).await;
    stage.turn(&id, &message).await;
    let (_, sandbox) = stage.host.environment(&id).await.unwrap();
    // Whoever counts from here on is the agent: the sandbox has its way to the model.
    stage.restart_host_with(HostConfig { gateway: false, ..HostConfig::default() }).await;
    let turn = stage.host.get(&id).await.unwrap().agent_cost.dollars();
    assert!(turn > 0.0);
    let mut before = String::new();
    for (budget, says) in [(Some(turn * 2.5), "two"), (Some(turn * 10.0), "three"), (None, "four")] {
        let is_bound = budget.is_some();
        let budget = budget.map_or(Change::Clear, |budget| Change::Set(Usd::from_dollars(budget).unwrap()));
        let update = UpdateSession { max_budget_usd: budget, ..Default::default() };
        stage.host.update(&id, update).await.unwrap();
        let message = stage.send(&id, Script::new().text(says)).await;
        let (outcome, _) = stage.turn(&id, &message).await;
        assert_eq!((&outcome["text"], &outcome["isError"]), (&json!(says), &json!(false)), "{outcome}");
        let (client, same) = stage.host.environment(&id).await.unwrap();
        assert_eq!(same, sandbox);
        let processes = client.list_processes(&sandbox).await.unwrap();
        let running =
            |one: &&Process| one.running && one.command.iter().any(|word| word == "--session-mirror");
        let agents: Vec<_> = processes.iter().filter(running).collect();
        assert_eq!(agents.len(), 1, "{processes:?}");
        assert_ne!(agents[0].id.as_str(), before, "another agent");
        assert_eq!(agents[0].command.iter().any(|word| word == "--max-budget-usd"), is_bound);
        before = agents[0].id.to_string();
    }
    let asked = stage.model.requests().into_iter().rfind(|request| request.path == "/v1/messages").unwrap();
    let asked = String::from_utf8_lossy(&asked.body).into_owned();
    assert!(["one", "two", "three"].iter().all(|said| asked.contains(said)), "the same conversation");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_configured_for_the_agent_is_kept_by_its_own_flag_beside_the_gateway() {
    let Some(stage) = Stage::start().await else { return };
    let mut config = unasked();
    config["maxBudgetUsd"] = json!(0.01);
    let create =
        json!({ "pattern": "long-running", "config": config, "maxBudgetUsd": 5.0, "onLimit": "pause" });
    let id = stage.host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
    let message = stage.send(&id, work()).await;
    let (outcome, _) = stage.turn(&id, &message).await;
    assert_eq!(
        (&outcome["result"], &outcome["isError"]),
        (&json!("budget_exceeded"), &json!(true)),
        "{outcome}"
    );
    assert_eq!(outcome["raw"]["subtype"], "error_max_budget_usd", "{outcome}");
    let session = stage.host.get(&id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Idle, Some(EndReason::BudgetExceeded)));
    let (client, sandbox) = stage.host.environment(&id).await.unwrap();
    let budget = client.get_sandbox(&sandbox).await.unwrap().model.unwrap().budget.cost_micros;
    assert_eq!(budget, Some(5_000_000), "the gateway keeps the session's");
    let processes = client.list_processes(&sandbox).await.unwrap();
    assert!(
        processes.iter().any(|one| one.command.windows(2).any(|two| two == ["--max-budget-usd", "0.01"]))
    );
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}
