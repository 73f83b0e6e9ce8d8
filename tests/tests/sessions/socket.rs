//! A session over a WebSocket: its agent asks, is answered, and is stopped.

use super::stage::Stage;
use futures::{SinkExt as _, StreamExt as _};
use hostel_testkit::Script;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_secs(60);

/// One that reads everything that comes.
struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The number of the last event.
    last: u64,
}

impl Socket {
    async fn open(stage: &Stage, session: &str) -> Self {
        let url = stage.server.url(&format!("{session}/ws")).replacen("http", "ws", 1);
        Self { stream: connect_async(url).await.unwrap().0, last: 0 }
    }

    async fn say(&mut self, command: Value) {
        self.stream.send(Message::text(command.to_string())).await.unwrap();
    }

    /// Reads until something of a type comes, and sees to it that no event is missing or there twice.
    async fn until(&mut self, kind: &str) -> Value {
        let mut before = Vec::new();
        // Pings come all the while.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.stream.next()).await;
            let next = next.unwrap_or_else(|_| panic!("no {kind} after {before:?}")).unwrap().unwrap();
            let Message::Text(text) = next else { continue };
            let told: Value = serde_json::from_str(&text).unwrap();
            let (from, to) = match told["type"].as_str().unwrap() {
                "reply" => (None, None),
                "gap" => (told["from"].as_u64(), told["to"].as_u64()),
                _ => (told["seq"].as_u64(), told["seq"].as_u64()),
            };
            assert!(from.is_none_or(|from| from == self.last + 1), "after {}: {told}", self.last);
            self.last = to.unwrap_or(self.last);
            if told["type"] == kind {
                return told;
            }
            before.push(told["type"].as_str().unwrap().to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_asks_is_answered_and_is_stopped_over_a_websocket() {
    let Some(stage) = Stage::new("a session over a WebSocket").await else { return };
    let config = json!({ "permissionMode": "default", "askPermissions": true });
    let made = stage.post("/api/sessions", json!({ "pattern": "long-running", "config": config })).await;
    let made: Value = made.json().await.unwrap();
    let session = format!("/api/sessions/{}", made["id"].as_str().unwrap());
    let mut socket = Socket::open(&stage, &session).await;
    let touch = |name: &str| json!({ "command": format!("touch {name}"), "description": "make" });
    let script = Script::new().tool("Bash", touch("wanted")).tool("Bash", touch("unwanted")).text("done");
    socket.say(json!({ "type": "message", "ref": 1, "prompt": script.prompt("Do it.") })).await;
    for (verdict, name) in [("allow", "wanted"), ("deny", "unwanted")] {
        let asked = socket.until("permission:requested").await;
        let question = &asked["data"]["question"];
        assert_eq!(question["input"]["command"], format!("touch {name}"));
        socket.say(json!({ "type": "answer", "questionId": question["id"], "verdict": verdict })).await;
        let decided = socket.until("permission:resolved").await;
        assert_eq!(decided["data"]["verdict"], verdict);
    }
    let done = socket.until("turn:completed").await;
    assert_eq!(done["data"]["outcome"]["text"], "done");
    for (name, there) in [("wanted", 200), ("unwanted", 404)] {
        let file = stage.get(&format!("{session}/files/content?path={name}")).send().await.unwrap();
        assert_eq!(file.status(), there, "{name}");
    }

    // Somebody else looks on, from the beginning.
    let mut other = Socket::open(&stage, &session).await;
    other.until("turn:completed").await;
    socket
        .say(json!({ "type": "message", "prompt": Script::new().tool("Bash", touch("late")).prompt("Go.") }))
        .await;
    other.until("permission:requested").await;
    other.say(json!({ "type": "stop", "graceMs": 5000, "ref": "enough" })).await;
    let stopped = other.until("turn:completed").await;
    assert_eq!(stopped["data"]["outcome"]["isError"], true, "{stopped}");
    let reply = other.until("reply").await;
    assert_eq!((&reply["ref"], &reply["ok"]), (&json!("enough"), &json!(true)), "{reply}");
    assert_eq!(reply["session"]["activeTurn"], Value::Null);
    socket.until("turn:completed").await;
    stage.finish().await;
}
