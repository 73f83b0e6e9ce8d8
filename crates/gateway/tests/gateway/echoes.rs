//! Upstreams that send back the key they were sent.

use crate::stage::{KEY, Stage, piece, pieces, upstream};
use crate::upstream::{Model, Pieces, cut, delta, json, send, start, stop, stream, text};
use hostel_gateway::KeyHeader;
use hostel_sandbox::ModelBudget;
use std::sync::Mutex;

fn mask() -> String {
    "*".repeat(KEY.len())
}

/// One that answers once, with a stream.
async fn streaming() -> (Pieces, Model) {
    let (out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| std::future::ready(answer.lock().unwrap().take().unwrap())).await;
    (out, model)
}

#[tokio::test]
async fn headers_and_errors_do_not_tell_the_key() {
    for (key_header, name) in [(KeyHeader::ApiKey, "x-api-key"), (KeyHeader::Bearer, "authorization")] {
        let model = Model::start(move |seen| async move {
            let sent = seen.headers[name].to_str().unwrap();
            let mut answer = json(
                401,
                &format!(
                    r#"{{"type":"error","error":{{"type":"authentication_error","message":"{sent}"}}}}"#
                ),
            );
            answer.headers_mut().insert("x-debug", sent.parse().unwrap());
            answer
        })
        .await;
        let mut first = upstream("first", &model.url);
        first.key_header = key_header;
        let stage = Stage::of(vec![first], ModelBudget::default()).await;
        let (status, headers, text) = stage.inside.ask_whole().await;
        assert_eq!(status, 401);
        assert!(model.seen()[0].headers[name].to_str().unwrap().ends_with(KEY), "it was sent");
        let bearer = if name == "authorization" { "Bearer " } else { "" };
        assert_eq!(headers["x-debug"], format!("{bearer}{}", mask()));
        assert_eq!(headers["content-length"], text.len().to_string());
        assert!(text.contains(&format!("\"{bearer}{}\"", mask())), "{text}");
        assert!(!text.contains(KEY) && !format!("{headers:?}").contains(KEY), "{headers:?} {text}");
    }
}

#[tokio::test]
async fn a_stream_that_is_split_in_the_key_does_not_tell_it() {
    let (out, model) = streaming().await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let echo = start(10) + &text(KEY);
    let masked = start(10) + &text(&mask());
    let begin = echo.find(KEY).unwrap();
    send(&out, &echo[..begin + 4]).await;
    let mut response = stage.inside.ask().await;
    // All that is no beginning of the key comes before the rest is sent.
    assert_eq!(pieces(&mut response, begin).await, &masked.as_bytes()[..begin]);
    send(&out, &echo[begin + 4..]).await;
    assert_eq!(pieces(&mut response, masked.len() - begin).await, &masked.as_bytes()[begin..]);
    let end = delta(7) + &stop();
    send(&out, &end).await;
    assert_eq!(pieces(&mut response, end.len()).await, end.as_bytes());
    drop(out);
    assert!(piece(&mut response).await.is_none());
    assert_eq!(stage.total().await.tokens.output, 7);
}

#[tokio::test]
async fn what_begins_like_the_key_comes_at_the_end() {
    let (out, model) = streaming().await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    send(&out, &(start(10) + &KEY[..KEY.len() - 1])).await;
    drop(out);
    let (status, _, body) = stage.inside.ask_whole().await;
    assert_eq!((status, body), (200, start(10) + &KEY[..KEY.len() - 1]));
}

#[tokio::test]
async fn a_stream_that_is_cut_in_the_key_ends_before_it() {
    let (out, model) = streaming().await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    send(&out, &start(10)).await;
    let mut response = stage.inside.ask().await;
    pieces(&mut response, start(10).len()).await;
    send(&out, &KEY[..KEY.len() - 1]).await;
    cut(out).await;
    assert!(matches!(piece(&mut response).await, Some(Err(_))), "nothing but the break follows");
}
