//! Figures, and that they last.

use crate::stage::{Inside, Stage, access, config, pieces, soon, upstream};
use crate::upstream::{Model, delta, json, message, send, start, stop, stream, text};
use hostel_gateway::{Error, Gateway, GroupBy, LabelBudget, Period, Query, Spent, Tokens};
use hostel_sandbox::label::Labels;
use hostel_sandbox::{ModelBudget, SandboxId};
use std::sync::Mutex;
use std::time::Duration;

fn by(group_by: GroupBy) -> Query {
    Query { group_by, ..Query::default() }
}

#[tokio::test]
async fn figures_are_exact_for_streams_and_for_whole_messages() {
    let model = Model::start(|seen| async move {
        if seen.index > 0 {
            return message(7, 9);
        }
        let (pieces, answer) = stream();
        send(&pieces, &(start(10) + &delta(50) + &delta(200) + &stop())).await;
        answer
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    stage.inside.ask_whole().await;
    let tokens = Tokens { input: 10, output: 200, cache_write_5m: 30, cache_write_1h: 10, cache_read: 1000 };
    let total = stage.total().await;
    assert_eq!(total.tokens, tokens);
    assert_eq!(total.cost_micros, 10 + 1000 + 38 + 20 + 100, "haiku 4.5, rounded up once");
    stage.inside.ask_whole().await;
    let total = stage.total().await;
    assert_eq!(total.tokens, Tokens { input: 17, output: 209, ..tokens });
    assert_eq!(total.cost_micros, 1168 + 7 + 45);
    let spent = stage.gateway.spent(&SandboxId::parse("sb-a").unwrap()).await.unwrap();
    assert_eq!(spent, Spent { requests: 2, tokens: total.tokens.total(), cost_micros: 1220 });
    let counters = stage.gateway.snapshot();
    assert_eq!(counters.tokens["claude-haiku-4-5"], total.tokens);
    assert_eq!((counters.first_byte.count, counters.in_flight), (2, 0));
}

#[tokio::test]
async fn passes_besides_the_answer_count_against_budgets_too() {
    let model = Model::always(|| {
        let passes = r#"[{"type":"compaction","input_tokens":500,"output_tokens":10},
            {"type":"message","input_tokens":1,"output_tokens":2},
            {"type":"advisor_message","model":"claude-opus-5-5","input_tokens":100,"output_tokens":0}]"#;
        let usage = format!(r#"{{"input_tokens":1,"output_tokens":2,"iterations":{passes}}}"#);
        json(200, &format!(r#"{{"model":"claude-haiku-4-5","usage":{usage}}}"#))
    })
    .await;
    let budget = ModelBudget { tokens: Some(600), ..ModelBudget::default() };
    let stage = Stage::new(&model.url, budget).await;
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    let total = stage.total().await;
    assert_eq!(total.tokens, Tokens { input: 601, output: 12, ..Tokens::default() });
    assert_eq!(total.cost_micros, 501 + 12 * 5 + 400);
    let (status, _, refusal) = stage.inside.ask_whole().await;
    assert_eq!((status, model.count()), (400, 1), "{refusal}");
}

#[tokio::test]
async fn usage_is_grouped_as_asked() {
    let model = Model::start(|seen| async move {
        let models = ["claude-haiku-4-5", "claude-haiku-4-5", "nobody-priced-this"];
        json(
            200,
            &format!(
                r#"{{"model":"{}","usage":{{"input_tokens":1,"output_tokens":1}}}}"#,
                models[seen.index]
            ),
        )
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    stage.inside.ask_whole().await;
    let labels = Labels::from([("team".to_owned(), "b".to_owned()), ("user".to_owned(), "u".to_owned())]);
    stage.inside.attachment.set_labels(labels.clone()).unwrap();
    let mut request = stage.inside.request("POST", "/v1/messages", "{}");
    request.headers_mut().insert("x-claude-code-session-id", "session-2".parse().unwrap());
    crate::stage::whole(stage.inside.send(request).await).await;
    stage.inside.ask_whole().await;
    let rows = async |group| {
        let rows = soon(stage.gateway.usage(by(group))).await.unwrap();
        rows.into_iter()
            .map(|row| (row.key.unwrap_or_default(), row.requests, row.cost_micros))
            .collect::<Vec<_>>()
    };
    let row = |key: &str, requests: u64, cost: u64| (key.to_owned(), requests, cost);
    assert_eq!(
        rows(GroupBy::Model).await,
        [row("nobody-priced-this", 1, 90), row("claude-haiku-4-5", 2, 12)],
        "the most expensive first"
    );
    assert_eq!(rows(GroupBy::Session).await, [row("session-1", 2, 96), row("session-2", 1, 6)]);
    assert_eq!(rows(GroupBy::Label("team".into())).await, [row("b", 2, 96), row("a", 1, 6)]);
    let every = [row("team=b", 2, 96), row("user=u", 2, 96), row("team=a", 1, 6)];
    assert_eq!(rows(GroupBy::Labels).await, every);
    assert_eq!(rows(GroupBy::Sandbox).await, [row("sb-a", 3, 102)]);
    for key in ["te\"am", "team\\", "", "team\".\"a"] {
        let asked = stage.gateway.usage(by(GroupBy::Label(key.into()))).await;
        assert!(matches!(asked, Err(hostel_gateway::Error::Domain(_))), "{key:?} is no label: {asked:?}");
    }
    assert_eq!(rows(GroupBy::Day).await.len(), 1);
    let query = Query { labels, ..by(GroupBy::None) };
    assert_eq!(stage.gateway.usage(query).await.unwrap()[0].requests, 2);
    let past = Query { until: Some(std::time::UNIX_EPOCH), ..by(GroupBy::Sandbox) };
    assert_eq!(stage.gateway.usage(past).await.unwrap(), []);
}

#[tokio::test]
async fn usage_and_budgets_outlive_the_gateway() {
    let model = Model::always(|| message(100, 100)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let budget = LabelBudget {
        name: "team-a".into(),
        selector: Labels::from([("team".to_owned(), "a".to_owned())]),
        budget: ModelBudget { tokens: Some(400), ..ModelBudget::default() },
        period: Period::Total,
    };
    stage.gateway.budgets().create(budget.clone()).await.unwrap();
    assert!(matches!(stage.gateway.budgets().create(budget.clone()).await, Err(Error::BudgetExists { .. })));
    stage.inside.ask_whole().await;
    let Stage { gateway, directory, inside } = stage;
    drop(inside);
    soon(gateway.shutdown()).await;

    let upstreams = vec![upstream("first", &model.url)];
    let gateway = Gateway::open(config(directory.path(), upstreams)).await.unwrap();
    let spent = Spent { requests: 1, tokens: 200, cost_micros: 600 };
    assert_eq!(gateway.budgets().get("team-a").unwrap().spent, spent);
    let id = SandboxId::parse("sb-a").unwrap();
    assert_eq!(gateway.spent(&id).await.unwrap(), spent);
    let own = ModelBudget { requests: Some(2), ..ModelBudget::default() };
    let inside = Inside::attach(&gateway, "sb-a", access(own));
    assert_eq!(inside.ask_whole().await.0, 200);
    let (status, _, body) = inside.ask_whole().await;
    assert!(status == 400 && body.contains("2 requests of 2 requests"), "{status} {body}");
    inside.attachment.set_budget(ModelBudget::default()).unwrap();
    let (status, _, body) = inside.ask_whole().await;
    assert!(status == 400 && body.contains("team-a"), "{status} {body}");
    gateway.budgets().delete("team-a").await.unwrap();
    assert_eq!(inside.ask_whole().await.0, 200);
}

#[tokio::test]
async fn what_a_cut_gateway_saw_is_written() {
    let model = Model::start(|_| async {
        let (pieces, answer) = stream();
        send(&pieces, &start(10)).await;
        // The sender is kept, so that the stream hangs.
        std::mem::forget(pieces);
        answer
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let mut response = stage.inside.ask().await;
    pieces(&mut response, start(10).len()).await;
    assert_eq!(stage.gateway.snapshot().in_flight, 1);
    let Stage { gateway, directory, inside } = stage;
    soon(gateway.shutdown()).await;
    assert!(matches!(crate::stage::piece(&mut response).await, Some(Err(_))), "the client sees the cut");
    let gateway = Gateway::open(config(directory.path(), Vec::new())).await.unwrap();
    let rows = gateway.usage(by(GroupBy::Sandbox)).await.unwrap();
    assert_eq!((rows[0].requests, rows[0].tokens.input, rows[0].tokens.output), (1, 10, 1));
    drop(inside);
}

#[tokio::test]
async fn output_is_written_while_it_goes_by() {
    let (out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| std::future::ready(answer.lock().unwrap().take().unwrap())).await;
    let upstreams = vec![upstream("first", &model.url)];
    let stage =
        Stage::with(upstreams, ModelBudget::default(), |limits| limits.progress_every = Duration::ZERO).await;
    send(&out, &start(5)).await;
    let mut response = stage.inside.ask().await;
    pieces(&mut response, start(5).len()).await;
    let more = text(&"x".repeat(400));
    send(&out, &more).await;
    pieces(&mut response, more.len()).await;
    let records = stage.records();
    let known = async || {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let sql = "SELECT state, input, output FROM requests";
        let (state, input, output): (String, i64, i64) = records.query_row(sql, [], read).unwrap();
        tokio::task::yield_now().await;
        (state == "open", input, output)
    };
    soon(async { while known().await != (true, 5, 100) {} }).await;
}
