//! What a pool shall be.

use crate::schedule::Schedule;
use crate::time::Time;
use hostel_sandbox::{BackendName, Error, ResourceLimits, Result, TemplateId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most warm sandboxes of one pool.
pub const MAX_SIZE: u32 = 10_000;
/// Most that one pool makes at the same time.
pub const MAX_REFILL_CONCURRENCY: u32 = 64;
/// Most schedules of one pool.
pub const MAX_SCHEDULES: usize = 64;
/// Longest that refills wait after a claim.
pub const MAX_REFILL_DELAY: Duration = Duration::from_secs(60);
const LEAST_IDLE_MEMORY: u64 = 8 << 20;
const MAX_SPAN: Duration = Duration::from_secs(366 * 86_400);

/// What a pool shall be. All but the backend can be changed while it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The backend.
    pub backend: BackendName,
    /// The template. Whoever changes it gives the pool a new generation too.
    pub template: TemplateId,
    /// The limits that warm sandboxes are made with.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// The fewest to keep warm, 0 to `max_size`.
    #[serde(default)]
    pub min_size: u32,
    /// The most to keep warm, 1 to 10000.
    pub max_size: u32,
    /// How many to keep warm, whatever the demand and the schedules: `min_size` to `max_size`. `None`: demand decides.
    #[serde(default)]
    pub pinned_size: Option<u32>,
    /// How many to keep beyond what the demand asks for, 0 to 10000.
    #[serde(default = "default::headroom")]
    pub headroom: u32,
    /// How many are made at the same time, 1 to 64.
    #[serde(default = "default::refill_concurrency")]
    pub refill_concurrency: u32,
    /// How long refills wait after a claim, up to 60 seconds, so that what was claimed has the machine to itself
    /// meanwhile. A claim that finds nothing ends the wait.
    #[serde(default = "default::refill_delay")]
    pub refill_delay: Duration,
    /// The age at which a warm sandbox is replaced, 10 seconds to 366 days.
    #[serde(default = "default::max_age")]
    pub max_age: Duration,
    /// How often a warm sandbox is checked, 1 second to 366 days.
    #[serde(default = "default::health_check_interval")]
    pub health_check_interval: Duration,
    /// The most memory that the warm ones may use together, in bytes, 8 MiB or more: fewer are kept where they use
    /// more, whatever else asks for them. `None`: no bound.
    #[serde(default)]
    pub max_idle_memory_bytes: Option<u64>,
    /// The share of claims that shall find a warm sandbox, 0.5 to 0.9999.
    #[serde(default = "default::target_hit_rate")]
    pub target_hit_rate: f64,
    /// How long the demand must ask for less before the pool shrinks, up to 366 days.
    #[serde(default = "default::scale_down_delay")]
    pub scale_down_delay: Duration,
    /// Hours at which the least size is higher, at most 64.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
    /// Whether it serves only claims that name it.
    #[serde(default)]
    pub named_only: bool,
    /// Whether to stop refilling and remove what is warm.
    #[serde(default)]
    pub draining: bool,
}

/// What is meant where nothing is said.
pub mod default {
    use std::time::Duration;

    /// Two more than the demand asks for.
    #[must_use]
    pub fn headroom() -> u32 {
        2
    }
    /// Two at a time.
    #[must_use]
    pub fn refill_concurrency() -> u32 {
        2
    }
    /// 50 milliseconds: a first command takes a few.
    #[must_use]
    pub fn refill_delay() -> Duration {
        Duration::from_millis(50)
    }
    /// One hour.
    #[must_use]
    pub fn max_age() -> Duration {
        Duration::from_secs(3600)
    }
    /// 30 seconds.
    #[must_use]
    pub fn health_check_interval() -> Duration {
        Duration::from_secs(30)
    }
    /// 99 of 100 claims.
    #[must_use]
    pub fn target_hit_rate() -> f64 {
        0.99
    }
    /// Five minutes.
    #[must_use]
    pub fn scale_down_delay() -> Duration {
        Duration::from_secs(300)
    }
}

/// Whether a claim can be served by a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As they are.
    Exact,
    /// When the backend can change the limits of a running sandbox to those asked for.
    WithOtherLimits,
    /// Not: other backend or template.
    No,
}

impl PoolSpec {
    /// A specification with everything else as it is by default.
    #[must_use]
    pub fn new(backend: BackendName, template: TemplateId, min_size: u32, max_size: u32) -> Self {
        Self {
            backend,
            template,
            limits: ResourceLimits::default(),
            min_size,
            max_size,
            pinned_size: None,
            headroom: default::headroom(),
            refill_concurrency: default::refill_concurrency(),
            refill_delay: default::refill_delay(),
            max_age: default::max_age(),
            health_check_interval: default::health_check_interval(),
            max_idle_memory_bytes: None,
            target_hit_rate: default::target_hit_rate(),
            scale_down_delay: default::scale_down_delay(),
            schedules: Vec::new(),
            named_only: false,
            draining: false,
        }
    }

    /// Checks each value and how they go together.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field, as `spec.min_size`.
    pub fn validate(&self) -> Result<()> {
        self.validate_limits()?;
        within("spec.max_size", self.max_size, 1, MAX_SIZE)?;
        within("spec.min_size", self.min_size, 0, self.max_size)?;
        if let Some(pinned) = self.pinned_size {
            within("spec.pinned_size", pinned, self.min_size, self.max_size)?;
        }
        within("spec.headroom", self.headroom, 0, MAX_SIZE)?;
        within("spec.refill_concurrency", self.refill_concurrency, 1, MAX_REFILL_CONCURRENCY)?;
        if self.refill_delay > MAX_REFILL_DELAY {
            let problem = format!("{:?} is more than 60 seconds", self.refill_delay);
            return Err(Error::invalid("spec.refill_delay", problem));
        }
        lasts("spec.max_age", self.max_age, Duration::from_secs(10))?;
        lasts("spec.health_check_interval", self.health_check_interval, Duration::from_secs(1))?;
        if self.max_idle_memory_bytes.is_some_and(|bytes| bytes < LEAST_IDLE_MEMORY) {
            return Err(Error::invalid("spec.max_idle_memory_bytes", "must be 8 MiB or more"));
        }
        lasts("spec.scale_down_delay", self.scale_down_delay, Duration::ZERO)?;
        if !(0.5..=0.9999).contains(&self.target_hit_rate) {
            return Err(Error::invalid(
                "spec.target_hit_rate",
                format!("{} is outside 0.5 to 0.9999", self.target_hit_rate),
            ));
        }
        if self.schedules.len() > MAX_SCHEDULES {
            return Err(Error::invalid("spec.schedules", format!("at most {MAX_SCHEDULES} schedules")));
        }
        for (index, schedule) in self.schedules.iter().enumerate() {
            schedule.validate(&format!("spec.schedules[{index}]"), self.max_size)?;
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<()> {
        self.limits.validate().map_err(|error| match error {
            Error::InvalidArgument { field, problem } => Error::invalid(format!("spec.{field}"), problem),
            other => other,
        })
    }

    /// Whether a claim for this backend, template and limits can be served. Limits that the claim does not set are
    /// whatever the pool's sandboxes have.
    #[must_use]
    pub fn fits(&self, backend: &BackendName, template: &TemplateId, limits: &ResourceLimits) -> Fit {
        if *backend != self.backend || *template != self.template {
            return Fit::No;
        }
        if limits.or(&self.limits) == self.limits { Fit::Exact } else { Fit::WithOtherLimits }
    }

    /// The fewest to keep warm at `now`, schedules included.
    #[must_use]
    pub fn min_size_at(&self, now: Time) -> u32 {
        let scheduled = self.schedules.iter().filter(|schedule| schedule.holds(now));
        scheduled.map(|schedule| schedule.min_size).fold(self.min_size, u32::max).min(self.max_size)
    }
}

fn within(field: &str, value: u32, low: u32, high: u32) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{value} is outside {low} to {high}")))
}

fn lasts(field: &str, value: Duration, least: Duration) -> Result<()> {
    if (least..=MAX_SPAN).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{value:?} is outside {least:?} to 366 days")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PoolSpec {
        PoolSpec::new(BackendName::parse("jail").unwrap(), TemplateId::parse("host").unwrap(), 1, 5)
    }

    #[test]
    fn what_is_stored_comes_back_and_what_is_left_out_has_its_default() {
        let full = PoolSpec { pinned_size: Some(3), target_hit_rate: 0.9, ..spec() };
        let stored = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<PoolSpec>(&stored).unwrap(), full);
        let short = r#"{"backend": "jail", "template": "host", "min_size": 1, "max_size": 5}"#;
        assert_eq!(serde_json::from_str::<PoolSpec>(short).unwrap(), spec());
    }

    #[test]
    fn wrong_values_are_named() {
        let second = Duration::from_secs(1);
        let limits = ResourceLimits { pids: Some(1), ..ResourceLimits::default() };
        let night = Schedule { days: vec![], from_minute: 0, to_minute: 60, min_size: 6 };
        let wrong = [
            ("spec.limits.pids", PoolSpec { limits, ..spec() }),
            ("spec.max_size", PoolSpec { max_size: 0, min_size: 0, ..spec() }),
            ("spec.max_size", PoolSpec { max_size: 10_001, ..spec() }),
            ("spec.min_size", PoolSpec { min_size: 6, ..spec() }),
            ("spec.pinned_size", PoolSpec { pinned_size: Some(0), ..spec() }),
            ("spec.pinned_size", PoolSpec { pinned_size: Some(6), ..spec() }),
            ("spec.headroom", PoolSpec { headroom: 10_001, ..spec() }),
            ("spec.refill_concurrency", PoolSpec { refill_concurrency: 0, ..spec() }),
            ("spec.refill_concurrency", PoolSpec { refill_concurrency: 65, ..spec() }),
            ("spec.refill_delay", PoolSpec { refill_delay: 61 * second, ..spec() }),
            ("spec.max_age", PoolSpec { max_age: 9 * second, ..spec() }),
            ("spec.max_age", PoolSpec { max_age: Duration::MAX, ..spec() }),
            ("spec.health_check_interval", PoolSpec { health_check_interval: second / 2, ..spec() }),
            ("spec.scale_down_delay", PoolSpec { scale_down_delay: Duration::MAX, ..spec() }),
            ("spec.max_idle_memory_bytes", PoolSpec { max_idle_memory_bytes: Some(1), ..spec() }),
            ("spec.target_hit_rate", PoolSpec { target_hit_rate: f64::NAN, ..spec() }),
            ("spec.target_hit_rate", PoolSpec { target_hit_rate: 1.0, ..spec() }),
            ("spec.schedules[0].min_size", PoolSpec { schedules: vec![night.clone()], ..spec() }),
            ("spec.schedules", PoolSpec { schedules: vec![night; 65], ..spec() }),
        ];
        assert!(spec().validate().is_ok());
        for (field, wrong) in wrong {
            let Err(Error::InvalidArgument { field: named, .. }) = wrong.validate() else {
                panic!("{field} is taken");
            };
            assert_eq!(named, field);
        }
    }

    #[test]
    fn a_claim_fits_by_backend_template_and_limits() {
        let limits = ResourceLimits { pids: Some(64), ..ResourceLimits::default() };
        let pool = PoolSpec { limits: limits.clone(), ..spec() };
        let (jail, host) = (pool.backend.clone(), pool.template.clone());
        assert_eq!(pool.fits(&jail, &host, &ResourceLimits::default()), Fit::Exact);
        assert_eq!(pool.fits(&jail, &host, &limits), Fit::Exact);
        let more = ResourceLimits { pids: Some(65), ..ResourceLimits::default() };
        assert_eq!(pool.fits(&jail, &host, &more), Fit::WithOtherLimits);
        assert_eq!(pool.fits(&jail, &TemplateId::parse("other").unwrap(), &limits), Fit::No);
        assert_eq!(pool.fits(&BackendName::parse("docker").unwrap(), &host, &limits), Fit::No);
    }
}
