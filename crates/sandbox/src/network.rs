//! What a sandbox may reach over the network.
//!
//! A policy is data: it is checked here, kept in records, and enforced elsewhere. Names are in one form, as the
//! network compares them: lower case, ASCII (IDNA, RFC 5890), without the dot at the end.

use crate::capability::Capability;
use crate::error::{Error, Result};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most rules of a policy.
pub const MAX_RULES: usize = 256;
/// Most presets of a policy.
pub const MAX_PRESETS: usize = 16;
/// Most ports of a rule.
pub const MAX_PORTS: usize = 32;
/// Most methods of a rule.
pub const MAX_METHODS: usize = 16;
/// Longest path prefix of a rule, in bytes.
pub const MAX_PATH_PREFIX: usize = 1024;
/// Longest host name, in bytes, without the dot at the end (RFC 1035 §2.3.4).
pub const MAX_HOST: usize = 253;

/// What a sandbox may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkPolicy {
    /// The kind of policy.
    pub mode: NetworkMode,
    /// What is allowed (mode `allowlist`) or denied (`allowlist` and `open`). A rule that denies wins.
    pub rules: Vec<NetworkRule>,
    /// Named lists of rules, kept by the operator, that are added to these.
    pub presets: Vec<String>,
}

/// The kinds of network policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Nothing but its own loopback.
    #[default]
    None,
    /// What a list of rules names.
    Allowlist,
    /// Every public address that no rule denies.
    Open,
}

/// One thing that may be reached, or may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRule {
    /// Whether it may.
    #[serde(default)]
    pub action: RuleAction,
    /// Which hosts.
    pub host: HostPattern,
    /// TCP ports. Empty: 80 and 443 where the rule allows, all where it denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// HTTP methods in upper case. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What the HTTP path begins with. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// TLS to these hosts is opened, so that requests in it are held to the rule too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_tls: bool,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// Lets it through.
    #[default]
    Allow,
    /// Refuses it, whatever else allows it.
    Deny,
}

/// Which hosts a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This name: `api.example.com`.
    Name(String),
    /// All names below this one, and not itself: `*.example.com`.
    Below(String),
    /// These addresses: `10.0.0.0/8`, `192.0.2.7`.
    Block(IpNet),
}

impl NetworkPolicy {
    /// Nothing but loopback.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every public address.
    #[must_use]
    pub fn open() -> Self {
        Self { mode: NetworkMode::Open, ..Self::default() }
    }

    /// What these rules allow.
    #[must_use]
    pub fn allowlist(rules: Vec<NetworkRule>) -> Self {
        Self { mode: NetworkMode::Allowlist, rules, ..Self::default() }
    }

    /// The capability a backend needs to give this.
    #[must_use]
    pub fn needs(&self) -> Capability {
        match self.mode {
            NetworkMode::None => Capability::NetworkNone,
            NetworkMode::Allowlist => Capability::NetworkAllowlist,
            NetworkMode::Open => Capability::NetworkOpen,
        }
    }

    /// Whether nothing can be reached.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.mode == NetworkMode::None
    }

    /// Checks numbers and sizes, and that the rules go with the mode.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let counts = [("rules", self.rules.len(), MAX_RULES), ("presets", self.presets.len(), MAX_PRESETS)];
        for (field, count, most) in counts {
            if count > most {
                return Err(invalid(field, format!("{count} of them, at most {most}")));
            }
        }
        if self.is_none() && !(self.rules.is_empty() && self.presets.is_empty()) {
            return Err(invalid("rules", "with mode none nothing is reached, so rules mean nothing"));
        }
        for preset in &self.presets {
            crate::id::check_name("network_policy.presets", preset)?;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate().map_err(|problem| invalid(&format!("rules[{index}]"), problem))?;
            if self.mode == NetworkMode::Open && rule.action == RuleAction::Allow && !rule.is_block() {
                let problem =
                    "with mode open every public name is allowed; allow only private blocks, or deny";
                return Err(invalid(&format!("rules[{index}]"), problem));
            }
        }
        Ok(())
    }
}

impl NetworkRule {
    /// Allows a host on the ports of the web.
    #[must_use]
    pub fn allow(host: HostPattern) -> Self {
        Self {
            action: RuleAction::Allow,
            host,
            ports: Vec::new(),
            methods: Vec::new(),
            path_prefix: None,
            open_tls: false,
        }
    }

    /// Whether it is about addresses.
    #[must_use]
    pub fn is_block(&self) -> bool {
        matches!(self.host, HostPattern::Block(_))
    }

    /// Whether it looks at requests, and not only at connections.
    #[must_use]
    pub fn is_about_requests(&self) -> bool {
        !self.methods.is_empty() || self.path_prefix.is_some()
    }

    /// Whether it is about this port.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        match (self.ports.is_empty(), self.action) {
            (true, RuleAction::Allow) => matches!(port, 80 | 443),
            (true, RuleAction::Deny) => true,
            (false, _) => self.ports.contains(&port),
        }
    }

    /// Checks what the types leave open; the problem in words.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn validate(&self) -> std::result::Result<(), String> {
        if self.ports.len() > MAX_PORTS || self.ports.contains(&0) {
            return Err(format!("ports: at most {MAX_PORTS}, each from 1 to 65535"));
        }
        if self.methods.len() > MAX_METHODS {
            return Err(format!("methods: {} of them, at most {MAX_METHODS}", self.methods.len()));
        }
        for method in &self.methods {
            if method.is_empty() || method.len() > 32 || !method.bytes().all(|byte| byte.is_ascii_uppercase())
            {
                return Err(format!("methods: {method:.40?} is not an HTTP method in upper case"));
            }
        }
        if let Some(prefix) = &self.path_prefix {
            // Paths are compared decoded: one with a `%` would match none.
            let plain =
                prefix.bytes().all(|byte| byte.is_ascii_graphic()) && !prefix.contains(['?', '#', '\\', '%']);
            if !prefix.starts_with('/') || prefix.len() > MAX_PATH_PREFIX || !plain {
                return Err(format!(
                    "path_prefix: {prefix:.40?} is not a plain path: it begins with '/', has at most \
                     {MAX_PATH_PREFIX} bytes, and no '?', '#' or '%'"
                ));
            }
        }
        if self.is_block() && (self.is_about_requests() || self.open_tls) {
            return Err("methods, path_prefix and open_tls go with host names, not with addresses".to_owned());
        }
        if self.is_about_requests() && !self.open_tls && self.has_port(443) {
            return Err(
                "methods and path_prefix on port 443 need open_tls: requests inside TLS are not seen \
                 otherwise; or give ports without 443"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl HostPattern {
    /// Whether it is about this name, which is in the form of [`normal_name`].
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Below(own) => {
                name.strip_suffix(own.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Block(_) => false,
        }
    }

    /// Whether it is about this address. An IPv4 address inside an IPv6 one counts as the IPv4 address.
    #[must_use]
    pub fn matches_address(&self, address: IpAddr) -> bool {
        match self {
            Self::Block(block) => block.contains(&address.to_canonical()),
            Self::Name(_) | Self::Below(_) => false,
        }
    }
}

/// A rule that allows, as people type it: a host as [`HostPattern`] has it, and ports where they are others than 80 and
/// 443: `example.com`, `*.example.com:22,443`, `[2001:db8::1]:80`.
impl FromStr for NetworkRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An IPv6 address has colons itself; with ports it is written in brackets.
        let (host, ports) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, ports)| (host, Some(ports))),
        };
        let port = |port: &str| match port.trim().parse() {
            Ok(0) | Err(_) => Err(format!("{port:?} is not a port")),
            Ok(port) => Ok(port),
        };
        let ports = ports.map(|ports| ports.split(',').map(port).collect()).transpose()?.unwrap_or_default();
        Ok(NetworkRule { ports, ..NetworkRule::allow(host.parse()?) })
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Block(address.to_canonical().into()));
        }
        if text.contains('/') {
            return match text.parse::<IpNet>() {
                Ok(block) => Ok(Self::Block(canonical(block.trunc()))),
                Err(_) => Err(format!("{text:.80?} is not a CIDR block such as 10.0.0.0/8")),
            };
        }
        match text.strip_prefix("*.") {
            Some(rest) => normal_name(rest).map(Self::Below),
            None => normal_name(text).map(Self::Name),
        }
    }
}

/// IPv4 addresses in IPv6 form (`::ffff:10.0.0.0/104`) as what they are: addresses are compared so.
fn canonical(block: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let mapped = match block {
        IpNet::V6(block) => block.addr().to_ipv4_mapped().zip(block.prefix_len().checked_sub(MAPPED)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok()).map_or(block, IpNet::V4)
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Block(block) if block.prefix_len() == block.max_prefix_len() => {
                write!(f, "{}", block.addr())
            }
            Self::Block(block) => write!(f, "{block}"),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Allowlist => "allowlist",
            Self::Open => "open",
        })
    }
}

/// A host name in the one form in which names are compared: IDNA's ASCII form, lower case, no dot at the end.
///
/// # Errors
/// What is wrong with it: not a name, an address in disguise, or too long.
pub fn normal_name(text: &str) -> std::result::Result<String, String> {
    let wrong = |why: &str| Err(format!("{text:.80?} is not a host name: {why}"));
    if text.len() > 4 * MAX_HOST {
        return wrong("it is too long");
    }
    let Ok(name) = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL) else {
        return wrong("IDNA does not allow it");
    };
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.is_empty() || name.len() > MAX_HOST {
        return wrong("a name has 1 to 253 characters");
    }
    for label in name.split('.') {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if label.is_empty() || label.len() > 63 || !plain || label.starts_with('-') || label.ends_with('-') {
            return wrong("a label has 1 to 63 letters, digits, '-' and '_', and no '-' at its ends");
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    // Programs read 1.2.3, 0x7f.1 and 2130706433 as IPv4 addresses (inet_aton(3)); no top-level domain looks so.
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        return wrong("it ends like an IPv4 address");
    }
    Ok(name.to_owned())
}

fn invalid(field: &str, problem: impl Into<String>) -> Error {
    Error::invalid(format!("network_policy.{field}"), problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_one_form() {
        for (text, name) in [
            ("API.Example.COM.", "api.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("ｅxample。com", "example.com"),
        ] {
            assert_eq!(normal_name(text).as_deref(), Ok(name));
        }
        for text in
            ["", ".", "a..b", "a b", "127.0.0.1", "1.2.3", "2130706433", "0x7f000001", "a/b", "-a.com", "a@b"]
        {
            assert!(normal_name(text).is_err(), "{text}");
        }
        assert!(normal_name(&"a.".repeat(200)).is_err());
    }

    #[test]
    fn blocks_in_ipv6_form_are_what_they_mean() {
        let block: HostPattern = "::ffff:93.184.216.0/120".parse().unwrap();
        assert_eq!(block, "93.184.216.0/24".parse().unwrap());
        for address in ["93.184.216.34", "::ffff:93.184.216.34"] {
            assert!(block.matches_address(address.parse().unwrap()), "{address}");
        }
        assert_eq!("::ffff:0:0/96".parse::<HostPattern>(), "0.0.0.0/0".parse());
        assert_eq!("2001:db8::/32".parse::<HostPattern>().unwrap().to_string(), "2001:db8::/32");
    }

    #[test]
    fn patterns_match_what_they_say() {
        let below: HostPattern = "*.Example.com".parse().unwrap();
        assert!(below.matches_name("a.example.com") && below.matches_name("a.b.example.com"));
        assert!(!below.matches_name("example.com") && !below.matches_name("badexample.com"));
        let block: HostPattern = "10.1.2.3/8".parse().unwrap();
        assert_eq!(block.to_string(), "10.0.0.0/8");
        assert!(block.matches_address("::ffff:10.9.9.9".parse().unwrap()));
        assert_eq!("192.0.2.7".parse::<HostPattern>().unwrap().to_string(), "192.0.2.7");
        for wrong in ["*", "*.", "*.*.com", "a.*.com", "10.0.0.0/33", "https://example.com"] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rules_that_could_not_be_kept_are_refused() {
        let rule = NetworkRule::allow("api.example.com".parse().unwrap());
        let inside_tls = NetworkRule { methods: vec!["GET".to_owned()], ..rule.clone() };
        assert!(inside_tls.validate().unwrap_err().contains("open_tls"));
        let seen = NetworkRule { ports: vec![80], ..inside_tls };
        assert_eq!(seen.validate(), Ok(()));
        let policy = NetworkPolicy { rules: vec![rule.clone()], ..NetworkPolicy::none() };
        assert!(policy.validate().is_err());
        let policy = NetworkPolicy { rules: vec![rule], ..NetworkPolicy::open() };
        assert!(policy.validate().is_err());
    }

    proptest! {
        #[test]
        fn patterns_come_back_from_text(text in "(\\*\\.)?[a-z]{1,8}(\\.[a-z]{2,5}){1,3}") {
            let pattern: HostPattern = text.parse().unwrap();
            prop_assert_eq!(pattern.to_string(), text);
        }

        #[test]
        fn the_form_is_a_fixed_point(text in "\\PC{0,40}") {
            if let Ok(name) = normal_name(&text) {
                prop_assert_eq!(normal_name(&name), Ok(name));
            }
        }
    }
}
