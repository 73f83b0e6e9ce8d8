//! The packet rules of a sandbox: one nftables table, replaced as a whole.
//!
//! TCP is given to our sockets as it is (transparent proxying): they see the address it was for as their own, and the
//! kernel keeps no state beside the connection itself. With address translation each connection would have held an
//! entry of the kernel's memory for minutes, counted towards no sandbox. DNS over UDP is translated, for a datagram has
//! no connection to remember where an answer must seem to come from; the rate of questions is limited before that.

use super::Error;
use super::expression::{Expressions, ICMP, ICMP6, TCP, UDP};
use super::netlink::{APPEND, Batch, CREATE};
use rustix::io::Errno;
use rustix::net::netlink;
use std::os::fd::OwnedFd;

const TABLE: &str = "hostel";
/// `NFPROTO_INET`: IPv4 and IPv6.
const FAMILY: u8 = 1;
/// Messages of nftables carry its number, as does the frame around them.
const SUBSYSTEM: u8 = 10;
/// nfgenmsg around a transaction of it.
const FRAME: [u8; 4] = [0, 0, 0, SUBSYSTEM];
const BEGIN: u16 = 16;
const END: u16 = 17;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Where packets are looked at (netfilter's hooks), and when: before and after others at the same place.
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
const RAW: i32 = -300;
const MANGLE: i32 = -150;
const TRANSLATION: i32 = -100;
const FILTER: i32 = 0;

const DNS: u16 = 53;
/// Questions a second, and at once: far more than an honest program asks. Each can hold about 300 bytes of the kernel's
/// memory for 30 s (two minutes where it goes on).
const QUESTIONS: (u64, u32) = (200, 1000);
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST6: u8 = 128;

/// Ports of our sockets.
pub(super) struct Ports {
    pub(super) transparent: u16,
    pub(super) proxy: u16,
    pub(super) dns_udp: u16,
    pub(super) dns_tcp: u16,
}

/// Puts the rules in force, in the place of those of an earlier call. → what is to be closed where somebody has time:
/// the kernel waits there until no packet is among the old rules, some 10 ms.
///
/// # Errors
/// The step that the kernel refused; everything is as before then.
pub(super) fn install(ports: &Ports) -> Result<OwnedFd, Error> {
    let mut table = Table(Batch::default());
    table.0.bracket("begin packet rules", BEGIN, &FRAME);
    if is_there()? {
        table.table("remove the old packet rules", DELETE_TABLE, 0);
    }
    table.table("make the table of packet rules (nf_tables)", NEW_TABLE, CREATE);
    table.before_tracking(ports);
    table.questions(ports);
    table.connections(ports);
    table.the_rest();
    table.0.bracket("end the packet rules", END, &FRAME);
    table.0.send(Some(netlink::NETFILTER))
}

/// Whether there are rules of an earlier call.
pub(super) fn is_there() -> Result<bool, Error> {
    let mut table = Table(Batch::default());
    table.table("look for packet rules (nf_tables)", GET_TABLE, 0);
    match table.0.send(Some(netlink::NETFILTER)) {
        Ok(_) => Ok(true),
        Err(Error::Step { error, .. }) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

struct Table(Batch);

impl Table {
    fn table(&mut self, step: &'static str, kind: u16, flags: u16) {
        self.0.add(step, message(kind), flags, &[FAMILY, 0, 0, 0], |attributes| {
            attributes.text(1, TABLE);
        });
    }

    fn chain(&mut self, step: &'static str, name: &str, kind: &str, hook: u32, priority: i32) {
        self.0.add(step, message(NEW_CHAIN), CREATE, &[FAMILY, 0, 0, 0], |attributes| {
            attributes.text(1, TABLE).text(3, name).nested(4, |place| {
                place.number(1, hook).number(2, priority.cast_unsigned());
            });
            attributes.text(7, kind);
        });
    }

    fn rule(&mut self, step: &'static str, chain: &str, write: impl FnOnce(&mut Expressions<'_>)) {
        self.0.add(step, message(NEW_RULE), CREATE | APPEND, &[FAMILY, 0, 0, 0], |attributes| {
            attributes.text(1, TABLE).text(2, chain).nested(4, |list| write(&mut Expressions::new(list)));
        });
    }

    /// State is kept for DNS over UDP alone, of so many questions.
    fn before_tracking(&mut self, ports: &Ports) {
        let chain = "untracked";
        self.chain("make the chain for what is not tracked", chain, "filter", OUTPUT, RAW);
        self.rule("limit questions (nft_limit)", chain, |packet| {
            packet.protocol(UDP).for_port(DNS).over(QUESTIONS.0, QUESTIONS.1).drop();
        });
        // Here what is redirected still goes where it was sent to: nobody asks past the limit.
        self.rule("take no questions at our own port", chain, |packet| {
            packet.protocol(UDP).for_port(ports.dns_udp).drop();
        });
        self.rule("track questions", chain, |packet| {
            packet.protocol(UDP).for_port(DNS).accept();
        });
        self.rule("track answers", chain, |packet| {
            packet.protocol(UDP).sent_from(ports.dns_udp).accept();
        });
        self.rule("track nothing else (nft_ct)", chain, |packet| {
            packet.forget();
        });
    }

    fn questions(&mut self, ports: &Ports) {
        self.chain("make the chain for questions (nft_nat)", "questions", "nat", OUTPUT, TRANSLATION);
        self.rule("redirect questions (nft_redir)", "questions", |packet| {
            packet.protocol(UDP).for_port(DNS).redirect_to(ports.dns_udp);
        });
    }

    /// Nothing inside can be in the way: these come before any socket is looked for.
    fn connections(&mut self, ports: &Ports) {
        let chain = "connections";
        self.chain("make the chain for connections", chain, "filter", PREROUTING, MANGLE);
        self.rule("take questions over TCP (nft_tproxy)", chain, |packet| {
            packet.protocol(TCP).for_port(DNS).give_to(ports.dns_tcp);
        });
        self.rule("take connections to the proxy", chain, |packet| {
            packet.for_loopback4().protocol(TCP).for_port(super::PROXY_PORT).give_to(ports.proxy);
        });
        self.rule("take connections to the proxy by IPv6", chain, |packet| {
            packet.for_loopback6().protocol(TCP).for_port(super::PROXY_PORT).give_to(ports.proxy);
        });
        self.leave_loopback(chain);
        self.rule("take connections", chain, |packet| {
            packet.protocol(TCP).give_to(ports.transparent);
        });
        // Nobody took it, for the daemon is restarting: the program's own system asks again in a second.
        self.rule("leave connections unanswered while nobody is there", chain, |packet| {
            packet.protocol(TCP).opens_connection().drop();
        });
    }

    /// Datagrams to the world are refused, rather than delivered to whoever has that port inside; nor does the world
    /// answer pings.
    fn the_rest(&mut self) {
        let chain = "rest";
        self.chain("make the chain for the rest", chain, "filter", INPUT, FILTER);
        self.leave_loopback(chain);
        self.rule("refuse datagrams (nft_reject)", chain, |packet| {
            packet.protocol(UDP).refuse();
        });
        self.rule("answer no ping", chain, |packet| {
            packet.protocol(ICMP).of_type(ECHO_REQUEST).drop();
        });
        self.rule("answer no ping by IPv6", chain, |packet| {
            packet.protocol(ICMP6).of_type(ECHO_REQUEST6).drop();
        });
    }

    fn leave_loopback(&mut self, chain: &str) {
        self.rule("leave loopback alone", chain, |packet| {
            packet.for_loopback4().accept();
        });
        self.rule("leave loopback of IPv6 alone", chain, |packet| {
            packet.for_loopback6().accept();
        });
    }
}

fn message(kind: u16) -> u16 {
    u16::from(SUBSYSTEM) << 8 | kind
}
