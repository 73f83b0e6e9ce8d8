//! Contents of files and archives as frames.

use crate::client::{Client, Guest};
use hostel_guest_protocol::{
    Answer, Ask, Empty, FailureKind, File, Frame, OpenWrite, Path, ReadFile, Reply, Request, StreamId,
    WriteFile, frame,
};
use prost::Message;
use std::io::Read as _;

fn file(answer: Result<Answer, hostel_guest_protocol::Failure>) -> File {
    match answer.unwrap() {
        Answer::File(file) => file,
        other => panic!("{other:?}"),
    }
}

fn path(path: &str) -> Path {
    Path { path: path.to_owned() }
}

fn opening(path: &str) -> Ask {
    let open = OpenWrite { path: path.to_owned(), create_parents: true, ..OpenWrite::default() };
    Ask::WriteFile(WriteFile { open: Some(open), offset: 0 })
}

/// Sends content in pieces, and its end.
fn pour(client: &mut Client, content: &[u8], piece: usize) {
    let mut offset = 0;
    for part in content.chunks(piece) {
        client.input(offset, part);
        offset += part.len() as u64;
    }
    client.input(offset, b"");
}

/// Takes content up to the last word on it.
fn drink(client: &mut Client) -> (Vec<u8>, Answer) {
    let mut content = Vec::new();
    loop {
        match client.frame().expect("an end") {
            (Frame::Data { stream: StreamId::Stdout, offset, .. }, data) => {
                assert_eq!(offset, content.len() as u64);
                content.extend(data);
            }
            (Frame::Message { .. }, message) => {
                return (content, Reply::decode(&message[..]).unwrap().answer.unwrap());
            }
            (other, _) => panic!("{other:?}"),
        }
    }
}

fn read(client: &mut Client, path: &str, offset: u64, length: Option<u64>) -> Vec<u8> {
    file(client.ask(Ask::ReadFile(ReadFile { path: path.to_owned(), offset, length })));
    let (content, answer) = drink(client);
    assert_eq!(answer, Answer::Done(Empty {}));
    content
}

#[test]
fn a_file_is_written_as_a_whole_and_ranges_of_it_are_read() {
    let guest = Guest::start();
    let (mut client, target) = (guest.connect(), guest.path("a/file"));
    let content: Vec<u8> = (0..3_000_001u32).map(|i| i.to_le_bytes()[(i % 3) as usize]).collect();
    for piece in [1_000_001, 200_000] {
        file(client.ask(opening(&target)));
        pour(&mut client, &content, piece.min(256 << 10));
        assert!(!std::path::Path::new(&target).exists(), "not before it is complete");
        // At once: what follows the content waits for its turn.
        client.request(Ask::CommitWrite(Empty {}));
        assert_eq!(client.reply(), Ok(Answer::Done(Empty {})));
        assert_eq!(file(client.reply()).size, content.len() as u64);
        assert!(read(&mut client, &target, 0, None) == content);
        std::fs::remove_file(&target).unwrap();
    }
    std::fs::write(&target, &content).unwrap();
    assert!(read(&mut client, &target, 1000, Some(700_000)) == content[1000..701_000]);
    assert_eq!(read(&mut client, &target, 3_000_000, Some(9)), content[3_000_000..]);
    assert_eq!(read(&mut client, &target, u64::MAX, Some(9)), b"");
    assert_eq!(read(&mut client, &target, 0, Some(0)), b"");
    let missing = ReadFile { path: guest.path("none"), ..ReadFile::default() };
    assert_eq!(client.ask(Ask::ReadFile(missing)).unwrap_err().kind(), FailureKind::NotFound);
}

#[test]
fn archives_come_and_go() {
    let guest = Guest::start();
    let mut client = guest.connect();
    std::fs::create_dir(guest.path("from")).unwrap();
    std::fs::write(guest.path("from/file"), vec![7; 1_000_000]).unwrap();
    let packed = client.ask(Ask::ExportFrames(path(&guest.path("from")))).unwrap();
    assert_eq!(packed, Answer::Done(Empty {}));
    let (archive, answer) = drink(&mut client);
    assert_eq!(answer, Answer::Done(Empty {}));
    assert_eq!(client.ask(Ask::ImportFrames(path(&guest.path("to")))), Ok(Answer::Done(Empty {})));
    pour(&mut client, &archive, 100_000);
    assert_eq!(client.reply(), Ok(Answer::Imported(2)));
    assert_eq!(std::fs::read(guest.path("to/from/file")).unwrap(), vec![7; 1_000_000]);
    assert_eq!(client.ask(Ask::Ping(Empty {})), Ok(Answer::Done(Empty {})));
}

#[test]
fn content_is_never_taken_for_a_request() {
    let guest = Guest::start();
    let evidence = guest.path("evidence");
    let remove = Ask::MakeDirectory(hostel_guest_protocol::MakeDirectory {
        path: evidence.clone(),
        ..hostel_guest_protocol::MakeDirectory::default()
    });
    let request = frame::encode_message(&Request { ask: Some(remove) });
    let mut client = guest.connect();
    client.ask(Ask::ImportFrames(path(&guest.path("to")))).unwrap();
    // The archive is refused at its first block, and the rest is full of requests.
    let content: Vec<u8> = std::iter::repeat_n(request, 4000).flatten().collect();
    let sender = client.socket.try_clone().unwrap();
    let pouring = std::thread::spawn(move || {
        let mut offset = 0;
        for part in content.chunks(10_000) {
            let header = Frame::Data { stream: StreamId::Stdin, offset, length: part.len() }.encode();
            offset += part.len() as u64;
            if std::io::Write::write_all(&mut &sender, &[&header[..], part].concat()).is_err() {
                return;
            }
        }
    });
    assert_eq!(client.reply().unwrap_err().kind(), FailureKind::Invalid);
    drop(client);
    pouring.join().unwrap();
    // One connection after another is served: this one comes after what was sent above.
    assert_eq!(guest.connect().ask(Ask::Ping(Empty {})), Ok(Answer::Done(Empty {})));
    assert!(!std::path::Path::new(&evidence).exists());
}

/// Reads to the end of a connection; one that was closed with something unread is reset.
fn is_closed(client: &mut Client) -> bool {
    let mut rest = Vec::new();
    match client.socket.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn content_that_breaks_the_rules_ends_the_connection_and_leaves_nothing() {
    let guest = Guest::start();
    // What the guest itself puts there is there once it answers.
    drop(guest.connect());
    let names = || std::fs::read_dir(guest.path("")).unwrap().count();
    let before = names();
    for (offset, data) in [(1, &b"hole"[..]), (u64::MAX - 3, b"end")] {
        let mut client = guest.connect();
        file(client.ask(opening(&guest.path("target"))));
        client.input(offset, data);
        assert!(client.reply().is_err());
        assert!(is_closed(&mut client));
    }
    // Data before the answer would be in the way of the worker.
    let mut client = guest.connect();
    client.request_with_input(opening(&guest.path("target")), b"early");
    assert!(is_closed(&mut client));
    // A host that hangs up in the middle.
    let mut client = guest.connect();
    file(client.ask(opening(&guest.path("target"))));
    client.input(0, b"half");
    drop(client);
    crate::client::eventually("nothing is left", || names() == before);
}
