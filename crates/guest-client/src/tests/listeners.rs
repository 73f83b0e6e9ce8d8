//! Listening sockets: what a guest hands over is looked at.

use super::script::*;
use hostel_guest_protocol::{Answer, Ask, Empty, FailureKind, ListenAt, ListenUnix};
use hostel_sandbox::{Error, ListenAddress, Listeners};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use tokio::join;

const TCP: ListenAddress = ListenAddress::Tcp { port: 8080 };

fn unix() -> ListenAddress {
    ListenAddress::Unix { path: "/run/x.sock".to_owned(), mode: 0o666 }
}

/// Has the guest hand that over.
async fn listen(address: &ListenAddress, descriptor: Option<OwnedFd>) -> Result<OwnedFd, Error> {
    let (guest, script) = guest();
    let serve = async {
        let mut peer = script.accept().await;
        let Ask::Listen(ask) = peer.ask().await else { panic!("another question") };
        match ask.at {
            Some(ListenAt::Unix(ListenUnix { path, mode })) => {
                assert_eq!(ListenAddress::Unix { path, mode }, unix());
            }
            other => assert_eq!(other, Some(ListenAt::Tcp(8080))),
        }
        match &descriptor {
            Some(fd) => peer.reply_with(Answer::Done(Empty {}), &[fd.as_fd()]).await,
            None => peer.reply(Answer::Done(Empty {})).await,
        }
    };
    let (result, ()) = join!(guest.listen(address), serve);
    guest.close().await;
    result
}

#[tokio::test]
async fn listeners_are_taken_and_do_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("x")).unwrap();
    let taken = UnixListener::from(listen(&unix(), Some(listener.into())).await.unwrap());
    assert_eq!(taken.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = TcpListener::from(listen(&TCP, Some(listener.into())).await.unwrap());
    assert_eq!(taken.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn what_does_not_listen_as_asked_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let wrong: [OwnedFd; 5] = [
        TcpListener::bind("127.0.0.1:0").unwrap().into(),
        UnixDatagram::bind(directory.path().join("d")).unwrap().into(),
        stream.into(),
        pipe,
        std::fs::File::open("/dev/null").unwrap().into(),
    ];
    for fd in wrong {
        assert!(is_protocol(&listen(&unix(), Some(fd)).await.unwrap_err()));
    }
    let unix_listener = UnixListener::bind(directory.path().join("u")).unwrap();
    assert!(is_protocol(&listen(&TCP, Some(unix_listener.into())).await.unwrap_err()));
    assert!(is_protocol(&listen(&TCP, None).await.unwrap_err()));
}

#[tokio::test]
async fn refusals_say_what_is_in_the_way() {
    for (kind, reason, expected) in [
        (FailureKind::Exists, "", "ALREADY_EXISTS"),
        (FailureKind::Limit, "listeners", "LIMIT_REACHED"),
        (FailureKind::Invalid, "path", "INVALID_ARGUMENT"),
    ] {
        let (guest, script) = guest();
        let serve = async {
            let mut peer = script.accept().await;
            peer.ask().await;
            peer.reply(failed(kind, reason)).await;
        };
        let address = unix();
        let (result, ()) = join!(guest.listen(&address), serve);
        let error = result.unwrap_err();
        assert_eq!(error.reason(), expected);
        if let Error::LimitReached { what, .. } = error {
            assert_eq!(what, "listeners");
        }
    }
}
