//! Limits, and what is used between turns.

use super::*;
use crate::machine::Phase;
use crate::usd::Usd;

/// The result of a turn that the agent began by itself.
fn unasked() -> Meaning {
    let subtype = "success".to_owned();
    Meaning::Result(TurnResult {
        unasked: true,
        subtype,
        num_turns: 1,
        cost_usd: 0.5,
        ..TurnResult::default()
    })
}

/// A message of the model, as the agent writes it.
fn asks_the_model(id: &str) -> AgentEvent {
    let raw = json!({ "type": "assistant", "message": { "id": id } });
    AgentEvent { raw: Some(raw), ..AgentEvent::new(Meaning::Other { kind: "assistant".to_owned() }) }
}

impl Scene {
    /// One that has had a turn, of three that it may have, and half a dollar.
    async fn after_a_turn(on_limit: &str) -> Self {
        let create = json!({ "pattern": "long-running", "maxTurns": 3, "onLimit": on_limit });
        let mut scene = Self::plain(create).await;
        scene.begin();
        scene.hear([result(false), Meaning::Idle]);
        assert_eq!(scene.stands(), (SessionStatus::Idle, None));
        scene
    }

    fn update(&mut self, update: Value) {
        let (reply, _) = tokio::sync::oneshot::channel();
        self.worker.command(Command::Update(serde_json::from_value(update).unwrap(), reply));
    }
}

#[tokio::test]
async fn turns_that_an_agent_begins_by_itself_are_limited_and_paid() {
    for (on_limit, status) in [("terminate", SessionStatus::Stopping), ("pause", SessionStatus::Idle)] {
        let mut scene = Scene::after_a_turn(on_limit).await;
        scene.hear([Meaning::Running, unasked(), Meaning::Idle]);
        assert_eq!(scene.stands(), (SessionStatus::Idle, None));
        assert_eq!(scene.worker.session.total_cost.micros(), 1_000_000);
        scene.hear([Meaning::Running, unasked(), Meaning::Idle]);
        assert_eq!(scene.stands(), (status, Some(EndReason::MaxTurns)));
        assert_eq!(scene.worker.session.total_cost.micros(), 1_500_000);
    }
}

#[tokio::test]
async fn a_turn_that_an_agent_began_by_itself_is_stopped_where_it_asks_too_often() {
    let mut scene = Scene::after_a_turn("pause").await;
    scene.hear([Meaning::Running]);
    scene.worker.understand(vec![asks_the_model("one"), asks_the_model("two")]);
    assert_eq!(scene.stands(), (SessionStatus::Idle, None));
    scene.worker.understand(vec![asks_the_model("three")]);
    assert_eq!(scene.stands(), (SessionStatus::Idle, Some(EndReason::MaxTurns)));
    assert_eq!(scene.worker.machine.agent(), Agent::Sweeping);
}

#[tokio::test]
async fn a_message_that_waits_for_an_agent_beyond_its_limit_is_not_given_to_it() {
    let mut scene = Scene::after_a_turn("pause").await;
    scene.hear([Meaning::Running]);
    let puppet = scene.puppet(false);
    scene.send(Box::new(puppet));
    scene.hear([unasked(), unasked(), Meaning::Idle]);
    let prompts = |request: &&Request| matches!(request, Request::Prompt(_));
    assert_eq!(scene.asked.lock().unwrap().iter().filter(prompts).count(), 1, "the first message");
    assert_eq!(scene.told(EventKind::TurnCompleted).unwrap()["outcome"]["result"], "max_turns");
    assert_eq!(scene.stands(), (SessionStatus::Idle, Some(EndReason::MaxTurns)));
}

#[tokio::test]
async fn counting_between_turns_is_done_once_at_a_time() {
    let mut scene = Scene::of(json!({ "pattern": "long-running" }), HostConfig::default()).await;
    let id = scene.begin();
    scene.hear([result(false), Meaning::Idle]);
    scene.worker.job_done(jobs::Job::Settled(id, Some(100)));
    for _ in 0..10 {
        scene.hear([Meaning::Running, unasked(), Meaning::Idle]);
    }
    // That of the turn, and one.
    assert_eq!((scene.worker.jobs.len(), scene.worker.counting), (2, Counting::Again));
    scene.worker.job_done(jobs::Job::Counted(Some(200)));
    assert_eq!(scene.worker.counting, Counting::UnderWay, "more was used since");
    scene.worker.job_done(jobs::Job::Counted(None));
    assert_eq!((scene.worker.counting, scene.worker.session.total_cost.micros()), (Counting::Done, 200));
}

#[tokio::test]
async fn a_limit_holds_from_when_it_is_lowered_and_until_it_is_raised() {
    let (turns, budget) = (json!({ "maxTurns": 1 }), json!({ "maxBudgetUsd": 0.25 }));
    for (lower, reason) in [(turns, EndReason::MaxTurns), (budget, EndReason::BudgetExceeded)] {
        let mut scene = Scene::after_a_turn("terminate").await;
        scene.update(lower.clone());
        assert_eq!(scene.stands(), (SessionStatus::Stopping, Some(reason)));

        let mut scene = Scene::after_a_turn("pause").await;
        scene.update(lower);
        assert_eq!(scene.stands(), (SessionStatus::Idle, Some(reason)));
        assert!(scene.worker.session.reason_message.is_some());
        scene.update(json!({ "description": "it still holds" }));
        assert_eq!(scene.stands(), (SessionStatus::Idle, Some(reason)));
        scene.update(json!({ "maxTurns": 10, "maxBudgetUsd": null }));
        assert_eq!(scene.stands(), (SessionStatus::Idle, None));
        assert_eq!(scene.told(EventKind::StatusChanged).unwrap()["reason"], Value::Null);
        assert_eq!(scene.worker.session.reason_message, None);
    }
}

#[tokio::test]
async fn turns_are_counted_on_after_a_restart() {
    let create = json!({ "pattern": "long-running", "maxTurns": 3, "onLimit": "pause" });
    let mut scene = Scene::plain(create).await;
    scene.begin();
    let mut of_a_subagent = asks_the_model("another's");
    of_a_subagent.raw.as_mut().unwrap()["parent_tool_use_id"] = json!("tool");
    of_a_subagent.subagent = Some("tool".to_owned());
    scene.worker.understand(vec![
        asks_the_model("one"),
        of_a_subagent,
        asks_the_model("two"),
        asks_the_model("two"),
    ]);
    scene.take_up().await;
    assert_eq!(scene.worker.model_calls.count(), 2);
    scene.worker.understand(vec![asks_the_model("two"), asks_the_model("three")]);
    assert_eq!(scene.worker.machine.turn().unwrap().phase, Phase::Running);
    scene.worker.understand(vec![asks_the_model("four")]);
    assert_eq!(scene.worker.machine.turn().unwrap().phase, Phase::Stopping);
}

#[tokio::test]
async fn what_an_agent_does_of_its_own_accord_is_counted_on_after_a_restart() {
    let create = json!({ "pattern": "long-running", "maxTurns": 3, "onLimit": "pause" });
    let mut scene = Scene::plain(create).await;
    scene.begin();
    scene.worker.understand(vec![asks_the_model("one")]);
    scene.hear([result(false), Meaning::Idle]);
    scene.worker.happened(Input::Settled);
    scene.worker.driver = Some(Box::new(super::Puppet { works: true, ..scene.puppet(false) }));
    scene.hear([Meaning::Running]);
    scene.worker.understand(vec![asks_the_model("two")]);
    scene.take_up().await;
    assert_eq!(scene.worker.model_calls.count(), 1, "that of the turn is in its result");
    scene.worker.understand(vec![asks_the_model("three")]);
    assert_eq!(scene.worker.session.reason, None);
    scene.worker.understand(vec![asks_the_model("four")]);
    assert_eq!(scene.worker.session.reason, Some(EndReason::MaxTurns));
}

#[tokio::test]
async fn an_agent_that_works_of_its_own_accord_is_not_idle() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running", "maxIdleTimeMs": 60_000 })).await;
    scene.begin();
    scene.hear([result(false), Meaning::Idle]);
    scene.worker.happened(Input::Settled);
    let (first, reason) = scene.worker.next_limit().unwrap();
    assert_eq!(reason, EndReason::IdleTimeout);
    scene.hear([Meaning::Running]);
    let limit = scene.worker.next_limit().unwrap();
    assert_eq!(limit.1, EndReason::MaxLifetime);
    scene.hear([unasked(), Meaning::Idle]);
    let (later, reason) = scene.worker.next_limit().unwrap();
    assert!(reason == EndReason::IdleTimeout && later > first, "its rest begins when its work is done");
}

#[tokio::test]
async fn who_stops_what_an_agent_does_of_its_own_accord_does_not_find_it_idle_since_before() {
    let mut scene = Scene::plain(json!({ "pattern": "long-running", "maxIdleTimeMs": 60_000 })).await;
    scene.begin();
    scene.hear([result(false), Meaning::Idle]);
    let now = crate::clock::now();
    scene.worker.session.last_activity_at = Some(now - jiff::SignedDuration::from_hours(2));
    scene.hear([Meaning::Running]);
    scene.worker.happened(Input::Kill);
    assert_eq!(scene.worker.machine.agent(), Agent::Sweeping);
    let (at, reason) = scene.worker.next_limit().unwrap();
    assert!(reason == EndReason::IdleTimeout && at > now, "{at}");
}

#[tokio::test]
async fn an_agent_that_keeps_another_budget_is_replaced_before_the_next_turn() {
    let create = json!({ "pattern": "long-running", "maxBudgetUsd": 2.0 });
    let mut scene = Scene::plain(create).await;
    let launch = super::super::options::launch(&scene.worker.session, false, false, 1);
    let (_, driver) = hostel_agent::AgentKind::Claude.launch(&launch).unwrap();
    let id = scene.send(driver);
    scene.hear([Meaning::Running, Meaning::Prompt { uuid: id, state: MessageState::Started }]);
    scene.hear([result(false), Meaning::Idle]);
    scene.update(json!({ "maxBudgetUsd": 3.0 }));
    assert_eq!(scene.worker.machine.agent(), Agent::Idle, "what it left running goes on until then");
    let puppet = scene.puppet(false);
    scene.send(Box::new(puppet));
    assert_eq!(scene.worker.machine.agent(), Agent::Sweeping);
    let turn = scene.worker.machine.turn().unwrap();
    assert_eq!((turn.phase, turn.lost), (Phase::Starting, 0));
    scene.worker.happened(Input::Swept);
    assert_eq!(scene.worker.machine.agent(), Agent::Starting);
    let launch = super::super::options::launch(&scene.worker.session, false, true, 2);
    assert_eq!((launch.max_budget_usd, launch.spent), (Some(3.0), 0.5));
}

#[tokio::test]
async fn a_budget_that_is_configured_for_the_agent_is_kept_by_it_beside_a_gateway() {
    let create = json!({ "pattern": "long-running", "maxBudgetUsd": 9.0, "config": { "maxBudgetUsd": 0.5 } });
    let mut scene = Scene::plain(create).await;
    let launched = |scene: &Scene, gateway| {
        super::super::options::launch(&scene.worker.session, gateway, false, 1).max_budget_usd
    };
    assert_eq!((launched(&scene, true), launched(&scene, false)), (Some(0.5), Some(0.5)));
    let config = hostel_agent::LaunchOptions { max_budget_usd: Some(0.5), ..Default::default() };
    let (_, driver) = hostel_agent::AgentKind::Claude.launch(&config).unwrap();
    let id = scene.send(driver);
    scene.hear([Meaning::Running, Meaning::Prompt { uuid: id, state: MessageState::Started }]);
    scene.hear([result(false), Meaning::Idle]);
    assert_eq!(
        scene.worker.session.reason,
        Some(EndReason::BudgetExceeded),
        "half a dollar of half a dollar"
    );
    let message = scene.worker.session.reason_message.clone().unwrap();
    assert!(message.contains("of $0.5") && !message.contains('9'), "{message}");
    // Whoever raises the session's raises this.
    let create = json!({ "pattern": "long-running", "config": { "maxBudgetUsd": 0.5 } });
    let mut scene = Scene::plain(create).await;
    assert_eq!(scene.worker.session.limits.max_budget_usd, Usd::from_dollars(0.5));
    scene.update(json!({ "maxBudgetUsd": 4.0 }));
    assert_eq!(
        (launched(&scene, true), scene.worker.session.limits.max_budget_usd),
        (Some(4.0), Usd::from_dollars(4.0))
    );
    scene.update(json!({ "maxBudgetUsd": null }));
    assert_eq!((launched(&scene, true), launched(&scene, false)), (None, None));
}
