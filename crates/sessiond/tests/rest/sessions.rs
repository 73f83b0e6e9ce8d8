//! Sessions as the seed's clients use them.

use crate::stage::{Stage, told};
use serde_json::{Value, json};

#[tokio::test]
async fn a_session_is_made_listed_changed_and_ended() {
    let stage = Stage::new().await;
    // As the seed's own examples send it: without a content type.
    let body = r#"{"pattern":"ephemeral","config":{"model":"m","maxTurns":10,"allowedTools":["Read"]},"tags":["a","b"]}"#;
    let made = stage.client.post(stage.url("/api/sessions")).body(body).send().await.unwrap();
    assert!(made.headers()["location"].to_str().unwrap().starts_with("/api/sessions/"));
    assert!(!made.headers()["x-request-id"].is_empty());
    let (status, session) = told(made).await;
    assert_eq!((status, &session["status"], &session["maxTurns"]), (201, &json!("initializing"), &json!(10)));
    let id = session["id"].as_str().unwrap();
    let path = format!("/api/sessions/{id}");

    assert_eq!(told(stage.get(&path).send().await.unwrap()).await.1["id"], id);
    let list =
        told(stage.get("/api/sessions?tags=x,b&pattern=ephemeral&page=1&pageSize=20").send().await.unwrap());
    let (_, list) = list.await;
    assert_eq!((&list["total"], &list["page"], &list["pageSize"]), (&json!(1), &json!(1), &json!(20)));
    assert_eq!(list["sessions"][0]["id"], id);
    let changed =
        stage.client.patch(stage.url(&path)).json(&json!({ "description": "d" })).send().await.unwrap();
    assert_eq!(told(changed).await.1["description"], "d");
    for (body, left) in [(json!({}), json!("d")), (json!({ "description": null }), Value::Null)] {
        let changed = stage.client.patch(stage.url(&path)).json(&body).send().await.unwrap();
        assert_eq!(told(changed).await.1["description"], left, "{body}");
    }
    let (_, figures) = told(stage.get("/api/sessions/stats/summary").send().await.unwrap()).await;
    assert_eq!(figures["totalSessions"], 1);

    let (status, ended) = told(stage.post(&format!("{path}/terminate"), json!({})).await).await;
    assert_eq!((status, &ended["reason"]), (200, &json!("user_requested")));
    assert_eq!(ended["session"]["status"], "terminated");
    let (status, refused) =
        told(stage.post(&format!("{path}/message"), json!({ "prompt": "x" })).await).await;
    assert_eq!((status, &refused["error"]), (400, &json!("Session is not active")));
    assert_eq!(refused["status"], "terminated", "as the seed has it");
    let gone = told(stage.client.delete(stage.url(&path)).send().await.unwrap()).await;
    assert_eq!(gone, (200, json!({ "success": true, "id": id })));
    let (status, refused) = told(stage.get(&path).send().await.unwrap()).await;
    assert_eq!((status, &refused["error"], &refused["id"]), (404, &json!("Session not found"), &json!(id)));
    stage.server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let (status, refused) = told(stage.post("/api/sessions", json!({ "pattern": "eternal" })).await).await;
    assert_eq!((status, &refused["error"]), (400, &json!("Invalid pattern")));
    assert_eq!(refused["validPatterns"], json!(["ephemeral", "long-running", "hybrid", "single-container"]));
    for (path, field) in [
        ("/api/sessions?pattern=eternal", "pattern"),
        ("/api/sessions?status=3", "status"),
        ("/api/sessions?page=0", "page"),
        ("/api/sessions?page=x", "page"),
        ("/api/sessions?pageSize=1001", "pageSize"),
        ("/api/sessions?patern=x", "patern"),
        (&format!("/api/sessions/{id}/events?types=nothing"), "types"),
        (&format!("/api/sessions/{id}/events?after=99"), "after"),
        (&format!("/api/sessions/{id}/ws?follow=true"), "follow"),
        (&format!("/api/sessions/{id}?%76erbose=1"), "verbose"),
        (&format!("/api/sessions/{id}/files/content?path=a&mode=1"), "mode"),
    ] {
        let (status, refused) = told(stage.get(path).send().await.unwrap()).await;
        assert_eq!((status, &refused["field"]), (400, &json!(field)), "{path}: {refused}");
    }
    for operation in ["force-kill", "load", "unload", "stop"] {
        let path = format!("/api/sessions/{id}/{operation}");
        let (status, refused) = told(stage.post(&path, json!({ "force": true })).await).await;
        assert_eq!((status, &refused["field"]), (400, &json!("force")), "{path}: {refused}");
    }
    let patched = stage.client.patch(stage.url(&format!("/api/sessions/{id}")));
    let (status, refused) = told(patched.json(&json!({ "status": "idle" })).send().await.unwrap()).await;
    assert_eq!((status, &refused["field"]), (400, &json!("status")));
    let (status, refused) = told(stage.get(&format!("/api/sessions/{id}/files")).send().await.unwrap()).await;
    assert_eq!((status, &refused["reason"]), (409, &json!("no_environment")));
    let busy = stage.post(&format!("/api/sessions/{id}/message"), json!({ "prompt": "busy" })).await;
    assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (429, &"7".parse().unwrap()));
    let (status, _) = told(stage.get("/nothing/there").send().await.unwrap()).await;
    assert_eq!(status, 404);
    let (status, _) = told(stage.client.put(stage.url("/api/sessions")).send().await.unwrap()).await;
    assert_eq!(status, 405);
    let large = stage.client.post(stage.url("/api/sessions")).body(vec![b' '; (1 << 20) + 1]);
    assert_eq!(told(large.send().await.unwrap()).await.0, 413);
    stage.server.stop().await;
}

#[tokio::test]
async fn a_question_is_answered_once() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let question = stage.host.ask(&id);
    let path = format!("/api/sessions/{id}/permissions");
    let (_, open) = told(stage.get(&path).send().await.unwrap()).await;
    assert_eq!(open["questions"][0]["id"], json!(question));
    let answer = json!({ "verdict": "allow-for-session", "decidedBy": "ann" });
    let (status, answered) = told(stage.post(&format!("{path}/{question}"), answer).await).await;
    assert_eq!((status, &answered["verdict"]), (200, &json!("allow-for-session")));
    let (status, refused) =
        told(stage.post(&format!("{path}/{question}"), json!({ "verdict": "deny" })).await).await;
    assert_eq!((status, &refused["decidedBy"]), (409, &json!("ann")));
    let (status, refused) =
        told(stage.post(&format!("{path}/{question}"), json!({ "verdict": "perhaps" })).await).await;
    assert_eq!((status, &refused["field"]), (400, &json!("verdict")));
    stage.server.stop().await;
}

#[tokio::test]
async fn all_that_is_kept_is_exported() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let _ = stage.post(&format!("/api/sessions/{id}/message"), json!({ "prompt": "x", "mode": "ack" })).await;
    let text = stage.get(&format!("/api/sessions/{id}/export")).send().await.unwrap().text().await.unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["session"]["id"], id.as_str());
    let events: Vec<_> = lines.iter().filter_map(|line| line["event"]["seq"].as_u64()).collect();
    assert_eq!(events, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(lines[lines.len() - 2]["transcript"]["path"], "/home/agent/a.jsonl");
    assert_eq!(lines.last().unwrap(), &json!({ "end": true }));
    stage.server.stop().await;
}
