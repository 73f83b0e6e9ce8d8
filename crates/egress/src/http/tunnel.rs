//! What follows when both sides have left HTTP (RFC 9110 §15.2.2).

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::timeout;

/// Both sides of a connection that changes its protocol.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) host: OnUpgrade,
}

impl Tunnel {
    /// Passes bytes both ways until both sides have ended, or nothing has moved for `idle`.
    pub(super) async fn run(self, idle: Duration) {
        let both = async { Some((self.client.await.ok()?, self.host.await.ok()?)) };
        let Ok(Some((client, host))) = timeout(idle, both).await else { return };
        let (client_read, client_write) = split(TokioIo::new(client));
        let (host_read, host_write) = split(TokioIo::new(host));
        let moved = AtomicU64::new(0);
        tokio::join!(
            copy(client_read, host_write, &moved, idle),
            copy(host_read, client_write, &moved, idle)
        );
    }
}

/// Passes on what is read until the end, then ends the other side. Gives up when nothing moved either way for `idle`.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
    idle: Duration,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let before = moved.load(Ordering::Relaxed);
        let count = match timeout(idle, from.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => count,
            Err(_) if moved.load(Ordering::Relaxed) != before => continue,
            _ => break,
        };
        moved.fetch_add(1, Ordering::Relaxed);
        let write = async {
            to.write_all(&buffer[..count]).await?;
            to.flush().await
        };
        if !matches!(timeout(idle, write).await, Ok(Ok(()))) {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}
