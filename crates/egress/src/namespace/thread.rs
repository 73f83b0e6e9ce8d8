//! The thread that enters namespaces.

use super::rules::Ports;
use super::{Doors, Error, original_destination, routes, rules, sockets};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::net::SocketType;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Something to do in a namespace.
#[derive(Debug)]
pub(super) enum Job {
    Open { namespace: OwnedFd, answer: oneshot::Sender<Result<Doors, Error>> },
    OpenAgain { namespace: OwnedFd, answer: oneshot::Sender<Result<Option<Doors>, Error>> },
    Probe { answer: oneshot::Sender<Result<(), Error>> },
}

/// Where probes connect to: addresses that are nobody's (RFC 5737, RFC 3849).
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);
const NOWHERE6: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 443);
/// On loopback it takes microseconds.
const PROBE: Duration = Duration::from_secs(2);

/// Sockets that may wait to be closed.
const TO_CLOSE: usize = 1024;

/// Starts it, and one that closes what takes long to close. They end when nobody can ask any more.
pub(super) fn start(mut queue: mpsc::Receiver<Job>) -> Result<[JoinHandle<()>; 2], Error> {
    let home = File::open("/proc/thread-self/ns/net");
    let home = home.map_err(|error| Error::step("open our own namespace", error))?;
    let (close, closing) = sync_channel::<OwnedFd>(TO_CLOSE);
    let work = move || {
        while let Some(job) = queue.blocking_recv() {
            match job {
                Job::Open { namespace, answer } => {
                    let entered = enter(&namespace, &home);
                    drop(namespace);
                    // A caller that left has dropped the doors with the answer.
                    let _ = answer.send(entered.and_then(|()| open(&close)));
                }
                Job::OpenAgain { namespace, answer } => {
                    let entered = enter(&namespace, &home);
                    drop(namespace);
                    let _ = answer.send(entered.and_then(|()| open_again(&close)));
                }
                Job::Probe { answer } => {
                    let made = unshare(CloneFlags::CLONE_NEWNET);
                    let _ = answer.send(step("make a network namespace", made).and_then(|()| probe(&close)));
                }
            }
            // Else it would live as long as we stay.
            if let Err(error) = setns(&home, CloneFlags::CLONE_NEWNET) {
                tracing::error!(%error, "the way back from a network namespace failed");
            }
        }
    };
    let closer = spawn("namespace-closer", move || closing.into_iter().for_each(drop))?;
    Ok([spawn("network-namespace", work)?, closer])
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(|error| Error::step("start a thread", error))
}

/// Enters a sandbox's namespace, and never ours: the host's own traffic is nobody's to take.
fn enter(namespace: &OwnedFd, home: &File) -> Result<(), Error> {
    const STEP: &str = "enter a network namespace";
    let (other, own) = (rustix::fs::fstat(namespace), rustix::fs::fstat(home));
    let (other, own) =
        (other.map_err(|errno| Error::step(STEP, errno))?, own.map_err(|errno| Error::step(STEP, errno))?);
    if (other.st_dev, other.st_ino) == (own.st_dev, own.st_ino) {
        return Err(Error::step(STEP, io::Error::other("it is the daemon's own")));
    }
    step(STEP, setns(namespace, CloneFlags::CLONE_NEWNET))
}

fn step<T>(name: &'static str, result: nix::Result<T>) -> Result<T, Error> {
    result.map_err(|errno| Error::step(name, errno))
}

/// Opens the doors of the namespace that this thread is in. Rules come last: there is no moment at which something goes
/// elsewhere than to us.
fn open(close: &SyncSender<OwnedFd>) -> Result<Doors, Error> {
    let (transparent, to_transparent) = sockets::open("listen for connections", SocketType::STREAM)?;
    let (proxy, to_proxy) = sockets::open("listen for the proxy", SocketType::STREAM)?;
    let (dns_udp, to_dns_udp) = sockets::open("take questions", SocketType::DGRAM)?;
    let (dns_tcp, to_dns_tcp) = sockets::open("listen for questions", SocketType::STREAM)?;
    let ports =
        Ports { transparent: to_transparent, proxy: to_proxy, dns_udp: to_dns_udp, dns_tcp: to_dns_tcp };
    let socket = rules::install(&ports)?;
    if let Err(error) = close.send(socket) {
        drop(error.0);
    }
    routes::make_every_address_local()?;
    Ok(Doors {
        transparent: Some(TcpListener::from(transparent)),
        proxy: Some(TcpListener::from(proxy)),
        dns_udp: Some(UdpSocket::from(dns_udp)),
        dns_tcp: Some(TcpListener::from(dns_tcp)),
    })
}

/// Opens them where there were some.
fn open_again(close: &SyncSender<OwnedFd>) -> Result<Option<Doors>, Error> {
    rules::is_there()?.then(|| open(close)).transpose()
}

/// Opens them and goes through each, so that a kernel that takes the rules and does not keep them is found out.
fn probe(close: &SyncSender<OwnedFd>) -> Result<(), Error> {
    let doors = open(close)?;
    if let Some(listener) = &doors.transparent {
        passes(listener, NOWHERE).map_err(|error| Error::step("pass through (nft_tproxy)", error))?;
        // Without IPv6 there is nothing to pass.
        if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            passes(listener, NOWHERE6)
                .map_err(|error| Error::step("pass through by IPv6 (nft_tproxy)", error))?;
        }
    }
    if let Some(socket) = &doors.dns_udp {
        answers(socket).map_err(|error| Error::step("ask for a name (nft_redir)", error))?;
    }
    Ok(())
}

fn passes(listener: &TcpListener, to: SocketAddr) -> io::Result<()> {
    let _client = TcpStream::connect_timeout(&to, PROBE)?;
    let (accepted, _) = listener.accept()?;
    if original_destination(&accepted)? == to { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
}

fn answers(server: &UdpSocket) -> io::Result<()> {
    let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    client.set_read_timeout(Some(PROBE))?;
    client.connect((NOWHERE.ip(), 53))?;
    client.send(b"?")?;
    let (_, peer) = server.recv_from(&mut [0])?;
    server.send_to(b"!", peer)?;
    client.recv(&mut [0]).map(drop)
}
