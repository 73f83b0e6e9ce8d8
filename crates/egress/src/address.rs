//! Which addresses are public, and which never leave this host.
//!
//! The ranges are those of IANA's registries of special-purpose addresses (RFC 6890 and its updates), and the
//! addresses that clouds keep for their machines' metadata.

use crate::decision::{Reason, Refused};
use crate::rules::Ruleset;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A range with a special use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Special {
    /// The range.
    pub range: IpNet,
    /// What it is for, in a word or two.
    pub what: &'static str,
    /// Whether no policy of a sandbox can list it: it is this host, or no host at all.
    pub never: bool,
}

const V4: &[(Ipv4Addr, u8, &str, bool)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this host", true),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private", false),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "carrier NAT", false),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback", true),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "cloud metadata", false),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local", false),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private", false),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol assignments", false),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation", false),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relay", false),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private", false),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking", false),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation", false),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation", false),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast", true),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved", true),
];

const V6: &[(Ipv6Addr, u8, &str, bool)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "this host", true),
    (Ipv6Addr::LOCALHOST, 128, "loopback", true),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local", false),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "private", false),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast", true),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, "Teredo", true),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "protocol assignments", false),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation", false),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4", true),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation", false),
];

/// The special range that an address is in; `None` where it is public.
///
/// An IPv4 address inside an IPv6 one counts as the IPv4 address: mapped (RFC 4291 §2.5.5.2) and NAT64 (RFC 6052).
/// Teredo and 6to4 are refused whole.
#[must_use]
pub fn special(address: IpAddr) -> Option<Special> {
    match address.to_canonical() {
        IpAddr::V4(address) => V4
            .iter()
            .find_map(|(base, length, what, never)| special_v4(address, *base, *length, what, *never)),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(
    address: Ipv4Addr,
    base: Ipv4Addr,
    length: u8,
    what: &'static str,
    never: bool,
) -> Option<Special> {
    let range = Ipv4Net::new_assert(base, length);
    range.contains(&address).then_some(Special { range: range.into(), what, never })
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    for (base, length, what, never) in V6 {
        let range = Ipv6Net::new_assert(*base, *length);
        if range.contains(&address) {
            return Some(Special { range: range.into(), what, never: *never });
        }
    }
    if let Some(inner) = translated(IpAddr::V6(address)) {
        let inner = special(inner)?;
        // Listed or not as an IPv6 block of its own, never by the IPv4 rule that was meant for the direct way.
        return Some(Special { range: Ipv6Net::new_assert(address, 128).into(), ..inner });
    }
    // 2000::/3 is what is given out (RFC 4291 §2.4); all else has no public use.
    (address.segments()[0] & 0xe000 != 0x2000).then(|| Special {
        range: Ipv6Net::new_assert(address, 128).into(),
        what: "reserved",
        never: true,
    })
}

/// The IPv4 address that a NAT64 address leads to (RFC 6052 §2.1).
fn translated(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let [.., a, b, c, d] = address.octets();
    (address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| Ipv4Addr::new(a, b, c, d).into())
}

/// What can be reached from this host, beside what policies say.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    reachable: Arc<[IpNet]>,
    forbidden: Arc<[IpNet]>,
    own: Arc<Mutex<Own>>,
}

#[derive(Debug)]
struct Own {
    read: Option<Instant>,
    addresses: HashSet<IpAddr>,
}

/// How long the host's own addresses are believed.
const OWN_AGE: Duration = Duration::from_secs(10);

impl Reach {
    pub(crate) fn new(reachable: &[IpNet], forbidden: &[IpNet]) -> Self {
        let own = Own { read: None, addresses: HashSet::new() };
        Self { reachable: reachable.into(), forbidden: forbidden.into(), own: Arc::new(Mutex::new(own)) }
    }

    /// Whether an address may be connected to (`port`), or be told to the sandbox (without).
    pub(crate) fn check(
        &self,
        address: IpAddr,
        port: Option<u16>,
        rules: &Ruleset,
    ) -> Result<IpAddr, Refused> {
        let address = address.to_canonical();
        let refused = |what: &str, reason: Reason, rule: Option<String>| {
            Err(Refused { reason, rule, message: format!("{address} is {what}"), address: Some(address) })
        };
        // What is denied stays so by way of a translator.
        let inner = translated(address);
        for address in std::iter::once(address).chain(inner) {
            if let Some(verdict) = rules.denies_address(address, port) {
                return refused("denied by a rule", Reason::DeniedByRule, verdict.rule);
            }
            if self.forbidden.iter().any(|range| range.contains(&address)) {
                return refused("forbidden on this host", Reason::PrivateAddress, None);
            }
        }
        if self.reachable.iter().any(|range| range.contains(&address)) {
            return Ok(address);
        }
        if self.is_own(address) || inner.is_some_and(|inner| self.is_own(inner)) {
            return refused("one of this host's own addresses", Reason::PrivateAddress, None);
        }
        match special(address) {
            Some(special) if special.never || !rules.lists(address, port) => {
                refused(&format!("not public ({})", special.what), Reason::PrivateAddress, None)
            }
            _ => Ok(address),
        }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.read.is_none_or(|read| read.elapsed() > OWN_AGE) {
            match own_addresses() {
                Ok(addresses) => own.addresses = addresses,
                Err(error) => {
                    tracing::warn!(%error, "the host's own addresses cannot be listed");
                    // Without the list, nothing is known to be another host.
                    return own.addresses.is_empty() || own.addresses.contains(&address);
                }
            }
            own.read = Some(Instant::now());
        }
        own.addresses.contains(&address)
    }
}

fn own_addresses() -> nix::Result<HashSet<IpAddr>> {
    let mut found = HashSet::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address else { continue };
        if let Some(address) = address.as_sockaddr_in() {
            found.insert(IpAddr::V4(address.ip()));
        } else if let Some(address) = address.as_sockaddr_in6() {
            found.insert(IpAddr::V6(address.ip()).to_canonical());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_sandbox::network::{NetworkPolicy, NetworkRule, RuleAction};

    #[test]
    fn special_addresses_are_known_in_every_form() {
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "64:ff9b::169.254.169.254",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "fec0::1",
        ] {
            assert!(special(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"] {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn the_hosts_own_addresses_are_never_reached() {
        let everything: Vec<NetworkRule> = ["127.0.0.0/8", "::1", "0.0.0.0/0", "::/0", "10.0.0.0/8"]
            .map(|block| NetworkRule::allow(block.parse().unwrap()))
            .to_vec();
        let policy = NetworkPolicy::allowlist(everything);
        let rules = Ruleset::new(&policy, &crate::Presets::default()).unwrap();
        let reach = Reach::new(&[], &[]);
        assert!(reach.check("10.99.99.99".parse().unwrap(), Some(443), &rules).is_ok());
        for own in own_addresses().unwrap() {
            assert!(reach.check(own, Some(443), &rules).is_err(), "{own}");
        }
        let block = NetworkRule {
            action: RuleAction::Deny,
            ..NetworkRule::allow("93.184.216.0/24".parse().unwrap())
        };
        let open = NetworkPolicy { rules: vec![block], ..NetworkPolicy::open() };
        let open = Ruleset::new(&open, &crate::Presets::default()).unwrap();
        let forbidding = Reach::new(&[], &["8.8.8.0/24".parse().unwrap()]);
        for by_translator in ["64:ff9b::5db8:d822", "64:ff9b::808:808"] {
            assert!(
                forbidding.check(by_translator.parse().unwrap(), Some(443), &open).is_err(),
                "{by_translator}"
            );
        }
        assert!(reach.check("64:ff9b::808:808".parse().unwrap(), Some(443), &open).is_ok());
        let listed = Reach::new(&["127.0.0.0/8".parse().unwrap()], &[]);
        assert!(listed.check("127.0.0.1".parse().unwrap(), Some(443), &rules).is_ok());
    }
}
