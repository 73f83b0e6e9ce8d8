//! Who is on the other end of a connection.

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;
use std::sync::Arc;

/// A connected client. Every request of its connection carries this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// As records and events name it: `uid:1000`, or `tcp` for whoever is on this machine.
    pub actor: Arc<str>,
    uid: Option<u32>,
}

impl Peer {
    /// Somebody on a unix socket.
    pub(super) fn unix(uid: u32) -> Self {
        Self { actor: format!("uid:{uid}").into(), uid: Some(uid) }
    }

    /// Somebody on this machine's loopback; nobody knows who.
    pub(super) fn loopback() -> Self {
        Self { actor: "tcp".into(), uid: None }
    }

    /// Its user; nothing where nobody knows.
    pub(super) fn user(&self) -> Option<u32> {
        self.uid
    }

    /// Whether it may do what root or the daemon's own user may.
    pub(crate) fn is_operator(&self) -> bool {
        self.uid.is_some_and(|uid| Uid::from_raw(uid).is_root() || Uid::from_raw(uid) == geteuid())
    }
}

/// Whether a process of this user may talk to the daemon: root, the daemon's own user, or a member of the socket's
/// group where it was given one.
pub(super) fn is_admitted(uid: u32, gid: u32, socket_group: Option<Gid>) -> bool {
    let uid = Uid::from_raw(uid);
    if uid.is_root() || uid == geteuid() {
        return true;
    }
    socket_group.is_some_and(|group| Gid::from_raw(gid) == group || is_member(uid, group))
}

fn is_member(uid: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_not_admitted() {
        let me = geteuid().as_raw();
        assert!(is_admitted(0, 0, None) && is_admitted(me, 12345, None));
        assert!(!is_admitted(4_000_000, 4_000_000, None));
        assert!(!is_admitted(4_000_000, 4_000_000, Some(Gid::from_raw(4_000_001))));
        assert!(is_admitted(4_000_000, 4_000_001, Some(Gid::from_raw(4_000_001))));
        assert!(!Peer::loopback().is_operator() && Peer::unix(me).is_operator());
    }
}
