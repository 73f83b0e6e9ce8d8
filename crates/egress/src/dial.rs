//! Connects to a host: its name is resolved here, every address is checked, and the connection goes to exactly an
//! address that was checked.

use crate::decision::{Reason, Refused};
use crate::enforcer::Enforcer;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long one address is tried alone (RFC 8305 §5, "Connection Attempt Delay").
const HEAD_START: Duration = Duration::from_millis(250);

/// How a host is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// By its name; this address first, if it is one of its addresses.
    Name { name: String, prefer: Option<IpAddr> },
    /// At this address and no other.
    Address(IpAddr),
}

/// A connection that was made.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    pub(crate) address: IpAddr,
}

impl Enforcer {
    /// The addresses that a name has for this sandbox, those that are allowed, at least one.
    pub(crate) async fn addresses(&self, name: &str, port: Option<u16>) -> Result<Vec<IpAddr>, Refused> {
        let found = self
            .shared
            .asker
            .addresses(name)
            .await
            .map_err(|why| Refused::new(Reason::ResolveFailed, format!("{name} {why}")))?;
        self.checked(name, &found.list, port)
    }

    /// Those of a name's addresses that are allowed; why not where there are none.
    pub(crate) fn checked(
        &self,
        name: &str,
        list: &[IpAddr],
        port: Option<u16>,
    ) -> Result<Vec<IpAddr>, Refused> {
        let rules = self.rules();
        let (mut good, mut bad) = (Vec::new(), None);
        for address in list {
            match self.shared.reach.check(*address, port, &rules) {
                Ok(address) if !good.contains(&address) => good.push(address),
                Ok(_) => {}
                Err(refused) => bad = Some(refused),
            }
        }
        match bad {
            Some(refused) if good.is_empty() => {
                Err(Refused { message: format!("{name} leads to {}", refused.message), ..refused })
            }
            _ => Ok(good),
        }
    }

    /// Connects.
    pub(crate) async fn dial(&self, route: &Route, port: u16) -> Result<Dialled, Refused> {
        let (host, addresses) = match route {
            Route::Address(address) => {
                let checked = self.shared.reach.check(*address, Some(port), &self.rules())?;
                (address.to_string(), vec![checked])
            }
            Route::Name { name, prefer } => {
                let mut addresses = in_turn(self.addresses(name, Some(port)).await?);
                if let Some(first) = prefer.and_then(|own| addresses.iter().position(|one| *one == own)) {
                    addresses.swap(0, first);
                }
                (name.clone(), addresses)
            }
        };
        let failed = |why: &str, address| Refused {
            address,
            ..Refused::new(Reason::ConnectFailed, format!("{host} port {port}: {why}"))
        };
        let first = addresses.first().copied();
        match tokio::time::timeout(self.shared.settings.timeouts.connect, connect(addresses, port)).await {
            Ok(Ok(dialled)) => Ok(dialled),
            Ok(Err(error)) => Err(failed(&error.to_string(), first)),
            Err(_) => Err(failed("it does not answer", first)),
        }
    }
}

/// IPv6 and IPv4 in turn, IPv4 first: many hosts have no way out with IPv6, and fail slowly.
fn in_turn(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (four, six): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    let longest = four.len().max(six.len());
    (0..longest).flat_map(|index| [four.get(index), six.get(index)]).flatten().copied().collect()
}

/// The first connection that is made of all that are tried, each a little after the one before.
async fn connect(addresses: Vec<IpAddr>, port: u16) -> io::Result<Dialled> {
    if let [address] = addresses[..] {
        return connect_one(address, port).await;
    }
    let mut waiting = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.next() {
            tries.spawn(connect_one(address, port));
        } else if tries.is_empty() {
            return Err(last);
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(done) = tries.join_next() => match done {
                Ok(Ok(dialled)) => return Ok(dialled),
                Ok(Err(error)) => last = error,
                Err(error) => last = io::Error::other(error),
            },
            () = tokio::time::sleep(HEAD_START), if more => {}
        }
    }
}

async fn connect_one(address: IpAddr, port: u16) -> io::Result<Dialled> {
    let stream = TcpStream::connect(SocketAddr::new(address, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Dialled { stream, address })
}
