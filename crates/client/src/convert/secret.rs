//! Secrets: between the API and the domain.

use super::{optional, time};
use crate::error::{Error, Result};
use crate::model::Secret;
use hostel_proto::v1;
use hostel_sandbox::{SecretForm, SecretRef};

pub(super) fn secret(wire: v1::SecretRef) -> Result<SecretRef> {
    let form = if wire.header.is_empty() {
        SecretForm::Placeholder
    } else {
        SecretForm::Header { name: wire.header, template: wire.header_template }
    };
    let hosts = wire.hosts.iter().map(|host| host.parse().map_err(Error::Protocol)).collect::<Result<_>>()?;
    Ok(SecretRef { name: wire.name, hosts, form, env: optional(wire.env) })
}

pub(super) fn secret_to_wire(secret: &SecretRef) -> v1::SecretRef {
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

pub(crate) fn known_secret(wire: v1::Secret) -> Secret {
    Secret { name: wire.name, source: wire.source, update_time: time(wire.update_time) }
}
