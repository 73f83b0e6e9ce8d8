//! Deadlines of calls: the client's `grpc-timeout`, or a default for calls that neither stream nor wait.
//!
//! Tonic ends a call at its `grpc-timeout` too, but as CANCELLED. This layer is inside and its timer is made first,
//! so that clients see DEADLINE_EXCEEDED. As there, the time until the response's headers counts.

use hostel_sandbox::Error as DomainError;
use http::{Request, Response};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::{Layer, Service};

/// Calls that take as long as their client sends, waits or listens.
const UNBOUNDED: &[&str] = &[
    "AttachProcess",
    "CloseStdin",
    "DeletePool",
    "DeleteSandbox",
    "DrainPool",
    "ExecProcess",
    "ImportFiles",
    "ImportTemplate",
    "ServerReflectionInfo",
    "SnapshotSandbox",
    "WaitProcess",
    "WriteFile",
    "WriteStdin",
];

/// Adds deadlines to a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadlineLayer {
    pub default: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, default: self.default }
    }
}

/// A service whose calls have deadlines.
#[derive(Debug, Clone)]
pub(crate) struct Deadline<S> {
    inner: S,
    default: Duration,
}

impl<S, In, Out> Service<Request<In>> for Deadline<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
    Out: Default + 'static,
    S::Error: 'static,
{
    type Response = Response<Out>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let asked = request.headers().get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        let default = (!UNBOUNDED.contains(&method)).then_some(self.default);
        let Some(limit) = asked.or(default) else {
            return Box::pin(self.inner.call(request));
        };
        let what = format!("the call of {method}");
        request.extensions_mut().insert(Until(Instant::now() + limit.saturating_sub(margin(limit))));
        let timed = tokio::time::timeout(limit, self.inner.call(request));
        Box::pin(async move {
            match timed.await {
                Ok(answered) => answered,
                Err(_) => {
                    Ok(crate::status::domain_status(&DomainError::DeadlineExceeded { what }).into_http())
                }
            }
        })
    }
}

/// Until when a call may wait for something, so that its answer comes before its deadline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until(Instant);

/// Until when this call may wait; not at all where it has no deadline.
pub(crate) fn until<T>(request: &tonic::Request<T>) -> Instant {
    request.extensions().get::<Until>().map_or_else(Instant::now, |until| until.0)
}

/// What is left for the answer: a tenth, and at most half a second.
fn margin(limit: Duration) -> Duration {
    (limit / 10).min(Duration::from_millis(500))
}

/// Reads a `grpc-timeout`: at most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "123456789S", "-1S", "1s", "1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,12}") { let _ = parse(&text); }
    }
}
