//! The addresses of names, asked by us and by nobody in the sandbox.

use crate::error::{Error, Result};
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most addresses of a name that are used.
const MAX_ADDRESSES: usize = 16;
/// How many answers are kept.
const CACHE: u64 = 4096;

/// Whom to ask for the addresses of names.
#[derive(Debug, Clone, Default)]
pub enum Names {
    /// The name servers of the host (`/etc/resolv.conf`). Its `/etc/hosts` is not used: it names local things.
    #[default]
    System,
    /// These name servers, over UDP and TCP.
    Servers(Vec<SocketAddr>),
    /// A table, for tests.
    Fixed(Arc<Table>),
}

/// A table of names that can be changed at any time.
#[derive(Debug, Default)]
pub struct Table {
    names: Mutex<HashMap<String, Vec<IpAddr>>>,
    asked: AtomicU64,
}

impl Table {
    /// Sets the addresses of a name.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), addresses.to_vec());
    }

    /// How often it was asked for a name.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn get(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// In canonical form; at least one.
    pub(crate) list: Vec<IpAddr>,
    /// How long they may be used.
    pub(crate) lifetime: Duration,
}

/// Why a name has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// There is no such name, or it has no addresses.
    NotThere,
    /// The name servers gave no answer.
    Failed,
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotThere => "has no address",
            Self::Failed => "could not be resolved: no name server answered",
        })
    }
}

/// Asks.
#[derive(Clone)]
pub(crate) struct Asker {
    source: Source,
    timeout: Duration,
}

#[derive(Clone)]
enum Source {
    Servers(Arc<TokioResolver>),
    Table(Arc<Table>),
}

impl Asker {
    pub(crate) fn new(names: &Names, timeout: Duration) -> Result<Self> {
        let source = match names {
            Names::Fixed(table) => Source::Table(Arc::clone(table)),
            Names::System => Source::Servers(resolver(None, timeout)?.into()),
            Names::Servers(servers) => Source::Servers(resolver(Some(servers), timeout)?.into()),
        };
        Ok(Self { source, timeout })
    }

    /// The addresses of a name in normal form. Within the time limit.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Addresses, NoAddress> {
        let resolver = match &self.source {
            Source::Table(table) => {
                let list = table.get(name).filter(|list| !list.is_empty()).ok_or(NoAddress::NotThere)?;
                let list = list.iter().map(IpAddr::to_canonical).collect();
                return Ok(Addresses { list, lifetime: Duration::from_secs(60) });
            }
            Source::Servers(resolver) => resolver,
        };
        // The dot at the end keeps the host's search domains out.
        let asked = resolver.lookup_ip(format!("{name}."));
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(found)) => {
                let list: Vec<IpAddr> =
                    found.iter().take(MAX_ADDRESSES).map(|one| one.to_canonical()).collect();
                let lifetime = found.valid_until().saturating_duration_since(Instant::now());
                if list.is_empty() { Err(NoAddress::NotThere) } else { Ok(Addresses { list, lifetime }) }
            }
            Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => Err(NoAddress::NotThere),
            Ok(Err(error)) => {
                tracing::debug!(name, %error, "a name could not be resolved");
                Err(NoAddress::Failed)
            }
            Err(_) => Err(NoAddress::Failed),
        }
    }
}

fn resolver(servers: Option<&[SocketAddr]>, timeout: Duration) -> Result<TokioResolver> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = match servers {
        None => Resolver::builder(provider).map_err(|error| Error::Resolver(error.to_string()))?,
        Some(servers) => {
            let servers = servers.iter().map(name_server).collect();
            Resolver::builder_with_config(ResolverConfig::from_name_servers(servers), provider)
        }
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = CACHE;
    options.timeout = timeout / 2;
    options.attempts = 2;
    options.positive_max_ttl = Some(Duration::from_secs(3600));
    options.negative_max_ttl = Some(Duration::from_secs(60));
    builder.build().map_err(|error| Error::Resolver(error.to_string()))
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .to_vec();
    NameServerConfig::new(address.ip(), true, connections)
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
