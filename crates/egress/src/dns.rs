//! DNS for a sandbox, over UDP and TCP (RFC 1035 §4.2). Nothing is forwarded: questions are answered from what may
//! be reached.

use crate::enforcer::Enforcer;
use answer::Transport;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::OwnedSemaphorePermit;

mod answer;

/// The largest question that is read.
const MAX_QUESTION: usize = 1232;
/// How long a connection may be without a question.
const IDLE: Duration = Duration::from_secs(10);
/// Most questions on one connection.
const MAX_ON_ONE: usize = 256;

pub(crate) async fn serve_udp(enforcer: Arc<Enforcer>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let stop = enforcer.stop.clone();
    let all = async {
        let mut buffer = [0; MAX_QUESTION];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, from)) => one(&enforcer, &socket, &buffer[..length], from),
                Err(error) => {
                    // An answer that found nobody comes back as an error here.
                    tracing::debug!(sandbox = %enforcer.sandbox, %error, "no question could be received");
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = all => {}
    }
}

fn one(enforcer: &Arc<Enforcer>, socket: &Arc<UdpSocket>, question: &[u8], from: SocketAddr) {
    // One too many gets no answer, as from any busy server; the program asks again.
    let Ok(permit) = Arc::clone(&enforcer.questions).try_acquire_owned() else { return };
    let (enforcer, socket, question) = (Arc::clone(enforcer), Arc::clone(socket), question.to_vec());
    let tasks = enforcer.tasks.clone();
    tasks.spawn(async move {
        let stop = enforcer.stop.clone();
        let answered = async {
            if let Some(answer) = answer::answer(&enforcer, &question, Transport::Udp).await {
                let _ = socket.send_to(&answer, from).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = answered => {}
        }
        drop(permit);
    });
}

pub(crate) async fn serve_tcp(
    enforcer: Arc<Enforcer>,
    mut client: TcpStream,
    undecided: OwnedSemaphorePermit,
) {
    // It has said what it wants once it has asked something.
    let mut undecided = Some(undecided);
    for _ in 0..MAX_ON_ONE {
        let exchange = async {
            let length = usize::from(client.read_u16().await.ok()?);
            if length > MAX_QUESTION {
                return None;
            }
            let mut question = vec![0; length];
            client.read_exact(&mut question).await.ok()?;
            drop(undecided.take());
            let permit = enforcer.questions.acquire().await.ok()?;
            let answer = answer::answer(&enforcer, &question, Transport::Tcp).await?;
            drop(permit);
            let length = u16::try_from(answer.len()).ok()?;
            client.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await.ok()
        };
        if !matches!(tokio::time::timeout(IDLE, exchange).await, Ok(Some(()))) {
            return;
        }
    }
}
