//! Doors into a sandbox: sockets of ours in its network namespace, where all its traffic comes out.
//!
//! The namespace has no interface but loopback. [`Namespaces::open`] makes every address local to it and gives
//!
//! * TCP to any address but loopback to the transparent listener ([`original_destination`] tells where it was for),
//! * TCP to port [`PROXY_PORT`] of loopback to the proxy,
//! * UDP and TCP to port 53 of any address, loopback too, to the DNS sockets,
//! * and refuses all other datagrams to the world.
//!
//! What the sandbox's own programs say to each other on loopback goes its way. Who is inside, root too, has no rights
//! over the namespace: it belongs to a user namespace outside. Nor can a program take our place by listening first:
//! packets come to our sockets before any port is looked at, and those have ports that were free. While the daemon
//! is away nothing goes anywhere; connections begun in those seconds are made when it is back.
//!
//! Needs nf_tables with nft_tproxy, nft_redir, nft_nat, nft_ct, nft_limit and nft_reject (Linux 5.10, as modules or
//! built in), and CAP_NET_ADMIN and CAP_SYS_ADMIN over the namespace.

mod error;
mod expression;
mod netlink;
mod routes;
mod rules;
mod sockets;
#[cfg(test)]
mod tests;
mod thread;

pub use error::Error;
pub use sockets::original_destination;

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Where programs inside find the HTTP and SOCKS proxy: this port of 127.0.0.1 and `::1`, which IANA has for it.
pub const PROXY_PORT: u16 = 3128;

/// How long a namespace may take. It takes less than a millisecond.
const DEADLINE: Duration = Duration::from_secs(5);
/// Namespaces that may wait for their turn.
const QUEUE: usize = 256;

/// Where a sandbox's traffic comes out. All sockets are nonblocking and take both IPv4 and IPv6, so that an address of
/// IPv4 can come as `::ffff:192.0.2.1`.
#[derive(Debug, Default)]
pub struct Doors {
    /// TCP to any address.
    pub transparent: Option<TcpListener>,
    /// Connections to the proxy: HTTP, CONNECT, SOCKS5.
    pub proxy: Option<TcpListener>,
    /// Questions, to any name server; answers go back with `send_to`.
    pub dns_udp: Option<UdpSocket>,
    /// Questions over TCP.
    pub dns_tcp: Option<TcpListener>,
}

/// Enters network namespaces, one at a time, on a thread of its own: a namespace is a thread's, and no thread that does
/// anything else may be in a sandbox's.
#[derive(Debug)]
pub struct Namespaces {
    jobs: mpsc::Sender<thread::Job>,
    threads: [std::thread::JoinHandle<()>; 2],
}

impl Namespaces {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Step`] where there can be none.
    pub fn start() -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let threads = thread::start(queue)?;
        Ok(Self { jobs, threads })
    }

    /// Tries everything in a network namespace that is nobody's, which goes away afterwards.
    ///
    /// # Errors
    /// What is missing on this host, and what to do, for people.
    pub async fn probe(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let probed = self.wait(thread::Job::Probe { answer }, answered).await;
        probed.map_err(|error| error.remedy())
    }

    /// Opens the doors of a sandbox whose network namespace this is. Again, by the next daemon or by this one, gives new
    /// doors, and the old ones get nothing more.
    ///
    /// # Errors
    /// [`Error::Step`]: nothing is open then that was not before. [`Error::Late`] after 5 s; [`Error::Closed`].
    pub async fn open(&self, namespace: OwnedFd) -> Result<Doors, Error> {
        let (answer, answered) = oneshot::channel();
        self.wait(thread::Job::Open { namespace, answer }, answered).await
    }

    /// The same where doors were open before, whoever opened them: with nobody behind them, connections are neither taken
    /// nor refused. Nothing where there were none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_again(&self, namespace: OwnedFd) -> Result<Option<Doors>, Error> {
        let (answer, answered) = oneshot::channel();
        self.wait(thread::Job::OpenAgain { namespace, answer }, answered).await
    }

    async fn wait<T>(
        &self,
        job: thread::Job,
        answered: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        let work = async {
            self.jobs.send(job).await.map_err(|_| Error::Closed)?;
            answered.await.map_err(|_| Error::Closed)?
        };
        tokio::time::timeout(DEADLINE, work).await.map_err(|_| Error::Late(DEADLINE))?
    }

    /// Ends the thread, once it has done what it was asked. Doors that are open stay open.
    pub fn shutdown(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread that enters network namespaces broke");
            }
        }
    }
}
