//! Budgets stop, and let go on.

use crate::stage::{Inside, Stage, access, pieces, soon, upstream, whole};
use crate::upstream::{Model, json, message, send, start, stream};
use hostel_gateway::{LabelBudget, Period, Spent};
use hostel_sandbox::label::Labels;
use hostel_sandbox::{ModelBudget, SandboxId};
use tokio::task::JoinSet;

fn cost(micros: u64) -> ModelBudget {
    ModelBudget { cost_micros: Some(micros), ..ModelBudget::default() }
}

fn team(budget: ModelBudget) -> LabelBudget {
    let selector = Labels::from([("team".to_owned(), "a".to_owned())]);
    LabelBudget { name: "team-a".into(), selector, budget, period: Period::Day }
}

#[tokio::test]
async fn a_budget_stops_between_requests_and_raising_it_lets_the_next_one_pass() {
    // Each costs 100 micro-USD: a budget of 150 is spent by the second.
    let model = Model::always(|| message(100, 0)).await;
    let stage = Stage::new(&model.url, cost(150)).await;
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    for _ in 0..2 {
        let (status, headers, body) = stage.inside.ask_whole().await;
        assert_eq!((status, headers["x-should-retry"].to_str().unwrap()), (400, "false"));
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&error["type"], &error["error"]["type"]), (&"error".into(), &"billing_error".into()));
        let message = error["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("$0.000200 of $0.000150") && message.contains("raise cost_micros"),
            "{message}"
        );
    }
    let free = stage.inside.request("POST", "/v1/messages/count_tokens", "{}");
    assert_eq!(whole(stage.inside.send(free).await).await.0, 400, "nothing is forwarded any more");
    assert_eq!(model.count(), 2);
    stage.inside.attachment.set_budget(cost(201)).unwrap();
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    assert_eq!(stage.inside.ask_whole().await.0, 400);
    assert_eq!(stage.gateway.snapshot().refusals["budget_cost"], 4);
}

#[tokio::test]
async fn what_is_charged_besides_tokens_counts_towards_the_budget() {
    let answer = r#"{"model":"claude-haiku-4-5","usage":{"input_tokens":100,"output_tokens":0,"speed":"fast",
        "server_tool_use":{"web_search_requests":2}}}"#;
    let model = Model::always(move || json(200, answer)).await;
    // Two searches of a cent each, and the tokens six times.
    let stage = Stage::new(&model.url, cost(20_600)).await;
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    let (status, _, body) = stage.inside.ask_whole().await;
    assert!(status == 400 && body.contains("$0.020600 of $0.020600"), "{status} {body}");
    assert_eq!((model.count(), stage.total().await.cost_micros), (1, 20_600));
}

#[tokio::test]
async fn a_hundred_at_once_cannot_race_past_a_cap() {
    const PLACES: usize = 5;
    let model = Model::always(|| message(100, 0)).await;
    let mut narrow = upstream("narrow", &model.url);
    narrow.max_concurrent = PLACES;
    let stage = Stage::of(vec![narrow], cost(1000)).await;
    let inside = std::sync::Arc::new(stage.inside);
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let inside = std::sync::Arc::clone(&inside);
        clients.spawn(async move { inside.ask_whole().await.0 });
    }
    let statuses = soon(clients.join_all()).await;
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 100 - passed);
    assert_eq!(model.count(), passed);
    // Ten spend it; besides, at most those that were in flight when the tenth ended.
    assert!((10..10 + PLACES).contains(&passed), "{passed} passed");
    assert_eq!(inside.ask_whole().await.0, 400);
}

#[tokio::test]
async fn a_cap_of_requests_is_exact_however_many_come_at_once() {
    let model = Model::always(|| message(1, 1)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let other = Inside::attach(&stage.gateway, "sb-b", access(ModelBudget::default()));
    let limits = ModelBudget { requests: Some(7), ..ModelBudget::default() };
    stage.gateway.budgets().create(team(limits)).await.unwrap();
    let both = std::sync::Arc::new([stage.inside, other]);
    let mut clients = JoinSet::new();
    for index in 0..100 {
        let both = std::sync::Arc::clone(&both);
        clients.spawn(async move { both[index % 2].ask_whole().await.0 });
    }
    let statuses = soon(clients.join_all()).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 7);
    assert_eq!(model.count(), 7);
    assert_eq!(stage.gateway.budgets().get("team-a").unwrap().spent.requests, 7);
}

#[tokio::test]
async fn what_is_seen_of_a_running_request_counts_already() {
    let model = Model::start(|_| async {
        let (pieces, answer) = stream();
        send(&pieces, &start(100)).await;
        std::mem::forget(pieces);
        answer
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget { tokens: Some(1000), ..ModelBudget::default() }).await;
    let mut running = stage.inside.ask().await;
    pieces(&mut running, start(100).len()).await;
    let (status, _, body) = stage.inside.ask_whole().await;
    assert!(status == 400 && body.contains("1141 tokens of 1000 tokens"), "{status} {body}");
}

#[tokio::test]
async fn a_label_budget_holds_for_all_sandboxes_with_the_label() {
    let model = Model::always(|| message(100, 0)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    stage.gateway.budgets().create(team(cost(200))).await.unwrap();
    let mate = Inside::attach(&stage.gateway, "sb-mate", access(ModelBudget::default()));
    let mut stranger = access(ModelBudget::default());
    stranger.labels = Labels::from([("team".to_owned(), "b".to_owned())]);
    let stranger = Inside::attach(&stage.gateway, "sb-stranger", stranger);
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    assert_eq!(mate.ask_whole().await.0, 200);
    let (status, _, body) = stage.inside.ask_whole().await;
    assert!(status == 400 && body.contains("team-a") && body.contains("$0.000200"), "{status} {body}");
    assert_eq!(stranger.ask_whole().await.0, 200);
    stranger.attachment.set_labels(Labels::from([("team".to_owned(), "a".to_owned())])).unwrap();
    assert_eq!(stranger.ask_whole().await.0, 400);
    stage.gateway.budgets().update(team(cost(300))).await.unwrap();
    assert_eq!(mate.ask_whole().await.0, 200);
    assert_eq!(stage.gateway.budgets().list()[0].spent.cost_micros, 300);
}

#[tokio::test]
async fn rates_are_refused_with_the_time_to_wait() {
    let model = Model::always(|| message(30, 0)).await;
    let limits = ModelBudget { requests_per_minute: Some(2), ..ModelBudget::default() };
    let stage = Stage::new(&model.url, limits).await;
    for _ in 0..2 {
        assert_eq!(stage.inside.ask_whole().await.0, 200);
    }
    let (status, headers, body) = stage.inside.ask_whole().await;
    assert_eq!(status, 429);
    let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait) && body.contains("rate_limit_error"), "{wait} {body}");
    let limits = ModelBudget { tokens_per_minute: Some(60), ..ModelBudget::default() };
    stage.inside.attachment.set_budget(limits).unwrap();
    let (status, _, body) = stage.inside.ask_whole().await;
    assert!(status == 429 && body.contains("60 tokens per minute"), "{status} {body}");
    assert_eq!(model.count(), 2);
}

#[tokio::test]
async fn what_is_free_counts_towards_the_rate_of_requests() {
    let model = Model::always(|| message(1, 0)).await;
    let limits = ModelBudget { requests_per_minute: Some(2), ..ModelBudget::default() };
    let stage = Stage::new(&model.url, limits).await;
    let free = async |method: &str, path: &str| {
        let request = stage.inside.request(method, path, "");
        whole(stage.inside.send(request).await).await.0
    };
    assert_eq!(free("POST", "/v1/messages/count_tokens").await, 200);
    assert_eq!(free("GET", "/v1/models").await, 200);
    assert_eq!(free("GET", "/v1/models").await, 429);
    assert_eq!(stage.inside.ask_whole().await.0, 429);
    assert_eq!(model.count(), 2);
}

#[tokio::test]
async fn the_next_sandbox_of_an_id_has_its_budget_whole() {
    let model = Model::always(|| message(1, 1)).await;
    let once = ModelBudget { requests: Some(1), ..ModelBudget::default() };
    let stage = Stage::new(&model.url, once.clone()).await;
    let id = SandboxId::parse("sb-a").unwrap();
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    soon(stage.inside.attachment.close()).await;
    let again = Inside::attach(&stage.gateway, "sb-a", access(once.clone()));
    assert_eq!(again.ask_whole().await.0, 400, "it is the same sandbox still");
    soon(again.attachment.close()).await;
    stage.gateway.forget(&id).await;
    let next = Inside::attach(&stage.gateway, "sb-a", access(once));
    assert_eq!(next.ask_whole().await.0, 200);
    assert_eq!(next.ask_whole().await.0, 400);
    soon(next.attachment.close()).await;
    stage.gateway.forget_all_but(vec![id.clone()]).await.unwrap();
    assert_eq!(stage.gateway.spent(&id).await.unwrap().requests, 1);
    stage.gateway.forget_all_but(Vec::new()).await.unwrap();
    assert_eq!(stage.gateway.spent(&id).await.unwrap(), Spent::default());
    assert_eq!(stage.total().await.requests, 2, "reports still know of both");
}
