//! Sandboxes, limits, network policies, changes and statistics.

use super::model::{model, model_to_wire};
use super::network::{network, network_to_wire};
use super::secret::{secret, secret_to_wire};
use super::{duration_to_wire, optional, required, seconds, time, unknown};
use crate::error::Result;
use crate::model::{
    CreatedSandbox, ForkOutcome, Sandbox, SandboxChange, SandboxEvent, SandboxStats, Stage, StartKind,
    Transition, Weakness,
};
use crate::sandbox::{CreateSandbox, UpdateSandbox};
use hostel_proto::v1;
use hostel_proto::v1::fork_result::Result as WireOutcome;
use hostel_sandbox::file::InitialFile;
use hostel_sandbox::{BackendName, ResourceLimits, SandboxId, SandboxState, TemplateId};

pub(crate) fn sandbox(wire: v1::Sandbox) -> Result<Sandbox> {
    let start_kind = match wire.start_kind() {
        v1::StartKind::Warm => StartKind::Warm,
        v1::StartKind::Cold | v1::StartKind::Unspecified => StartKind::Cold,
    };
    Ok(Sandbox {
        id: SandboxId::parse(wire.id)?,
        backend: BackendName::parse(wire.backend)?,
        template: TemplateId::parse(wire.template)?,
        state: required(state(wire.state)?, "a state")?,
        last_transition: wire.last_transition.map(|transition| Transition {
            reason: transition.reason,
            detail: transition.detail,
            actor: transition.actor,
            time: time(transition.time),
        }),
        labels: wire.labels.into_iter().collect(),
        limits: limits(wire.limits.unwrap_or_default()),
        env: wire.env.into_iter().collect(),
        user: wire.user,
        working_directory: wire.working_directory,
        network: network(wire.network_policy)?,
        secrets: wire.secrets.into_iter().map(secret).collect::<Result<_>>()?,
        model: wire.model.map(model),
        create_time: time(wire.create_time),
        ready_time: time(wire.ready_time),
        expire_time: time(wire.expire_time),
        idle_timeout_seconds: wire.idle_timeout.map(seconds),
        weaknesses: wire.weaknesses.into_iter().map(weakness).collect(),
        parent_id: optional(wire.parent_id),
        start_kind,
        pool: optional(wire.pool),
    })
}

pub(crate) fn created(wire: v1::CreateSandboxResponse) -> Result<CreatedSandbox> {
    let stages = wire
        .stages
        .into_iter()
        .map(|stage| Stage { name: stage.name, seconds: stage.duration.map(seconds).unwrap_or_default() });
    Ok(CreatedSandbox { stages: stages.collect(), sandbox: sandbox(required(wire.sandbox, "the sandbox")?)? })
}

pub(super) fn weakness(wire: v1::Weakness) -> Weakness {
    Weakness { capability: wire.capability, detail: wire.detail }
}

pub(super) fn limits(wire: v1::ResourceLimits) -> ResourceLimits {
    ResourceLimits {
        memory_bytes: wire.memory_bytes,
        cpu_millis: wire.cpu_millis,
        pids: wire.pids,
        disk_bytes: wire.disk_bytes,
        disk_inodes: wire.disk_inodes,
        open_files: wire.open_files,
        output_bytes_per_second: wire.output_bytes_per_second,
    }
}

pub(super) fn limits_to_wire(limits: &ResourceLimits) -> v1::ResourceLimits {
    v1::ResourceLimits {
        memory_bytes: limits.memory_bytes,
        cpu_millis: limits.cpu_millis,
        pids: limits.pids,
        disk_bytes: limits.disk_bytes,
        disk_inodes: limits.disk_inodes,
        open_files: limits.open_files,
        output_bytes_per_second: limits.output_bytes_per_second,
    }
}

/// A state; `None` where the API says that there is none.
fn state(number: i32) -> Result<Option<SandboxState>> {
    use v1::SandboxState as Wire;
    let state = match Wire::try_from(number).map_err(|_| unknown("sandbox state", number))? {
        Wire::Unspecified => return Ok(None),
        Wire::Creating => SandboxState::Creating,
        Wire::Ready => SandboxState::Ready,
        Wire::Paused => SandboxState::Paused,
        Wire::Stopping => SandboxState::Stopping,
        Wire::Stopped => SandboxState::Stopped,
        Wire::Failed => SandboxState::Failed,
    };
    Ok(Some(state))
}

pub(crate) fn state_to_wire(state: SandboxState) -> i32 {
    use v1::SandboxState as Wire;
    let wire = match state {
        SandboxState::Creating => Wire::Creating,
        SandboxState::Ready => Wire::Ready,
        SandboxState::Paused => Wire::Paused,
        SandboxState::Stopping => Wire::Stopping,
        SandboxState::Stopped => Wire::Stopped,
        SandboxState::Failed => Wire::Failed,
    };
    wire.into()
}

pub(crate) fn create_request(create: CreateSandbox) -> v1::CreateSandboxRequest {
    let spec = create.spec;
    v1::CreateSandboxRequest {
        request_id: create.request_id.unwrap_or_default(),
        sandbox_id: create.id.map(String::from).unwrap_or_default(),
        backend: spec.backend.map(String::from).unwrap_or_default(),
        template: spec.template.map(String::from).unwrap_or_default(),
        labels: spec.labels.into_iter().collect(),
        limits: Some(limits_to_wire(&spec.limits)),
        env: spec.env.into_iter().collect(),
        user: spec.user.unwrap_or_default(),
        working_directory: spec.workdir.unwrap_or_default(),
        network_policy: create.network_given.then(|| network_to_wire(&spec.network)),
        expiration: spec
            .lifetime
            .map(|lifetime| v1::create_sandbox_request::Expiration::Lifetime(duration_to_wire(lifetime))),
        idle_timeout: spec.idle_timeout.map(duration_to_wire),
        required_capabilities: spec
            .required_capabilities
            .into_iter()
            .map(|capability| capability.name().to_owned())
            .collect(),
        pool: create.pool.unwrap_or_default(),
        secrets: spec.secrets.iter().map(secret_to_wire).collect(),
        model: spec.model.as_ref().map(model_to_wire),
        files: create.files.into_iter().map(file_to_wire).collect(),
    }
}

fn file_to_wire(file: InitialFile) -> v1::InitialFile {
    v1::InitialFile { path: file.path, content: file.content, permissions: file.mode }
}

pub(crate) fn update_request(id: &SandboxId, update: UpdateSandbox) -> v1::UpdateSandboxRequest {
    use v1::update_sandbox_request::Expiration;
    let named = [
        ("labels", update.labels.is_some()),
        ("lifetime", update.lifetime.is_some()),
        ("idle_timeout", update.idle_timeout.is_some()),
        ("limits", update.limits.is_some()),
        ("network_policy", update.network.is_some()),
        ("secrets", update.secrets.is_some()),
        ("model", update.model.is_some()),
    ];
    let paths = named.into_iter().filter(|(_, there)| *there).map(|(path, _)| path.to_owned()).collect();
    v1::UpdateSandboxRequest {
        sandbox_id: id.to_string(),
        update_mask: Some(prost_types::FieldMask { paths }),
        labels: update.labels.unwrap_or_default(),
        expiration: update.lifetime.map(|lifetime| Expiration::Lifetime(duration_to_wire(lifetime))),
        idle_timeout: update.idle_timeout.map(duration_to_wire),
        limits: update.limits.as_ref().map(limits_to_wire),
        network_policy: update.network.as_ref().map(network_to_wire),
        secrets: update.secrets.unwrap_or_default().iter().map(secret_to_wire).collect(),
        model: update.model.flatten().as_ref().map(model_to_wire),
    }
}

pub(crate) fn fork_outcome(wire: v1::ForkResult) -> Result<ForkOutcome> {
    match required(wire.result, "the result of a fork")? {
        WireOutcome::Sandbox(wire) => Ok(ForkOutcome::Sandbox(Box::new(sandbox(wire)?))),
        WireOutcome::Failure(failure) => {
            Ok(ForkOutcome::Failure { reason: failure.reason, message: failure.message })
        }
    }
}

pub(crate) fn event(wire: v1::SandboxEvent) -> Result<SandboxEvent> {
    use v1::SandboxEventKind as Kind;
    let kind = match wire.kind() {
        Kind::Created => SandboxChange::Created,
        Kind::StateChanged => SandboxChange::StateChanged,
        Kind::Updated => SandboxChange::Updated,
        Kind::Deleted => SandboxChange::Deleted,
        Kind::Unspecified => return Err(unknown("kind of change", wire.kind)),
    };
    Ok(SandboxEvent {
        cursor: wire.cursor,
        sandbox_id: SandboxId::parse(wire.sandbox_id)?,
        kind,
        old_state: state(wire.old_state)?,
        new_state: state(wire.new_state)?,
        reason: wire.reason,
        actor: wire.actor,
        time: time(wire.time),
    })
}

pub(crate) fn stats(wire: v1::SandboxStats) -> SandboxStats {
    SandboxStats {
        time: time(wire.time),
        cpu_seconds: wire.cpu_time.map(seconds),
        cpu_throttled_seconds: wire.cpu_throttled_time.map(seconds),
        memory_bytes: wire.memory_bytes,
        memory_peak_bytes: wire.memory_peak_bytes,
        memory_limit_bytes: wire.memory_limit_bytes,
        oom_kills: wire.oom_kills,
        pids: wire.pids,
        pids_limit: wire.pids_limit,
        disk_bytes: wire.disk_bytes,
        disk_limit_bytes: wire.disk_limit_bytes,
        disk_inodes: wire.disk_inodes,
        disk_inodes_limit: wire.disk_inodes_limit,
        io_read_bytes: wire.io_read_bytes,
        io_write_bytes: wire.io_write_bytes,
    }
}
