//! The proxy door: HTTP with absolute URIs (RFC 9112 §3.2.2), CONNECT (RFC 9110 §9.3.6) and SOCKS 5, told apart by
//! the first byte.

use crate::decision::{Kind, Protocol, Reason, Refused};
use crate::destination::Destination;
use crate::enforcer::{About, Enforcer};
use crate::head::{self, Head};
use crate::hello::Read;
use crate::passage::{Asked, Passage, refusal};
use crate::pump::write_all;
use crate::sniff::read_more;
use crate::socks;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

pub(crate) async fn serve(enforcer: Arc<Enforcer>, client: TcpStream, undecided: OwnedSemaphorePermit) {
    let deadline = Instant::now() + enforcer.shared.settings.timeouts.sniff;
    let mut buffer = Vec::new();
    let read =
        Reading { client: &client, limit: enforcer.shared.settings.limits.head_bytes, buffer: &mut buffer };
    let asked = match tokio::time::timeout_at(deadline, read.whole()).await {
        Ok(Ok(Some(asked))) => Ok(asked),
        Ok(Ok(None)) => return,
        Ok(Err(why)) => Err(why),
        Err(_) => Err(Wrong::http(Reason::Timeout, "the request did not come in time")),
    };
    match asked {
        Ok(Wanted { to, port, asked }) => {
            Passage { enforcer, client, buffer, to, port, asked, deadline }.run(undecided).await;
        }
        Err(Wrong { refused, answer }) => {
            drop(undecided);
            enforcer.refuse(Kind::Connect, Protocol::Tcp, About::default(), &refused).await;
            let _ = tokio::time::timeout_at(deadline, write_all(&client, &answer)).await;
            refusal::part(&client).await;
        }
    }
}

/// What a client wants of the proxy.
struct Wanted {
    to: Destination,
    port: u16,
    asked: Asked,
}

/// What is wrong with what a client said, and what it is told.
struct Wrong {
    refused: Refused,
    answer: Vec<u8>,
}

impl Wrong {
    fn http(reason: Reason, why: &str) -> Self {
        let refused = Refused::new(reason, why);
        Self { answer: refusal::http(&refused), refused }
    }

    fn bad(why: &str) -> Self {
        Self::http(Reason::BadRequest, why)
    }

    fn socks(answer: &[u8], why: &str) -> Self {
        Self { refused: Refused::new(Reason::BadRequest, why), answer: answer.to_vec() }
    }
}

struct Reading<'a> {
    client: &'a TcpStream,
    limit: usize,
    buffer: &'a mut Vec<u8>,
}

impl Reading<'_> {
    /// Reads what the client wants. `None` where it is gone.
    async fn whole(mut self) -> Result<Option<Wanted>, Wrong> {
        loop {
            match self.buffer.first() {
                Some(5) => return self.socks().await,
                Some(_) => match head::read(self.buffer) {
                    Read::Done(head) => return wanted(&head, self.buffer).map(Some),
                    Read::Bad(why) => return Err(Wrong::bad(why)),
                    Read::More => {}
                },
                None => {}
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn socks(&mut self) -> Result<Option<Wanted>, Wrong> {
        let length = loop {
            match socks::greeting(self.buffer) {
                Read::Done((length, true)) => break length,
                Read::Done((_, false)) => {
                    return Err(Wrong::socks(&socks::NO_METHOD, "SOCKS with authentication only"));
                }
                Read::Bad(why) => return Err(Wrong::socks(&[], why)),
                Read::More if !self.more().await? => return Ok(None),
                Read::More => {}
            }
        };
        self.buffer.drain(..length);
        if write_all(self.client, &socks::CHOOSE_NONE).await.is_err() {
            return Ok(None);
        }
        loop {
            match socks::request(self.buffer) {
                Read::Done(request) if request.connect => {
                    self.buffer.drain(..request.length);
                    let socks::Request { destination: to, port, .. } = request;
                    return Ok(Some(Wanted { to, port, asked: Asked::Socks }));
                }
                Read::Done(_) => {
                    let answer = socks::Answer::CommandNotSupported.bytes();
                    return Err(Wrong::socks(&answer, "a SOCKS command other than CONNECT"));
                }
                Read::Bad(why) => return Err(Wrong::socks(&socks::Answer::NotAllowed.bytes(), why)),
                Read::More if !self.more().await? => return Ok(None),
                Read::More => {}
            }
        }
    }

    /// False where the client is gone.
    async fn more(&mut self) -> Result<bool, Wrong> {
        if self.buffer.len() >= self.limit {
            return Err(Wrong::bad("a head that is too large"));
        }
        Ok(read_more(self.client, self.buffer, self.limit).await.is_ok_and(|count| count > 0))
    }
}

/// Reads the request's target. Of CONNECT, only what follows its head stays in the buffer.
fn wanted(head: &Head, buffer: &mut Vec<u8>) -> Result<Wanted, Wrong> {
    if head.method == "CONNECT" {
        if head.body {
            return Err(Wrong::bad("CONNECT with a body"));
        }
        let Some((to, Some(port))) = Destination::parse_with_port(&head.target) else {
            return Err(Wrong::bad("CONNECT needs a host and a port"));
        };
        buffer.drain(..head.length);
        return Ok(Wanted { to, port, asked: Asked::Connect });
    }
    let Some((scheme, rest)) = head.target.split_once("://") else {
        return Err(Wrong::bad(
            "this is a proxy: it takes CONNECT, SOCKS 5, and requests with an absolute http URI",
        ));
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Wrong::bad("only http URIs go to a proxy as they are; use CONNECT for others"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((to, port)) = Destination::parse_with_port(authority) else {
        return Err(Wrong::bad("an absolute URI without a host"));
    };
    Ok(Wanted { to, port: port.unwrap_or(80), asked: Asked::Absolute })
}
