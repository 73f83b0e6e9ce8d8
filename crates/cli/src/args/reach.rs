//! What a sandbox may reach: network, secrets, models.

use super::value;
use crate::failure::Failure;
use clap::Args;
use hostel_sandbox::{
    HostPattern, ModelAccess, ModelBudget, NetworkMode, NetworkPolicy, NetworkRule, RuleAction, SecretForm,
    SecretRef,
};

/// Where help has these. Of each, since a heading of them all would go on to what comes after them.
const HEADING: &str = "Network, secrets and models";

/// What a sandbox may reach, as far as it is said.
#[derive(Debug, Default, Args)]
pub(crate) struct ReachOptions {
    /// What it may reach: none, open (every public address), or allowlist (what --allow and --preset name)
    /// [the template's, which is none; allowlist with --allow or --preset].
    #[arg(help_heading = HEADING, long, value_name = "POLICY", value_parser = value::network)]
    network: Option<NetworkMode>,
    /// Let it reach this host: NAME, *.NAME or CIDR, with ports [80,443]: api.example.com, *.example.com:22,
    /// 10.0.0.0/8:5432. Private addresses are reached only when named here.
    #[arg(help_heading = HEADING, long, value_name = "HOST[:PORT,…]", value_parser = value::rule)]
    allow: Vec<NetworkRule>,
    /// Never let it reach this host, whatever else allows it. Without ports: on any.
    #[arg(help_heading = HEADING, long, value_name = "HOST[:PORT,…]", value_parser = value::rule)]
    deny: Vec<NetworkRule>,
    /// Let it reach what the daemon's list of this name has, for example model-api.
    #[arg(help_heading = HEADING, long, value_name = "NAME", value_delimiter = ',')]
    preset: Vec<String>,
    /// Let it use a secret that it never sees: name=N,host=H[,host=H…][,env=VARIABLE][,header=NAME][,template=TEXT].
    /// The daemon puts the value into requests to these hosts: where the placeholder stands, which is in VARIABLE, or
    /// always as the header, whose template has {} where the value goes: template=Bearer {}.
    #[arg(help_heading = HEADING, long, value_name = "SECRET", value_parser = value::secret)]
    secret: Vec<SecretRef>,
    /// Let it ask the model, through the daemon's gateway.
    #[arg(help_heading = HEADING, long)]
    model: bool,
    /// Most money it may spend on models, in US dollars: 2.50. Implies --model.
    #[arg(help_heading = HEADING, long, value_name = "USD", value_parser = value::dollars)]
    budget: Option<u64>,
    /// Most tokens of every kind it may use. Implies --model.
    #[arg(help_heading = HEADING, long, value_name = "N")]
    model_tokens: Option<u64>,
    /// Most requests to models. Implies --model.
    #[arg(help_heading = HEADING, long, value_name = "N")]
    model_requests: Option<u64>,
    /// Most requests to models in any minute. Implies --model.
    #[arg(help_heading = HEADING, long, value_name = "N")]
    model_requests_per_minute: Option<u32>,
    /// Most tokens in any minute. Implies --model.
    #[arg(help_heading = HEADING, long, value_name = "N")]
    model_tokens_per_minute: Option<u64>,
}

impl ReachOptions {
    /// The network policy, where one is asked for.
    ///
    /// # Errors
    /// When rules and policy contradict each other.
    pub(crate) fn network(&self) -> Result<Option<NetworkPolicy>, Failure> {
        let listed = !(self.allow.is_empty() && self.preset.is_empty());
        let mode = match (self.network, listed) {
            (Some(mode), _) => mode,
            (None, true) => NetworkMode::Allowlist,
            (None, false) if self.deny.is_empty() => return Ok(None),
            (None, false) => {
                return Err(Failure::usage("--deny takes away from what --network open or --allow gives"));
            }
        };
        let denied = self.deny.iter().cloned().map(|rule| NetworkRule { action: RuleAction::Deny, ..rule });
        let rules = self.allow.iter().cloned().chain(denied).collect();
        let policy = NetworkPolicy { mode, rules, presets: self.preset.clone() };
        policy.validate().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Some(policy))
    }

    /// The secrets.
    pub(crate) fn secrets(&self) -> Vec<SecretRef> {
        self.secret.clone()
    }

    /// The way to a model, where one is asked for.
    pub(crate) fn model(&self) -> Option<ModelAccess> {
        let budget = ModelBudget {
            cost_micros: self.budget,
            tokens: self.model_tokens,
            requests: self.model_requests,
            requests_per_minute: self.model_requests_per_minute,
            tokens_per_minute: self.model_tokens_per_minute,
        };
        (self.model || !budget.is_unbounded()).then_some(ModelAccess { budget })
    }
}

/// A budget with these bounds, and those of the one before that these do not name.
pub(crate) fn changed(named: ModelBudget, before: &ModelBudget) -> ModelBudget {
    ModelBudget {
        cost_micros: named.cost_micros.or(before.cost_micros),
        tokens: named.tokens.or(before.tokens),
        requests: named.requests.or(before.requests),
        requests_per_minute: named.requests_per_minute.or(before.requests_per_minute),
        tokens_per_minute: named.tokens_per_minute.or(before.tokens_per_minute),
    }
}

/// Reads a secret: `KEY=VALUE` joined with commas, which values cannot have.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn secret(text: &str) -> Result<SecretRef, String> {
    let (mut name, mut hosts, mut env) = (None, Vec::new(), None);
    let (mut header, mut template) = (None, None);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
        match key {
            "name" => name = Some(value.to_owned()),
            "host" => hosts.push(value.parse::<HostPattern>()?),
            "env" => env = Some(value.to_owned()),
            "header" => header = Some(value.to_owned()),
            "template" => template = Some(value.to_owned()),
            other => return Err(format!("{other:?} is not one of name, host, env, header and template")),
        }
    }
    let form = match (header, template) {
        (Some(name), template) => {
            SecretForm::Header { name, template: template.unwrap_or_else(|| "{}".to_owned()) }
        }
        (None, None) => SecretForm::Placeholder,
        (None, Some(_)) => return Err("a template needs a header".to_owned()),
    };
    let name = name.ok_or("a secret needs name=NAME")?;
    let secret = SecretRef { name, hosts, form, env };
    secret.validate().map_err(|error| error.to_string())?;
    Ok(secret)
}

/// Reads a host with its ports.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn rule(text: &str) -> Result<NetworkRule, String> {
    text.parse()
}

/// Reads US dollars into millionths.
///
/// # Errors
/// When it is no such number.
pub(crate) fn dollars(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not an amount of US dollars such as 2.50");
    let amount = text.trim().trim_start_matches('$');
    let (whole, part) = amount.split_once('.').unwrap_or((amount, ""));
    if part.len() > 6 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000).and_then(|micros| micros.checked_add(part)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_their_ports() {
        for (text, host, ports) in [
            ("api.example.com", "api.example.com", vec![]),
            ("*.example.com:22,443", "*.example.com", vec![22, 443]),
            ("10.0.0.0/8:5432", "10.0.0.0/8", vec![5432]),
            ("[2001:db8::1]:80", "2001:db8::1", vec![80]),
            ("2001:db8::/32", "2001:db8::/32", vec![]),
        ] {
            let rule = rule(text).unwrap();
            assert_eq!((rule.host.to_string().as_str(), rule.ports), (host, ports), "{text}");
        }
        assert!(rule("example.com:http").is_err() && rule("example.com:0").is_err());
    }

    #[test]
    fn money_is_exact() {
        for (text, micros) in [("2.50", 2_500_000), ("$0.000001", 1), ("3", 3_000_000), ("0", 0)] {
            assert_eq!(dollars(text), Ok(micros), "{text}");
        }
        for wrong in ["", "-1", "1.0000001", "1e3", "two"] {
            assert!(dollars(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_read_from_its_parts() {
        let read = secret("name=github,host=api.github.com,host=*.github.com,env=GITHUB_TOKEN").unwrap();
        assert_eq!((read.hosts.len(), read.form), (2, SecretForm::Placeholder));
        let read = secret("name=k,host=example.com,header=authorization,template=Bearer {}").unwrap();
        assert!(matches!(read.form, SecretForm::Header { template, .. } if template == "Bearer {}"));
        for wrong in ["host=example.com", "name=x", "name=x,host=10.0.0.0/8", "name=x,host=a.com,template={}"]
        {
            assert!(secret(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounds_that_are_not_named_stay() {
        let before =
            ModelBudget { cost_micros: Some(1), requests_per_minute: Some(9), ..ModelBudget::default() };
        let named = ModelBudget { cost_micros: Some(5), tokens: Some(7), ..ModelBudget::default() };
        let after = ModelBudget { requests_per_minute: Some(9), ..named.clone() };
        assert_eq!(changed(named, &before), after);
        assert_eq!(changed(ModelBudget::default(), &before), before);
    }

    #[test]
    fn hosts_alone_make_an_allowlist() {
        let options = ReachOptions { allow: vec![rule("example.com").unwrap()], ..Default::default() };
        assert_eq!(options.network().unwrap().unwrap().mode, NetworkMode::Allowlist);
        assert_eq!(ReachOptions::default().network().unwrap(), None);
        let options = ReachOptions { deny: vec![rule("example.com").unwrap()], ..Default::default() };
        assert!(options.network().is_err());
    }
}
