//! Whatever a guest sends, a call ends, and without a panic.

use super::script::*;
use hostel_guest_protocol::{Answer, Ask, FromGuest, GuestEvent, Reply, StreamId, frame::encode_message};
use hostel_sandbox::file::Compression;
use hostel_sandbox::process::{AttachOptions, Output};
use hostel_sandbox::{Files, Processes};
use proptest::prelude::*;
use std::time::Duration;
use tokio::join;

const MUCH: Duration = Duration::from_secs(10);

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![Just(StreamId::Stdin), Just(StreamId::Stdout), Just(StreamId::Stderr)];
    let data = (stream, 0u64..9, proptest::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(stream, offset, data)| data_frame(stream, offset, &data));
    let event = prop_oneof![
        (0u64..9).prop_map(GuestEvent::StdinAccepted),
        (-1i32..300).prop_map(|code| GuestEvent::Exited(exit(code))),
        (0u32..4, 0u64..9, 0u64..9)
            .prop_map(|(stream, from, to)| GuestEvent::Gap(hostel_guest_protocol::Gap { stream, from, to })),
    ]
    .prop_map(|event| encode_message(&FromGuest { event: Some(event) }));
    let answer = prop_oneof![
        Just(Answer::Process(process("p"))),
        Just(Answer::File(file("/f"))),
        any::<u64>().prop_map(Answer::Imported),
    ]
    .prop_map(|answer| encode_message(&Reply { answer: Some(answer) }));
    let noise = proptest::collection::vec(any::<u8>(), 0..100);
    let message = proptest::collection::vec(any::<u8>(), 0..100).prop_map(|payload| {
        [&hostel_guest_protocol::Frame::Message { length: payload.len() }.encode()[..], &payload].concat()
    });
    prop_oneof![4 => data, 3 => event, 2 => answer, 1 => noise, 1 => message]
}

fn said() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(frames(), 0..8).prop_map(|frames| frames.concat())
}

/// One call of some kind, to its end.
async fn call(guest: &crate::Guest, which: u8) {
    match which {
        0 => drop(guest.processes().await),
        1 => drop(guest.stat("/f", true).await),
        2 => drop(guest.list("/", None, 10).await),
        3 => drop(guest.export("/", Compression::Zstd).await),
        4 => drop(guest.read("/f", 0, None).await),
        5 => {
            if let Ok(mut events) = guest.watch("/", true).await {
                while events.recv().await.is_some() {}
            }
        }
        _ => {
            let Ok(mut attachment) = guest.attach(&id("p"), AttachOptions::everything()).await else {
                return;
            };
            let (mut ends, mut next) = (0, [None, None]);
            while let Some(output) = attachment.output.recv().await {
                assert_eq!(ends, 0);
                match output {
                    Ok(Output::Data { stream, offset, data }) => {
                        let next = &mut next[stream as usize];
                        assert!(next.is_none_or(|next| next == offset));
                        *next = Some(offset + data.len() as u64);
                    }
                    Ok(Output::Gap { stream, missing }) => next[stream as usize] = Some(missing.end),
                    Ok(Output::Exited(_)) | Err(_) => ends += 1,
                    Ok(_) => {}
                }
            }
            assert_eq!(ends, 1, "an end, and only one");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn every_call_ends(said in said(), which in 0u8..9, honest: bool, cut in 1usize..60) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (guest, script) = guest();
            let serve = async {
                let mut peer = script.accept().await;
                let ask: Ask = peer.ask().await;
                if honest {
                    match ask {
                        Ask::Attach(_) => peer.reply(Answer::Process(process("p"))).await,
                        Ask::WatchFiles(_) => {
                            peer.reply(Answer::Done(hostel_guest_protocol::Empty {})).await;
                        }
                        _ => {}
                    }
                }
                for piece in said.chunks(cut) {
                    peer.raw(piece).await;
                    tokio::task::yield_now().await;
                }
            };
            let (done, ()) = join!(tokio::time::timeout(MUCH, call(&guest, which)), serve);
            assert!(done.is_ok(), "it hangs");
            tokio::time::timeout(MUCH, guest.close()).await.unwrap();
        });
    }
}

#[tokio::test]
async fn endless_talk_ends_with_the_listener() {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply(Answer::Process(process("p"))).await;
        let mut offset = 0;
        // Until the host closes.
        loop {
            let frame = data_frame(StreamId::Stdout, offset, &[0; 100]);
            offset += 100;
            if tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &frame).await.is_err() {
                return;
            }
        }
    };
    let p = id("p");
    let listen = async {
        let mut attachment = guest.attach(&p, AttachOptions::everything()).await.unwrap();
        for _ in 0..1000 {
            attachment.output.recv().await.unwrap().unwrap();
        }
        drop(attachment);
        guest.close().await;
    };
    tokio::time::timeout(MUCH, async { join!(serve, listen) }).await.unwrap();
}
