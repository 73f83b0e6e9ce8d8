//! From a request to the head of a response: which upstream, how often, and when to give up.
//!
//! An upstream is asked again only where it refused the connection, or where it said itself (503 or 529 with
//! `retry-after`) that it did nothing and when to come again. The next upstream is asked where one cannot be
//! reached, breaks off, is too slow, or answers 5xx. Nothing has gone back to the client until this returns.

use crate::scrub::Pattern;
use crate::shared::Core;
use crate::store::End;
use crate::ticket::{Denied, Ticket};
use crate::upstream::{Line, Outgoing, SendFailure, is_failure};
use hostel_sandbox::SandboxId;
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use reqwest::Response;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Before a refused connection is tried once more.
const RECONNECT: Duration = Duration::from_millis(50);

/// Who asks.
pub(crate) struct Sender<'a> {
    pub sandbox: &'a SandboxId,
    pub session: &'a str,
    pub arrived: Instant,
    /// Whether the request is one to a model, which is counted.
    pub counted: bool,
}

/// A response, with all that must be held until its end.
pub(crate) struct Answer {
    pub response: Response,
    /// The key it was asked with, which must not go back.
    pub pattern: Option<Pattern>,
    pub idle: Duration,
    pub ticket: Option<Ticket>,
    pub place: Option<OwnedSemaphorePermit>,
}

/// Why there is no response to pass on.
#[derive(Debug)]
pub(crate) enum Failure {
    Denied(Denied),
    /// Every upstream has as many requests as it may.
    Busy,
    /// No upstream could be reached, or the last one broke off.
    Unreachable,
    /// The last upstream was too slow.
    Slow,
    /// The response is compressed, though it must not be: its usage could not be read.
    Unreadable,
    /// None is configured.
    NoUpstream,
}

/// Asks the upstreams in their order.
pub(crate) async fn forward(
    core: &Arc<Core>,
    order: &Outgoing,
    sender: &Sender<'_>,
) -> Result<Answer, Failure> {
    let mut ticket: Option<Ticket> = None;
    let mut failure = Failure::NoUpstream;
    let mut spare: Option<(Response, &Line, Option<OwnedSemaphorePermit>)> = None;
    for (index, line) in core.lines.iter().enumerate() {
        if index > 0 {
            core.tally.failed_over(&core.lines[index - 1].name);
        }
        let Some(place) = line.place().await else {
            failure = Failure::Busy;
            continue;
        };
        // With the place in hand, so that nobody waits between the decision and the model.
        if ticket.is_none() && sender.counted {
            let taken = Ticket::take(core, sender.sandbox, sender.session, sender.arrived).await;
            ticket = Some(taken.map_err(Failure::Denied)?);
        }
        let is_last = index + 1 == core.lines.len();
        let asked = owing(&mut ticket, order, attempt(core, line, order, is_last)).await;
        match asked.map_err(Failure::Denied)? {
            Ok(response) => {
                let failed = is_failure(response.status());
                // Who goes on to the next one does not keep others from this one.
                spare = Some((response, line, Some(place).filter(|_| !failed)));
                if !failed {
                    break;
                }
            }
            Err(SendFailure::Timeout | SendFailure::ConnectTimeout) => failure = Failure::Slow,
            Err(SendFailure::Connect | SendFailure::Broken) => failure = Failure::Unreachable,
        }
    }
    if let Some(taken) = ticket {
        ticket = Some(taken.written().await.map_err(Failure::Denied)?);
    }
    let Some((response, line, place)) = spare else {
        if let Some(mut ticket) = ticket {
            ticket.end(End::Unanswered, false);
        }
        return Err(failure);
    };
    if let Some(ticket) = &mut ticket {
        ticket.answered(&line.name, response.status().as_u16());
    }
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding.as_bytes() != b"identity") {
        tracing::warn!(upstream = %line.name, "the upstream compressed a response that must be read");
        if let Some(mut ticket) = ticket {
            ticket.end(End::UpstreamCut, false);
        }
        return Err(Failure::Unreadable);
    }
    Ok(Answer { response, pattern: line.pattern.clone(), idle: line.timeouts.idle, ticket, place })
}

/// Makes an attempt with the prompt owed meanwhile, and afterwards where it may have been used. The ticket's row is
/// sent once the request is out.
async fn owing(
    ticket: &mut Option<Ticket>,
    order: &Outgoing,
    attempt: impl Future<Output = Attempt>,
) -> Result<Result<Response, SendFailure>, Denied> {
    let Some(ticket) = ticket else { return Ok(attempt.await.answer) };
    ticket.owes(&order.body);
    let mut attempt = pin!(attempt);
    let outcome = match poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => {
            // Another task writes to the upstream's connection: it has its turn here.
            tokio::task::yield_now().await;
            ticket.begin().await?;
            attempt.await
        }
    };
    let used = match &outcome.answer {
        Ok(response) => response.status().is_success(),
        Err(failure) => failure.was_sent(),
    };
    if !used && !outcome.lost {
        ticket.unused();
    }
    Ok(outcome.answer)
}

/// What came of asking one upstream.
struct Attempt {
    answer: Result<Response, SendFailure>,
    /// The request went out a second time and has no answer, so that it may have been used.
    lost: bool,
}

/// Asks one upstream, at most twice.
async fn attempt(core: &Core, line: &Line, order: &Outgoing, is_last: bool) -> Attempt {
    let first = line.send(order).await;
    let wait = match &first {
        Err(SendFailure::Connect) => Some(RECONNECT),
        Ok(response) if is_last && matches!(response.status().as_u16(), 503 | 529) => {
            retry_after(response).filter(|wait| *wait <= core.limits.retry_wait)
        }
        _ => None,
    };
    let Some(wait) = wait else { return Attempt { answer: first, lost: false } };
    tokio::time::sleep(wait).await;
    core.tally.retried(&line.name);
    match (line.send(order).await, first) {
        // The upstream's own words are worth more than our word that it is gone.
        (Err(failure), Ok(response)) => Attempt { answer: Ok(response), lost: failure.was_sent() },
        (second, _) => Attempt { answer: second, lost: false },
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
