//! Engines that are reached by TCP.

use crate::engine::{CLIENT_DEADLINE, QUESTION};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hostel_sandbox::{Error, Result};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// How long a connection may be silent before the kernel asks whether the other end is there, and how often it asks
/// then (tcp(7)): an engine whose host lost its power never hangs up.
const SILENCE: Duration = Duration::from_secs(30);
const QUESTIONS: u32 = 3;

/// A client of the engine at `host`, a name or address with a port.
///
/// # Errors
/// `Unavailable`.
pub(crate) fn connect(host: &str) -> Result<Docker> {
    client(connector(), format!("http://{host}"))
}

/// Makes connections.
pub(crate) fn connector() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(QUESTION));
    tcp.set_keepalive(Some(SILENCE));
    tcp.set_keepalive_interval(Some(QUESTION));
    tcp.set_keepalive_retries(Some(QUESTIONS));
    tcp
}

/// A client over connections of a kind.
///
/// # Errors
/// `Unavailable`.
pub(crate) fn client<C>(connector: C, address: String) -> Result<Docker>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let transport = move |request: BollardRequest| {
        let answer = client.request(request);
        async move { Ok(answer.await?) }
    };
    Docker::connect_with_custom_transport(transport, Some(address), CLIENT_DEADLINE, API_DEFAULT_VERSION)
        .map_err(|error| Error::Unavailable { what: "engine", detail: error.to_string() })
}
