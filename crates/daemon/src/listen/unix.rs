//! Unix sockets: mode 0660, group `hostel` where there is one, and a stale file of a dead daemon replaced.

use super::authority::NamedStream;
use super::incoming::Connection;
use super::peer::{Peer, is_admitted};
use crate::error::{Error, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{SndBuf, SndBufForce};
use nix::unistd::{Gid, Group, chown};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The group whose members may use the daemon.
const GROUP: &str = "hostel";
/// Mode of the socket: owner and group.
const MODE: u32 = 0o660;

/// Bytes that may wait in a connection's socket.
const SEND_BUFFER: usize = 2 << 20;

/// A bound socket. Its file goes away with it.
#[derive(Debug)]
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    group: Option<Gid>,
}

impl UnixSocket {
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let refuse = |detail: String| Error::Listen { address: format!("unix://{}", path.display()), detail };
        remove_stale(path).map_err(refuse)?;
        // Under another name first: nobody connects before mode and group are right.
        let hidden = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(|error| refuse(error.to_string()))?;
        let group = own(&hidden).and_then(|group| std::fs::rename(&hidden, path).map(|()| group));
        match group {
            Ok(group) => Ok(Self { listener, path: path.to_owned(), group }),
            Err(error) => {
                let _ = std::fs::remove_file(&hidden);
                Err(refuse(error.to_string()))
            }
        }
    }

    pub(super) async fn accept(&self) -> std::io::Result<Connection> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let credentials = stream.peer_cred()?;
            let (uid, gid) = (credentials.uid(), credentials.gid());
            if is_admitted(uid, gid, self.group) {
                widen(&stream);
                let (stream, peer) = (NamedStream::new(stream), Peer::unix(uid));
                return Ok(Connection::Unix { stream, peer, place: None });
            }
            tracing::warn!(
                uid,
                "refused a connection: neither root, nor the daemon's user, nor in the socket's group"
            );
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Lets a whole HTTP/2 frame wait in the socket, so that output needs fewer turns. A refusal costs speed only.
fn widen(stream: &UnixStream) {
    if setsockopt(stream, SndBufForce, &SEND_BUFFER).is_err() {
        let _ = setsockopt(stream, SndBuf, &SEND_BUFFER);
    }
}

/// Sets mode and group.
fn own(path: &Path) -> std::io::Result<Option<Gid>> {
    let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid);
    // A user who is not in the group cannot give the socket to it; then it is theirs alone.
    let group = group.filter(|group| chown(path, None, Some(*group)).is_ok());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(group)
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> std::result::Result<(), String> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err("something that is not a socket is there: move it away".to_owned());
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err("another daemon listens there: stop it, or choose another address".to_owned());
    }
    std::fs::remove_file(path).map_err(|error| format!("cannot remove the stale socket: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_dead_daemons_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = UnixSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(UnixSocket::bind(&path).unwrap_err().to_string().contains("another daemon"));
        drop(first);
        std::fs::write(directory.path().join("file"), "x").unwrap();
        assert!(UnixSocket::bind(&directory.path().join("file")).is_err());
        // A file without a listener, as kill -9 leaves it.
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("stale")).unwrap());
        drop(UnixSocket::bind(&directory.path().join("stale")).unwrap());
        assert!(!directory.path().join("stale").exists());
    }
}
