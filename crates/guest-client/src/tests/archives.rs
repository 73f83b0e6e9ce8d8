//! Archives through pipes.

use super::script::*;
use bytes::Bytes;
use hostel_guest_protocol::{Answer, Ask, Empty, FailureKind};
use hostel_sandbox::file::Compression;
use hostel_sandbox::{Error, Files};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use tokio::join;
use tokio::sync::mpsc;

/// Imports pieces; the guest reads at most `most` bytes and then answers. → the result, and what the guest read.
async fn import(
    compression: Compression,
    pieces: Vec<Result<Bytes, Error>>,
    most: u64,
    answer: Option<Answer>,
) -> (Result<u64, Error>, Vec<u8>) {
    let (guest, script) = guest();
    let (sender, archive) = mpsc::channel(2);
    let serve = async {
        let mut peer = script.accept().await;
        assert!(matches!(peer.ask().await, Ask::Import(_)));
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        peer.reply_with(Answer::Done(Empty {}), &[writing.as_fd()]).await;
        drop(writing);
        let unpacked = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            File::from(reading).take(most).read_to_end(&mut bytes).unwrap();
            bytes
        });
        let unpacked = unpacked.await.unwrap();
        match answer {
            Some(answer) => peer.reply(answer).await,
            None => peer.closed().await,
        }
        unpacked
    };
    let send = async move {
        for piece in pieces {
            let _ = sender.send(piece).await;
        }
    };
    let (result, unpacked, ()) = join!(guest.import("/d", compression, archive), serve, send);
    guest.close().await;
    (result, unpacked)
}

fn pieces(bytes: &[u8]) -> Vec<Result<Bytes, Error>> {
    bytes.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
}

#[tokio::test]
async fn archives_go_in() {
    let tar: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[(i % 3) as usize]).collect();
    let good = || Some(Answer::Imported(12));
    let (result, unpacked) = import(Compression::None, pieces(&tar), u64::MAX, good()).await;
    assert_eq!(result.unwrap(), 12);
    assert!(unpacked == tar);
    let packed = zstd::encode_all(&tar[..], 1).unwrap();
    let (result, unpacked) = import(Compression::Zstd, pieces(&packed), u64::MAX, good()).await;
    assert_eq!(result.unwrap(), 12);
    assert!(unpacked == tar);
    let (result, _) = import(Compression::Zstd, pieces(&packed[..packed.len() / 2]), u64::MAX, None).await;
    assert_eq!(result.unwrap_err().reason(), "INVALID_ARGUMENT");
    let (result, _) = import(Compression::Zstd, pieces(&tar), u64::MAX, None).await;
    assert_eq!(result.unwrap_err().reason(), "INVALID_ARGUMENT");
    let broken = vec![Ok(Bytes::from_static(b"tar")), Err(Error::invalid("archive", "lost"))];
    let (result, _) = import(Compression::None, broken, u64::MAX, None).await;
    assert_eq!(result.unwrap_err().to_string(), "archive: lost");
}

#[tokio::test]
async fn a_guest_that_cannot_unpack_says_why() {
    let (result, _) = import(
        Compression::None,
        pieces(&vec![0; 5_000_000]),
        100_000,
        Some(failed(FailureKind::Limit, "disk")),
    )
    .await;
    assert!(matches!(result, Err(Error::LimitReached { what: "disk", .. })));
    let (result, _) = import(Compression::None, pieces(b"x"), u64::MAX, Some(Answer::Done(Empty {}))).await;
    assert!(is_protocol(&result.unwrap_err()));
}

/// Exports; the guest writes `tar` and answers. → what arrived, and the error at the end.
async fn export(compression: Compression, tar: Vec<u8>, answer: Answer) -> (Vec<u8>, Option<Error>) {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        assert!(matches!(peer.ask().await, Ask::Export(_)));
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        peer.reply_with(Answer::Done(Empty {}), &[reading.as_fd()]).await;
        drop(reading);
        let writer = tokio::task::spawn_blocking(move || File::from(writing).write_all(&tar));
        writer.await.unwrap().unwrap();
        peer.reply(answer).await;
        peer
    };
    let take = async {
        let mut archive = guest.export("/d", compression).await.unwrap();
        let (mut bytes, mut error) = (Vec::new(), None);
        while let Some(piece) = archive.recv().await {
            assert!(error.is_none(), "nothing comes after an error");
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(failure) => error = Some(failure),
            }
        }
        (bytes, error)
    };
    let (taken, _peer) = join!(take, serve);
    guest.close().await;
    taken
}

#[tokio::test]
async fn archives_come_out() {
    let tar: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[(i % 3) as usize]).collect();
    let (bytes, error) = export(Compression::None, tar.clone(), Answer::Done(Empty {})).await;
    assert!(bytes == tar && error.is_none());
    let (bytes, error) = export(Compression::Zstd, tar.clone(), Answer::Done(Empty {})).await;
    assert!(error.is_none());
    assert!(zstd::decode_all(&bytes[..]).unwrap() == tar);
    // A part is never mistaken for the whole.
    for compression in [Compression::None, Compression::Zstd] {
        let (bytes, error) = export(compression, tar.clone(), failed(FailureKind::Denied, "")).await;
        assert_eq!(error.unwrap().reason(), "PERMISSION_DENIED");
        assert!(compression == Compression::None || zstd::decode_all(&bytes[..]).is_err());
    }
    let (_, error) = export(Compression::None, Vec::new(), Answer::Imported(1)).await;
    assert!(is_protocol(&error.unwrap()));
}

#[tokio::test]
async fn pipes_that_are_none_are_refused() {
    let (guest, script) = guest();
    let directory = tempfile::tempdir().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let others: [OwnedFd; 3] = [
        File::open("/dev/zero").unwrap().into(),
        File::open(directory.path()).unwrap().into(),
        socket.into(),
    ];
    for other in others {
        let serve = async {
            let mut peer = script.accept().await;
            peer.ask().await;
            peer.reply_with(Answer::Done(Empty {}), &[other.as_fd()]).await;
            peer.closed().await;
        };
        let (result, ()) = join!(guest.export("/d", Compression::None), serve);
        assert!(is_protocol(&result.unwrap_err()));
    }
}

#[tokio::test]
async fn a_guest_that_makes_its_pipe_blocking_stops_nobody() {
    let (guest, script) = guest();
    let (reading, _writing) = rustix::pipe::pipe().unwrap();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply_with(Answer::Done(Empty {}), &[reading.as_fd()]).await;
        peer
    };
    let (archive, _peer) = join!(guest.export("/d", Compression::None), serve);
    let archive = archive.unwrap();
    rustix::io::ioctl_fionbio(&reading, false).unwrap();
    // This runtime has one thread, so a blocked read would end here.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    drop(archive);
    tokio::time::timeout(std::time::Duration::from_secs(5), guest.close()).await.unwrap();
}
