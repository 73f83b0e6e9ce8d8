//! The node and its checks.

use super::api_weakness;
use crate::host::{Check, Finding};
use crate::sandboxes::Sandboxes;
use hostel_proto::v1;
use hostel_sandbox::{Backend, Capability};
use std::sync::Arc;

pub(crate) fn api_check(check: &Check) -> v1::DoctorCheck {
    let status = match check.finding {
        Finding::Ok => v1::DoctorStatus::Ok,
        Finding::Warn => v1::DoctorStatus::Warn,
        Finding::Fail => v1::DoctorStatus::Fail,
    };
    v1::DoctorCheck {
        name: check.name.to_owned(),
        status: status.into(),
        detail: check.detail.clone(),
        fix: check.fix.clone(),
    }
}

pub(crate) fn api_fact(check: &Check) -> v1::IsolationFact {
    v1::IsolationFact {
        feature: check.name.to_owned(),
        available: check.finding == Finding::Ok,
        detail: check.detail.clone(),
        fix: check.fix.clone(),
    }
}

pub(crate) fn api_backend(
    sandboxes: &Sandboxes,
    backend: &Arc<dyn Backend>,
    is_default: bool,
) -> v1::BackendInfo {
    let name = backend.name();
    let capabilities = backend.capabilities();
    // What no backend of today offers is no reason for concern; what isolates is.
    let degraded = [Capability::MemoryLimit, Capability::PidsLimit, Capability::PrivateUserIds]
        .iter()
        .any(|capability| !capabilities.has(*capability));
    let live = sandboxes.all();
    let count = live
        .iter()
        .map(|entry| entry.record())
        .filter(|record| record.backend == name && !record.state().is_final())
        .count();
    let trouble = sandboxes.backends().trouble(&name);
    let health = match (&trouble, degraded) {
        // Away for now: what it has is kept, and it is expected back.
        (Some((_, was_well)), _) if *was_well || count > 0 => v1::BackendHealth::Degraded,
        (Some(_), _) => v1::BackendHealth::Unavailable,
        (None, true) => v1::BackendHealth::Degraded,
        (None, false) => v1::BackendHealth::Healthy,
    };
    v1::BackendInfo {
        name: name.to_string(),
        is_default,
        health: health.into(),
        detail: match trouble {
            Some((why, _)) => why,
            None => {
                let less = degraded.then(|| "less isolation than by default, see missing".to_owned());
                less.into_iter().chain(backend.remark()).collect::<Vec<_>>().join("; ")
            }
        },
        capabilities: capabilities.available.iter().map(|capability| capability.name().to_owned()).collect(),
        missing: capabilities.missing.iter().map(api_weakness).collect(),
        default_template: backend.default_template().to_owned(),
        sandbox_count: u32::try_from(count).unwrap_or(u32::MAX),
    }
}
