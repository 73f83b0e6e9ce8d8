//! Relays, played by a test.

use super::script::TOKEN;
use crate::{Dial, Endpoint, Guest, Relay, Streams};
use async_trait::async_trait;
use hostel_guest_protocol::relay::{GREETING, MAX_PIECE, PIECE_HEADER, Piece, WINDOW};
use hostel_sandbox::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

/// Hands the other side of every relay to the test.
struct Dialed(mpsc::Sender<Far>);

/// A relay, from its own side.
struct Far {
    input: DuplexStream,
    output: DuplexStream,
}

#[async_trait]
impl Dial for Dialed {
    async fn dial(&self) -> Result<Streams> {
        let ((input, far_input), (far_output, output)) =
            (tokio::io::duplex(4 << 20), tokio::io::duplex(4 << 20));
        let far = Far { input: far_input, output: far_output };
        self.0.send(far).await.map_err(|error| Error::internal("dial", error))?;
        Ok(Streams { input: Box::pin(input), output: Box::pin(output) })
    }
}

impl Far {
    async fn greet(&mut self) {
        self.output.write_all(&GREETING).await.unwrap();
    }

    async fn send(&mut self, channel: u32, piece: Piece, data: &[u8]) {
        let _ = self.output.write_all(&[&piece.encode(channel)[..], data].concat()).await;
    }

    async fn receive(&mut self) -> Option<(u32, Piece, Vec<u8>)> {
        let mut header = [0; PIECE_HEADER];
        self.input.read_exact(&mut header).await.ok()?;
        let (channel, piece) = Piece::decode(&header).unwrap();
        let mut data = vec![0; piece.length()];
        self.input.read_exact(&mut data).await.unwrap();
        Some((channel, piece, data))
    }
}

fn relay() -> (Arc<Relay>, mpsc::Receiver<Far>) {
    let (sender, far) = mpsc::channel(4);
    (Relay::new(Dialed(sender)), far)
}

/// A relay that greeted, and its first connection.
async fn connected() -> (Arc<Relay>, mpsc::Receiver<Far>, Far, tokio::net::UnixStream) {
    let (relay, mut dialed) = relay();
    let answer = async {
        let mut far = dialed.recv().await.unwrap();
        far.greet().await;
        far
    };
    let (stream, mut far) = tokio::join!(relay.connect(), answer);
    assert_eq!(far.receive().await.unwrap(), (0, Piece::Open, Vec::new()));
    (relay, dialed, far, stream.unwrap())
}

#[tokio::test]
async fn connections_end_with_either_side_and_lose_nothing() {
    let (relay, _dialed, mut far, mut near) = connected().await;
    near.write_all(b"question").await.unwrap();
    assert_eq!(far.receive().await.unwrap(), (0, Piece::Data(8), b"question".to_vec()));
    far.send(0, Piece::Data(6), b"answer").await;
    far.send(0, Piece::Close, b"").await;
    let mut all = Vec::new();
    near.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"answer");
    assert_eq!(far.receive().await.unwrap().1, Piece::Room(6));
    assert_eq!(far.receive().await.unwrap(), (0, Piece::Close, Vec::new()));

    let mut second = relay.connect().await.unwrap();
    assert_eq!(far.receive().await.unwrap(), (1, Piece::Open, Vec::new()));
    second.write_all(b"last words").await.unwrap();
    drop(second);
    assert_eq!(far.receive().await.unwrap().2, b"last words");
    assert_eq!(far.receive().await.unwrap(), (1, Piece::Close, Vec::new()));
    relay.close().await;
    assert_eq!(far.receive().await, None, "closing ends the relay");
}

#[tokio::test]
async fn no_more_goes_than_the_guest_has_room_for() {
    let (_relay, _dialed, mut far, mut near) = connected().await;
    let writing = async {
        near.write_all(&vec![7; 2 * WINDOW]).await.unwrap();
        near
    };
    let reading = async {
        let mut had = 0;
        while had < WINDOW {
            had += far.receive().await.unwrap().2.len();
        }
        assert_eq!(had, WINDOW);
        far.send(0, Piece::Room(10), b"").await;
        assert_eq!(far.receive().await.unwrap().1, Piece::Data(10));
        far.send(0, Piece::Room(WINDOW - 10), b"").await;
        far.send(0, Piece::Room(10), b"").await;
        while had < 2 * WINDOW - 10 {
            had += far.receive().await.unwrap().2.len();
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn a_relay_that_breaks_a_rule_ends_its_connections_and_another_is_dialed() {
    let data =
        |channel: u32, length: usize| [&Piece::Data(length).encode(channel)[..], &vec![0; length]].concat();
    let flood: Vec<u8> = (0..=WINDOW / MAX_PIECE + 16).flat_map(|_| data(0, MAX_PIECE)).collect();
    let wrongs = [
        vec![0xff; 40],
        data(9, 4),
        Piece::Open.encode(0).to_vec(),
        Piece::Room(1).encode(0).to_vec(),
        [Piece::Close.encode(0).to_vec(), data(0, 4)].concat(),
        flood,
    ];
    for wrong in wrongs {
        let (relay, mut dialed, mut far, near) = connected().await;
        far.output.write_all(&wrong).await.unwrap();
        // Unread: what a reader does not take must not be kept without limit.
        while far.receive().await.is_some() {}
        let mut rest = Vec::new();
        let mut near = near;
        let _ = near.read_to_end(&mut rest).await;
        assert!(rest.len() <= WINDOW + (512 << 10), "{}", rest.len());
        let answer = async {
            let mut far = dialed.recv().await.unwrap();
            far.greet().await;
            far
        };
        let (again, _far) = tokio::join!(relay.connect(), answer);
        assert!(again.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_relay_and_what_says_nothing_are_no_guest() {
    let (relay, mut dialed) = relay();
    let guest = Guest::new(Endpoint::relayed(Arc::clone(&relay), TOKEN));
    let wrong = async {
        let mut far = dialed.recv().await.unwrap();
        far.output.write_all(b"HTTP/1.1 500").await.unwrap();
        far
    };
    let (error, _far) = tokio::join!(guest.ping(Duration::from_secs(5)), wrong);
    assert!(matches!(error, Err(Error::Protocol { peer: "guest", .. })), "{error:?}");
    let silent = guest.ping(Duration::from_secs(50)).await;
    assert!(matches!(silent, Err(Error::Unavailable { what: "guest", .. })), "{silent:?}");
    let far = dialed.recv().await.unwrap();
    drop(far);

    // Once it greeted it has to go on: silence ends it, unless the sandbox is known to be frozen.
    let answer = async {
        let mut far = dialed.recv().await.unwrap();
        far.greet().await;
        far
    };
    let (near, mut far) = tokio::join!(relay.connect(), answer);
    let mut near = near.unwrap();
    relay.set_frozen(true);
    let waiting = tokio::time::timeout(Duration::from_secs(600), near.read_u8()).await;
    assert!(waiting.is_err(), "a frozen guest keeps its connections");
    relay.set_frozen(false);
    assert!(near.read_u8().await.is_err());
    assert_eq!(far.receive().await.unwrap().1, Piece::Open);
    assert_eq!(far.receive().await.unwrap().1, Piece::Ping, "it was asked");
}
