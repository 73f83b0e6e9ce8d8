//! A way by TCP to an engine that listens on a socket of this host.

use hostel_sandbox::{Error, Result};
use std::sync::OnceLock;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// What it does ends with the runtime: whoever tests holds connections to the end.
static TASKS: OnceLock<TaskTracker> = OnceLock::new();

/// Opens it on a free port of the loopback interface, for as long as this process runs. → the engine's address there.
///
/// # Errors
/// Where no port can be had.
pub(crate) async fn open(host: String) -> Result<String> {
    let Some(socket) = host.strip_prefix("unix://").map(str::to_owned) else { return Ok(host) };
    let failed = |error: std::io::Error| Error::internal("listen for a test", error);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let mut connections = JoinSet::new();
    TASKS.get_or_init(TaskTracker::new).spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let socket = socket.clone();
            connections.spawn(async move {
                if let Ok(mut far) = UnixStream::connect(socket).await {
                    let _ = near.set_nodelay(true);
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    Ok(format!("tcp://{address}"))
}
