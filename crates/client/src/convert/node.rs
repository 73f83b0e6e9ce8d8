//! The node and its doctor.

use super::sandbox::weakness;
use super::{seconds, time, unknown};
use crate::error::Result;
use crate::model::{BackendHealth, BackendInfo, Capacity, DoctorCheck, DoctorStatus, IsolationFact, Node};
use hostel_proto::v1;

pub(crate) fn node(wire: v1::Node) -> Node {
    let draining = wire.state() == v1::NodeState::Draining;
    Node {
        name: wire.name,
        version: wire.version,
        start_time: time(wire.start_time),
        uptime_seconds: wire.uptime.map(seconds).unwrap_or_default(),
        draining,
        kernel_version: wire.kernel_version,
        architecture: wire.architecture,
        capacity: wire.capacity.map(capacity).unwrap_or_default(),
        isolation: wire.isolation.into_iter().map(isolation).collect(),
        backends: wire.backends.into_iter().map(backend).collect(),
    }
}

fn capacity(wire: v1::NodeCapacity) -> Capacity {
    Capacity {
        cpu_millis: wire.cpu_millis,
        cpu_millis_taken: wire.cpu_millis_taken,
        memory_bytes: wire.memory_bytes,
        memory_bytes_taken: wire.memory_bytes_taken,
        disk_bytes: wire.disk_bytes,
        disk_bytes_taken: wire.disk_bytes_taken,
        sandboxes: wire.sandboxes,
        sandboxes_taken: wire.sandboxes_taken,
    }
}

fn isolation(wire: v1::IsolationFact) -> IsolationFact {
    IsolationFact { feature: wire.feature, available: wire.available, detail: wire.detail, fix: wire.fix }
}

fn backend(wire: v1::BackendInfo) -> BackendInfo {
    let health = match wire.health() {
        v1::BackendHealth::Healthy => BackendHealth::Healthy,
        v1::BackendHealth::Degraded => BackendHealth::Degraded,
        v1::BackendHealth::Unavailable => BackendHealth::Unavailable,
        v1::BackendHealth::Unspecified => BackendHealth::Unknown,
    };
    BackendInfo {
        name: wire.name,
        is_default: wire.is_default,
        health,
        detail: wire.detail,
        capabilities: wire.capabilities,
        missing: wire.missing.into_iter().map(weakness).collect(),
        default_template: wire.default_template,
        sandbox_count: wire.sandbox_count,
    }
}

pub(crate) fn doctor_check(wire: v1::DoctorCheck) -> Result<DoctorCheck> {
    let status = match wire.status() {
        v1::DoctorStatus::Ok => DoctorStatus::Ok,
        v1::DoctorStatus::Warn => DoctorStatus::Warn,
        v1::DoctorStatus::Fail => DoctorStatus::Fail,
        v1::DoctorStatus::Unspecified => return Err(unknown("finding of the doctor", wire.status)),
    };
    Ok(DoctorCheck { name: wire.name, status, detail: wire.detail, fix: wire.fix })
}
