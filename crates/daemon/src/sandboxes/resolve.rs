//! From what a caller asked to what a backend is given: template and node defaults filled in, and everything that
//! the backend cannot hold either refused (where it was asked for) or dropped and told.

use super::Sandboxes;
use crate::error::{Error, Result};
use hostel_sandbox::capability::Capabilities;
use hostel_sandbox::spec::validate_env;
use hostel_sandbox::template::Template;
use hostel_sandbox::{
    Backend, Capability, Error as DomainError, NetworkPolicy, ResourceLimits, SandboxSpec, Weakness,
};
use std::sync::Arc;

/// A request that its backend can fulfil.
pub(super) struct Resolved {
    pub backend: Arc<dyn Backend>,
    pub spec: SandboxSpec,
    pub template: Option<Arc<Template>>,
    pub requested_limits: ResourceLimits,
    /// Defaults that were dropped because this host cannot hold them.
    pub weaknesses: Vec<Weakness>,
}

impl Sandboxes {
    /// Fills in and checks a request. `network` is what the caller said of it; otherwise the template's policy holds.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound` for backend or template, `CapabilityMissing`.
    pub(super) async fn resolve(
        &self,
        spec: SandboxSpec,
        network: Option<NetworkPolicy>,
    ) -> Result<Resolved> {
        let asked = spec.limits.clone();
        self.resolve_with(spec, &asked, network).await
    }

    /// The same where of the limits in `spec` only `asked` are the caller's own: others are not refused where the
    /// template allows less by now, but lowered.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub(super) async fn resolve_with(
        &self,
        mut spec: SandboxSpec,
        asked: &ResourceLimits,
        network: Option<NetworkPolicy>,
    ) -> Result<Resolved> {
        spec.validate()?;
        let backend = match &spec.backend {
            Some(name) => self.0.backends.get(name),
            None => self.0.backends.default(),
        }
        .ok_or_else(|| {
            let name = spec.backend.as_ref().map_or("(default)", AsRef::as_ref);
            Error::from(DomainError::not_found("backend", name))
        })?;
        backend.reach().await;
        let capabilities = backend.capabilities();
        let template = self.template_for(&backend, spec.template.as_ref()).await?;
        let from_template = template.as_ref().and_then(|template| template.network.clone());
        spec.network = network.or(from_template).unwrap_or_default();
        require_all(&capabilities, &spec)?;
        self.0.reach.check(&spec)?;

        let requested_limits = spec.limits.clone();
        spec.backend = Some(backend.name());
        if let Some(template) = &template {
            template.allows(asked)?;
            fill_from_template(&mut spec, template)?;
        }
        spec.limits = spec.limits.or(&self.0.settings.default_limits);
        if let Some(template) = &template {
            spec.limits = spec.limits.at_most(&template.max_limits);
        }
        spec.lifetime = spec.lifetime.or(self.0.settings.default_lifetime);
        let weaknesses = drop_what_cannot_be_held(&mut spec.limits, &requested_limits, &capabilities);
        Ok(Resolved { backend, spec, template, requested_limits, weaknesses })
    }
}

/// Refuses what was asked for and is not there.
fn require_all(capabilities: &Capabilities, spec: &SandboxSpec) -> Result<()> {
    let explicit = spec.required_capabilities.iter().copied();
    for capability in explicit.chain(spec.limits.needs()).chain([spec.network.needs()]) {
        capabilities.require(capability)?;
    }
    Ok(())
}

fn fill_from_template(spec: &mut SandboxSpec, template: &Template) -> Result<()> {
    spec.template = Some(template.id.clone());
    spec.limits = spec.limits.or(&template.limits);
    let mut env = template.env.clone();
    env.append(&mut spec.env);
    spec.env = env;
    validate_env("env", &spec.env)?;
    spec.user = spec.user.take().or_else(|| template.user.clone());
    spec.workdir = spec.workdir.take().or_else(|| template.workdir.clone());
    Ok(())
}

/// Takes default limits away that the backend cannot hold, and says so.
fn drop_what_cannot_be_held(
    limits: &mut ResourceLimits,
    requested: &ResourceLimits,
    capabilities: &Capabilities,
) -> Vec<Weakness> {
    let asked: Vec<Capability> = requested.needs().collect();
    let lost: Vec<Capability> =
        limits.needs().filter(|need| !capabilities.has(*need) && !asked.contains(need)).collect();
    lost.into_iter()
        .map(|capability| {
            forget(limits, capability);
            let known = capabilities.missing.iter().find(|weakness| weakness.capability == capability);
            let why = known.map_or("this backend does not offer it", |weakness| weakness.detail.as_str());
            Weakness { capability, detail: format!("the default limit is not held: {why}") }
        })
        .collect()
}

fn forget(limits: &mut ResourceLimits, capability: Capability) {
    match capability {
        Capability::MemoryLimit => limits.memory_bytes = None,
        Capability::CpuLimit => limits.cpu_millis = None,
        Capability::PidsLimit => limits.pids = None,
        Capability::DiskLimit => limits.disk_bytes = None,
        Capability::InodeLimit => limits.disk_inodes = None,
        Capability::OpenFilesLimit => limits.open_files = None,
        Capability::OutputRateLimit => limits.output_bytes_per_second = None,
        _ => {}
    }
}

/// Adds weaknesses that are not told yet.
pub(super) fn merge(weaknesses: &mut Vec<Weakness>, more: Vec<Weakness>) {
    for weakness in more {
        if !weaknesses.iter().any(|known| known.capability == weakness.capability) {
            weaknesses.push(weakness);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_limit_that_cannot_be_held_is_dropped_and_told() {
        let mut capabilities = Capabilities::default();
        capabilities.grant(Capability::MemoryLimit);
        capabilities.deny(Capability::PidsLimit, "no cgroup");
        let requested = ResourceLimits { memory_bytes: Some(64 << 20), ..Default::default() };
        let base = ResourceLimits { pids: Some(100), ..Default::default() };
        let mut limits = requested.or(&base);
        let weaknesses = drop_what_cannot_be_held(&mut limits, &requested, &capabilities);
        assert_eq!(limits, requested);
        assert_eq!(weaknesses.len(), 1);
        assert!(weaknesses[0].detail.contains("no cgroup"));
    }

    #[test]
    fn a_limit_that_was_asked_for_is_refused_where_it_cannot_be_held() {
        let mut capabilities = Capabilities::default();
        capabilities.grant(Capability::NetworkNone);
        let limits = ResourceLimits { disk_bytes: Some(1 << 30), ..Default::default() };
        let spec = SandboxSpec { limits, ..Default::default() };
        assert!(require_all(&capabilities, &spec).is_err());
        assert!(require_all(&capabilities, &SandboxSpec::default()).is_ok());
    }
}
