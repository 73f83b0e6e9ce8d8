//! Network policies: between the API and the domain.

use crate::error::Result;
use hostel_proto::v1;
use hostel_sandbox::{
    Error as DomainError, HostPattern, NetworkMode, NetworkPolicy, NetworkRule, RuleAction,
};

/// The network policy of a request; `None` where it says nothing.
pub(crate) fn network(policy: Option<v1::NetworkPolicy>) -> Result<Option<NetworkPolicy>> {
    let Some(policy) = policy else { return Ok(None) };
    let mode = match policy.mode() {
        v1::NetworkMode::Unspecified if policy.mode != 0 => {
            let problem = format!("{} is not a mode", policy.mode);
            return Err(DomainError::invalid("network_policy.mode", problem).into());
        }
        v1::NetworkMode::Unspecified => return Ok(None),
        v1::NetworkMode::None => NetworkMode::None,
        v1::NetworkMode::Allowlist => NetworkMode::Allowlist,
        v1::NetworkMode::Open => NetworkMode::Open,
    };
    if policy.rules.len() > hostel_sandbox::network::MAX_RULES {
        return Err(DomainError::invalid("network_policy.rules", "too many rules").into());
    }
    let numbered = policy.rules.into_iter().enumerate();
    let rules = numbered.map(|(index, wire)| rule(index, wire)).collect::<Result<_>>()?;
    let policy = NetworkPolicy { mode, rules, presets: policy.presets };
    policy.validate()?;
    Ok(Some(policy))
}

fn rule(index: usize, wire: v1::NetworkRule) -> Result<NetworkRule> {
    let invalid = |field: &str, problem: String| {
        DomainError::invalid(format!("network_policy.rules[{index}].{field}"), problem)
    };
    let action = match wire.action() {
        v1::RuleAction::Deny => RuleAction::Deny,
        v1::RuleAction::Allow => RuleAction::Allow,
        v1::RuleAction::Unspecified if wire.action == 0 => RuleAction::Allow,
        v1::RuleAction::Unspecified => {
            return Err(invalid("action", format!("{} is not an action", wire.action)).into());
        }
    };
    let port = |port: &u32| {
        u16::try_from(*port).map_err(|_| invalid("ports", format!("{port} is not a port")).into())
    };
    Ok(NetworkRule {
        action,
        host: wire.host.parse::<HostPattern>().map_err(|problem| invalid("host", problem))?,
        ports: wire.ports.iter().map(port).collect::<Result<_>>()?,
        methods: wire.methods,
        path_prefix: super::optional(wire.path_prefix),
        open_tls: wire.open_tls,
    })
}

pub(crate) fn api_network(policy: &NetworkPolicy) -> v1::NetworkPolicy {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(mode: v1::NetworkMode, host: &str) -> v1::NetworkPolicy {
        let rule = v1::NetworkRule { host: host.to_owned(), ..Default::default() };
        v1::NetworkPolicy { mode: mode.into(), rules: vec![rule], presets: Vec::new() }
    }

    #[test]
    fn rules_come_back_as_they_were_given() {
        let policy = network(Some(wire(v1::NetworkMode::Allowlist, "*.Example.com"))).unwrap().unwrap();
        let told = api_network(&policy);
        assert_eq!(told.rules[0].host, "*.example.com");
        assert_eq!(network(Some(told)).unwrap(), Some(policy));
    }

    #[test]
    fn contradictions_are_refused_with_the_field() {
        for (policy, field) in [
            (wire(v1::NetworkMode::None, "example.com"), "network_policy.rules"),
            (wire(v1::NetworkMode::Open, "example.com"), "rules[0]"),
            (wire(v1::NetworkMode::Allowlist, "a b"), "rules[0].host"),
            (v1::NetworkPolicy { mode: 77, ..Default::default() }, "mode"),
        ] {
            let error = network(Some(policy)).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        assert_eq!(network(None).unwrap(), None);
    }
}
