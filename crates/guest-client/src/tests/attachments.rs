//! Attachments.

use super::script::*;
use crate::Guest;
use bytes::Bytes;
use hostel_guest_protocol::{
    Ack, Answer, Ask, Empty, Failure, FailureKind, FileEvent, Gap, GuestEvent, HostEvent, MAX_DATA, Process,
    STDIN_WINDOW, StreamId, VERSION, Welcome,
};
use hostel_sandbox::process::{AttachOptions, Attachment, Input, Output, OutputStream};
use hostel_sandbox::{Error, Processes};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::join;

const MUCH: Duration = Duration::from_secs(10);

/// Executes something on a scripted guest. The first output is taken already.
async fn exec(guest: &Guest, script: &Script, options: AttachOptions) -> (Attachment, Peer) {
    let serve = async {
        let mut peer = script.accept().await;
        let Ask::Exec(exec) = peer.ask().await else { panic!() };
        peer.reply(Answer::Process(process(&exec.spec.unwrap().id))).await;
        peer
    };
    let (attachment, peer) = join!(guest.exec(spec(&["sh"]), options), serve);
    let mut attachment = attachment.unwrap();
    assert!(matches!(attachment.output.recv().await, Some(Ok(Output::Opened(_)))));
    (attachment, peer)
}

/// The rest of the output: bytes of both streams, and how it ended.
async fn drain(attachment: &mut Attachment) -> ([u64; 2], Option<Result<Output, Error>>) {
    let mut bytes = [0, 0];
    let mut end = None;
    while let Some(output) = tokio::time::timeout(MUCH, attachment.output.recv()).await.unwrap() {
        assert!(end.is_none(), "nothing comes after the end");
        match output {
            Ok(Output::Data { stream, data, .. }) => bytes[stream as usize] += data.len() as u64,
            Ok(Output::Exited(_)) | Err(_) => end = Some(output),
            Ok(_) => {}
        }
    }
    (bytes, end)
}

#[tokio::test]
async fn output_arrives_and_is_acknowledged() {
    let (guest, script) = guest();
    let (mut attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    peer.data(StreamId::Stdout, 0, b"hello").await;
    peer.data(StreamId::Stderr, 0, b"oops").await;
    let mut events = [peer.event().await.unwrap(), peer.event().await.unwrap()];
    events.sort_by_key(|event| format!("{event:?}"));
    let ack = |stream, offset| HostEvent::Ack(Ack { stream, offset });
    assert_eq!(events, [ack(1, 5), ack(2, 4)]);
    peer.tell(GuestEvent::Gap(Gap { stream: 1, from: 5, to: 100 })).await;
    peer.data(StreamId::Stdout, 100, b"!").await;
    peer.tell(GuestEvent::Exited(exit(7))).await;
    let (bytes, end) = drain(&mut attachment).await;
    assert_eq!(bytes, [6, 4]);
    let Some(Ok(Output::Exited(status))) = end else { panic!("{end:?}") };
    assert_eq!(status.code, Some(7));
    let mut last = Vec::new();
    while let Some(event) = peer.event().await {
        last.push(event);
    }
    assert_eq!(last, [ack(1, 101), HostEvent::Detach(Empty {})]);
}

#[tokio::test]
async fn a_connection_serves_again_after_the_end() {
    let (guest, script) = guest();
    let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
    let serve = async {
        let mut peer = script.accept_silently().await;
        peer.message().await.unwrap();
        peer.send(&Welcome { version: VERSION, returns: true, ..Welcome::default() }).await;
        for stdin in [false, false, true] {
            let Ask::Exec(exec) = peer.ask().await else { panic!() };
            peer.reply(Answer::Process(process(&exec.spec.unwrap().id))).await;
            peer.data(StreamId::Stdout, 0, b"out").await;
            peer.tell(GuestEvent::Exited(exit(0))).await;
            let mut last = peer.event().await.unwrap();
            while let HostEvent::Ack(_) = last {
                last = peer.event().await.unwrap();
            }
            // Where there was input the guest may have something to say about it after the end. Else it comes before
            // the next request.
            assert_eq!(last == HostEvent::Detach(Empty {}), stdin);
            assert_eq!(last == HostEvent::Return(Empty {}), !stdin);
        }
        peer.closed().await;
    };
    let ask = async {
        for stdin in [false, false, true] {
            let options = AttachOptions { stdin, ..options.clone() };
            let mut attachment = guest.exec(spec(&["true"]), options).await.unwrap();
            assert_eq!(drain(&mut attachment).await.0, [3, 0]);
            while !stdin && !guest.tasks().is_empty() {
                tokio::task::yield_now().await;
            }
        }
    };
    join!(ask, serve);
}

#[tokio::test]
async fn readers_that_acknowledge_do_it_themselves() {
    let (guest, script) = guest();
    let options = AttachOptions { acks: true, ..AttachOptions::everything() };
    let (mut attachment, mut peer) = exec(&guest, &script, options).await;
    peer.data(StreamId::Stdout, 0, &vec![1; 200_000]).await;
    let mut had = 0;
    while had < 200_000 {
        if let Some(Ok(Output::Data { data, .. })) = attachment.output.recv().await {
            had += data.len();
        }
    }
    attachment.input.send(Input::Ack { stream: OutputStream::Stdout, offset: 123 }).await.unwrap();
    assert_eq!(peer.event().await, Some(HostEvent::Ack(Ack { stream: 1, offset: 123 })));
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_the_guest_back() {
    let (guest, script) = guest();
    let (mut attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    let total = 200 * MAX_DATA as u64;
    let flood = async {
        for index in 0..200 {
            peer.data(StreamId::Stdout, index * MAX_DATA as u64, &vec![0; MAX_DATA]).await;
        }
        peer.tell(GuestEvent::Exited(exit(0))).await;
        // Acknowledgements come at the latest after 128 KiB and one piece more.
        let mut last = 0;
        while let Some(event) = peer.event().await {
            if let HostEvent::Ack(ack) = event {
                assert!(ack.offset > last);
                last = ack.offset;
            }
        }
        assert_eq!(last, total);
    };
    tokio::pin!(flood);
    let stopped = tokio::time::timeout(Duration::from_millis(200), &mut flood).await;
    assert!(stopped.is_err(), "the guest has to wait");
    let ((bytes, end), ()) = join!(drain(&mut attachment), flood);
    assert_eq!(bytes, [total, 0]);
    assert!(matches!(end, Some(Ok(Output::Exited(_)))));
}

#[tokio::test]
async fn dropping_an_attachment_detaches_after_its_input() {
    let (guest, script) = guest();
    let (attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    attachment.input.send(Input::Stdin { offset: 0, data: Bytes::from_static(b"in") }).await.unwrap();
    attachment.input.send(Input::CloseStdin).await.unwrap();
    drop(attachment);
    assert_eq!(peer.next().await, Some(Sent::Stdin(0, b"in".to_vec())));
    assert_eq!(peer.event().await, Some(HostEvent::CloseStdin(Empty {})));
    assert_eq!(peer.event().await, Some(HostEvent::Detach(Empty {})));
    peer.closed().await;
    guest.close().await;
}

#[tokio::test]
async fn dropping_only_the_input_keeps_the_output() {
    let (guest, script) = guest();
    let (attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    let Attachment { input, output } = attachment;
    drop(input);
    tokio::time::sleep(Duration::from_millis(20)).await;
    peer.data(StreamId::Stdout, 0, b"still").await;
    peer.tell(GuestEvent::Exited(exit(0))).await;
    let (input, _) = tokio::sync::mpsc::channel(1);
    let (bytes, end) = drain(&mut Attachment { input, output }).await;
    assert_eq!(bytes, [5, 0]);
    assert!(matches!(end, Some(Ok(Output::Exited(_)))));
}

#[tokio::test]
async fn signals_and_acknowledgements_overtake_input_that_nobody_takes() {
    let (guest, script) = guest();
    let options = AttachOptions { acks: true, ..AttachOptions::everything() };
    let (mut attachment, mut peer) = exec(&guest, &script, options).await;
    let data = Bytes::from(vec![5; 1 << 20]);
    attachment.input.send(Input::Stdin { offset: 0, data }).await.unwrap();
    let mut stdin = 0;
    while stdin < STDIN_WINDOW {
        let Some(Sent::Stdin(offset, data)) = peer.next().await else { panic!() };
        assert_eq!(offset, stdin);
        stdin += data.len() as u64;
    }
    let quiet = tokio::time::timeout(Duration::from_millis(50), peer.next()).await;
    assert!(quiet.is_err(), "no more without acceptance");
    peer.tell(GuestEvent::StdinAccepted(100_000)).await;
    let Some(Sent::Stdin(offset, data)) = peer.next().await else { panic!() };
    assert_eq!((offset, data.len()), (stdin, 100_000));
    let accepted = attachment.output.recv().await.unwrap().unwrap();
    assert_eq!(accepted, Output::StdinAccepted { offset: 100_000 });
    attachment.input.send(Input::Signal(2)).await.unwrap_or_default();
    assert_eq!(peer.event().await, Some(HostEvent::Signal(2)));
}

#[tokio::test]
async fn a_lost_guest_is_told() {
    let (guest, script) = guest();
    let (mut attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    peer.data(StreamId::Stdout, 0, b"last words").await;
    drop(peer);
    let (bytes, end) = drain(&mut attachment).await;
    assert_eq!(bytes, [10, 0]);
    assert!(is_gone(&end.unwrap().unwrap_err()));
}

#[tokio::test]
async fn what_was_said_before_the_end_is_read_although_input_cannot_be_written() {
    let (guest, script) = guest();
    let (mut attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    peer.tell(GuestEvent::Exited(exit(1))).await;
    drop(peer);
    let data = Bytes::from_static(b"too late");
    let _ = attachment.input.send(Input::Stdin { offset: 0, data }).await;
    assert!(matches!(drain(&mut attachment).await.1, Some(Ok(Output::Exited(_)))));
}

#[tokio::test]
async fn closing_tells_every_reader_even_a_slow_one() {
    let (guest, script) = guest();
    let (mut attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    for index in 0..50 {
        peer.data(StreamId::Stdout, index * 1000, &[0; 1000]).await;
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    tokio::time::timeout(MUCH, guest.close()).await.unwrap();
    let (_, end) = drain(&mut attachment).await;
    assert!(matches!(end, Some(Err(Error::Unavailable { what: "daemon", .. }))), "{end:?}");
}

#[tokio::test]
async fn an_attachment_from_now_on_begins_anywhere() {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        let Ask::Attach(ask) = peer.ask().await else { panic!() };
        assert_eq!((ask.stdout_from, ask.stderr_from), (None, Some(3)));
        peer.reply(Answer::Process(Process { stdout_end: 50, stderr_end: 9, ..process("p") })).await;
        peer.data(StreamId::Stdout, 77, b"x").await;
        peer.data(StreamId::Stderr, 3, b"y").await;
        peer.tell(GuestEvent::Exited(exit(0))).await;
        peer
    };
    let options = AttachOptions { stderr_from: Some(3), ..AttachOptions::default() };
    let p = id("p");
    let (attachment, _peer) = join!(guest.attach(&p, options), serve);
    let (bytes, end) = drain(&mut attachment.unwrap()).await;
    assert_eq!(bytes, [1, 1]);
    assert!(matches!(end, Some(Ok(Output::Exited(_)))));
}

/// Says something that must not be said, and expects to be told so, once, as the end.
async fn refuses(say: impl AsyncFnOnce(&mut Peer)) -> Error {
    let (guest, script) = guest();
    let (mut attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    say(&mut peer).await;
    let (_, end) = drain(&mut attachment).await;
    let error = end.unwrap().unwrap_err();
    drop(peer);
    guest.close().await;
    error
}

#[tokio::test]
async fn broken_rules_end_an_attachment() {
    let event = |event: GuestEvent| async move |peer: &mut Peer| peer.tell(event).await;
    let said = [
        event(GuestEvent::Gap(Gap { stream: 1, from: 3, to: 9 })),
        event(GuestEvent::Gap(Gap { stream: 1, from: 0, to: 0 })),
        event(GuestEvent::Gap(Gap { stream: 0, from: 0, to: 1 })),
        event(GuestEvent::Exited(hostel_guest_protocol::Exit { reason: 5, ..exit(0) })),
        event(GuestEvent::FileEvent(FileEvent::default())),
    ];
    for say in said {
        let error = refuses(say).await;
        assert!(is_protocol(&error), "{error}");
    }
    let frames = [
        [data_frame(StreamId::Stdout, 0, b"ab"), data_frame(StreamId::Stdout, 3, b"c")].concat(),
        [data_frame(StreamId::Stdout, 0, b"ab"), data_frame(StreamId::Stdout, 1, b"c")].concat(),
        data_frame(StreamId::Stdout, 1, b"c"),
        data_frame(StreamId::Stdin, 0, b"c"),
        data_frame(StreamId::Stdout, 0, b""),
        vec![0; 16],
    ];
    for frame in frames {
        let error = refuses(async |peer: &mut Peer| peer.raw(&frame).await).await;
        assert!(is_protocol(&error), "{error}");
    }
    let error = refuses(async |peer: &mut Peer| {
        let exited = hostel_guest_protocol::FromGuest { event: Some(GuestEvent::Exited(exit(0))) };
        let exited = hostel_guest_protocol::frame::encode_message(&exited);
        peer.raw(&[exited, data_frame(StreamId::Stdout, 0, b"more")].concat()).await;
    });
    assert!(is_protocol(&error.await));
    let error = refuses(async |peer: &mut Peer| {
        peer.tell(GuestEvent::StdinAccepted(5)).await;
        peer.tell(GuestEvent::StdinAccepted(4)).await;
    });
    assert!(is_protocol(&error.await));
}

#[tokio::test]
async fn a_descriptor_among_output_is_not_kept() {
    let (guest, script) = guest();
    let (mut attachment, mut peer) = exec(&guest, &script, AttachOptions::everything()).await;
    let (reader, writer) = std::io::pipe().unwrap();
    send_with(&peer.stream, &data_frame(StreamId::Stdout, 0, b"x"), &[writer.as_fd()]);
    drop(writer);
    peer.tell(GuestEvent::Exited(exit(0))).await;
    let (bytes, end) = drain(&mut attachment).await;
    assert_eq!(bytes, [1, 0]);
    assert!(matches!(end, Some(Ok(Output::Exited(_)))), "{end:?}");
    // At its end, because nobody has the other one.
    assert_eq!(std::io::Read::read(&mut &reader, &mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn input_that_was_taken_or_refused_ends_an_attachment() {
    let error = refuses(async |peer: &mut Peer| peer.tell(GuestEvent::StdinTaken(Empty {})).await).await;
    assert_eq!(error.reason(), "STDIN_TAKEN");
    let failure =
        Failure { kind: FailureKind::Invalid.into(), reason: "stdin".to_owned(), ..Failure::default() };
    let error = refuses(async |peer: &mut Peer| peer.tell(GuestEvent::Failed(failure)).await).await;
    assert_eq!(error.reason(), "INVALID_ARGUMENT");
}

#[tokio::test]
async fn an_answer_that_is_no_process_ends_before_it_begins() {
    let (guest, script) = guest();
    for answer in [Answer::Done(Empty {}), Answer::Process(process("other"))] {
        let serve = async {
            let mut peer = script.accept().await;
            peer.ask().await;
            peer.reply(answer).await;
            peer.closed().await;
        };
        let p = id("p");
        let (result, ()) = join!(guest.attach(&p, AttachOptions::default()), serve);
        assert!(is_protocol(&result.unwrap_err()));
    }
}

/// Run with `--release --ignored`: how fast output goes through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    let (guest, script) = guest();
    let (mut attachment, peer) = exec(&guest, &script, AttachOptions::everything()).await;
    let total: u64 = 16 << 30;
    let stream = peer.stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, 1 << 20).unwrap();
    let mut reading = stream.try_clone().unwrap();
    let acks = std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
    let writer = std::thread::spawn(move || {
        let data = vec![1; MAX_DATA];
        for index in 0..total / MAX_DATA as u64 {
            let frame = hostel_guest_protocol::Frame::Data {
                stream: StreamId::Stdout,
                offset: index * MAX_DATA as u64,
                length: MAX_DATA,
            };
            let header = frame.encode();
            let mut slices = [std::io::IoSlice::new(&header), std::io::IoSlice::new(&data)];
            let mut slices = &mut slices[..];
            while !slices.is_empty() {
                let sent = std::io::Write::write_vectored(&mut &stream, slices).unwrap();
                std::io::IoSlice::advance_slices(&mut slices, sent);
            }
        }
        stream
    });
    let (start, mut had) = (std::time::Instant::now(), 0);
    while had < total {
        if let Some(Ok(Output::Data { data, .. })) = attachment.output.recv().await {
            had += data.len() as u64;
        }
    }
    let rate = had as f64 / start.elapsed().as_secs_f64() / 1e9;
    println!("{rate:.2} GB/s");
    drop((writer.join(), attachment));
    guest.close().await;
    drop(acks.join());
}

#[tokio::test]
async fn too_many_at_a_time_are_refused_and_questions_still_answered() {
    let (guest, script) = guest();
    let mut held = Vec::new();
    for _ in 0..224 {
        held.push(exec(&guest, &script, AttachOptions::everything()).await);
    }
    for refused in [
        guest.exec(spec(&["sh"]), AttachOptions::everything()).await.unwrap_err(),
        guest.wait(&id("p")).await.unwrap_err(),
    ] {
        assert!(matches!(refused, Error::LimitReached { what: "attachments", .. }), "{refused}");
    }
    let answer = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply(Answer::Done(Empty {})).await;
    };
    let (pinged, ()) = join!(guest.ping(MUCH), answer);
    pinged.unwrap();
    // Its place is another's once it is gone.
    let (attachment, mut peer) = held.pop().unwrap();
    drop(attachment);
    while peer.next().await.is_some() {}
    while guest.tasks().len() > held.len() {
        tokio::task::yield_now().await;
    }
    held.push(exec(&guest, &script, AttachOptions::everything()).await);
}
