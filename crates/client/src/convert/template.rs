//! Templates.

use super::sandbox::limits;
use super::{optional, time};
use crate::error::Result;
use crate::model::{Template, TemplateOrigin};
use hostel_proto::v1;
use hostel_sandbox::TemplateId;

pub(crate) fn template(wire: v1::Template) -> Result<Template> {
    use v1::TemplateOrigin as Wire;
    let origin = match wire.origin() {
        Wire::Host => Some(TemplateOrigin::Host),
        Wire::Import => Some(TemplateOrigin::Import),
        Wire::Snapshot => Some(TemplateOrigin::Snapshot),
        Wire::Build => Some(TemplateOrigin::Build),
        Wire::Unspecified => None,
    };
    let defaults = wire.defaults.unwrap_or_default();
    Ok(Template {
        name: TemplateId::parse(wire.name)?,
        labels: wire.labels.into_iter().collect(),
        origin,
        base_template: optional(wire.base_template),
        source_sandbox_id: optional(wire.source_sandbox_id),
        backends: wire.backends,
        size_bytes: wire.size_bytes,
        limits: limits(defaults.limits.unwrap_or_default()),
        env: defaults.env.into_iter().collect(),
        create_time: time(wire.create_time),
        sandbox_count: wire.sandbox_count,
    })
}
