//! Contents of files, and watching them.

use super::script::*;
use bytes::Bytes;
use hostel_guest_protocol::{
    Answer, Ask, Empty, FailureKind, FileEvent, FileEventKind, GuestEvent, StreamId,
};
use hostel_sandbox::file::WriteOptions;
use hostel_sandbox::{Error, Files};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use tokio::join;
use tokio::sync::mpsc;

/// Has the guest answer `OpenRead` with that descriptor, and reads.
async fn read(descriptor: Option<OwnedFd>, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        assert!(matches!(peer.ask().await, Ask::OpenRead(_)));
        match &descriptor {
            Some(fd) => peer.reply_with(Answer::File(file("/f")), &[fd.as_fd()]).await,
            None => peer.reply(Answer::File(file("/f"))).await,
        }
    };
    let (result, ()) = join!(guest.read("/f", offset, length), serve);
    let (_, mut content) = result?;
    let mut bytes = Vec::new();
    while let Some(chunk) = content.recv().await {
        let chunk = chunk?;
        assert!(!chunk.is_empty() && chunk.len() <= 256 << 10);
        bytes.extend_from_slice(&chunk);
    }
    guest.close().await;
    Ok(bytes)
}

#[tokio::test]
async fn parts_of_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let content: Vec<u8> = (0..700_001u32).map(|i| i.to_le_bytes()[1]).collect();
    std::fs::write(&path, &content).unwrap();
    let open = || Some(OwnedFd::from(File::open(&path).unwrap()));
    assert_eq!(read(open(), 0, None).await.unwrap(), content);
    assert_eq!(read(open(), 5, Some(300_000)).await.unwrap(), content[5..300_005]);
    assert_eq!(read(open(), 700_000, Some(9)).await.unwrap(), content[700_000..]);
    let largest = u64::MAX >> 1;
    for offset in [700_001, largest - 1, largest, largest + 1, u64::MAX] {
        for length in [None, Some(1), Some(u64::MAX)] {
            assert!(read(open(), offset, length).await.unwrap().is_empty(), "{offset} {length:?}");
        }
    }
    assert_eq!(read(open(), 1, Some(u64::MAX)).await.unwrap(), content[1..]);
    assert!(read(open(), 0, Some(0)).await.unwrap().is_empty());
}

#[tokio::test]
async fn descriptors_that_are_no_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let device = File::open("/dev/zero").unwrap();
    let folder = File::open(directory.path()).unwrap();
    for fd in [pipe, socket.into(), device.into(), folder.into()] {
        let error = read(Some(fd), 0, None).await.unwrap_err();
        assert_eq!(error.reason(), "INVALID_ARGUMENT");
    }
    assert!(is_protocol(&read(None, 0, None).await.unwrap_err()));
    // One that was not opened for reading says so when read.
    let write_only = File::create(directory.path().join("w")).unwrap();
    assert_eq!(read(Some(write_only.into()), 0, None).await.unwrap_err().reason(), "INTERNAL");
}

#[tokio::test]
async fn a_reader_that_leaves_stops_the_reading() {
    let (guest, script) = guest();
    let directory = tempfile::tempdir().unwrap();
    let large =
        File::options().create_new(true).read(true).write(true).open(directory.path().join("f")).unwrap();
    large.set_len(1 << 40).unwrap();
    let serve = async {
        let mut peer = script.accept().await;
        peer.ask().await;
        peer.reply_with(Answer::File(file("/f")), &[large.as_fd()]).await;
        peer
    };
    let (result, _peer) = join!(guest.read("/f", 0, None), serve);
    let (_, mut content) = result.unwrap();
    assert!(content.recv().await.unwrap().is_ok());
    drop(content);
    guest.tasks().close();
    guest.tasks().wait().await;
}

/// Writes pieces to what the guest opened, and lets it answer to `CommitWrite`.
async fn write(
    opened: &File,
    offset: Option<u64>,
    pieces: Vec<Result<Bytes, Error>>,
    answer: Option<Answer>,
) -> Result<(), Error> {
    let (guest, script) = guest();
    let (sender, content) = mpsc::channel(2);
    let serve = async {
        let mut peer = script.accept().await;
        let Ask::OpenWrite(ask) = peer.ask().await else { panic!() };
        assert_eq!(ask.in_place, offset.is_some());
        peer.reply_with(Answer::File(file("/f")), &[opened.as_fd()]).await;
        match answer {
            Some(answer) => {
                assert!(matches!(peer.ask().await, Ask::CommitWrite(_)));
                peer.reply(answer).await;
            }
            None => peer.closed().await,
        }
    };
    let send = async move {
        for piece in pieces {
            let _ = sender.send(piece).await;
        }
    };
    let options = WriteOptions { offset, ..WriteOptions::default() };
    let write = async {
        let result = guest.write("/f", options, content).await;
        guest.close().await;
        result
    };
    join!(write, serve, send).0.map(drop)
}

#[tokio::test]
async fn content_is_written_and_committed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let opened = File::create(&path).unwrap();
    let pieces =
        |text: &[&'static str]| text.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
    let good = || Some(Answer::File(file("/f")));
    write(&opened, None, pieces(&["some ", "", "text"]), good()).await.unwrap();
    write(&opened, Some(5), pieces(&["TEXT and more"]), good()).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"some TEXT and more");
    write(&opened, None, Vec::new(), good()).await.unwrap();
    let exists = Some(failed(FailureKind::Exists, ""));
    assert_eq!(write(&opened, None, Vec::new(), exists).await.unwrap_err().reason(), "ALREADY_EXISTS");
    let lie = Some(Answer::Done(Empty {}));
    assert!(is_protocol(&write(&opened, None, Vec::new(), lie).await.unwrap_err()));
}

#[tokio::test]
async fn nothing_is_committed_where_the_content_breaks_off() {
    let directory = tempfile::tempdir().unwrap();
    let opened = File::create(directory.path().join("f")).unwrap();
    let pieces = vec![Ok(Bytes::from_static(b"half")), Err(Error::invalid("content", "changed my mind"))];
    let error = write(&opened, None, pieces, None).await.unwrap_err();
    assert_eq!(error.to_string(), "content: changed my mind");
    let pieces = vec![Ok(Bytes::from_static(b"x"))];
    let error = write(&opened, Some(u64::MAX), pieces, None).await.unwrap_err();
    assert_eq!(error.reason(), "INVALID_ARGUMENT");
}

#[tokio::test]
async fn nothing_is_written_to_what_is_no_plain_file() {
    let pieces = || vec![Ok(Bytes::from_static(b"x"))];
    for path in ["/dev/null", "/proc/self/comm", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        // Whether we may open it ourselves is of no interest.
        let Ok(opened) = File::options().write(true).open(path).or_else(|_| File::open(path)) else {
            continue;
        };
        let error = write(&opened, None, pieces(), None).await.unwrap_err();
        assert_eq!(error.reason(), "INVALID_ARGUMENT", "{path}");
    }
    let full = std::path::Path::new("/dev/shm");
    if full.is_dir() {
        let opened = tempfile::tempfile_in(full).unwrap();
        write(&opened, None, pieces(), Some(Answer::File(file("/f")))).await.unwrap();
    }
}

#[tokio::test]
async fn changes_of_files_arrive_until_nobody_listens() {
    let (guest, script) = guest();
    let change = |kind: FileEventKind, path: &str| {
        GuestEvent::FileEvent(FileEvent { kind: kind.into(), path: path.to_owned() })
    };
    let serve = async {
        let mut peer = script.accept().await;
        assert!(matches!(peer.ask().await, Ask::WatchFiles(_)));
        peer.reply(Answer::Done(Empty {})).await;
        peer.tell(change(FileEventKind::Created, "/a")).await;
        peer.tell(change(FileEventKind::Overflow, "what?")).await;
        peer
    };
    let (events, mut peer) = join!(guest.watch("/", true), serve);
    let mut events = events.unwrap();
    assert_eq!(events.recv().await.unwrap().unwrap().path, "/a");
    assert_eq!(events.recv().await.unwrap().unwrap().path, "");
    drop(events);
    peer.closed().await;

    let lies = [
        hostel_guest_protocol::frame::encode_message(&hostel_guest_protocol::FromGuest {
            event: Some(change(FileEventKind::Created, "relative")),
        }),
        data_frame(StreamId::Stdout, 0, b"x"),
    ];
    for lie in lies {
        let serve = async {
            let mut peer = script.accept().await;
            peer.ask().await;
            peer.reply(Answer::Done(Empty {})).await;
            peer.raw(&lie).await;
            peer
        };
        let (events, _peer) = join!(guest.watch("/", true), serve);
        let mut events = events.unwrap();
        assert!(is_protocol(&events.recv().await.unwrap().unwrap_err()));
        assert!(events.recv().await.is_none());
    }
}
