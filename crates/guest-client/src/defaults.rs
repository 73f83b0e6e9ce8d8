//! What a guest is told about a sandbox's processes.

use hostel_guest_protocol::GuestConfig;
use hostel_sandbox::{ResourceLimits, SandboxSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Output that ended processes leave behind in files, per stream, in bytes.
const SPILL_BYTES: u64 = 16 << 20;

/// What processes of a sandbox get unless they say otherwise. Backends keep it in their handles.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessDefaults {
    /// Their environment.
    pub env: BTreeMap<String, String>,
    /// Their user; empty is the backend's own choice.
    pub user: String,
    /// Their working directory.
    pub workdir: String,
}

impl ProcessDefaults {
    /// These, with what a request says over them.
    #[must_use]
    pub fn with(&self, spec: &SandboxSpec) -> Self {
        let mut env = self.env.clone();
        env.extend(spec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self {
            env,
            user: spec.user.clone().unwrap_or_else(|| self.user.clone()),
            workdir: spec.workdir.clone().unwrap_or_else(|| self.workdir.clone()),
        }
    }

    /// What the guest is told of them, and of the limits that it keeps itself. The token, how readily the kernel
    /// ends processes for want of memory, and whether users can be switched, are the backend's.
    #[must_use]
    pub fn config(&self, limits: &ResourceLimits) -> GuestConfig {
        GuestConfig {
            env: self.env.clone(),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            open_files: limits.open_files.unwrap_or(0),
            output_bytes_per_second: limits.output_bytes_per_second.unwrap_or(0),
            spill_bytes: SPILL_BYTES,
            ..GuestConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_more_and_otherwise() {
        let env = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let defaults =
            ProcessDefaults { env: env(&[("A", "1"), ("B", "1")]), user: "u".into(), workdir: "/w".into() };
        let spec =
            SandboxSpec { env: env(&[("B", "2"), ("C", "2")]), user: Some("v".into()), ..Default::default() };
        let bound = defaults.with(&spec);
        assert_eq!(bound.env, env(&[("A", "1"), ("B", "2"), ("C", "2")]));
        assert_eq!((bound.user.as_str(), bound.workdir.as_str()), ("v", "/w"));
        assert!(defaults.with(&SandboxSpec::default()) == defaults);
    }
}
