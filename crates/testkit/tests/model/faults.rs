//! Faults as a script asks for them.

use crate::client::{Client, events, server};
use hostel_testkit::{Script, Step};
use http::Version;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use std::time::Duration;

/// Silence is told from slowness by nothing but time; this is what a client here takes for silence.
const SILENCE: Duration = Duration::from_millis(300);
/// How long what does come may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What follows the events that were waited for.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    BreaksOff,
    Silence,
    MoreOrEnd,
}

/// The first events of a body, and what comes after them within a time.
async fn arrived(mut body: Incoming, count: usize, within: Duration) -> (String, Then) {
    let mut bytes = Vec::new();
    while events(&bytes).len() < count {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap();
        bytes.extend(frame.unwrap().unwrap().into_data().unwrap_or_default());
    }
    let then = match tokio::time::timeout(within, body.frame()).await {
        Ok(Some(Err(_))) => Then::BreaksOff,
        Ok(_) => Then::MoreOrEnd,
        Err(_) => Then::Silence,
    };
    let names: Vec<String> = events(&bytes).into_iter().map(|(name, _)| name).collect();
    (names.join(" "), then)
}

#[tokio::test]
async fn statuses_have_the_errors_of_the_api() {
    let server = server().await;
    let client = Client::http1(&server);
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
        (418, "invalid_request_error"),
        (503, "api_error"),
    ] {
        let prompt = Script::new().step(Step::error(status)).prompt("x");
        for stream in [true, false, true] {
            let answer = client.send(client.asking(&prompt, stream)).await;
            assert_eq!(answer.error(), (status, kind.to_owned()));
            assert!(!answer.headers.contains_key("retry-after"));
        }
    }
    let step = Step::error(429).times(1).retry_after(7).should_retry(false).message("slowly");
    let prompt = Script::new().step(step).text("at last").prompt("x");
    let answer = client.ask_stream(&prompt).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["message"]), (429, &json!("slowly")));
    assert_eq!(
        (&answer.headers["retry-after"], &answer.headers["x-should-retry"]),
        (&"7".parse().unwrap(), &"false".parse().unwrap())
    );
    assert_eq!(answer.headers["anthropic-ratelimit-requests-remaining"], "0");
    assert_eq!(client.ask(&prompt).await.text(), "at last");
    server.stop().await;
}

#[tokio::test]
async fn an_error_in_the_stream_ends_it() {
    let server = server().await;
    let client = Client::http1(&server);
    let step = Step::sse_error("overloaded_error", 4).with_text("so far").times(1);
    let prompt = Script::new().step(step).text("whole").prompt("x");
    let events = client.ask_stream(&prompt).await.events();
    assert_eq!(events.len(), 5);
    assert_eq!(events[3].1["delta"]["text"], "so far");
    assert_eq!(events[4].1["error"], json!({ "type": "overloaded_error", "message": "Overloaded" }));
    // So the CLI asks again.
    assert_eq!(client.ask(&prompt).await.text(), "whole");
    let always = Script::new().step(Step::sse_error("api_error", 99)).prompt("y");
    assert_eq!(client.ask(&always).await.error(), (500, "api_error".to_owned()));
    let late = client.ask_stream(&always).await.events();
    let names: Vec<&str> = late.iter().rev().take(2).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["error", "message_delta"]);
    server.stop().await;
}

#[tokio::test]
async fn connections_are_cut_where_the_script_says() {
    let server = server().await;
    for client in [Client::http1(&server), Client::http2(&server)] {
        let prompt = |after| Script::new().step(Step::cut(after).with_text("abc").chunks(3)).prompt("x");
        let response = client.open(client.asking(&prompt(5), true)).await.unwrap();
        let (names, then) = arrived(response.into_body(), 5, PATIENCE).await;
        assert_eq!((names.split(' ').count(), then), (5, Then::BreaksOff), "{names}");
        for (after, stream) in [(0, true), (5, false)] {
            assert!(client.open(client.asking(&prompt(after), stream)).await.is_err());
        }
        assert_eq!(client.ask("still there?").await.text(), "echo: still there?");
    }
    assert_eq!(server.requests()[0].status, Some(200));
    assert_eq!(server.requests()[1].status, None);
    server.stop().await;
}

#[tokio::test]
async fn silence_lasts_until_the_client_gives_up_or_the_endpoint_stops() {
    let server = server().await;
    for (client, version) in
        [(Client::http1(&server), Version::HTTP_11), (Client::http2(&server), Version::HTTP_2)]
    {
        let prompt = |after| Script::new().step(Step::hang(after).with_text("abc")).prompt("x");
        let response = client.open(client.asking(&prompt(3), true)).await.unwrap();
        assert_eq!(response.version(), version);
        let first = "message_start content_block_start ping".to_owned();
        assert_eq!(arrived(response.into_body(), 3, SILENCE).await, (first, Then::Silence));
        let mut never = std::pin::pin!(client.open(client.asking(&prompt(0), true)));
        let seen = server.requests().len() as u64 + 1;
        tokio::select! {
            answer = never.as_mut() => panic!("{answer:?}"),
            () = server.saw(seen) => {}
        }
        assert!(tokio::time::timeout(SILENCE, never).await.is_err());
    }
    let client = Client::http1(&server);
    let silent = client.open(client.asking(&Script::new().step(Step::hang(0)).prompt("x"), true));
    let stop = async {
        server.saw(5).await;
        server.stop().await;
    };
    let (answer, ()) = tokio::join!(silent, stop);
    assert!(answer.is_err());
}
