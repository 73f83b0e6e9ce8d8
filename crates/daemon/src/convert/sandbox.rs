//! Sandboxes: requests into the domain, records and results out of it.

use super::{
    api_duration, api_limits, api_model, api_network, api_secrets, api_weakness, duration, limits, model,
    network, optional, optional_id, sandbox_id, secrets, system_time, timestamp,
};
use crate::error::Result;
use crate::record::SandboxRecord;
use crate::sandboxes::{CreateOutcome, ForkRequest, NewSandbox, Update};
use crate::status::domain_status;
use hostel_pool::PoolName;
use hostel_proto::v1::{
    self, create_sandbox_request, fork_result, fork_sandbox_request, update_sandbox_request,
};
use hostel_sandbox::file::{InitialFile, validate_initial};
use hostel_sandbox::stats::SandboxStats;
use hostel_sandbox::{
    BackendName, Capability, Error as DomainError, SandboxId, SandboxSpec, SandboxState, TemplateId,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};
use tonic_types::StatusExt as _;

/// Most forks of one call.
const MOST_FORKS: u32 = 100;
/// Longest grace period of a deletion.
const LONGEST_GRACE: Duration = Duration::from_secs(300);

pub(crate) fn new_sandbox(request: v1::CreateSandboxRequest, until: Instant) -> Result<NewSandbox> {
    let (expires, lifetime) = match request.expiration {
        Some(create_sandbox_request::Expiration::ExpireTime(time)) => {
            (Some(system_time("expire_time", time)?), None)
        }
        Some(create_sandbox_request::Expiration::Lifetime(lifetime)) => {
            (None, Some(duration("lifetime", lifetime)?))
        }
        None => (None, None),
    };
    let chosen_network = network(request.network_policy)?;
    let spec = SandboxSpec {
        backend: optional_id(request.backend, BackendName::parse)?,
        template: optional_id(request.template, TemplateId::parse)?,
        labels: request.labels,
        limits: limits(request.limits),
        env: request.env,
        user: optional(request.user),
        workdir: optional(request.working_directory),
        network: chosen_network.clone().unwrap_or_default(),
        lifetime,
        idle_timeout: request.idle_timeout.map(|timeout| duration("idle_timeout", timeout)).transpose()?,
        required_capabilities: capabilities(&request.required_capabilities)?,
        secrets: secrets(request.secrets)?,
        model: model(request.model)?,
    };
    spec.validate().map_err(as_the_api_spells_it)?;
    let id = optional_id(request.sandbox_id, SandboxId::parse)?;
    let pool = optional_id(request.pool, PoolName::parse)?;
    let files = initial_files(request.files)?;
    Ok(NewSandbox { id, spec, network: chosen_network, expires, files, pool, until })
}

fn initial_files(files: Vec<v1::InitialFile>) -> Result<Vec<InitialFile>> {
    let file = |file: v1::InitialFile| InitialFile {
        path: file.path,
        content: file.content,
        mode: file.permissions,
    };
    let files: Vec<_> = files.into_iter().map(file).collect();
    validate_initial(&files)?;
    Ok(files)
}

/// The domain's field names, as the request spells them.
fn as_the_api_spells_it(error: DomainError) -> DomainError {
    match error {
        DomainError::InvalidArgument { field, problem } if field == "workdir" => {
            DomainError::invalid("working_directory", problem)
        }
        other => other,
    }
}

fn capabilities(names: &[String]) -> Result<BTreeSet<Capability>> {
    let known = |name: &String| {
        Capability::from_name(name).ok_or_else(|| {
            let problem = format!("{name:.64?} is not a capability: see BackendInfo.capabilities");
            DomainError::invalid("required_capabilities", problem).into()
        })
    };
    names.iter().map(known).collect()
}

pub(crate) fn update(request: v1::UpdateSandboxRequest) -> Result<(SandboxId, Update)> {
    let id = sandbox_id(request.sandbox_id)?;
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(DomainError::invalid("update_mask", "name at least one field").into());
    }
    let mut update = Update::default();
    for path in &paths {
        match path.as_str() {
            "labels" => update.labels = Some(request.labels.clone()),
            "expire_time" | "lifetime" => update.expires = Some(expiration(request.expiration)?),
            "idle_timeout" => {
                let timeout = request.idle_timeout.map(|timeout| duration("idle_timeout", timeout));
                update.idle_timeout = Some(timeout.transpose()?);
            }
            "limits" => update.limits = Some(limits(request.limits)),
            "network_policy" => {
                update.network = Some(network(request.network_policy.clone())?.unwrap_or_default());
            }
            "secrets" => update.secrets = Some(secrets(request.secrets.clone())?),
            "model" => update.model = Some(model(request.model)?),
            other => {
                return Err(
                    DomainError::invalid("update_mask", format!("{other:.64?} cannot be changed")).into()
                );
            }
        }
    }
    Ok((id, update))
}

fn expiration(expiration: Option<update_sandbox_request::Expiration>) -> Result<Option<SystemTime>> {
    match expiration {
        None => Ok(None),
        Some(update_sandbox_request::Expiration::ExpireTime(time)) => {
            system_time("expire_time", time).map(Some)
        }
        Some(update_sandbox_request::Expiration::Lifetime(lifetime)) => {
            let lifetime = duration("lifetime", lifetime)?;
            let spec = SandboxSpec { lifetime: Some(lifetime), ..SandboxSpec::default() };
            spec.validate()?;
            Ok(SystemTime::now().checked_add(lifetime))
        }
    }
}

pub(crate) fn fork(request: v1::ForkSandboxRequest) -> Result<ForkRequest> {
    if request.count > MOST_FORKS {
        return Err(DomainError::invalid("count", format!("at most {MOST_FORKS}")).into());
    }
    let (expires, lifetime) = match request.expiration {
        Some(fork_sandbox_request::Expiration::ExpireTime(time)) => {
            (Some(system_time("expire_time", time)?), None)
        }
        Some(fork_sandbox_request::Expiration::Lifetime(lifetime)) => {
            (None, Some(duration("lifetime", lifetime)?))
        }
        None => (None, None),
    };
    Ok(ForkRequest {
        parent: sandbox_id(request.sandbox_id)?,
        count: usize::try_from(request.count.max(1)).unwrap_or(1),
        labels: request.labels,
        env: request.env,
        limits: limits(request.limits),
        network: network(request.network_policy)?,
        expires,
        lifetime,
        idle_timeout: request.idle_timeout.map(|timeout| duration("idle_timeout", timeout)).transpose()?,
    })
}

pub(crate) fn grace(period: Option<prost_types::Duration>) -> Result<Duration> {
    let grace = period.map(|period| duration("grace_period", period)).transpose()?.unwrap_or_default();
    if grace > LONGEST_GRACE {
        return Err(DomainError::invalid("grace_period", "at most 5 minutes").into());
    }
    Ok(grace)
}

pub(crate) fn states(states: &[i32]) -> Result<Vec<SandboxState>> {
    states
        .iter()
        .map(|state| match v1::SandboxState::try_from(*state) {
            Ok(v1::SandboxState::Creating) => Ok(SandboxState::Creating),
            Ok(v1::SandboxState::Ready) => Ok(SandboxState::Ready),
            Ok(v1::SandboxState::Paused) => Ok(SandboxState::Paused),
            Ok(v1::SandboxState::Stopping) => Ok(SandboxState::Stopping),
            Ok(v1::SandboxState::Stopped) => Ok(SandboxState::Stopped),
            Ok(v1::SandboxState::Failed) => Ok(SandboxState::Failed),
            Ok(v1::SandboxState::Unspecified) | Err(_) => {
                Err(DomainError::invalid("states", format!("{state} is not a state")).into())
            }
        })
        .collect()
}

pub(crate) fn api_state(state: SandboxState) -> v1::SandboxState {
    match state {
        SandboxState::Creating => v1::SandboxState::Creating,
        SandboxState::Ready => v1::SandboxState::Ready,
        SandboxState::Paused => v1::SandboxState::Paused,
        SandboxState::Stopping => v1::SandboxState::Stopping,
        SandboxState::Stopped => v1::SandboxState::Stopped,
        SandboxState::Failed => v1::SandboxState::Failed,
    }
}

pub(crate) fn api_sandbox(record: &SandboxRecord) -> v1::Sandbox {
    let transition = &record.transition;
    v1::Sandbox {
        id: record.id.to_string(),
        backend: record.backend.to_string(),
        template: record.spec.template.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: api_state(record.state()).into(),
        last_transition: Some(v1::StateTransition {
            reason: transition.reason.clone(),
            detail: record.detail.clone(),
            actor: transition.actor.clone(),
            time: Some(timestamp(transition.time)),
        }),
        labels: record.spec.labels.clone(),
        requested_limits: Some(api_limits(&record.requested_limits)),
        limits: Some(api_limits(&record.limits)),
        env: record.spec.env.clone(),
        user: record.spec.user.clone().unwrap_or_default(),
        working_directory: record.spec.workdir.clone().unwrap_or_default(),
        network_policy: Some(api_network(&record.spec.network)),
        secrets: api_secrets(&record.spec.secrets),
        model: record.spec.model.as_ref().map(api_model),
        create_time: Some(timestamp(record.created)),
        ready_time: record.ready.map(timestamp),
        update_time: Some(timestamp(record.updated)),
        expire_time: record.expires.map(timestamp),
        idle_timeout: record.idle_timeout().map(api_duration),
        weaknesses: record.weaknesses.iter().map(api_weakness).collect(),
        parent_id: record.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        snapshot_template: record.snapshot.as_ref().map(ToString::to_string).unwrap_or_default(),
        start_kind: start_kind(record).into(),
        pool: record.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn start_kind(record: &SandboxRecord) -> v1::StartKind {
    if record.pool.is_some() { v1::StartKind::Warm } else { v1::StartKind::Cold }
}

pub(crate) fn api_created(outcome: &CreateOutcome) -> v1::CreateSandboxResponse {
    let stages = outcome.stages.iter().map(|stage| v1::StageTiming {
        name: stage.name.to_owned(),
        duration: Some(api_duration(stage.duration)),
    });
    v1::CreateSandboxResponse {
        sandbox: Some(api_sandbox(&outcome.record)),
        start_kind: start_kind(&outcome.record).into(),
        stages: stages.collect(),
    }
}

pub(crate) fn api_fork(outcome: Result<std::sync::Arc<SandboxRecord>>) -> v1::ForkResult {
    let result = match outcome {
        Ok(record) => fork_result::Result::Sandbox(api_sandbox(&record)),
        Err(error) => fork_result::Result::Failure(api_failure(error)),
    };
    v1::ForkResult { result: Some(result) }
}

fn api_failure(error: crate::Error) -> v1::Failure {
    let status = match &error {
        crate::Error::Domain(error) => domain_status(error),
        _ => error.into(),
    };
    let (reason, metadata) = match status.get_error_details().error_info() {
        Some(info) => (info.reason.clone(), info.metadata.clone().into_iter().collect()),
        None => (String::new(), std::collections::BTreeMap::new()),
    };
    let code = u32::try_from(i32::from(status.code())).unwrap_or(2);
    v1::Failure { code, reason, message: status.message().to_owned(), metadata }
}

pub(crate) fn api_stats(stats: &SandboxStats, record: &SandboxRecord) -> v1::SandboxStats {
    let limits = &record.limits;
    v1::SandboxStats {
        time: Some(timestamp(stats.time)),
        cpu_time: stats.cpu_time.map(api_duration),
        cpu_throttled_time: stats.cpu_throttled.map(api_duration),
        memory_bytes: stats.memory_bytes,
        memory_peak_bytes: stats.memory_peak_bytes,
        memory_limit_bytes: limits.memory_bytes,
        oom_kills: stats.oom_kills,
        pids: stats.pids,
        pids_limit: limits.pids.map(u64::from),
        disk_bytes: stats.disk_bytes,
        disk_limit_bytes: limits.disk_bytes,
        disk_inodes: stats.disk_inodes,
        disk_inodes_limit: limits.disk_inodes,
        io_read_bytes: stats.io_read_bytes,
        io_write_bytes: stats.io_write_bytes,
    }
}
