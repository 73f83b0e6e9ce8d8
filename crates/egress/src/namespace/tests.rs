//! Against the kernel, in network namespaces of the test's own. They need root, and say so without.

use super::netlink::{Attributes, Batch, CREATE};
use super::{Doors, Error, Namespaces, PROXY_PORT, original_destination};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const PATIENCE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace, as a program inside a sandbox.
struct Inside {
    work: SyncSender<Work>,
    namespace: OwnedFd,
}

impl Inside {
    /// `None` without the right to make one.
    fn new() -> Option<Self> {
        let (work, queue): (SyncSender<Work>, Receiver<Work>) = sync_channel(8);
        let (opened, namespace) = sync_channel(1);
        std::thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).ok();
            let _ = opened.send(made.and_then(|()| File::open("/proc/thread-self/ns/net").ok()));
            while let Ok(work) = queue.recv() {
                work();
            }
        });
        let namespace = namespace.recv().unwrap();
        if namespace.is_none() {
            eprintln!("SKIPPED: only root may make network namespaces");
        }
        Some(Self { work, namespace: namespace?.into() })
    }

    fn namespace(&self) -> OwnedFd {
        self.namespace.try_clone().unwrap()
    }

    /// Does something inside, while others go on.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = tokio::sync::oneshot::channel();
        self.work.send(Box::new(move || drop(done.send(work())))).unwrap();
        result.await.unwrap()
    }
}

fn listener(door: Option<TcpListener>) -> tokio::net::TcpListener {
    tokio::net::TcpListener::from_std(door.unwrap()).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn connect(to: &'static str) -> impl FnOnce() -> std::io::Result<TcpStream> + Send + 'static {
    move || TcpStream::connect_timeout(&address(to), PATIENCE)
}

async fn ask_name(inside: &Inside, to: SocketAddr, server: &tokio::net::UdpSocket) {
    let ask = inside.run(move || {
        let any =
            if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // A connected socket takes an answer only from where it asked.
        socket.connect(to).unwrap();
        socket.send(b"who?").unwrap();
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    });
    let answer = async {
        let mut question = [0; 16];
        let (length, from) = server.recv_from(&mut question).await.unwrap();
        assert_eq!(&question[..length], b"who?");
        server.send_to(b"nobody", from).await.unwrap();
    };
    let (answer, ()) = tokio::join!(ask, answer);
    assert_eq!(answer, b"nobody", "{to}");
}

#[tokio::test]
async fn questions_at_our_own_port_do_not_arrive() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    let doors = namespaces.open(inside.namespace()).await.unwrap();
    let server = tokio::net::UdpSocket::from_std(doors.dns_udp.unwrap()).unwrap();
    let port = server.local_addr().unwrap().port();
    for to in ["127.0.0.1", "127.0.0.53", "192.0.2.1"] {
        inside
            .run(move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"past", (to, port)))
            .await
            .unwrap_err();
    }
    let past = move || UdpSocket::bind("[::]:0").unwrap().send_to(b"past", ("::1", port));
    inside.run(past).await.unwrap_err();
    // The first that does is one that was asked as it shall be.
    ask_name(&inside, address("127.0.0.53:53"), &server).await;
    namespaces.shutdown();
}

#[tokio::test]
async fn only_where_doors_were_open_they_are_opened_again() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    assert!(namespaces.open_again(inside.namespace()).await.unwrap().is_none());
    drop(namespaces.open(inside.namespace()).await.unwrap());
    let doors = namespaces.open_again(inside.namespace()).await.unwrap().unwrap();
    let transparent = listener(doors.transparent);
    let (client, accepted) = tokio::join!(inside.run(connect("192.0.2.1:443")), transparent.accept());
    client.and(accepted).unwrap();
}

#[tokio::test]
async fn connections_to_anywhere_come_out_with_where_they_were_for() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    let doors = namespaces.open(inside.namespace()).await.unwrap();
    let transparent = listener(doors.transparent);
    for to in [
        "93.184.216.34:443",
        "169.254.169.254:80",
        "10.0.0.1:22",
        "192.0.2.1:3128",
        "[2001:db8::1]:80",
        "[fd00:ec2::254]:80",
        "[64:ff9b::7f00:1]:8080",
    ] {
        let (client, accepted) = tokio::join!(inside.run(connect(to)), transparent.accept());
        let (mut client, (mut accepted, _)) = (client.unwrap(), accepted.unwrap());
        assert_eq!(original_destination(&accepted).unwrap(), address(to));
        assert_eq!(client.peer_addr().unwrap(), address(to));
        assert!(client.local_addr().unwrap().ip().is_loopback());
        accepted.write_all(b"hello").await.unwrap();
        let heard = inside.run(move || {
            let mut heard = [0; 5];
            client.read_exact(&mut heard).map(|()| heard)
        });
        assert_eq!(&heard.await.unwrap(), b"hello");
    }
    namespaces.shutdown();
}

#[tokio::test]
async fn names_are_asked_of_us_whoever_is_asked() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    let doors = namespaces.open(inside.namespace()).await.unwrap();
    let server = tokio::net::UdpSocket::from_std(doors.dns_udp.unwrap()).unwrap();
    for to in ["8.8.8.8:53", "127.0.0.53:53", "127.0.0.1:53", "[2001:db8::53]:53", "[::1]:53"] {
        ask_name(&inside, address(to), &server).await;
    }
    let over_tcp = listener(doors.dns_tcp);
    for to in ["8.8.8.8:53", "127.0.0.53:53", "[2001:db8::53]:53"] {
        let (client, accepted) = tokio::join!(inside.run(connect(to)), over_tcp.accept());
        assert_eq!(client.unwrap().peer_addr().unwrap(), address(to));
        accepted.unwrap();
    }
    namespaces.shutdown();
}

#[tokio::test]
async fn other_datagrams_and_pings_are_refused() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    let _doors = namespaces.open(inside.namespace()).await.unwrap();
    inside
        .run(|| {
            // Somebody inside who listens there gets nothing that was for the world.
            let own = UdpSocket::bind("0.0.0.0:443").unwrap();
            let own6 = UdpSocket::bind("[::1]:443").unwrap();
            for to in ["93.184.216.34:443", "[2001:db8::1]:443", "93.184.216.34:9999"] {
                let any = if address(to).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect(to).unwrap();
                let _ = socket.send(b"out");
                assert_eq!(
                    socket.recv(&mut [0; 8]).unwrap_err().kind(),
                    ErrorKind::ConnectionRefused,
                    "{to}"
                );
            }
            for (to, own) in [("127.0.0.1:443", own), ("[::1]:443", own6)] {
                own.set_read_timeout(Some(PATIENCE)).unwrap();
                let any = if address(to).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                UdpSocket::bind(any).unwrap().send_to(b"in", to).unwrap();
                assert_eq!(own.recv(&mut [0; 8]).unwrap(), 2, "{to}");
            }
        })
        .await;
    namespaces.shutdown();
}

#[tokio::test]
async fn what_is_inside_stays_its_own() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    let doors = namespaces.open(inside.namespace()).await.unwrap();
    inside
        .run(|| {
            for (bound, to) in [
                ("0.0.0.0:8080", "127.0.0.1:8080"),
                ("127.0.0.1:443", "127.0.0.1:443"),
                ("[::1]:443", "[::1]:443"),
                ("[::]:8081", "127.0.0.2:8081"),
            ] {
                let server = TcpListener::bind(bound).unwrap();
                let mut client = TcpStream::connect_timeout(&address(to), PATIENCE).unwrap();
                client.write_all(b"x").unwrap();
                let (mut accepted, _) = server.accept().unwrap();
                accepted.read_exact(&mut [0]).unwrap();
            }
        })
        .await;
    // A server inside does not get what is for the world, wherever it listens.
    let transparent = listener(doors.transparent);
    let to = "93.184.216.34:8080";
    let client = inside.run(move || {
        let _wide = TcpListener::bind("0.0.0.0:8080").unwrap();
        let _exact = TcpListener::bind(to);
        connect(to)()
    });
    let (client, accepted) = tokio::join!(client, transparent.accept());
    client.unwrap();
    assert_eq!(original_destination(&accepted.unwrap().0).unwrap(), address(to));
    // Who connects to our own port says nothing about where to.
    let port = transparent.local_addr().unwrap().port();
    let direct = inside.run(move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
    let (direct, accepted) = tokio::join!(direct, transparent.accept());
    direct.unwrap();
    let error = original_destination(&accepted.unwrap().0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    namespaces.shutdown();
}

#[tokio::test]
async fn doors_open_again_and_nobody_inside_can_be_there_first() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    let Doors { transparent, .. } = namespaces.open(inside.namespace()).await.unwrap();
    let old = transparent.as_ref().unwrap().local_addr().unwrap().port();
    drop(transparent);
    // The daemon is away: a program inside takes every port that it knows of.
    let taken = inside.run(move || {
        let own = [old, PROXY_PORT, 53].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap());
        let names = UdpSocket::bind("0.0.0.0:53").unwrap();
        // Nobody answers it now, and no local server does.
        let refused = TcpStream::connect_timeout(&address("93.184.216.34:53"), Duration::from_millis(50));
        (own, names, refused.map(|stream| stream.local_addr()))
    });
    let (own, names, _) = taken.await;
    let doors = namespaces.open(inside.namespace()).await.unwrap();
    let (transparent, proxy, dns) =
        (listener(doors.transparent), listener(doors.proxy), listener(doors.dns_tcp));
    for (to, door) in [
        ("93.184.216.34:443", &transparent),
        ("127.0.0.1:3128", &proxy),
        ("[::1]:3128", &proxy),
        ("127.0.0.1:53", &dns),
    ] {
        let (client, accepted) = tokio::join!(inside.run(connect(to)), door.accept());
        client.unwrap();
        accepted.unwrap();
    }
    let server = tokio::net::UdpSocket::from_std(doors.dns_udp.unwrap()).unwrap();
    ask_name(&inside, address("127.0.0.53:53"), &server).await;
    drop((own, names));
    namespaces.shutdown();
}

#[tokio::test]
async fn a_connection_begun_while_the_daemon_is_away_waits_for_it() {
    let Some(inside) = Inside::new() else { return };
    let namespaces = Namespaces::start().unwrap();
    drop(namespaces.open(inside.namespace()).await.unwrap());
    let client = inside.run(connect("93.184.216.34:443"));
    let server = async {
        let doors = namespaces.open(inside.namespace()).await.unwrap();
        listener(doors.transparent).accept().await.unwrap()
    };
    let (client, (accepted, _)) = tokio::join!(client, server);
    client.unwrap();
    assert_eq!(original_destination(&accepted).unwrap(), address("93.184.216.34:443"));
    namespaces.shutdown();
}

#[tokio::test]
async fn ipv6_that_was_switched_off_is_switched_on() {
    let Some(inside) = Inside::new() else { return };
    inside
        .run(|| {
            for interface in ["all", "lo"] {
                let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
                std::fs::write(file, "1").unwrap();
            }
        })
        .await;
    let namespaces = Namespaces::start().unwrap();
    let doors = namespaces.open(inside.namespace()).await.unwrap();
    let transparent = listener(doors.transparent);
    let (client, accepted) = tokio::join!(inside.run(connect("[2001:db8::1]:80")), transparent.accept());
    client.unwrap();
    assert_eq!(original_destination(&accepted.unwrap().0).unwrap(), address("[2001:db8::1]:80"));
    namespaces.shutdown();
}

#[tokio::test]
async fn the_hosts_own_namespace_is_left_alone() {
    let namespaces = Namespaces::start().unwrap();
    for file in ["/proc/self/ns/net", "/proc/self/ns/mnt", "/dev/null"] {
        let refused = namespaces.open(File::open(file).unwrap().into()).await;
        assert!(matches!(refused, Err(Error::Step { step: "enter a network namespace", .. })), "{file}");
    }
    namespaces.shutdown();
}

#[tokio::test]
async fn a_step_that_the_kernel_refuses_is_named() {
    let Some(inside) = Inside::new() else { return };
    let refused = inside.run(|| {
        let mut batch = Batch::default();
        let table = |attributes: &mut Attributes| {
            attributes.text(1, "some");
        };
        batch.bracket("begin", 16, &[0, 0, 0, 10]);
        batch.add("make", 10 << 8, CREATE, &[1, 0, 0, 0], table);
        batch.add("remove what is not there", 10 << 8 | 5, 0, &[1, 0, 0, 0], |attributes| {
            attributes.text(1, "some").text(3, "chain");
        });
        batch.add("make again", 10 << 8, CREATE, &[1, 0, 0, 0], table);
        batch.bracket("end", 17, &[0, 0, 0, 10]);
        batch.send(Some(rustix::net::netlink::NETFILTER)).map(drop)
    });
    match refused.await {
        Err(Error::Step { step: "remove what is not there", error }) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn this_host_is_fit_or_says_what_is_missing() {
    let namespaces = Namespaces::start().unwrap();
    match namespaces.probe().await {
        Ok(()) => {}
        Err(missing) if !rustix::process::geteuid().is_root() => {
            assert!(missing.contains("as root"), "{missing}")
        }
        Err(missing) => panic!("{missing}"),
    }
    namespaces.shutdown();
}

/// `cargo test -p hostel-egress --release -- --ignored --nocapture how_long`
#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_it_takes() {
    let namespaces = Namespaces::start().unwrap();
    let mut times = Vec::new();
    for _ in 0..200 {
        let Some(inside) = Inside::new() else { return };
        let begin = Instant::now();
        let doors = namespaces.open(inside.namespace()).await.unwrap();
        let first = begin.elapsed();
        let begin = Instant::now();
        drop(namespaces.open(inside.namespace()).await.unwrap());
        times.push((first, begin.elapsed()));
        drop(doors);
    }
    println!("the first ones: {:?}", &times[..4]);
    let of = |mut times: Vec<Duration>| {
        times.sort_unstable();
        [50, 95, 99].map(|percent| times[times.len() * percent / 100])
    };
    println!("open: {:?}", of(times.iter().map(|(first, _)| *first).collect()));
    println!("again: {:?}", of(times.iter().map(|(_, again)| *again).collect()));
    namespaces.shutdown();
}
