//! How a refusal is told to a program.

use crate::decision::{Reason, Refused};
use crate::sniff::read_more;
use crate::socks::Answer;
use rustix::net::{Shutdown, shutdown};
use std::time::Duration;
use tokio::net::TcpStream;

/// A fatal TLS alert, `access_denied` (RFC 8446 §6.2), so that programs say more than "connection reset".
pub(crate) const TLS_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// How long a client may still send after it was refused.
const PARTING: Duration = Duration::from_secs(1);
/// How much it may still send.
const PARTING_BYTES: usize = 64 * 1024;

/// An HTTP response that says why.
pub(crate) fn http(refused: &Refused) -> Vec<u8> {
    let status = match refused.reason {
        Reason::BadRequest => "400 Bad Request",
        Reason::Timeout => "408 Request Timeout",
        Reason::Limit | Reason::AuditFailed => "503 Service Unavailable",
        Reason::ResolveFailed | Reason::ConnectFailed => "502 Bad Gateway",
        Reason::NameMismatch => "421 Misdirected Request",
        _ => "403 Forbidden",
    };
    let message: String = refused.message.chars().filter(|letter| !letter.is_control()).collect();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nx-hostel-denied: {}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{message}\n",
        refused.reason,
        message.len() + 1,
    )
    .into_bytes()
}

/// A SOCKS answer that says about why.
pub(crate) fn socks(refused: &Refused) -> Answer {
    match refused.reason {
        Reason::ResolveFailed => Answer::HostUnreachable,
        Reason::ConnectFailed => Answer::Refused,
        _ => Answer::NotAllowed,
    }
}

/// Ends a connection so that what was said arrives: closing with bytes unread would reset it and lose them.
pub(crate) async fn part(client: &TcpStream) {
    if shutdown(client, Shutdown::Write).is_err() {
        return;
    }
    let mut unread = Vec::new();
    let read = async {
        while matches!(read_more(client, &mut unread, PARTING_BYTES).await, Ok(count) if count > 0) {}
    };
    // A client that goes on sending is reset.
    let _ = tokio::time::timeout(PARTING, read).await;
}
