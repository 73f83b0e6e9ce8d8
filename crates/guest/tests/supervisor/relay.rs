//! The relay as a program beside a guest.

use crate::client::{Guest, TOKEN};
use hostel_guest_protocol::relay::{GREETING, MAX_CHANNELS, MAX_PIECE, PIECE_HEADER, Piece, WINDOW};
use hostel_guest_protocol::{
    Answer, Ask, Decoder, Empty, Exec, Frame, Hello, ProcessSpec, Reply, Request, VERSION, frame,
};
use prost::Message;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

struct Relay {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Relay {
    fn beside(guest: &Guest) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostel-guest"));
        command.arg("relay").arg("--socket").arg(guest.path("socket"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, mut output) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut greeting = [0; GREETING.len()];
        output.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, GREETING);
        Self { child, input, output }
    }

    fn send(&mut self, channel: u32, piece: Piece, data: &[u8]) {
        let bytes = [&piece.encode(channel)[..], data].concat();
        self.input.as_mut().unwrap().write_all(&bytes).unwrap();
    }

    fn open(&mut self, channel: u32, ask: Ask) {
        self.send(channel, Piece::Open, b"");
        let hello = frame::encode_message(&Hello { version: VERSION, token: TOKEN.to_vec() });
        let data = [hello, frame::encode_message(&Request { ask: Some(ask) })].concat();
        self.send(channel, Piece::Data(data.len()), &data);
    }

    fn receive(&mut self) -> Option<(u32, Piece, Vec<u8>)> {
        let mut header = [0; PIECE_HEADER];
        self.output.read_exact(&mut header).ok()?;
        let (channel, piece) = Piece::decode(&header).unwrap();
        let mut data = vec![0; piece.length()];
        self.output.read_exact(&mut data).unwrap();
        Some((channel, piece, data))
    }

    /// The next message of the guest on a channel.
    fn messages(&mut self, channel: u32, count: usize) -> Vec<Vec<u8>> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        while found.len() < count {
            let (from, piece, data) = self.receive().expect("more");
            assert!(from == channel && matches!(piece, Piece::Data(_) | Piece::Room(_)), "{piece:?}");
            decoder.extend(&data);
            while let Some((frame, payload)) = decoder.next_frame().unwrap() {
                assert!(matches!(frame, Frame::Message { .. }));
                found.push(payload.to_vec());
            }
        }
        found
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn connections_are_carried_and_it_ends_with_its_host() {
    let guest = Guest::start();
    let mut relay = Relay::beside(&guest);
    for channel in [0, 1, 77] {
        relay.open(channel, Ask::Ping(Empty {}));
        let messages = relay.messages(channel, 2);
        let reply = Reply::decode(&messages[1][..]).unwrap();
        assert_eq!(reply.answer, Some(Answer::Done(Empty {})));
        relay.send(channel, Piece::Close, b"");
        loop {
            let (from, piece, _) = relay.receive().unwrap();
            assert_eq!(from, channel);
            if piece == Piece::Close {
                break;
            }
        }
    }
    relay.send(0, Piece::Ping, b"");
    assert_eq!(relay.receive().unwrap().1, Piece::Pong);
    // What comes for a channel that is closed is dropped.
    relay.send(1, Piece::Data(3), b"abc");
    relay.send(1, Piece::Close, b"");
    drop(relay.input.take());
    assert!(relay.receive().is_none());
    assert!(relay.child.wait().unwrap().success());
}

#[test]
fn no_more_is_sent_than_there_is_room_for() {
    let guest = Guest::start();
    let mut relay = Relay::beside(&guest);
    let argv = ["/bin/sh", "-c", "exec cat /dev/zero"].map(str::to_owned).to_vec();
    let spec = ProcessSpec { id: "zero".to_owned(), argv, ..ProcessSpec::default() };
    relay.open(5, Ask::Exec(Exec { spec: Some(spec), attach: None }));
    let mut had = 0;
    while had < WINDOW {
        let (_, piece, data) = relay.receive().unwrap();
        assert!(data.len() <= MAX_PIECE);
        assert!(matches!(piece, Piece::Data(_) | Piece::Room(_)));
        had += data.len();
    }
    assert_eq!(had, WINDOW);
    // Not a byte more: of data, this is the next.
    relay.send(0, Piece::Ping, b"");
    relay.send(5, Piece::Room(1000), b"");
    let mut next = || loop {
        match relay.receive().unwrap().1 {
            Piece::Room(_) => {}
            other => return other,
        }
    };
    assert_eq!(next(), Piece::Pong);
    let mut more = 0;
    while more < 1000 {
        let piece = next();
        let Piece::Data(length) = piece else { panic!("{piece:?} where data was to come") };
        more += length;
    }
    // However many pieces it takes.
    assert_eq!(more, 1000);
}

#[test]
fn a_host_that_breaks_a_rule_is_left() {
    let guest = Guest::start();
    let far = [Piece::Data(1).encode(0).to_vec(), vec![0; 1]].concat();
    let twice = [Piece::Open.encode(3), Piece::Open.encode(3)].concat();
    let room = [Piece::Open.encode(3), Piece::Room(1).encode(3)].concat();
    for (bytes, ends) in [(vec![9; 64], true), (twice, true), (room, true), (far, false)] {
        let mut relay = Relay::beside(&guest);
        relay.input.as_mut().unwrap().write_all(&bytes).unwrap();
        if !ends {
            relay.send(0, Piece::Ping, b"");
            assert_eq!(relay.receive().unwrap().1, Piece::Pong);
            continue;
        }
        assert!(!relay.child.wait().unwrap().success(), "{bytes:?}");
    }
    let mut relay = Relay::beside(&guest);
    let most = u32::try_from(MAX_CHANNELS).unwrap();
    (0..=most).for_each(|channel| relay.send(channel, Piece::Open, b""));
    assert_eq!(relay.receive().unwrap(), (most, Piece::Close, Vec::new()));
}
