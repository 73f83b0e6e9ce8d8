//! What goes through, and how.

use crate::stage::{Inside, KEY, Stage, TOKEN, access, piece, pieces, soon, upstream, whole};
use crate::upstream::{Model, delta, error, json, message, send, start, stop, stream, text};
use bytes::Bytes;
use hostel_gateway::{Door, Gateway, KeyHeader};
use hostel_sandbox::{ModelBudget, SandboxId};
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use std::sync::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_stream_comes_byte_for_byte_and_as_it_is_made() {
    let (pieces_out, answer) = stream();
    let answer = Mutex::new(Some(answer));
    let model = Model::start(move |_| std::future::ready(answer.lock().unwrap().take().unwrap())).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let parts = [start(10), text("one"), "data: half of ".to_owned(), "an event\n\n".to_owned()];
    send(&pieces_out, &parts[0]).await;
    let mut response = stage.inside.ask().await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    // Each part must arrive before the next is sent.
    assert_eq!(pieces(&mut response, parts[0].len()).await, parts[0].as_bytes());
    for part in &parts[1..] {
        send(&pieces_out, part).await;
        assert_eq!(pieces(&mut response, part.len()).await, part.as_bytes());
    }
    let end = delta(7) + &stop();
    send(&pieces_out, &end).await;
    assert_eq!(pieces(&mut response, end.len()).await, end.as_bytes());
    drop(pieces_out);
    assert!(piece(&mut response).await.is_none());
}

#[tokio::test]
async fn a_request_goes_on_as_it_came_but_with_the_real_key() {
    let model = Model::always(|| message(1, 1)).await;
    let stage = Stage::new(&format!("{}/prefix/", model.url), ModelBudget::default()).await;
    let body = "{ \"model\" : \"x\",\n\t\"messages\":[{\"role\":\"system\"}] }";
    let mut request = stage.inside.request("POST", "/v1/messages?beta=true&a=%2F", body);
    for (name, value) in [
        ("anthropic-beta", "some-beta"),
        ("x-stainless-retry-count", "0"),
        ("user-agent", "claude-cli/2.1"),
        ("accept-encoding", "gzip, br"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (status, headers, _) = whole(stage.inside.send(request).await).await;
    assert_eq!((status, &headers["request-id"]), (200, &"req_1".parse().unwrap()));
    let seen = model.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("POST", "/prefix/v1/messages?beta=true&a=%2F"));
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(seen.headers["x-api-key"], KEY);
    assert_eq!(seen.headers["host"], model.url.trim_start_matches("http://"));
    assert_eq!(seen.headers["anthropic-beta"], "some-beta");
    assert_eq!(seen.headers["user-agent"], "claude-cli/2.1");
    assert_eq!(seen.headers["accept-encoding"], "identity");
    assert!(!seen.headers.contains_key("cookie") && !seen.headers.contains_key("x-forwarded-for"));
    assert!(!format!("{:?}", seen.headers).contains(TOKEN));
}

#[tokio::test]
async fn bearers_work_both_ways() {
    let model = Model::always(|| message(1, 1)).await;
    let mut upstream = upstream("bearer", &model.url);
    upstream.key_header = KeyHeader::Bearer;
    let stage = Stage::of(vec![upstream], ModelBudget::default()).await;
    let mut request = stage.inside.request("POST", "/v1/messages", "{}");
    request.headers_mut().remove("x-api-key");
    request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    assert_eq!(whole(stage.inside.send(request).await).await.0, 200);
    let headers = &model.seen()[0].headers;
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    assert!(!headers.contains_key("x-api-key"));
}

#[tokio::test]
async fn errors_of_the_upstream_pass_unchanged() {
    let statuses = [400, 401, 403, 404, 413, 429, 500, 503, 529];
    let model = Model::start(move |seen| async move {
        let mut answer = error(statuses[seen.index], "some_error");
        answer.headers_mut().insert("x-should-retry", "false".parse().unwrap());
        answer.headers_mut().insert("retry-after", "30".parse().unwrap());
        answer
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    for status in statuses {
        let (got, headers, text) = stage.inside.ask_whole().await;
        assert_eq!(got, status);
        assert_eq!(
            (&headers["x-should-retry"], &headers["retry-after"]),
            (&"false".parse().unwrap(), &"30".parse().unwrap())
        );
        assert!(text.contains("told by the upstream"), "{text}");
    }
    assert_eq!(model.count(), statuses.len(), "each was asked once");
    let total = stage.total().await;
    assert_eq!((total.requests, total.tokens.total(), total.cost_micros), (9, 0, 0));
}

#[tokio::test]
async fn what_is_free_is_forwarded_and_not_counted() {
    let model = Model::always(|| json(200, r#"{"input_tokens":12}"#)).await;
    let stage = Stage::new(&model.url, ModelBudget { requests: Some(1), ..ModelBudget::default() }).await;
    for (method, path) in [
        ("POST", "/v1/messages/count_tokens?beta=true"),
        ("GET", "/v1/models?limit=5"),
        ("GET", "/v1/models/claude-haiku-4-5"),
    ] {
        let (status, _, text) = whole(stage.inside.send(stage.inside.request(method, path, "")).await).await;
        assert_eq!((status, text.as_str()), (200, r#"{"input_tokens":12}"#));
        assert_eq!(model.seen().pop().unwrap().uri, path);
    }
    assert_eq!(stage.total().await.requests, 0);
    let hello =
        Request::head(format!("http://{}/api/hello", stage.inside.address)).body(Full::default()).unwrap();
    assert_eq!(stage.inside.send(hello).await.status(), 200);
    assert_eq!(model.count(), 3);
}

#[tokio::test]
async fn http_2_upstreams_are_spoken_to() {
    let model = Model::start(|_| async {
        let (pieces, answer) = stream();
        send(&pieces, &(start(3) + &delta(4) + &stop())).await;
        answer
    })
    .await;
    let mut upstream = upstream("two", &model.url);
    upstream.http2_prior_knowledge = true;
    let stage = Stage::of(vec![upstream], ModelBudget::default()).await;
    for _ in 0..3 {
        let (status, _, text) = stage.inside.ask_whole().await;
        assert_eq!(status, 200);
        assert!(text.ends_with(&stop()));
    }
    assert_eq!(stage.total().await.tokens.output, 12);
    assert!(!model.seen()[0].headers.contains_key("host"), "HTTP/2 has an authority instead");
}

#[tokio::test]
async fn http_2_is_spoken_with_an_upstream_that_agrees_in_tls() {
    let (model, certificate) = Model::over_tls(|| message(3, 4)).await;
    let mut upstream = upstream("first", &model.url);
    upstream.extra_roots = vec![certificate];
    let stage = Stage::of(vec![upstream], ModelBudget::default()).await;
    for _ in 0..3 {
        let (status, _, text) = stage.inside.ask_whole().await;
        assert_eq!(status, 200, "{text}");
    }
    assert_eq!(stage.total().await.tokens.output, 12);
    assert!(model.seen().iter().all(|seen| seen.headers["x-api-key"] == KEY));
    assert!(!model.seen()[0].headers.contains_key("host"), "HTTP/2 has an authority instead");
}

#[tokio::test]
async fn a_unix_door_is_as_good() {
    let model = Model::always(|| message(2, 3)).await;
    let directory = tempfile::tempdir().unwrap();
    let upstreams = vec![upstream("first", &model.url)];
    let gateway = Gateway::open(crate::stage::config(directory.path(), upstreams)).await.unwrap();
    let path = directory.path().join("model.sock");
    let door = Door::Unix(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let id = SandboxId::parse("sb-unix").unwrap();
    let attachment = gateway.attach(id.clone(), access(ModelBudget::default()), vec![door]).unwrap();
    let socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(socket)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    for _ in 0..2 {
        let request = Request::post("/v1/messages")
            .header("host", "anything.example.com")
            .header("x-api-key", TOKEN)
            .body(Full::default())
            .unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(whole(response).await.0, 200);
        soon(sender.ready()).await.unwrap();
    }
    assert_eq!(gateway.spent(&id).await.unwrap().tokens, 10);
    soon(attachment.close()).await;
    assert!(soon(tasks.join_next()).await.is_some(), "the connection was cut");
    soon(gateway.shutdown()).await;
}

#[tokio::test]
async fn a_sandbox_is_attached_once_and_again_after_it_was_closed() {
    let (hung, wait) = oneshot::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let model = Model::start(move |_| {
        let wait = wait.lock().unwrap().take();
        async move {
            if let Some(wait) = wait {
                let _ = wait.await;
            }
            message(1, 1)
        }
    })
    .await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let id = SandboxId::parse("sb-a").unwrap();
    let again = stage.gateway.attach(id.clone(), access(ModelBudget::default()), Vec::new());
    assert!(matches!(again, Err(hostel_gateway::Error::Attached { .. })));
    let request = stage.inside.request("POST", "/v1/messages", "{}");
    let asking = stage.inside.send(request);
    let closing = async {
        while model.count() == 0 {
            tokio::task::yield_now().await;
        }
        stage.inside.attachment.close().await;
    };
    // The close cuts the request that hangs.
    tokio::select! {
        biased;
        () = soon(closing) => {}
        response = asking => panic!("{response:?}"),
    }
    let inside = Inside::attach(&stage.gateway, "sb-a", access(ModelBudget::default()));
    drop(stage.inside.attachment);
    assert_eq!(inside.ask_whole().await.0, 200, "the end of the first did not detach the second");
    drop(hung);
    assert_eq!(stage.gateway.spent(&id).await.unwrap().requests, 2);
}
