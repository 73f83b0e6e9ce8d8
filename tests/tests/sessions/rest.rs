//! A session from its making to its end, over REST.

use super::stage::{Stage, frames, told};
use hostel_testkit::{Script, Step};
use hostel_tests::LOOK;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A turn in which the agent writes a file.
fn work() -> String {
    let write = json!({ "command": "echo by-the-agent > /workspace/made", "description": "write" });
    Script::new().tool("Bash", write).text("all done").prompt("Do it.")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_works_from_its_making_to_its_end() {
    let Some(stage) = Stage::new("a session over REST").await else { return };
    let session = stage.session("long-running").await;
    streamed_turn(&stage, &session).await;
    files_and_commands(&stage, &session).await;
    whole_turn(&stage, &session).await;
    what_is_kept(&stage, &session).await;
    let (status, ended) = told(stage.post(&format!("{session}/terminate"), json!({})).await).await;
    assert_eq!(
        (status, &ended["session"]["status"], &ended["reason"]),
        (200, &json!("terminated"), &json!("user_requested"))
    );
    let (status, refused) =
        told(stage.post(&format!("{session}/message"), json!({ "prompt": "more" })).await).await;
    assert_eq!(
        (status, &refused["error"], &refused["status"]),
        (400, &json!("Session is not active"), &json!("terminated"))
    );
    let gone = stage.client.delete(stage.server.url(&session)).send().await.unwrap();
    assert_eq!(told(gone).await.0, 200);
    assert_eq!(told(stage.get(&session).send().await.unwrap()).await.0, 404);
    stage.finish().await;
}

async fn streamed_turn(stage: &Stage, session: &str) {
    let stream = stage.post(&format!("{session}/message"), json!({ "prompt": work() })).await;
    assert_eq!(
        (stream.status().as_u16(), &stream.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let frames = frames(&stream.text().await.unwrap());
    let types: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    for kind in ["system", "stream_event", "assistant", "user", "result"] {
        assert!(types.contains(&kind), "{kind} is not among {types:?}");
    }
    assert!(types.iter().all(|kind| !kind.starts_with("control_")), "{types:?}");
    let done = frames.last().unwrap();
    assert_eq!(
        (&done["type"], &done["isError"], &done["result"]),
        (&json!("done"), &json!(false), &json!("success")),
        "{done}"
    );
    assert_eq!((&done["text"], &done["toolsUsed"]), (&json!("all done"), &json!(["Bash"])), "{done}");
    assert!(done["cost"].as_f64().unwrap() > 0.0 && done["usage"]["output"].as_u64().unwrap() > 0, "{done}");
    assert!(done["latency"].as_u64().unwrap() > 0, "{done}");
}

async fn files_and_commands(stage: &Stage, session: &str) {
    let content = |path: &str| format!("{session}/files/content?path={path}");
    let made = stage.get(&content("made")).send().await.unwrap();
    assert_eq!((made.status().as_u16(), made.text().await.unwrap().as_str()), (200, "by-the-agent\n"));
    let part = stage.get(&content("/workspace/made")).header("range", "bytes=3-5").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 3-5/13".parse().unwrap())
    );
    assert_eq!(part.text().await.unwrap(), "the");
    let none = stage.get(&content("made")).header("range", "bytes=99-").send().await.unwrap();
    assert_eq!(told(none).await.0, 416);

    let large = vec![b'x'; 3 << 20];
    let put = stage.client.put(stage.server.url(&content("deep/large"))).body(large.clone());
    let (status, file) = told(put.send().await.unwrap()).await;
    assert_eq!(
        (status, &file["size"], &file["path"]),
        (200, &json!(large.len()), &json!("/workspace/deep/large")),
        "{file}"
    );
    assert_eq!(stage.get(&content("deep/large")).send().await.unwrap().bytes().await.unwrap(), large);
    let (_, list) = told(stage.get(&format!("{session}/files")).send().await.unwrap()).await;
    let names: Vec<_> = list["files"].as_array().unwrap().iter().map(|file| &file["name"]).collect();
    assert!(names.contains(&&json!("made")) && names.contains(&&json!("deep")), "{list}");
    assert_eq!(told(stage.get(&content("nowhere")).send().await.unwrap()).await.0, 404);
    assert_eq!(told(stage.get(&content("deep")).send().await.unwrap()).await.0, 400);

    let exec = json!({ "command": "pwd; echo $WHO >&2; exit 3", "env": { "WHO": "us" } });
    let (_, ran) = told(stage.post(&format!("{session}/exec"), exec).await).await;
    assert_eq!(
        ran,
        json!({ "exitCode": 3, "signal": null, "reason": "exited", "stdout": "/workspace\n",
        "stderr": "us\n", "truncated": false })
    );
    let (_, slow) = told(
        stage.post(&format!("{session}/exec"), json!({ "command": ["sleep", "600"], "timeoutMs": 50 })).await,
    )
    .await;
    assert_eq!(slow["reason"], "timed_out", "{slow}");
    let archive = stage.get(&format!("{session}/workspace")).send().await.unwrap();
    assert_eq!(archive.headers()["content-type"], "application/zstd");
    // The magic number of zstd (RFC 8878 §3.1.1).
    assert!(archive.bytes().await.unwrap().starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
}

async fn whole_turn(stage: &Stage, session: &str) {
    let body = json!({ "prompt": Script::new().text("seen").prompt("Look."), "streaming": false, "idempotencyKey": "k" });
    let path = format!("{session}/message");
    let (status, whole) = told(stage.post(&path, body.clone()).await).await;
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["response"]["content"][0]["text"], "seen", "{whole}");
    assert_eq!((&whole["result"]["type"], &whole["isError"]), (&json!("result"), &json!(false)), "{whole}");
    assert_eq!(whole["session"]["status"], "idle", "{whole}");
    let (_, again) = told(stage.post(&path, body).await).await;
    assert_eq!((&again["messageId"], &again["response"]), (&whole["messageId"], &whole["response"]));
    let (_, now) = told(stage.get(session).send().await.unwrap()).await;
    assert!(now["totalCost"].as_f64().unwrap() > 0.0 && now["numTurns"].as_u64().unwrap() >= 3, "{now}");
    assert_eq!(now["toolsUsed"], json!(["Bash"]));
}

async fn what_is_kept(stage: &Stage, session: &str) {
    let events = stage.journal(session).await;
    let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!((count("turn:started"), count("turn:completed"), count("session:created")), (2, 2, 1));
    let text = stage.get(&format!("{session}/export")).send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines
            .iter()
            .any(|line| line["transcript"]["content"].as_str().is_some_and(|all| all.contains("all done"))),
        "no transcript"
    );
    assert_eq!(lines.last().unwrap(), &json!({ "end": true }));
    let (_, figures) = told(stage.get("/api/sessions/stats/summary").send().await.unwrap()).await;
    assert_eq!(
        (&figures["totalSessions"], &figures["byPattern"]["long-running"]["count"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_in_the_sandbox_and_plugins_that_are_not_there_are_told() {
    let Some(stage) = Stage::new("hooks of a session").await else { return };
    let hook = json!({ "type": "command", "command": "echo \"$CLAUDE_PROJECT_DIR\" >/workspace/hooked" });
    let config = json!({
        "permissionMode": "bypassPermissions",
        "hooks": { "PostToolUse": [{ "matcher": "Bash", "hooks": [hook] }] },
        "plugins": [{ "type": "local", "path": "not/there" }],
    });
    let body = json!({ "pattern": "long-running", "config": config });
    let (status, session) = told(stage.post("/api/sessions", body).await).await;
    assert_eq!(status, 201, "{session}");
    assert_eq!(session["config"], config, "it is told as it was given");
    let session = format!("/api/sessions/{}", session["id"].as_str().unwrap());
    let turn = json!({ "prompt": work(), "streaming": false });
    assert_eq!(told(stage.post(&format!("{session}/message"), turn).await).await.0, 200);
    let hooked = stage.get(&format!("{session}/files/content?path=hooked")).send().await.unwrap();
    assert_eq!((hooked.status().as_u16(), hooked.text().await.unwrap().as_str()), (200, "/workspace\n"));
    let events = stage.journal(&session).await;
    let missed = |event: &&Value| event["type"] == "log" && event.to_string().contains("not/there");
    assert_eq!(events.iter().filter(missed).count(), 1, "{events:?}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_goes_on_while_the_server_is_away() {
    let Some(mut stage) = Stage::new("a turn without its server").await else { return };
    let session = stage.session("long-running").await;
    for kill in [false, true] {
        let slow = Step::text("one two three four five six seven eight nine ten").chunks(10).delay_ms(150);
        let prompt = Script::new().step(slow).prompt(&format!("Count. {kill}"));
        let mut stream = stage.post(&format!("{session}/message"), json!({ "prompt": prompt })).await;
        let message = stream.headers()["x-message-id"].to_str().unwrap().to_owned();
        let mut text = String::new();
        while !text.contains("content_block_delta") {
            text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
        }
        if kill {
            stage.server.kill();
        } else {
            assert!(stage.server.stop().success(), "{}", stage.server.log());
            while let Some(chunk) = stream.chunk().await.expect("a proper end") {
                text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
            let done = frames(&text).pop().unwrap();
            assert_eq!((&done["type"], &done["isError"]), (&json!("done"), &json!(true)), "{done}");
        }
        stage.server.restart(&stage.daemon);
        let start = Instant::now();
        let ended = loop {
            let (_, known) =
                told(stage.get(&format!("{session}/messages/{message}")).send().await.unwrap()).await;
            if known["state"] == "done" {
                break known;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{known}\n{}", stage.server.log());
            tokio::time::sleep(LOOK).await;
        };
        assert_eq!(ended["outcome"]["result"], "success", "{ended}");
        assert_eq!(ended["outcome"]["text"], "one two three four five six seven eight nine ten", "{ended}");
    }
    let events = stage.journal(&session).await;
    let ends = events.iter().filter(|event| event["type"] == "turn:completed").count();
    assert_eq!(ends, 2);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_let_go_stays_so_and_knows_what_was_said() {
    let Some(stage) = Stage::new("a session out of memory").await else { return };
    let session = stage.session("long-running").await;
    let say = |words: &str, answer: &str| json!({ "prompt": Script::new().text(answer).prompt(words), "streaming": false });
    let path = format!("{session}/message");
    assert_eq!(told(stage.post(&path, say("The word is juniper.", "noted")).await).await.0, 200);
    let (status, unloaded) = told(stage.post(&format!("{session}/unload"), json!({})).await).await;
    assert_eq!((status, &unloaded["session"]["environment"]["status"]), (200, &json!("terminated")));
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).stdout, "");
    let status = || async { told(stage.get(&format!("{session}/status")).send().await.unwrap()).await.1 };
    let start = Instant::now();
    while status().await["isLoaded"] == true {
        assert!(start.elapsed() < Duration::from_secs(60), "nobody lets it go");
    }
    // Looking at it changes nothing.
    for look in ["queue", "permissions"] {
        assert_eq!(told(stage.get(&format!("{session}/{look}")).send().await.unwrap()).await.0, 200);
        assert_eq!(status().await["isLoaded"], false, "{look}");
    }
    let (_, loaded) = told(stage.post(&format!("{session}/load"), json!({})).await).await;
    assert_eq!((&loaded["success"], &status().await["isLoaded"]), (&json!(true), &json!(true)));
    let (_, whole) = told(stage.post(&path, say("Which word?", "juniper")).await).await;
    assert_eq!(whole["response"]["content"][0]["text"], "juniper", "{whole}");
    let requests = stage.model.as_ref().unwrap().requests();
    let last = requests.iter().rfind(|request| request.path == "/v1/messages").unwrap();
    assert!(String::from_utf8_lossy(&last.body).contains("The word is juniper."), "it was told of the first");
    assert_eq!(told(stage.post(&format!("{session}/terminate"), json!({})).await).await.0, 200);
    stage.finish().await;
}
