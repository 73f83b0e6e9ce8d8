//! A message's three ways of being answered, and the chat's.

use crate::stage::{Stage, frames, told};
use serde_json::{Value, json};

#[tokio::test]
async fn a_stream_has_the_agent_s_messages_and_is_done() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let response = stage.post(&format!("/api/sessions/{id}/message"), json!({ "prompt": "hello" })).await;
    let message = response.headers()["x-message-id"].to_str().unwrap().to_owned();
    let frames: Vec<Value> = frames(response).await.into_iter().map(|(_, _, data)| data).collect();
    let types: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["stream_event", "assistant", "result", "done"]);
    assert_eq!(frames[0]["data"]["event"]["delta"], json!({ "type": "text_delta", "text": "Hel" }));
    assert_eq!(frames[1]["data"]["message"]["content"][0]["text"], "Hello.");
    assert_eq!(
        frames[3],
        json!({ "type": "done", "messageId": message, "sessionId": id.as_str(), "latency": 42,
            "usage": { "input": 10, "output": 5, "cacheCreation": 1, "cacheRead": 2 }, "cost": 0.0015,
            "numTurns": 2, "isError": false, "result": "success", "text": "Hello.", "toolsUsed": ["Bash"] })
    );
    stage.server.stop().await;
}

#[tokio::test]
async fn a_whole_answer_and_an_acknowledgement_say_the_same() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let path = format!("/api/sessions/{id}/message");
    let (status, whole) =
        told(stage.post(&path, json!({ "prompt": "hello", "streaming": false })).await).await;
    assert_eq!(status, 200);
    assert_eq!(whole["response"]["content"][0]["text"], "Hello.");
    assert_eq!((&whole["result"]["type"], &whole["cost"]), (&json!("result"), &json!(0.0015)));
    assert_eq!((&whole["session"]["id"], &whole["latency"]), (&json!(id.as_str()), &json!(42)));

    let keyed = || {
        stage
            .client
            .post(stage.url(&path))
            .header("idempotency-key", "\"k\"")
            .header("prefer", "respond-async")
    };
    let body = json!({ "content": [{ "type": "text", "text": "hello" }], "streaming": false });
    let (status, first) = told(keyed().json(&body).send().await.unwrap()).await;
    assert_eq!((status, &first["position"], &first["replayed"]), (202, &json!(0), &json!(false)));
    let (_, again) = told(keyed().json(&body).send().await.unwrap()).await;
    assert_eq!((&again["messageId"], &again["replayed"]), (&first["messageId"], &json!(true)));
    let message = first["messageId"].as_str().unwrap();
    let (_, message) =
        told(stage.get(&format!("/api/sessions/{id}/messages/{message}")).send().await.unwrap()).await;
    assert_eq!((&message["state"], &message["outcome"]["result"]), (&json!("done"), &json!("success")));
    for wrong in [
        json!({}),
        json!({ "prompt": " " }),
        json!({ "prompt": "a", "content": [] }),
        json!({ "promt": "a" }),
    ] {
        assert_eq!(told(stage.post(&path, wrong.clone()).await).await.0, 400, "{wrong}");
    }
    stage.server.stop().await;
}

#[tokio::test]
async fn a_stream_is_done_also_when_the_message_is_cancelled_the_session_gone_or_the_server_stopped() {
    let stage = Stage::new().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let id = stage.session().await;
        let response = stage.post(&format!("/api/sessions/{id}/message"), json!({ "prompt": "hang" })).await;
        let message = response.headers()["x-message-id"].to_str().unwrap().to_owned();
        open.push((id, message, response));
    }
    let (id, message, cancelled) = open.remove(0);
    let path = format!("/api/sessions/{id}/queue/{message}");
    let _ = stage.client.delete(stage.url(&path)).send().await.unwrap();
    let (id, _, gone) = open.remove(0);
    let _ = stage.client.delete(stage.url(&format!("/api/sessions/{id}"))).send().await.unwrap();
    let (_, _, stopped) = open.remove(0);
    let expected = [(cancelled, "cancelled", "user_requested"), (gone, "unknown", "gone")];
    for (response, result, error) in expected {
        let (_, _, done) = frames(response).await.pop().unwrap();
        assert_eq!(
            (&done["type"], &done["isError"], &done["result"]),
            (&json!("done"), &json!(true), &json!(result))
        );
        assert!(done["error"].as_str().unwrap().contains(error), "{done}");
    }
    stage.server.stop().await;
    let (_, _, done) = frames(stopped).await.pop().unwrap();
    assert!(done["error"].as_str().unwrap().contains("stopping"), "{done}");
}

#[tokio::test]
async fn who_goes_away_cancels_nothing() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let path = format!("/api/sessions/{id}/message");
    let body = json!({ "prompt": "hang", "idempotencyKey": "once" });
    let response = stage.post(&path, body.clone()).await;
    let message = response.headers()["x-message-id"].to_str().unwrap().to_owned();
    drop(response);
    stage.host.finish(&id, &message);
    let again = stage.post(&path, body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let (_, _, done) = frames(again).await.pop().unwrap();
    assert_eq!(
        (&done["type"], &done["messageId"], &done["isError"]),
        (&json!("done"), &json!(message), &json!(false))
    );
    stage.server.stop().await;
}

#[tokio::test]
async fn a_chat_makes_its_session() {
    let stage = Stage::new().await;
    for _ in 0..2 {
        let body = json!({ "messages": [{ "role": "user", "content": "hello" }] });
        let response = stage.post("/agent/chat/mine", body).await;
        assert_eq!(response.headers()["x-session-id"], "mine");
        assert_eq!(frames(response).await.pop().unwrap().2["type"], "done");
    }
    let (_, session) = told(stage.get("/agent/chat/mine").send().await.unwrap()).await;
    assert_eq!(session["pattern"], "long-running");
    let fresh = stage.post("/agent/chat", json!({ "prompt": "hello", "streaming": false })).await;
    assert_ne!(fresh.headers()["x-session-id"], "mine");
    assert_eq!(told(fresh).await.0, 200);
    assert_eq!(told(stage.get("/agent/chat/other").send().await.unwrap()).await.0, 404);
    stage.server.stop().await;
}
