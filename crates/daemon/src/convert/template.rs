//! Templates.

use super::{api_limits, limits, network, optional, timestamp};
use crate::error::{Error, Result};
use hostel_proto::v1;
use hostel_sandbox::label;
use hostel_sandbox::spec::{validate_env, validate_path, validate_user};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{BackendName, NetworkPolicy, TemplateId};

/// The template that an import asks for.
pub(crate) fn imported(open: &v1::ImportTemplateOpen) -> Result<Template> {
    let mut template = Template::new(TemplateId::parse(open.name.clone())?, TemplateSource::Imported);
    label::validate(&open.labels)?;
    template.labels.clone_from(&open.labels);
    let Some(defaults) = open.defaults.clone() else { return Ok(template) };
    if !defaults.start_commands.is_empty() {
        return Err(Error::NotYet { what: "template_start_commands" });
    }
    if network(defaults.network_policy)?.is_some_and(|policy| policy != NetworkPolicy::None) {
        return Err(Error::NotYet { what: "template_network_policy" });
    }
    template.limits = limits(defaults.limits);
    template.limits.validate()?;
    validate_env("defaults.env", &defaults.env)?;
    template.env = defaults.env;
    template.user = optional(defaults.user);
    template.workdir = optional(defaults.working_directory);
    if let Some(user) = &template.user {
        validate_user("defaults.user", user)?;
    }
    if let Some(workdir) = &template.workdir {
        validate_path("defaults.working_directory", workdir)?;
    }
    Ok(template)
}

pub(crate) fn api_template(template: &Template, backend: &BackendName, sandboxes: usize) -> v1::Template {
    let (origin, base) = match &template.source {
        TemplateSource::Host => (v1::TemplateOrigin::Host, String::new()),
        TemplateSource::Imported | TemplateSource::Image { .. } => {
            (v1::TemplateOrigin::Import, String::new())
        }
        TemplateSource::Snapshot { base } => (v1::TemplateOrigin::Snapshot, base.to_string()),
    };
    v1::Template {
        name: template.id.to_string(),
        labels: template.labels.clone(),
        origin: origin.into(),
        base_template: base,
        source_sandbox_id: String::new(),
        backends: vec![backend.to_string()],
        size_bytes: template.size_bytes,
        defaults: Some(v1::TemplateDefaults {
            limits: Some(api_limits(&template.limits)),
            env: template.env.clone(),
            user: template.user.clone().unwrap_or_default(),
            working_directory: template.workdir.clone().unwrap_or_default(),
            network_policy: None,
            start_commands: Vec::new(),
        }),
        create_time: (origin != v1::TemplateOrigin::Host).then(|| timestamp(template.created)),
        sandbox_count: u32::try_from(sandboxes).unwrap_or(u32::MAX),
    }
}
