//! Between the generated types of `hostel.v1` and the domain: the only place that knows both.

pub(crate) mod attachment;
pub(crate) mod file;
pub(crate) mod model;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod pool;
pub(crate) mod process;
pub(crate) mod sandbox;
pub(crate) mod secret;
pub(crate) mod template;
pub(crate) mod watch;

pub(crate) use model::{api_model, model};
pub(crate) use network::{api_network, network};
pub(crate) use secret::{api_secrets, secrets};

use crate::error::Result;
use hostel_proto::v1;
use hostel_sandbox::{Error as DomainError, ResourceLimits, SandboxId, Weakness};
use std::time::{Duration, SystemTime};

/// The id of a sandbox in a request.
pub(crate) fn sandbox_id(text: String) -> Result<SandboxId> {
    Ok(SandboxId::parse(text)?)
}

/// An id that may be left out.
pub(crate) fn optional_id<T>(
    text: String,
    parse: impl FnOnce(String) -> hostel_sandbox::Result<T>,
) -> Result<Option<T>> {
    Ok(if text.is_empty() { None } else { Some(parse(text)?) })
}

/// A text that may be left out.
pub(crate) fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(crate) fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

pub(crate) fn system_time(field: &str, time: prost_types::Timestamp) -> Result<SystemTime> {
    SystemTime::try_from(time)
        .map_err(|_| DomainError::invalid(field, "is not a time between 0001 and 9999").into())
}

/// Longer durations than the API can say do not occur; they are cut.
pub(crate) fn api_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: 315_576_000_000, nanos: 0 })
}

pub(crate) fn duration(field: &str, duration: prost_types::Duration) -> Result<Duration> {
    Duration::try_from(duration).map_err(|_| DomainError::invalid(field, "must not be negative").into())
}

/// Limits of a request: what is 0 is not said.
pub(crate) fn limits(limits: Option<v1::ResourceLimits>) -> ResourceLimits {
    let limits = limits.unwrap_or_default();
    ResourceLimits {
        memory_bytes: limits.memory_bytes.filter(|value| *value != 0),
        cpu_millis: limits.cpu_millis.filter(|value| *value != 0),
        pids: limits.pids.filter(|value| *value != 0),
        disk_bytes: limits.disk_bytes.filter(|value| *value != 0),
        disk_inodes: limits.disk_inodes.filter(|value| *value != 0),
        open_files: limits.open_files.filter(|value| *value != 0),
        output_bytes_per_second: limits.output_bytes_per_second.filter(|value| *value != 0),
    }
}

pub(crate) fn api_limits(limits: &ResourceLimits) -> v1::ResourceLimits {
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

pub(crate) fn api_weakness(weakness: &Weakness) -> v1::Weakness {
    v1::Weakness { capability: weakness.capability.name().to_owned(), detail: weakness.detail.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_not_a_limit() {
        let asked = v1::ResourceLimits { pids: Some(0), cpu_millis: Some(500), ..Default::default() };
        let limits = limits(Some(asked));
        assert_eq!((limits.pids, limits.cpu_millis), (None, Some(500)));
    }

    #[test]
    fn times_outside_of_the_range_are_refused() {
        assert!(duration("f", prost_types::Duration { seconds: -1, nanos: 0 }).is_err());
        assert_eq!(
            duration("f", api_duration(Duration::from_millis(1500))).unwrap(),
            Duration::from_millis(1500)
        );
        let now = SystemTime::now();
        assert_eq!(system_time("f", timestamp(now)).unwrap(), now);
    }
}
