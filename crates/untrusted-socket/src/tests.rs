//! Who closes what a hostile peer sent, and how long that takes.

use crate::UntrustedSocket;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// A socket that, where the last descriptor of it is closed, holds whoever does that for 100 s.
fn lingering() -> (TcpListener, TcpStream) {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(deaf.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &socket, &[0; 1 << 16]).is_ok() {}
    sockopt::set_socket_linger(&socket, Some(Duration::from_secs(100))).unwrap();
    (deaf, socket)
}

/// Sends bytes, and a descriptor that nobody else has then.
fn send_with(peer: &UnixStream, bytes: &[u8], descriptor: impl AsFd) {
    let descriptors = [descriptor.as_fd()];
    let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut storage);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(peer, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

// A thread that is held ends no test in time.
#[tokio::test]
async fn neither_what_is_read_nor_what_is_not_holds_who_closes_it() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let mut socket = UntrustedSocket::new(socket);
    // Between two messages with descriptors a reader stops.
    let deaf: Vec<TcpListener> = [b"given", b"taken", b"left.", b"still"]
        .into_iter()
        .map(|bytes| {
            let (deaf, descriptor) = lingering();
            send_with(&peer, bytes, descriptor);
            deaf
        })
        .collect();
    let mut bytes = [0; 64];
    let received = socket.receive(&mut bytes).unwrap();
    assert_eq!((&bytes[..received.bytes], received.descriptors.len()), (&b"given"[..], 1));
    assert!(!received.truncated);
    drop(received);
    assert_eq!(socket.read(&mut bytes).await.unwrap(), 5);
    socket.write_all(b"answer").await.unwrap();
    drop(socket);
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer", "and a clean end, as nothing was left unread");
    drop(deaf);
}

#[tokio::test]
async fn what_was_expected_is_taken() {
    let (peer, socket) = UnixStream::pair().unwrap();
    let socket = UntrustedSocket::new(socket);
    for expected in [true, false] {
        send_with(&peer, b"x", std::io::stdin());
        socket.readable().await.unwrap();
        let mut received = socket.receive(&mut [0; 8]).unwrap();
        let descriptor = received.descriptors.pop().unwrap();
        assert_eq!(descriptor.take_if(|_| expected).is_some(), expected);
    }
}
