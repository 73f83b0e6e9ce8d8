//! The open connections of a sandbox.

use crate::decision::Protocol;
use crate::rules::Seen;
use hostel_sandbox::SandboxId;
use serde::Serialize;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How many addresses are remembered of one connection: more than it can be connected to at a time.
const MOST_ADDRESSES: usize = 256;

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Whose.
    pub sandbox: SandboxId,
    /// Its number within the sandbox.
    pub id: u64,
    /// Since when.
    pub since: jiff::Timestamp,
    /// What is spoken.
    pub protocol: Protocol,
    /// The host's name.
    pub host: Option<String>,
    /// The address it goes to, once there is a connection to it.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The rule that allows it.
    pub rule: Option<String>,
    /// Bytes from the sandbox. Counted where bytes pass untouched; 0 where requests are served.
    pub sent: u64,
    /// Bytes to the sandbox, likewise.
    pub received: u64,
}

/// What a connection was allowed for, so that it can be decided again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Basis {
    /// By its name.
    Name { name: String, seen: Seen },
    /// By its address, whatever name it told.
    Address { address: IpAddr, name: Option<String> },
}

impl Basis {
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Name { name, .. } => Some(name),
            Self::Address { name, .. } => name.as_deref(),
        }
    }
}

/// A connection while it lives.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: u64,
    since: jiff::Timestamp,
    pub(crate) protocol: Protocol,
    pub(crate) basis: Basis,
    addresses: Mutex<Vec<IpAddr>>,
    pub(crate) port: u16,
    pub(crate) rule: Option<String>,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) cut: CancellationToken,
}

impl Live {
    /// Notes an address that it goes to. Where requests are served there may be several.
    pub(crate) fn add_address(&self, address: IpAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.retain(|other| *other != address);
        if addresses.len() >= MOST_ADDRESSES {
            addresses.remove(0);
        }
        addresses.push(address);
    }

    /// All addresses that it went to, the newest last.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest of them.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).last().copied()
    }
}

/// All of a sandbox's.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Arc<Live>>>,
}

/// A connection that is in the list as long as this lives.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) live: Arc<Live>,
    list: Arc<Connections>,
}

impl Connections {
    pub(crate) fn add(
        self: &Arc<Self>,
        protocol: Protocol,
        basis: Basis,
        port: u16,
        rule: Option<String>,
        cut: CancellationToken,
    ) -> Listed {
        let live = Arc::new(Live {
            id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            since: jiff::Timestamp::now(),
            protocol,
            basis,
            addresses: Mutex::default(),
            port,
            rule,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            cut,
        });
        self.lock().insert(live.id, Arc::clone(&live));
        Listed { live, list: Arc::clone(self) }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|live| live.id);
        all
    }

    pub(crate) fn shown(&self, sandbox: &SandboxId) -> Vec<Connection> {
        let show = |live: Arc<Live>| Connection {
            sandbox: sandbox.clone(),
            id: live.id,
            since: live.since,
            protocol: live.protocol,
            host: live.basis.name().map(str::to_owned),
            address: live.address(),
            port: live.port,
            rule: live.rule.clone(),
            sent: live.sent.load(Ordering::Relaxed),
            received: live.received.load(Ordering::Relaxed),
        };
        self.all().into_iter().map(show).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.list.lock().remove(&self.live.id);
    }
}
