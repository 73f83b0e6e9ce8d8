//! Connections of programs that know nothing of us, redirected from any address.

use crate::destination::Destination;
use crate::enforcer::Enforcer;
use crate::passage::{Asked, Passage};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

pub(crate) async fn serve(enforcer: Arc<Enforcer>, client: TcpStream, undecided: OwnedSemaphorePermit) {
    let origin = match enforcer.shared.settings.origin.of(&client) {
        Ok(origin) => origin,
        Err(error) => {
            tracing::debug!(sandbox = %enforcer.sandbox, %error, "a connection without an original destination");
            return;
        }
    };
    let deadline = Instant::now() + enforcer.shared.settings.timeouts.sniff;
    let to = Destination::Address(origin.ip().to_canonical());
    let port = origin.port();
    Passage { enforcer, client, buffer: Vec::new(), to, port, asked: Asked::Transparent, deadline }
        .run(undecided)
        .await;
}
