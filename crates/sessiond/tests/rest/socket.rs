//! A session over a WebSocket.

use crate::stage::{Stage, told};
use futures::{SinkExt as _, StreamExt as _};
use hostel_session::SessionHost as _;
use serde_json::{Value, json};
use std::time::Duration;
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
        (json!({ "type": "kill", "grace": 1, "ref": "a" }), "grace"),
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
async fn commands_are_followed_in_their_order_and_pings_meanwhile() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let url = stage.url(&format!("/api/sessions/{id}/ws?types=session:ended")).replace("http", "ws");
    let (mut socket, _) = connect_async(&url).await.unwrap();
    stage.host.1.set_open(false);
    // One is being accepted, sixteen wait for it.
    for number in 0..16 {
        let command = json!({ "type": "message", "ref": number, "prompt": "hello" });
        socket.send(Message::text(command.to_string())).await.unwrap();
    }
    socket.send(Message::text(json!({ "type": "stop", "ref": 16 }).to_string())).await.unwrap();
    socket.send(Message::Ping("there?".into())).await.unwrap();
    let mut refused = 0;
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Pong(_) => break,
            Message::Text(text) => {
                let reply: Value = serde_json::from_str(&text).unwrap();
                assert_eq!((&reply["ok"], &reply["reason"]), (&json!(false), &json!("busy")), "{reply}");
                refused += 1;
            }
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    stage.host.1.set_open(true);
    for number in 0..17 - refused {
        let reply = next(&mut socket).await;
        assert_eq!((&reply["ref"], &reply["ok"]), (&json!(number), &json!(true)), "{reply}");
    }
    stage.server.stop().await;
}

#[tokio::test]
async fn sockets_are_connections_and_are_waited_for() {
    let stage = Stage::with(|config| config.max_connections = 1).await;
    let id = stage.host.create(Default::default()).await.unwrap().session.id;
    let url = stage.url(&format!("/api/sessions/{id}/ws")).replace("http", "ws");
    let (mut socket, _) = connect_async(&url).await.unwrap();
    assert_eq!(next(&mut socket).await["type"], "session:created");
    let another = stage.get("/healthz").send();
    tokio::pin!(another);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut another).await;
    assert!(early.is_err(), "there is no room for another connection");
    drop(socket);
    assert_eq!(another.await.unwrap().status(), 200);

    // Who stops the server waits until it has said good bye.
    let stage = Stage::new().await;
    let id = stage.session().await;
    let url = stage.url(&format!("/api/sessions/{id}/ws")).replace("http", "ws");
    let (mut socket, _) = connect_async(&url).await.unwrap();
    assert_eq!(next(&mut socket).await["type"], "session:created");
    stage.server.stop().await;
    assert_eq!(stage.host.subscribers(&id), 0);
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

#[tokio::test]
async fn who_says_good_bye_is_answered() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let url = stage.url(&format!("/api/sessions/{id}/ws")).replace("http", "ws");
    let (mut socket, _) = connect_async(&url).await.unwrap();
    assert_eq!(next(&mut socket).await["type"], "session:created");
    socket.close(None).await.unwrap();
    // An error where the connection ends without it.
    let rest: Vec<_> = socket.map(Result::unwrap).collect().await;
    assert!(matches!(rest.as_slice(), [.., Message::Close(_)]), "{rest:?}");
    stage.server.stop().await;
}
