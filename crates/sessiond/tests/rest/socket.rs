//! A session over a WebSocket.

use crate::stage::{Stage, told};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn events_come_and_commands_go() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let url = stage.url(&format!("/api/sessions/{id}/ws")).replace("http", "ws");
    let (mut socket, _) = connect_async(&url).await.unwrap();
    assert_eq!(next(&mut socket).await["type"], "session:created");

    let command = json!({ "type": "message", "ref": 7, "prompt": "hello" });
    socket.send(Message::text(command.to_string())).await.unwrap();
    let (mut reply, mut events) = (None, Vec::new());
    while reply.is_none() || events.last().is_none_or(|(kind, _)| kind != "turn:completed") {
        let message = next(&mut socket).await;
        match message["type"].as_str().unwrap() {
            "reply" => reply = Some(message),
            kind => events.push((kind.to_owned(), message["seq"].as_u64().unwrap())),
        }
    }
    let reply = reply.unwrap();
    assert_eq!((&reply["type"], &reply["ref"], &reply["ok"]), (&json!("reply"), &json!(7), &json!(true)));
    assert!(reply["messageId"].is_string(), "{reply}");
    assert_eq!(events.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), (2..=9).collect::<Vec<_>>());

    for (wrong, named) in [
        (json!({ "type": "dance", "ref": "a" }), "dance"),
        (json!({ "type": "stop", "graceSeconds": 1, "ref": "a" }), "graceSeconds"),
    ] {
        socket.send(Message::text(wrong.to_string())).await.unwrap();
        let reply = next(&mut socket).await;
        assert_eq!((&reply["ref"], &reply["ok"]), (&json!("a"), &json!(false)));
        assert!(reply["detail"].as_str().unwrap().contains(named), "{reply}");
    }
    let question = stage.host.ask(&id);
    assert_eq!(next(&mut socket).await["type"], "permission:requested");
    let answer = json!({ "type": "answer", "questionId": question, "verdict": "deny", "message": "no" });
    socket.send(Message::text(answer.to_string())).await.unwrap();
    assert_eq!(next(&mut socket).await["question"]["verdict"], "deny");

    stage.server.stop().await;
    match socket.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_socket_is_told_so() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let (status, _) = told(stage.get(&format!("/api/sessions/{id}/ws")).send().await.unwrap()).await;
    assert_eq!(status, 426);
    let (status, _) = told(stage.get("/api/sessions/nobody/ws").send().await.unwrap()).await;
    assert_eq!(status, 404);
    stage.server.stop().await;
}
