//! Secrets that a sandbox may use without ever holding them.

use crate::error::{Error, Result};
use crate::id::check_name;
use crate::network::HostPattern;
use crate::spec::validate_env;
use serde::{Deserialize, Serialize};

/// Most secrets of a sandbox.
pub const MAX_SECRETS: usize = 32;
/// Most hosts of a secret.
pub const MAX_SECRET_HOSTS: usize = 16;
/// Longest template of a header, in bytes.
const MAX_TEMPLATE: usize = 256;

/// A secret by name, and where it may go. The value stays outside: on the way to one of `hosts` it is put in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// The name under which the daemon knows the value: 1 to 63 letters, digits, `_` and `-`.
    pub name: String,
    /// The hosts that get the value, 1 to 16 names or `*.` patterns. TLS to them is opened.
    pub hosts: Vec<HostPattern>,
    /// How it gets into a request.
    pub form: SecretForm,
    /// The environment variable in which processes find the placeholder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

/// How a secret gets into a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretForm {
    /// Wherever the placeholder stands in a header's value, also inside the base64 of `Basic` credentials.
    Placeholder,
    /// This header is set on every request, whatever the sandbox put there.
    Header {
        /// The header's name, for example `authorization`.
        name: String,
        /// Its value with `{}` where the secret goes, for example `Bearer {}`.
        template: String,
    },
}

impl SecretRef {
    /// Checks everything that does not depend on the node.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check_name("secrets.name", &self.name)?;
        if self.hosts.is_empty() || self.hosts.len() > MAX_SECRET_HOSTS {
            return Err(Error::invalid("secrets.hosts", format!("1 to {MAX_SECRET_HOSTS} of them")));
        }
        if self.hosts.iter().any(|host| matches!(host, HostPattern::Block(_))) {
            return Err(Error::invalid(
                "secrets.hosts",
                "a secret goes to hosts by name, never to an address",
            ));
        }
        if let SecretForm::Header { name, template } = &self.form {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
                return Err(Error::invalid("secrets.header", format!("{name:.80?} is not a header's name")));
            }
            let printable = template.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if template.matches("{}").count() != 1 || template.len() > MAX_TEMPLATE || !printable {
                let problem = "its value needs {} once, where the secret goes, for example \"Bearer {}\"";
                return Err(Error::invalid("secrets.header", problem));
            }
        }
        match &self.env {
            Some(name) => validate_env("secrets.env", &[(name.clone(), String::new())].into()),
            None => Ok(()),
        }
    }
}
