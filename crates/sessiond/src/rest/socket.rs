//! The journal and the session's controls over one WebSocket (RFC 6455).

mod command;

use super::app::App;
use super::events::{Gap, Which};
use super::input::{Id, Query};
use super::problem::{Problem, Result};
use crate::server::Place;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use command::{Reply, follow};
use futures::FutureExt as _;
use hostel_session::{ClientListener, Delivery, Disconnect};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Largest message that is taken, in bytes: one may hold pictures.
const LARGEST: usize = 32 << 20;
/// How often a silent client is asked whether it is there, and how long it may be silent.
const PING: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to take a message.
const SEND: Duration = Duration::from_secs(30);
/// How long a client may take to end the connection after both have said good bye, or we have.
const CLOSING: Duration = Duration::from_secs(1);
/// Commands of one client that may wait for those before them, and stops that may be waited for. More are refused, for
/// what is behind them in its socket must be read: its answers to our pings are among that.
const COMMANDS: usize = 16;
/// The most events that a reply waits behind.
const AT_HAND: usize = 1024;

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    /// Those after this number; 0 for all. `Last-Event-ID` goes over it.
    after: Option<u64>,
    /// Only these types, with commas between.
    types: Option<String>,
}

/// Watch and control a session over a WebSocket
///
/// Events come as JSON, as in an event stream; commands go as `{"type": "message" | "interrupt" | "stop" | "kill" |
/// "cancel" | "answer", "ref": …}`, are followed in their order, and are answered by `{"type": "reply", "ref", "ok", …}`.
#[utoipa::path(get, path = "/api/sessions/{id}/ws", tag = "events", params(Since), responses(
    (status = 101, description = "The protocol is WebSocket from here on")
))]
pub(super) async fn open(
    State(app): State<App>,
    Id(id): Id,
    Query(Since { after, types }): Query<Since>,
    headers: HeaderMap,
    place: Option<Extension<Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let which = Which::since(after, types);
    let (after, types) = (which.after(&headers)?, which.types()?);
    // A session that is not there is refused before anything is upgraded.
    let client = app.hub.connect(&id, after, types).await?;
    let upgrade = upgrade.map_err(|error| {
        let status = StatusCode::UPGRADE_REQUIRED;
        Problem::new(status, "no_websocket", "Upgrade required", error.body_text())
    })?;
    let upgrade = upgrade.max_message_size(LARGEST).max_frame_size(LARGEST);
    Ok(upgrade.on_upgrade(move |socket| async move {
        // It counts as a connection for as long as it is one.
        let _place = place;
        let (commands, said) = mpsc::channel(COMMANDS);
        let (told, replies) = mpsc::channel(1);
        let mut follower = JoinSet::new();
        follower.spawn(follow(app, id, said, told));
        let talk = Talk { client, socket, commands, replies, _follower: follower, heard: Instant::now() };
        talk.go_on().await;
    }))
}

/// One client.
struct Talk {
    client: ClientListener,
    socket: WebSocket,
    /// What it says, in order.
    commands: mpsc::Sender<Utf8Bytes>,
    /// What came of it.
    replies: mpsc::Receiver<Reply>,
    /// Does what it says. Ended with the connection; what a session accepted goes on.
    _follower: JoinSet<()>,
    heard: Instant,
}

impl Talk {
    async fn go_on(mut self) {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let close = loop {
            let went = tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => self.heard(message).await,
                    Some(Err(_)) | None => break None,
                },
                Some(reply) = self.replies.recv() => match self.catch_up().await {
                    Went::On => self.tell(reply.json()).await,
                    went => went,
                },
                delivery = self.client.next() => match delivery {
                    Ok(delivery) => self.deliver(delivery).await,
                    Err(Disconnect::Deleted) => break Some((close_code::NORMAL, "the session is gone")),
                    Err(Disconnect::Stopping) => break Some((close_code::AWAY, "the server is stopping")),
                    Err(Disconnect::Failed(error)) => {
                        tracing::warn!(%error, "events could not be read");
                        break Some((close_code::ERROR, "events cannot be read now; come again"));
                    }
                },
                _ = ping.tick() => self.ping().await,
            };
            match went {
                Went::On => {}
                Went::Over => {
                    self.end().await;
                    break None;
                }
                Went::Gone => break None,
                Went::Close(code, why) => break Some((code, why)),
            }
        };
        if let Some((code, reason)) = close {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            if let Went::On = self.send(Message::Close(Some(frame))).await {
                self.end().await;
            }
        }
    }

    /// Reads on to the end: reading is what sends the answer to a close, and a connection that is dropped with
    /// something unread is reset, with what the client was still to read (RFC 6455, 7.1.1).
    async fn end(&mut self) {
        let rest = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        // Who does not answer is not waited for.
        let _ = tokio::time::timeout(CLOSING, rest).await;
    }

    /// Tells of the events that are at hand: what a reply says of the session, its client has heard before.
    async fn catch_up(&mut self) -> Went {
        for _ in 0..AT_HAND {
            let Some(Ok(delivery)) = self.client.next().now_or_never() else { break };
            match self.deliver(delivery).await {
                Went::On => {}
                went => return went,
            }
        }
        Went::On
    }

    async fn heard(&mut self, message: Message) -> Went {
        self.heard = Instant::now();
        match message {
            Message::Text(text) => match self.commands.try_send(text) {
                Ok(()) => Went::On,
                Err(TrySendError::Full(text)) => self.tell(Reply::too_many(&text).json()).await,
                Err(TrySendError::Closed(_)) => {
                    Went::Close(close_code::ERROR, "commands cannot be followed now; come again")
                }
            },
            Message::Binary(_) => Went::Close(close_code::UNSUPPORTED, "commands are text"),
            Message::Close(_) => Went::Over,
            // Answered by the library.
            Message::Ping(_) | Message::Pong(_) => Went::On,
        }
    }

    async fn deliver(&mut self, delivery: Delivery) -> Went {
        match delivery {
            Delivery::Event(event) => self.tell(event.json()).await,
            Delivery::Compacted { from, to } => {
                self.tell(serde_json::to_vec(&Gap::new(from, to)).unwrap_or_default().into()).await
            }
        }
    }

    async fn ping(&mut self) -> Went {
        if self.heard.elapsed() > SILENCE {
            return Went::Close(close_code::AWAY, "you were silent for too long");
        }
        self.send(Message::Ping(Bytes::new())).await
    }

    async fn tell(&mut self, json: Bytes) -> Went {
        match Utf8Bytes::try_from(json) {
            Ok(text) => self.send(Message::Text(text)).await,
            Err(_) => Went::On,
        }
    }

    async fn send(&mut self, message: Message) -> Went {
        match tokio::time::timeout(SEND, self.socket.send(message)).await {
            Ok(Ok(())) => Went::On,
            // Broken, or so slow that its place is better given to another: it may come again where it was.
            Ok(Err(_)) | Err(_) => Went::Gone,
        }
    }
}

/// How it goes on with a client.
enum Went {
    /// It does.
    On,
    /// It is told why not.
    Close(u16, &'static str),
    /// It said good bye.
    Over,
    /// It is not there any more.
    Gone,
}
