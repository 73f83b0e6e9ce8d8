//! The decisions of a policy: a pure function of rules. A rule that denies wins over all that allow.

use crate::address;
use crate::decision::{Reason, Refused};
use crate::error::Result;
use crate::preset::Presets;
use hostel_sandbox::network::{HostPattern, NetworkMode, NetworkPolicy, NetworkRule, RuleAction};
use std::net::IpAddr;

/// A policy with its presets, ready to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    mode: NetworkMode,
    rules: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    rule: NetworkRule,
    /// How the rule is shown in decisions.
    shown: String,
}

/// What of a connection is seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Its HTTP requests, each of which is decided by itself.
    Requests,
    /// Bytes.
    Opaque,
}

/// A decision of a policy, with its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    fn by(entry: &Entry) -> Self {
        let allowed = entry.rule.action == RuleAction::Allow;
        let reason = if allowed { Reason::Rule } else { Reason::DeniedByRule };
        Self { allowed, rule: Some(entry.shown.clone()), reason }
    }

    /// `Err` where it is refused; `what` is for the message.
    pub(crate) fn or_refuse(self, what: &str) -> std::result::Result<Self, Refused> {
        if self.allowed {
            return Ok(self);
        }
        let message = match &self.rule {
            Some(rule) => format!("{what} is refused by the rule: {rule}"),
            None => format!("{what} is allowed by no rule of this sandbox's network policy"),
        };
        Err(Refused { reason: self.reason, rule: self.rule, message, address: None })
    }
}

impl Ruleset {
    /// Takes a policy and the presets that it names.
    ///
    /// # Errors
    /// Where the policy is not valid or names a preset that is not there.
    pub fn new(policy: &NetworkPolicy, presets: &Presets) -> Result<Self> {
        policy.validate()?;
        let mut rules: Vec<Entry> =
            policy.rules.iter().map(|rule| Entry { shown: show(rule, None), rule: rule.clone() }).collect();
        for name in &policy.presets {
            for rule in presets.rules(name)? {
                rules.push(Entry { shown: show(rule, Some(name)), rule: rule.clone() });
            }
        }
        Ok(Self { mode: policy.mode, rules })
    }

    /// Nothing is allowed.
    #[must_use]
    pub fn none() -> Self {
        Self { mode: NetworkMode::None, rules: Vec::new() }
    }

    /// The kind of policy.
    #[must_use]
    pub fn mode(&self) -> NetworkMode {
        self.mode
    }

    /// Whether a name may be resolved: where anything of that host may be reached.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Verdict {
        let whole = |rule: &NetworkRule| rule.ports.is_empty() && !rule.is_about_requests();
        self.decide(
            |rule| rule.action == RuleAction::Deny && rule.host.matches_name(name) && whole(rule),
            |rule| rule.host.matches_name(name),
        )
    }

    /// Whether a connection to a host by its name is allowed. Where requests are seen, whether any may be.
    #[must_use]
    pub fn connect(&self, name: &str, port: u16, seen: Seen) -> Verdict {
        // What is not seen cannot be held to a rule about requests: such a rule then allows nothing and denies all.
        let applies = |rule: &NetworkRule| rule.host.matches_name(name) && rule.has_port(port);
        let opaque = seen == Seen::Opaque;
        self.decide(
            |rule| rule.action == RuleAction::Deny && applies(rule) && (opaque || !rule.is_about_requests()),
            |rule| applies(rule) && !(opaque && rule.is_about_requests()),
        )
    }

    /// Whether a request to a host by its name is allowed. The path is without its query.
    ///
    /// Methods are case-sensitive (RFC 9110 §9.1), and servers do not all hold to it: a rule that denies POST denies
    /// `post` too. One that allows GET does not allow `get`, for nobody knows what a server takes that for.
    #[must_use]
    pub fn request(&self, name: &str, port: u16, method: &str, path: &str) -> Verdict {
        let applies = |rule: &NetworkRule| {
            rule.host.matches_name(name)
                && rule.has_port(port)
                && (rule.methods.is_empty()
                    || rule.methods.iter().any(|own| match rule.action {
                        RuleAction::Allow => own == method,
                        RuleAction::Deny => own.eq_ignore_ascii_case(method),
                    }))
                && rule.path_prefix.as_ref().is_none_or(|prefix| {
                    // As with methods: many servers pay no heed to case.
                    path.as_bytes().get(..prefix.len()).is_some_and(|start| match rule.action {
                        RuleAction::Allow => start == prefix.as_bytes(),
                        RuleAction::Deny => start.eq_ignore_ascii_case(prefix.as_bytes()),
                    })
                })
        };
        self.decide(|rule| rule.action == RuleAction::Deny && applies(rule), applies)
    }

    /// Whether a connection to an address without a name is allowed. Special addresses are another question:
    /// [`Self::lists`].
    #[must_use]
    pub fn address(&self, address: IpAddr, port: u16) -> Verdict {
        let applies = |rule: &NetworkRule| rule.host.matches_address(address) && rule.has_port(port);
        self.decide(|rule| rule.action == RuleAction::Deny && applies(rule), applies)
    }

    /// The rule that denies an address, whatever its name.
    #[must_use]
    pub fn denies_address(&self, address: IpAddr, port: Option<u16>) -> Option<Verdict> {
        self.find(|rule| {
            rule.action == RuleAction::Deny
                && rule.host.matches_address(address)
                && port.map_or(rule.ports.is_empty(), |port| rule.has_port(port))
        })
        .map(Verdict::by)
    }

    /// Whether an allowing rule means this special address: a block that holds it and is no wider than the special
    /// range (`10.0.0.0/8` means private addresses, `0.0.0.0/0` does not).
    #[must_use]
    pub fn lists(&self, address: IpAddr, port: Option<u16>) -> bool {
        let Some(special) = address::special(address) else { return true };
        self.find(|rule| {
            rule.action == RuleAction::Allow
                && port.is_none_or(|port| rule.has_port(port))
                && matches!(&rule.host, HostPattern::Block(block)
                    if special.range.contains(block) && rule.host.matches_address(address))
        })
        .is_some()
    }

    /// Whether TLS to a host is to be opened.
    #[must_use]
    pub fn opens_tls(&self, name: &str, port: u16) -> bool {
        self.find(|rule| rule.open_tls && rule.host.matches_name(name) && rule.has_port(port)).is_some()
    }

    /// Whether TLS to some host on this port is to be opened.
    pub(crate) fn opens_some(&self, port: u16) -> bool {
        self.find(|rule| rule.open_tls && rule.has_port(port)).is_some()
    }

    /// Whether a rule looks at the paths of a host's requests.
    #[must_use]
    pub fn looks_at_paths(&self, name: &str, port: u16) -> bool {
        self.find(|rule| rule.path_prefix.is_some() && rule.host.matches_name(name) && rule.has_port(port))
            .is_some()
    }

    /// What the rules say about a host whose requests they look at, to see whether a change touches one that is under
    /// way: any of them may be what let it through. Nothing where they do not look.
    pub(crate) fn about_requests(&self, name: &str, port: u16) -> Vec<&NetworkRule> {
        let rules = self.rules.iter().map(|entry| &entry.rule);
        let about: Vec<_> =
            rules.filter(|rule| rule.host.matches_name(name) && rule.has_port(port)).collect();
        if about.iter().any(|rule| rule.is_about_requests() || rule.open_tls) { about } else { Vec::new() }
    }

    fn find(&self, wanted: impl Fn(&NetworkRule) -> bool) -> Option<&Entry> {
        self.rules.iter().find(|entry| wanted(&entry.rule))
    }

    fn decide(
        &self,
        denies: impl Fn(&NetworkRule) -> bool,
        allows: impl Fn(&NetworkRule) -> bool,
    ) -> Verdict {
        if let Some(entry) = self.find(denies) {
            return Verdict::by(entry);
        }
        match self.mode {
            NetworkMode::None => Verdict { allowed: false, rule: None, reason: Reason::NoRule },
            NetworkMode::Open => Verdict { allowed: true, rule: None, reason: Reason::Open },
            NetworkMode::Allowlist => self
                .find(|rule| rule.action == RuleAction::Allow && allows(rule))
                .map_or(Verdict { allowed: false, rule: None, reason: Reason::NoRule }, Verdict::by),
        }
    }
}

/// A rule in one line: `allow api.example.com:80,443 GET /v1/ (preset web)`.
fn show(rule: &NetworkRule, preset: Option<&String>) -> String {
    let mut text = match rule.action {
        RuleAction::Allow => format!("allow {}", rule.host),
        RuleAction::Deny => format!("deny {}", rule.host),
    };
    if !rule.ports.is_empty() {
        let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
        text.push_str(&format!(" port {}", ports.join(",")));
    }
    if !rule.methods.is_empty() {
        text.push_str(&format!(" {}", rule.methods.join(",")));
    }
    if let Some(prefix) = &rule.path_prefix {
        text.push_str(&format!(" {prefix}"));
    }
    if let Some(preset) = preset {
        text.push_str(&format!(" (preset {preset})"));
    }
    text
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
