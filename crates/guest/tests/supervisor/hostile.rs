//! Hosts that do not keep to the protocol.

use crate::client::{Guest, TOKEN, everything, pause, spec};
use hostel_guest_protocol::{Answer, Ask, Empty, Frame, Hello, ProcessSpec, StreamId, VERSION, frame};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Whether the guest closes the connection rather than answering.
fn is_closed(socket: &mut UnixStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            Ok(_) => {}
        }
    }
}

fn hello(token: &[u8]) -> Vec<u8> {
    frame::encode_message(&Hello { version: VERSION, token: token.to_vec() })
}

#[test]
fn strangers_are_shown_out() {
    let guest = Guest::start();
    for first in [
        hello(&[0; 32]),
        hello(&[]),
        hello(&[7; 31]),
        Frame::Data { stream: StreamId::Stdin, offset: 0, length: 0 }.encode().to_vec(),
        vec![0xff; 64],
        [&Frame::Message { length: 3 }.encode()[..], b"\xff\xff\xff"].concat(),
    ] {
        let mut socket = guest.raw();
        socket.write_all(&first).unwrap();
        assert!(is_closed(&mut socket), "{first:?}");
    }
    guest.connect();
}

#[test]
fn a_broken_frame_closes_that_connection_only() {
    let guest = Guest::start();
    let mut other = guest.connect();
    let mut attached = guest.connect();
    attached.exec(ProcessSpec { stdin: true, ..spec("p", &["cat"]) }, everything()).unwrap();
    let output = Frame::Data { stream: StreamId::Stdout, offset: 0, length: 1 }.encode();
    attached.socket.write_all(&[&output[..], b"x"].concat()).unwrap();
    assert!(is_closed(&mut attached.socket));
    for broken in [vec![9; 16], Frame::Message { length: (4 << 20) + 1 }.encode().to_vec()] {
        let mut client = guest.connect();
        client.socket.write_all(&broken).unwrap();
        assert!(is_closed(&mut client.socket));
    }
    other.ask(Ask::Ping(Empty {})).unwrap();
    assert!(other.get("p").unwrap().exit.is_none());
}

#[test]
fn requests_in_one_piece_or_byte_by_byte_are_answered_in_order() {
    let guest = Guest::start();
    let mut client = guest.connect();
    client.start(spec("w", &["/bin/sh", "-c", "sleep 0.1"])).unwrap();
    let wait = hostel_guest_protocol::ProcessRef { id: "w".into() };
    client.request(Ask::Wait(wait));
    client.request(Ask::Ping(Empty {}));
    client.request(Ask::GetActivity(Empty {}));
    assert!(matches!(client.reply().unwrap(), Answer::Process(process) if process.exit.is_some()));
    assert!(matches!(client.reply().unwrap(), Answer::Done(_)));
    assert!(matches!(client.reply().unwrap(), Answer::Activity(_)));
    let ping = frame::encode_message(&hostel_guest_protocol::Request { ask: Some(Ask::Ping(Empty {})) });
    for byte in ping {
        client.socket.write_all(&[byte]).unwrap();
        pause(Duration::from_millis(1));
    }
    client.reply().unwrap();
    // Nothing asked is an answer too.
    client.send(&hostel_guest_protocol::Request { ask: None });
    client.reply().unwrap_err();
}

#[test]
fn many_requests_without_reading_answers_do_no_harm() {
    let guest = Guest::start();
    let mut rude = guest.connect();
    rude.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let list = hostel_guest_protocol::List { path: "/usr/bin".into(), after: Vec::new(), limit: 1000 };
    let request = frame::encode_message(&hostel_guest_protocol::Request { ask: Some(Ask::List(list)) });
    for _ in 0..100_000 {
        if rude.socket.write_all(&request).is_err() {
            break;
        }
    }
    guest.connect().ask(Ask::Ping(Empty {})).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 32 << 10, "{kilobytes} kB");
}

#[test]
fn too_many_connections_are_closed_and_the_others_live() {
    let guest = Guest::start();
    let mut first = guest.connect();
    let mut sockets: Vec<UnixStream> = (0..300).map(|_| guest.raw()).collect();
    let mut closed = 0;
    for socket in sockets.iter_mut().rev().take(40) {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        closed += usize::from(is_closed(socket));
    }
    assert_eq!(closed, 40);
    first.ask(Ask::Ping(Empty {})).unwrap();
    drop(sockets);
    pause(Duration::from_millis(100));
    guest.connect();
}

#[test]
fn garbage_of_every_kind_is_survived() {
    use proptest::prelude::*;
    let guest = Guest::start();
    let witness = std::cell::RefCell::new(guest.connect());
    let frame = (0u8..4, 0u8..4, proptest::collection::vec(any::<u8>(), 0..300), any::<u64>());
    let strategy = (any::<bool>(), proptest::collection::vec(frame, 1..8));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let run = runner.run(&strategy, |(attached, frames)| {
        let mut client = guest.connect();
        if attached {
            client
                .exec(
                    ProcessSpec { stdin: true, kill_on_disconnect: true, ..spec("", &["cat"]) },
                    everything(),
                )
                .unwrap();
        }
        for (kind, stream, payload, offset) in frames {
            let mut bytes = vec![kind, stream, 0, 0];
            bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.extend(if kind == 2 { offset.to_le_bytes() } else { [0; 8] });
            bytes.extend(payload);
            if client.socket.write_all(&bytes).is_err() {
                break;
            }
        }
        drop(client);
        let answer = witness.borrow_mut().ask(Ask::Ping(Empty {}));
        prop_assert!(answer.is_ok());
        Ok(())
    });
    run.unwrap();
}

#[test]
fn what_is_asked_and_given_up_while_it_stands_still_is_not_done() {
    let guest = Guest::start();
    let mut other = guest.connect();
    let mut idle = guest.connect();
    let signal = |number: i32| {
        // SAFETY: plain kill(2) on our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(guest.child.id().cast_signed(), number) }, 0);
    };
    signal(libc::SIGSTOP);
    idle.request(Ask::Start(spec("late", &["true"])));
    drop(idle);
    let mut stranger = guest.raw();
    let request = hostel_guest_protocol::Request { ask: Some(Ask::Start(spec("later", &["true"]))) };
    stranger.write_all(&[hello(&TOKEN), frame::encode_message(&request)].concat()).unwrap();
    drop(stranger);
    signal(libc::SIGCONT);
    // Both were heard of before this one, which came last.
    guest.connect().ask(Ask::Ping(Empty {})).unwrap();
    for id in ["late", "later"] {
        assert_eq!(other.get(id).unwrap_err().kind, hostel_guest_protocol::FailureKind::NotFound as i32);
    }
}
