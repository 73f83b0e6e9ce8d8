//! What a caller asks for when a sandbox is made.

use crate::capability::Capability;
use crate::error::{Error, Result};
use crate::id::{BackendName, TemplateId};
use crate::label::{self, Labels};
use crate::limits::ResourceLimits;
use crate::model::ModelAccess;
use crate::network::NetworkPolicy;
use crate::secret::{MAX_SECRETS, SecretRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most environment variables of a sandbox or process.
pub const MAX_ENV: usize = 1024;
/// Largest environment, names and values together, in bytes.
pub const MAX_ENV_BYTES: usize = 256 << 10;

/// A request for a sandbox. Everything has a default but nothing is guessed later: a backend gets the
/// resolved form, with the template's values filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Which backend; `None` is the node's default.
    pub backend: Option<BackendName>,
    /// Which template; `None` is the backend's default, `host` for jails.
    pub template: Option<TemplateId>,
    /// Labels, for selectors.
    pub labels: Labels,
    /// Caps; what is not set comes from the template, then the node.
    pub limits: ResourceLimits,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// User that processes run as unless they say otherwise: a name or a number inside the sandbox.
    pub user: Option<String>,
    /// Directory that processes start in; made if absent. An absolute path.
    pub workdir: Option<String>,
    /// What it may reach.
    pub network: NetworkPolicy,
    /// Secrets it may use without holding them.
    pub secrets: Vec<SecretRef>,
    /// Its way to a model; `None` is no way.
    pub model: Option<ModelAccess>,
    /// It is deleted this long after its creation.
    pub lifetime: Option<Duration>,
    /// It is deleted when no process ran and nobody called for this long.
    pub idle_timeout: Option<Duration>,
    /// Creation fails where one of these is missing, whatever the defaults would tolerate.
    pub required_capabilities: BTreeSet<Capability>,
}

impl SandboxSpec {
    /// Checks everything that does not depend on the host.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field.
    pub fn validate(&self) -> Result<()> {
        label::validate(&self.labels)?;
        self.limits.validate()?;
        validate_env("env", &self.env)?;
        self.network.validate()?;
        self.validate_secrets()?;
        if let Some(model) = &self.model {
            model.budget.validate()?;
        }
        if let Some(workdir) = &self.workdir {
            validate_path("workdir", workdir)?;
        }
        if let Some(user) = &self.user {
            validate_user("user", user)?;
        }
        for (field, value) in [("lifetime", self.lifetime), ("idle_timeout", self.idle_timeout)] {
            if value.is_some_and(|value| {
                value < Duration::from_millis(100) || value > Duration::from_secs(366 * 86_400)
            }) {
                return Err(Error::invalid(field, "must be between 0.1 s and 366 days"));
            }
        }
        Ok(())
    }

    fn validate_secrets(&self) -> Result<()> {
        if self.secrets.len() > MAX_SECRETS {
            let problem = format!("{} of them, at most {MAX_SECRETS}", self.secrets.len());
            return Err(Error::invalid("secrets", problem));
        }
        let mut names = BTreeSet::new();
        for secret in &self.secrets {
            secret.validate()?;
            if !names.insert(&secret.name) {
                return Err(Error::invalid("secrets", format!("{} is there twice", secret.name)));
            }
        }
        Ok(())
    }
}

/// Checks number, names and size of environment variables.
///
/// # Errors
/// [`Error::InvalidArgument`] naming the variable.
pub fn validate_env(field: &str, env: &BTreeMap<String, String>) -> Result<()> {
    if env.len() > MAX_ENV {
        return Err(Error::invalid(field, format!("{} variables, at most {MAX_ENV}", env.len())));
    }
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > MAX_ENV_BYTES {
        return Err(Error::invalid(field, format!("{bytes} bytes, at most {MAX_ENV_BYTES}")));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid(
                field,
                format!("{name:.64?}: a name is not empty and has no '=', and neither part has a NUL"),
            ));
        }
    }
    Ok(())
}

/// Longest path we accept, in bytes (`PATH_MAX` of Linux, with its NUL).
pub const MAX_PATH: usize = 4095;

/// Checks an absolute path inside a sandbox. `..` is allowed: it is resolved inside and cannot leave the root.
///
/// # Errors
/// [`Error::InvalidArgument`] on an empty, relative, over-long or NUL-bearing path.
pub fn validate_path(field: &str, path: &str) -> Result<()> {
    if path.len() > MAX_PATH {
        return Err(Error::invalid(field, format!("{} bytes, at most {MAX_PATH}", path.len())));
    }
    if !path.starts_with('/') {
        return Err(Error::invalid(field, format!("{path:?} is not an absolute path")));
    }
    if path.contains('\0') {
        return Err(Error::invalid(field, "a path has no NUL"));
    }
    if path.split('/').any(|part| part.len() > 255) {
        return Err(Error::invalid(field, "a part of the path is longer than 255 bytes"));
    }
    Ok(())
}

/// Checks a user: a name as `useradd` takes it, or a uid; either with `:` and a group's name or gid.
///
/// # Errors
/// [`Error::InvalidArgument`] on anything else.
pub fn validate_user(field: &str, user: &str) -> Result<()> {
    let ok = !user.is_empty()
        && user.len() <= 64
        && user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'));
    if ok {
        Ok(())
    } else {
        Err(Error::invalid(
            field,
            format!("{user:.80?} is not a user: give a name, a uid, uid:gid or name:group"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_kernel_takes_are_refused_here() {
        for bad in ["", "relative", "/a\0b", &format!("/{}", "x".repeat(256)), &"/x".repeat(4096)] {
            assert!(validate_path("path", bad).is_err(), "{:.20}", bad);
        }
        assert!(validate_path("path", "/../../etc/passwd").is_ok(), "dots are resolved inside the root");
    }

    #[test]
    fn a_bad_variable_is_named() {
        let spec = SandboxSpec { env: [("A=B".to_owned(), String::new())].into(), ..Default::default() };
        assert!(spec.validate().unwrap_err().to_string().contains("A=B"));
    }
}
