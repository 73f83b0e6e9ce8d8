//! Secrets by reference: between the API and the domain.

use super::optional;
use crate::error::Result;
use hostel_proto::v1;
use hostel_sandbox::{Error as DomainError, SecretForm, SecretRef};

pub(crate) fn secrets(wire: Vec<v1::SecretRef>) -> Result<Vec<SecretRef>> {
    if wire.len() > hostel_sandbox::secret::MAX_SECRETS {
        return Err(DomainError::invalid("secrets", "too many").into());
    }
    wire.into_iter().map(secret).collect()
}

fn secret(wire: v1::SecretRef) -> Result<SecretRef> {
    let host = |text: &String| {
        text.parse().map_err(|problem: String| DomainError::invalid("secrets.hosts", problem).into())
    };
    let form = match (wire.header.is_empty(), wire.header_template.is_empty()) {
        (true, true) => SecretForm::Placeholder,
        (true, false) => {
            return Err(DomainError::invalid("secrets.header_template", "it needs a header").into());
        }
        (false, true) => SecretForm::Header { name: wire.header, template: "{}".to_owned() },
        (false, false) => SecretForm::Header { name: wire.header, template: wire.header_template },
    };
    let hosts = wire.hosts.iter().map(host).collect::<Result<_>>()?;
    let secret = SecretRef { name: wire.name, hosts, form, env: optional(wire.env) };
    secret.validate()?;
    Ok(secret)
}

pub(crate) fn api_secrets(secrets: &[SecretRef]) -> Vec<v1::SecretRef> {
    secrets.iter().map(api_secret).collect()
}

fn api_secret(secret: &SecretRef) -> v1::SecretRef {
    let (header, header_template) = match &secret.form {
        SecretForm::Placeholder => Default::default(),
        SecretForm::Header { name, template } => (name.clone(), template.clone()),
    };
    v1::SecretRef {
        name: secret.name.clone(),
        hosts: secret.hosts.iter().map(ToString::to_string).collect(),
        header,
        header_template,
        env: secret.env.clone().unwrap_or_default(),
    }
}
