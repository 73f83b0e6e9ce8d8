//! Upstreams that fail, and clients that go.

use crate::stage::{Stage, TOKEN, piece, pieces, short, soon, upstream};
use crate::upstream::{Model, cut, delta, error, json, message, send, start, stop, stream, text};
use hostel_gateway::RequestKind;
use hostel_sandbox::{ModelBudget, SandboxId};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

fn outcomes(stage: &Stage) -> Vec<(&'static str, u16, u64)> {
    let counters = stage.gateway.snapshot();
    let short =
        |(RequestKind { outcome, status, .. }, count): (&RequestKind, &u64)| (*outcome, *status, *count);
    counters.requests.iter().map(short).collect()
}

/// Requests, those whose figures nobody told, and their input and cost. A prompt of 42 bytes is taken for 11 tokens.
async fn estimated(stage: &Stage) -> (u64, u64, u64, u64) {
    let total = stage.total().await;
    (total.requests, total.interrupted, total.tokens.input, total.cost_micros)
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_next_upstream_answers_where_one_fails() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = (format!("http://{}", hanging.local_addr().unwrap()), hanging);
    let (broken, overloaded) =
        (Model::always(|| error(500, "x")).await, Model::always(|| error(529, "x")).await);
    let good = Model::always(|| message(1, 2)).await;
    for bad in [nobody().await, hanging.0.clone(), broken.url.clone(), overloaded.url.clone()] {
        let mut first = upstream("bad", &bad);
        first.timeouts = short();
        let stage = Stage::of(vec![first, upstream("good", &good.url)], ModelBudget::default()).await;
        let (status, _, _) = stage.inside.ask_whole().await;
        assert_eq!(status, 200, "{bad}");
        let counters = stage.gateway.snapshot();
        assert_eq!(counters.failovers.get("bad"), Some(&1));
        // Who took the prompt and never answered may have used it.
        let lost = if bad == hanging.0 { (1, 3 + 11, 1) } else { (1, 3, 0) };
        let total = stage.total().await;
        assert_eq!((total.requests, total.tokens.total(), total.interrupted), lost, "{bad}");
    }
    assert_eq!((broken.count(), overloaded.count(), good.count()), (1, 1, 4));
}

#[tokio::test]
async fn the_last_words_of_the_upstreams_are_passed_on() {
    let first = Model::always(|| error(500, "first_words")).await;
    let second = Model::always(|| error(529, "second_words")).await;
    let of = |last: String| {
        let urls = [first.url.clone(), last];
        urls.iter().enumerate().map(|(index, url)| upstream(&index.to_string(), url)).collect::<Vec<_>>()
    };
    let stage = Stage::of(of(second.url.clone()), ModelBudget::default()).await;
    let (status, _, body) = stage.inside.ask_whole().await;
    assert!(status == 529 && body.contains("second_words"), "{status} {body}");
    let stage = Stage::of(of(nobody().await), ModelBudget::default()).await;
    let (status, _, body) = stage.inside.ask_whole().await;
    assert!(status == 500 && body.contains("first_words"), "what one said is worth more: {status} {body}");
    assert_eq!(
        stage.gateway.snapshot().retries.get("1"),
        Some(&1),
        "a refused connection is tried once more"
    );
    let stage = Stage::of(vec![upstream("none", &nobody().await)], ModelBudget::default()).await;
    let (status, _, body) = stage.inside.ask_whole().await;
    assert!(status == 502 && body.contains("\"api_error\""), "{status} {body}");
    assert_eq!(outcomes(&stage), [("unanswered", 0, 1)]);
    assert_eq!(estimated(&stage).await, (1, 0, 0, 0), "nothing was sent");
}

#[tokio::test]
async fn an_overloaded_last_upstream_is_asked_again_when_it_says_when() {
    let model = Model::start(|seen| async move {
        if seen.index > 0 {
            return message(1, 1);
        }
        let mut answer = error(529, "overloaded_error");
        answer.headers_mut().insert("retry-after", "0".parse().unwrap());
        answer
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    assert_eq!(model.count(), 2);
    assert_eq!(stage.gateway.snapshot().retries.get("first"), Some(&1));
    assert_eq!(stage.total().await.requests, 1);
}

#[tokio::test]
async fn nothing_is_tried_again_after_the_first_byte() {
    let (out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| std::future::ready(answer.lock().unwrap().take().unwrap())).await;
    let spare = Model::always(|| message(1, 1)).await;
    let upstreams = vec![upstream("first", &model.url), upstream("spare", &spare.url)];
    let stage = Stage::of(upstreams, ModelBudget::default()).await;
    let head = start(5) + &text(&"x".repeat(80));
    send(&out, &head).await;
    let mut response = stage.inside.ask().await;
    assert_eq!(pieces(&mut response, head.len()).await, head.as_bytes());
    cut(out).await;
    assert!(piece(&mut response).await.unwrap().is_err(), "the client sees the cut");
    stage.ended(1).await;
    assert_eq!((model.count(), spare.count()), (1, 0));
    assert_eq!(outcomes(&stage), [("upstream_cut", 200, 1)]);
    let total = stage.total().await;
    let tokens = total.tokens;
    assert_eq!((tokens.input, tokens.cache_read, tokens.output), (5, 1000, 20), "80 bytes of text went by");
    assert_eq!(total.interrupted, 1, "nobody told how much that was");
}

#[tokio::test]
async fn a_silent_upstream_is_given_up() {
    let (out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| std::future::ready(answer.lock().unwrap().take().unwrap())).await;
    let mut silent = upstream("silent", &model.url);
    silent.timeouts.idle = short().idle;
    let stage = Stage::of(vec![silent], ModelBudget::default()).await;
    send(&out, &start(5)).await;
    let mut response = stage.inside.ask().await;
    pieces(&mut response, start(5).len()).await;
    assert!(piece(&mut response).await.unwrap().is_err());
    assert_eq!(outcomes(&stage), [("upstream_cut", 200, 1)]);
    soon(out.closed()).await;
}

#[tokio::test]
async fn a_client_that_goes_cancels_the_request_and_pays_what_was_seen() {
    let (out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| std::future::ready(answer.lock().unwrap().take().unwrap())).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let head = start(5) + &text(&"x".repeat(400));
    send(&out, &head).await;
    let mut response = stage.inside.ask().await;
    pieces(&mut response, head.len()).await;
    drop(response);
    soon(out.closed()).await;
    stage.ended(1).await;
    assert_eq!(outcomes(&stage), [("client_gone", 200, 1)]);
    let total = stage.total().await;
    assert_eq!((total.tokens.input, total.tokens.output), (5, 100));
    // 5 + 100 * 5 + 30 * 1.25 + 10 * 2 + 1000 * 0.1 micro-USD, rounded up.
    assert_eq!(total.cost_micros, 5 + 500 + 38 + 20 + 100);
}

#[tokio::test]
async fn a_client_that_goes_before_the_answer_is_recorded_too() {
    let (hung, wait) = tokio::sync::watch::channel(());
    let model = Model::start(move |_| {
        let mut wait = wait.clone();
        async move {
            let _ = wait.changed().await;
            message(1, 1)
        }
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    tokio::select! {
        _ = stage.inside.ask() => panic!("an answer came"),
        () = soon(model.arrived(1)) => {}
    }
    stage.ended(1).await;
    assert_eq!(outcomes(&stage), [("client_gone", 0, 1)]);
    assert_eq!(estimated(&stage).await, (1, 1, 11, 11), "the prompt is not for free");
    drop(hung);
}

#[tokio::test]
async fn places_of_an_upstream_are_bounded_and_come_free() {
    let (out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| {
        let first = answer.lock().unwrap().take();
        std::future::ready(first.unwrap_or_else(|| message(1, 1)))
    })
    .await;
    let mut narrow = upstream("narrow", &model.url);
    narrow.max_concurrent = 1;
    narrow.timeouts.queue = short().queue;
    let stage = Stage::of(vec![narrow], ModelBudget::default()).await;
    send(&out, &start(1)).await;
    let mut response = stage.inside.ask().await;
    pieces(&mut response, start(1).len()).await;
    let (status, headers, body) = stage.inside.ask_whole().await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (529, "1"));
    assert!(body.contains("overloaded_error"));
    assert_eq!(model.count(), 1);
    send(&out, &(delta(1) + &stop())).await;
    drop(out);
    while piece(&mut response).await.is_some() {}
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    assert_eq!(stage.total().await.requests, 2, "what found no place was not counted");
}

#[tokio::test]
async fn a_prompt_that_an_upstream_took_and_never_answered_is_charged() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut slow = upstream("slow", &format!("http://{}", hanging.local_addr().unwrap()));
    slow.timeouts = short();
    let stage = Stage::of(vec![slow], ModelBudget::default()).await;
    assert_eq!(stage.inside.ask_whole().await.0, 504);
    assert_eq!(outcomes(&stage), [("unanswered", 0, 1)]);
    assert_eq!(estimated(&stage).await, (1, 1, 11, 11));

    let (out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| std::future::ready(answer.lock().unwrap().take().unwrap())).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let mut response = stage.inside.ask().await;
    cut(out).await;
    assert!(piece(&mut response).await.unwrap().is_err());
    stage.ended(1).await;
    assert_eq!(estimated(&stage).await, (1, 1, 11, 11), "cut before anything was told");
}

#[tokio::test]
async fn what_was_sent_when_the_disk_failed_counts_and_is_written_later() {
    let model = Model::always(|| message(30, 0)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let records = stage.records();
    // The row waits for this transaction, and fails after it: when the request is with the model already.
    let full = "BEGIN IMMEDIATE;
                CREATE TRIGGER full BEFORE INSERT ON requests BEGIN SELECT RAISE(ABORT, 'full'); END";
    records.execute_batch(full).unwrap();
    let fail = async {
        model.arrived(1).await;
        records.execute_batch("COMMIT").unwrap();
    };
    let ((status, _, body), ()) = soon(futures::future::join(stage.inside.ask_whole(), fail)).await;
    assert!(status == 503 && body.contains("cannot be recorded"), "{status} {body}");
    assert_eq!(model.count(), 1);
    let spent = stage.gateway.spent(&SandboxId::parse("sb-a").unwrap()).await.unwrap();
    assert_eq!((spent.requests, spent.tokens), (1, 11));
    records.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    assert_eq!(estimated(&stage).await, (2, 1, 41, 41));
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_place() {
    let large = "x".repeat(24 << 20);
    let model = Model::start(move |seen| {
        std::future::ready(if seen.index > 0 { message(1, 1) } else { json(200, &large) })
    })
    .await;
    let mut narrow = upstream("narrow", &model.url);
    narrow.max_concurrent = 1;
    let patience = Duration::from_millis(200);
    let stage =
        Stage::with(vec![narrow], ModelBudget::default(), |limits| limits.write_timeout = patience).await;
    let mut deaf = TcpStream::connect(stage.inside.address).await.unwrap();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    deaf.write_all(request.as_bytes()).await.unwrap();
    soon(model.arrived(1)).await;
    assert_eq!(stage.inside.ask_whole().await.0, 200);
    assert_eq!(outcomes(&stage), [("client_gone", 200, 1), ("done", 200, 1)]);
    drop(deaf);
}
