//! Network policies: between the API and the domain.

use crate::error::{Error, Result};
use hostel_proto::v1;
use hostel_sandbox::{HostPattern, NetworkMode, NetworkPolicy, NetworkRule, RuleAction};

pub(super) fn network(wire: Option<v1::NetworkPolicy>) -> Result<NetworkPolicy> {
    let Some(wire) = wire else { return Ok(NetworkPolicy::none()) };
    let mode = match wire.mode() {
        v1::NetworkMode::Allowlist => NetworkMode::Allowlist,
        v1::NetworkMode::Open => NetworkMode::Open,
        v1::NetworkMode::None | v1::NetworkMode::Unspecified => NetworkMode::None,
    };
    let rules = wire.rules.into_iter().map(rule).collect::<Result<_>>()?;
    Ok(NetworkPolicy { mode, rules, presets: wire.presets })
}

fn rule(wire: v1::NetworkRule) -> Result<NetworkRule> {
    let action = match wire.action() {
        v1::RuleAction::Deny => RuleAction::Deny,
        v1::RuleAction::Allow | v1::RuleAction::Unspecified => RuleAction::Allow,
    };
    Ok(NetworkRule {
        action,
        host: wire.host.parse::<HostPattern>().map_err(Error::Protocol)?,
        ports: wire.ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect(),
        methods: wire.methods,
        path_prefix: super::optional(wire.path_prefix),
        open_tls: wire.open_tls,
    })
}

pub(super) fn network_to_wire(policy: &NetworkPolicy) -> v1::NetworkPolicy {
    let mode = match policy.mode {
        NetworkMode::None => v1::NetworkMode::None,
        NetworkMode::Allowlist => v1::NetworkMode::Allowlist,
        NetworkMode::Open => v1::NetworkMode::Open,
    };
    let rules = policy.rules.iter().map(|rule| v1::NetworkRule {
        host: rule.host.to_string(),
        ports: rule.ports.iter().copied().map(u32::from).collect(),
        methods: rule.methods.clone(),
        path_prefix: rule.path_prefix.clone().unwrap_or_default(),
        action: match rule.action {
            RuleAction::Allow => v1::RuleAction::Allow.into(),
            RuleAction::Deny => v1::RuleAction::Deny.into(),
        },
        open_tls: rule.open_tls,
    });
    v1::NetworkPolicy { mode: mode.into(), rules: rules.collect(), presets: policy.presets.clone() }
}
