//! Every address is here: loopback is up, and whatever a program connects to is delivered on it (`ip route add local
//! 0.0.0.0/0 dev lo`; rtnetlink(7)). There is no other interface, so nothing leaves the namespace.

use super::Error;
use super::netlink::{Batch, CREATE, REPLACE};
use rustix::io::Errno;
use std::io;
use std::net::Ipv4Addr;

/// `NETLINK_ROUTE` is 0, which is what none means.
const ROUTE: Option<rustix::net::Protocol> = None;
const RTM_SETLINK: u16 = 19;
const RTM_NEWROUTE: u16 = 24;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
/// Loopback is the first interface of every namespace.
const LOOPBACK: u32 = 1;
/// Of the namespace that the thread is in.
const NO_IPV6: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;

/// Sets it up; what is there already stays.
///
/// # Errors
/// The step that the kernel refused. A namespace without IPv6 is fine: nothing can be sent by it then.
pub(super) fn make_every_address_local() -> Result<(), Error> {
    let mut batch = Batch::default();
    // ifinfomsg: family, padding, type, index, flags, which flags change.
    let link = [0, LOOPBACK, IFF_UP, IFF_UP].map(u32::to_ne_bytes).concat();
    batch.add("raise loopback", RTM_SETLINK, 0, &link, |_| ());
    batch.add("route IPv4 to loopback", RTM_NEWROUTE, CREATE | REPLACE, &route(AF_INET), |attributes| {
        // Else a program would have the address it connects to for its own, too.
        attributes.native(RTA_OIF, LOOPBACK).bytes(RTA_PREFSRC, &Ipv4Addr::LOCALHOST.octets());
    });
    batch.send(ROUTE)?;
    match route_ipv6() {
        // Container engines switch it off for loopback (who lacks the right is told EPERM).
        Err(Error::Step { error, .. }) if is(&error, Errno::ACCESS) => {
            if std::fs::write(NO_IPV6, "0").is_ok() { route_ipv6() } else { Ok(()) }
        }
        Err(Error::Step { error, .. }) if is(&error, Errno::OPNOTSUPP) || is(&error, Errno::AFNOSUPPORT) => {
            Ok(())
        }
        other => other,
    }
}

fn route_ipv6() -> Result<(), Error> {
    let mut batch = Batch::default();
    batch.add("route IPv6 to loopback", RTM_NEWROUTE, CREATE | REPLACE, &route(AF_INET6), |attributes| {
        attributes.native(RTA_OIF, LOOPBACK);
    });
    batch.send(ROUTE).map(drop)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// rtmsg for every address of a family: lengths of destination and source, service, table, origin, scope, kind, flags.
fn route(family: u8) -> [u8; 12] {
    [family, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0]
}
