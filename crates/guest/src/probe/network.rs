//! Probes at the network and at sockets: jail.md §7c 42 to 48.

use crate::abuse::{Context, Probe};
use crate::sys::{self, sys};
use crate::verdict::{Verdict, all, must_be_denied, must_fail, must_fail_with};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::time::Duration;

pub(crate) const PROBES: &[Probe] = &[
    ("socket-packet", |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300)),
    ("socket-raw-ipv4", |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("socket-raw-ipv6", |_| socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)),
    ("socket-vsock", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("socket-alg", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("socket-odd-families", odd_families),
    ("socket-odd-netlink", odd_netlink),
    ("socket-odd-protocols", odd_protocols),
    ("load-modules-by-ioctl", load_modules_by_ioctl),
    ("interfaces", interfaces),
    ("configure-interface", configure_interface),
    ("add-route", add_route),
    ("transparent-socket", transparent_socket),
    ("host-listener", host_listener),
    ("host-abstract-socket", abstract_socket),
    ("metadata-service", |_| unreachable("169.254.169.254:80")),
    ("link-local", |_| unreachable("169.254.1.1:80")),
    ("docker-gateway", |_| all(["172.17.0.1:22", "172.17.0.1:2375", "172.18.0.1:22"].map(unreachable))),
    ("private-ranges", |_| {
        all(["10.0.0.1:80", "10.0.2.2:22", "192.168.0.1:80", "192.168.122.1:22", "100.64.0.1:80"]
            .map(unreachable))
    }),
    ("ipv6", |_| {
        all(["[2001:4860:4860::8888]:53", "[fd00:ec2::254]:80", "[::ffff:169.254.169.254]:80"]
            .map(unreachable))
    }),
    ("internet", |_| all(["1.1.1.1:443", "8.8.8.8:53"].map(unreachable))),
    ("udp-exfiltration", |_| all(["8.8.8.8:53", "1.1.1.1:123", "[2001:4860:4860::8888]:53"].map(udp))),
    ("multicast", |_| all(["224.0.0.251:5353", "255.255.255.255:67"].map(udp))),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Verdict {
    must_fail(&format!("socket of family {family}"), sys!(SYS_socket, family, kind, protocol))
}

fn odd_families(_: &Context) -> Verdict {
    const LAST: i32 = 46;
    let ordinary = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET];
    let opened: Vec<String> = (1..=LAST)
        .filter(|family| !ordinary.contains(family))
        .flat_map(|family| kinds.map(|kind| (family, kind)))
        .filter(|(family, kind)| sys!(SYS_socket, *family, *kind, 0).inspect(|&fd| sys::close(fd)).is_ok())
        .map(|(family, kind)| format!("family {family} kind {kind}"))
        .collect();
    if opened.is_empty() {
        Verdict::refused("only unix, inet, inet6 and netlink")
    } else {
        Verdict::escaped(opened.join(", "))
    }
}

fn odd_netlink(_: &Context) -> Verdict {
    // Everything but NETLINK_ROUTE, which getaddrinfo and ip(8) need.
    all((1..23).map(|protocol| {
        must_fail(
            &format!("netlink {protocol}"),
            sys!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, protocol),
        )
    }))
}

/// Protocols for which the kernel would load a module. A kernel that has none answers too, but not with this error.
fn odd_protocols(_: &Context) -> Verdict {
    const DCCP: (i32, i32) = (6, 33);
    const UDP_LITE: (i32, i32) = (libc::SOCK_DGRAM, 136);
    const SCTP: (i32, i32) = (libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP);
    // AF_PACKET under another name (packet(7)).
    const PACKET: (i32, i32) = (10, 0);
    let kinds = [SCTP, DCCP, UDP_LITE, PACKET];
    let pairs =
        [libc::AF_INET, libc::AF_INET6].into_iter().flat_map(|family| kinds.map(|kind| (family, kind)));
    all(pairs.map(|(family, (kind, protocol))| {
        let what = format!("socket of family {family}, type {kind}, protocol {protocol}");
        must_fail_with(libc::EPROTONOSUPPORT, &what, sys!(SYS_socket, family, kind, protocol))
    }))
}

/// Questions about bridges and VLANs for which the kernel would load a module, before it looks at rights.
fn load_modules_by_ioctl(_: &Context) -> Verdict {
    const GET_BRIDGES: i32 = 0x8940;
    const GET_VLAN: i32 = 0x8982;
    let Ok(socket) = sys!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0) else {
        return Verdict::refused("no internet sockets at all");
    };
    // Bridges: three longs, of which the first asks for the version. VLANs: the command for a name, of no interface.
    let mut bridges = [0_u8; 24];
    let mut vlan = [0_u8; 64];
    vlan[..4].copy_from_slice(&9_u32.to_ne_bytes());
    vlan[4..12].copy_from_slice(b"nowhere0");
    let bridges = sys!(SYS_ioctl, socket, GET_BRIDGES, bridges.as_mut_slice());
    let vlan = sys!(SYS_ioctl, socket, GET_VLAN, vlan.as_mut_slice());
    sys::close(socket);
    all([must_fail_with(libc::EPERM, "SIOCGIFBR", bridges), must_fail_with(libc::EPERM, "SIOCGIFVLAN", vlan)])
}

/// Flags of an interface (netdevice(7)), by an `ifreq`.
fn flags_of(socket: i64, name: &str) -> Option<[u8; 40]> {
    let mut request = [0_u8; 40];
    request[..name.len().min(15)].copy_from_slice(&name.as_bytes()[..name.len().min(15)]);
    sys!(SYS_ioctl, socket, libc::SIOCGIFFLAGS.cast_signed(), request.as_mut_slice()).ok()?;
    Some(request)
}

fn interfaces(_: &Context) -> Verdict {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let Ok(socket) = sys!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0) else {
        return Verdict::refused("no internet sockets at all");
    };
    // Kernels with tunnel modules put an inactive sit0 and the like into each namespace.
    let active: Vec<&str> = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next().map(str::trim))
        .filter(|name| *name != "lo")
        .filter(|name| flags_of(socket, name).is_none_or(|request| request[16] & 1 == 1))
        .collect();
    if active.is_empty() {
        Verdict::refused("nothing but lo")
    } else {
        Verdict::escaped(format!("interfaces: {}", active.join(", ")))
    }
}

fn configure_interface(_: &Context) -> Verdict {
    let Ok(socket) = sys!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0) else {
        return Verdict::refused("no internet sockets at all");
    };
    let Some(mut request) = flags_of(socket, "lo") else { return Verdict::refused("lo does not show") };
    // The same flags again.
    let outcome = sys!(SYS_ioctl, socket, libc::SIOCSIFFLAGS.cast_signed(), request.as_mut_slice());
    must_fail("set flags of lo", outcome)
}

fn host_listener(context: &Context) -> Verdict {
    if context.host_listeners.is_empty() {
        return Verdict::skipped("no HOSTEL_PROBE_TCP");
    }
    all(context.host_listeners.iter().map(|address| match address.parse::<SocketAddr>() {
        Err(error) => Verdict::skipped(format!("{address}: {error}")),
        Ok(parsed) => match TcpStream::connect_timeout(&parsed, Duration::from_secs(2)) {
            Ok(_) => Verdict::escaped(format!("connected to {address} of the host")),
            Err(error) => Verdict::refused(format!("{address}: {error}")),
        },
    }))
}

fn abstract_socket(context: &Context) -> Verdict {
    let Some(name) = &context.abstract_socket else { return Verdict::skipped("no HOSTEL_PROBE_ABSTRACT") };
    let connected = std::os::unix::net::SocketAddr::from_abstract_name(name)
        .and_then(|address| std::os::unix::net::UnixStream::connect_addr(&address));
    match connected {
        Ok(_) => Verdict::escaped(format!("connected to @{name} of the host")),
        Err(error) => Verdict::refused(format!("@{name}: {error}")),
    }
}

/// A refused connection would mean that somebody answered.
fn unreachable(address: &str) -> Verdict {
    let Ok(parsed) = address.parse::<SocketAddr>() else {
        return Verdict::skipped(format!("{address} is no address"));
    };
    match TcpStream::connect_timeout(&parsed, Duration::from_secs(2)) {
        Ok(_) => Verdict::escaped(format!("connected to {address}")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Verdict::escaped(format!("{address} was reached and refused"))
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            Verdict::escaped(format!("packets to {address} leave: no answer came"))
        }
        Err(error) => Verdict::refused(format!("{address}: {error}")),
    }
}

fn udp(address: &str) -> Verdict {
    let Ok(parsed) = address.parse::<SocketAddr>() else {
        return Verdict::skipped(format!("{address} is no address"));
    };
    let local = if parsed.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sent = UdpSocket::bind(local).and_then(|socket| {
        let _ = socket.set_broadcast(true);
        socket.send_to(b"hostel-probe", parsed)
    });
    match sent {
        Ok(_) => Verdict::escaped(format!("a datagram to {address} left")),
        Err(error) => Verdict::refused(format!("{address}: {error}")),
    }
}

/// Asks for a route (rtnetlink(7)) by an interface that there cannot be: who has the right is told so.
fn add_route(_: &Context) -> Verdict {
    const NEW_ROUTE: u16 = 24;
    let Ok(socket) = sys!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE) else {
        return Verdict::refused("no netlink");
    };
    // nlmsghdr: length, kind, flags (request, acknowledge, create), number, sender; then rtmsg and RTA_OIF.
    let mut message = [
        &36_u32.to_ne_bytes()[..],
        &NEW_ROUTE.to_ne_bytes(),
        &0x405_u16.to_ne_bytes(),
        &[0; 8],
        &[2, 0, 0, 0, 255, 4, 254, 2, 0, 0, 0, 0],
        &8_u16.to_ne_bytes(),
        &4_u16.to_ne_bytes(),
        &i32::MAX.to_ne_bytes(),
    ]
    .concat();
    let length = message.len();
    let sent = sys!(SYS_sendto, socket, message.as_mut_slice(), length, 0, 0, 0);
    let mut answer = [0_u8; 512];
    let received = sys!(SYS_recvfrom, socket, answer.as_mut_slice(), 512, libc::MSG_DONTWAIT, 0, 0);
    sys::close(socket);
    // nlmsgerr begins behind the header: a negative error number.
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]).saturating_neg();
    match sent.and(received) {
        Err(errno) => must_be_denied("add a route", Err(errno)),
        Ok(_) => must_be_denied("add a route", Err(sys::Errno(code))),
    }
}

/// A socket that may take what is for others.
fn transparent_socket(_: &Context) -> Verdict {
    let Ok(socket) = sys!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0) else {
        return Verdict::refused("no socket");
    };
    let mut one = 1_i32.to_ne_bytes();
    let set = sys!(SYS_setsockopt, socket, libc::SOL_IP, libc::IP_TRANSPARENT, one.as_mut_slice(), 4);
    sys::close(socket);
    must_be_denied("IP_TRANSPARENT", set)
}

/// Says a word to who listens there, and prints what comes back.
pub(crate) fn connect(address: &str, word: &str) -> std::io::Result<()> {
    use std::io::{Read, Write};
    let mut answer = Vec::new();
    if address.starts_with('/') {
        let mut stream = std::os::unix::net::UnixStream::connect(address)?;
        stream.write_all(word.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut answer)?;
    } else {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(word.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut answer)?;
    }
    crate::print_raw(&answer)
}
