//! What a packet rule looks at and does, in nftables' words (`linux/netfilter/nf_tables.h`).

use super::netlink::Attributes;

/// The one register that is used.
const REGISTER: u32 = 1;
const ELEMENT: u16 = 1;

/// IP protocol numbers (RFC 5237).
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP6: u8 = 58;

/// The expressions of a rule, each of which must hold for the next one to be looked at.
pub(super) struct Expressions<'a> {
    list: &'a mut Attributes,
}

impl<'a> Expressions<'a> {
    pub(super) fn new(list: &'a mut Attributes) -> Self {
        Self { list }
    }

    fn add(&mut self, name: &str, data: impl FnOnce(&mut Attributes)) -> &mut Self {
        self.list.nested(ELEMENT, |element| {
            element.text(1, name).nested(2, data);
        });
        self
    }

    fn is(&mut self, value: &[u8]) -> &mut Self {
        self.add("cmp", |data| {
            data.number(1, REGISTER).number(2, 0).nested(3, |compared| {
                compared.bytes(1, value);
            });
        })
    }

    fn meta(&mut self, key: u32) -> &mut Self {
        self.add("meta", |data| {
            data.number(1, REGISTER).number(2, key);
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) -> &mut Self {
        self.add("payload", |data| {
            data.number(1, REGISTER).number(2, base).number(3, offset).number(4, length);
        })
    }

    /// The protocol above IP.
    pub(super) fn protocol(&mut self, number: u8) -> &mut Self {
        self.meta(16).is(&[number])
    }

    /// To an address of IPv4's loopback, 127.0.0.0/8.
    pub(super) fn for_loopback4(&mut self) -> &mut Self {
        self.meta(15).is(&[2]).payload(1, 16, 1).is(&[127])
    }

    /// To IPv6's loopback, `::1`.
    pub(super) fn for_loopback6(&mut self) -> &mut Self {
        self.meta(15).is(&[10]).payload(1, 24, 16).is(&std::net::Ipv6Addr::LOCALHOST.octets())
    }

    /// From that port (TCP, UDP).
    pub(super) fn sent_from(&mut self, port: u16) -> &mut Self {
        self.payload(2, 0, 2).is(&port.to_be_bytes())
    }

    /// To that port (TCP, UDP).
    pub(super) fn for_port(&mut self, port: u16) -> &mut Self {
        self.payload(2, 2, 2).is(&port.to_be_bytes())
    }

    /// A message of ICMP or ICMPv6 of that type.
    pub(super) fn of_type(&mut self, kind: u8) -> &mut Self {
        self.payload(2, 0, 1).is(&[kind])
    }

    /// The first packet of a TCP connection: SYN without ACK.
    pub(super) fn opens_connection(&mut self) -> &mut Self {
        let value = |kind: u16, value: u8| {
            move |data: &mut Attributes| {
                data.nested(kind, |inner| {
                    inner.bytes(1, &[value]);
                });
            }
        };
        self.payload(2, 13, 1).add("bitwise", |data| {
            data.number(1, REGISTER).number(2, REGISTER).number(3, 1);
            value(4, 0x12)(data);
            value(5, 0)(data);
        });
        self.is(&[0x02])
    }

    /// More packets than `rate` a second, after the first `burst`.
    pub(super) fn over(&mut self, rate: u64, burst: u32) -> &mut Self {
        self.add("limit", |data| {
            data.bytes(1, &rate.to_be_bytes()).bytes(2, &1u64.to_be_bytes()).number(3, burst);
            data.number(4, 0).number(5, 1);
        })
    }

    fn load(&mut self, port: u16) -> &mut Self {
        self.add("immediate", |data| {
            data.number(1, REGISTER).nested(2, |value| {
                value.bytes(1, &port.to_be_bytes());
            });
        })
    }

    /// Gives the connection to the transparent socket at that port, whatever address and port it is for.
    pub(super) fn give_to(&mut self, port: u16) -> &mut Self {
        self.load(port)
            .add("tproxy", |data| {
                data.number(1, 0).number(3, REGISTER);
            })
            .accept()
    }

    /// Changes where it goes to loopback at that port; answers are changed back.
    pub(super) fn redirect_to(&mut self, port: u16) -> &mut Self {
        self.load(port).add("redir", |data| {
            data.number(1, REGISTER);
        })
    }

    /// No state is kept for it.
    pub(super) fn forget(&mut self) -> &mut Self {
        self.add("notrack", |_| ())
    }

    /// Answers that nobody listens at that port.
    pub(super) fn refuse(&mut self) -> &mut Self {
        self.add("reject", |data| {
            data.number(1, 2).bytes(2, &[1]);
        })
    }

    pub(super) fn accept(&mut self) -> &mut Self {
        self.verdict(1)
    }

    pub(super) fn drop(&mut self) -> &mut Self {
        self.verdict(0)
    }

    fn verdict(&mut self, code: u32) -> &mut Self {
        self.add("immediate", |data| {
            data.number(1, 0).nested(2, |value| {
                value.nested(2, |verdict| {
                    verdict.number(1, code);
                });
            });
        })
    }
}
