//! Connects to a host: its name is resolved here, every address is checked, and the connection goes to exactly an
//! address that was checked.

use crate::decision::{Kind, Protocol, Reason, Refused};
use crate::enforcer::{About, Enforcer};
use crate::plan::Plan;
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
    /// As what it was recorded: its protocol, and the rule that allowed it.
    told: (Protocol, Option<String>),
}

impl Enforcer {
    /// The addresses that a name has for this sandbox, those that are allowed, at least one. Name servers that others
    /// keep are asked, so a name can carry data out: it is held to the limits of questions, and recorded before, unless
    /// it was recorded a moment ago.
    pub(crate) async fn addresses(&self, name: &str, port: Option<u16>) -> Result<Vec<IpAddr>, Refused> {
        if !self.was_looked_up(name) {
            let verdict = self.rules().lookup(name).or_refuse(name)?;
            self.look_up(name, verdict).await?;
        }
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

    /// Connects, as planned. Each address is recorded before its first packet.
    pub(crate) async fn dial(&self, plan: &Plan, port: u16) -> Result<Dialled, Refused> {
        let (host, addresses) = match &plan.route {
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
        let first = addresses.first().copied();
        let failed = |why: &str| Refused {
            address: first,
            ..Refused::new(Reason::ConnectFailed, format!("{host} port {port}: {why}"))
        };
        let connecting = self.connect(plan, port, addresses);
        match tokio::time::timeout(self.shared.settings.timeouts.connect, connecting).await {
            Ok(Ok((stream, address))) => {
                self.bound_buffers(&stream);
                Ok(Dialled { stream, address, told: told(plan) })
            }
            Ok(Err(NoConnection::Refused(refused))) => Err(refused),
            Ok(Err(NoConnection::Failed(error))) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("it does not answer")),
        }
    }

    /// The first connection that is made of all that are tried, each a little after the one before.
    async fn connect(
        &self,
        plan: &Plan,
        port: u16,
        addresses: Vec<IpAddr>,
    ) -> Result<(TcpStream, IpAddr), NoConnection> {
        if let [address] = addresses[..] {
            self.record_connection(plan, port, address).await?;
            return Ok(connect_one(address, port).await?);
        }
        let mut waiting = addresses.into_iter();
        let mut tries = JoinSet::new();
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        loop {
            if let Some(address) = waiting.next() {
                self.record_connection(plan, port, address).await?;
                tries.spawn(connect_one(address, port));
            } else if tries.is_empty() {
                return Err(last.into());
            }
            let more = waiting.len() > 0;
            tokio::select! {
                Some(done) = tries.join_next() => match done {
                    Ok(Ok(connected)) => return Ok(connected),
                    Ok(Err(error)) => last = error,
                    Err(error) => last = io::Error::other(error),
                },
                () = tokio::time::sleep(HEAD_START), if more => {}
            }
        }
    }

    /// Takes a connection that was made before all was known of it; records it again where it is not what was said.
    pub(crate) async fn take(&self, dialled: &Dialled, plan: &Plan, port: u16) -> Result<(), Refused> {
        if dialled.told == told(plan) {
            return Ok(());
        }
        self.record_connection(plan, port, dialled.address).await
    }

    async fn record_connection(&self, plan: &Plan, port: u16, address: IpAddr) -> Result<(), Refused> {
        let host = plan.basis.name().map(str::to_owned);
        let about = About { host, address: Some(address), port: Some(port), ..About::default() };
        self.allow(Kind::Connect, plan.protocol, about, plan.verdict.clone()).await
    }
}

/// Why there is no connection.
enum NoConnection {
    /// An address cannot be recorded.
    Refused(Refused),
    Failed(io::Error),
}

impl From<Refused> for NoConnection {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<io::Error> for NoConnection {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

fn told(plan: &Plan) -> (Protocol, Option<String>) {
    (plan.protocol, plan.verdict.rule.clone())
}

/// IPv6 and IPv4 in turn, IPv4 first: many hosts have no way out with IPv6, and fail slowly.
fn in_turn(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (four, six): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    let longest = four.len().max(six.len());
    (0..longest).flat_map(|index| [four.get(index), six.get(index)]).flatten().copied().collect()
}

async fn connect_one(address: IpAddr, port: u16) -> io::Result<(TcpStream, IpAddr)> {
    let stream = TcpStream::connect(SocketAddr::new(address, port)).await?;
    stream.set_nodelay(true)?;
    Ok((stream, address))
}
