//! Pools: what they shall be, and what they are.

use super::{api_duration, api_limits, duration, limits, optional_id, timestamp};
use crate::error::Result;
use crate::pools::{PlanView, PoolUpdate, PoolView, moment};
use crate::record::PoolRecord;
use hostel_pool::spec::default;
use hostel_pool::{Health, PlanRow, PlanSize, PoolName, PoolSpec, Schedule, Weekday};
use hostel_proto::v1;
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{BackendName, Error as DomainError, TemplateId};
use std::time::{Duration, SystemTime};

/// The fields of a specification that an update can name.
const FIELDS: [&str; 17] = [
    "template",
    "limits",
    "min_size",
    "max_size",
    "pinned_size",
    "headroom",
    "refill_concurrency",
    "refill_delay",
    "max_age",
    "health_check_interval",
    "max_idle_memory_bytes",
    "warm_process",
    "named_only",
    "draining",
    "target_hit_rate",
    "scale_down_delay",
    "schedules",
];

pub(crate) fn name(text: String) -> Result<PoolName> {
    Ok(PoolName::parse(text)?)
}

/// A pool that somebody asks for. `default_backend` is of those that name none.
pub(crate) fn record(
    name: String,
    spec: Option<v1::PoolSpec>,
    default_backend: Option<BackendName>,
) -> Result<PoolRecord> {
    let name = self::name(name)?;
    let spec = spec.ok_or_else(|| DomainError::invalid("spec", "say what it shall be"))?;
    let named = optional_id(spec.backend.clone(), BackendName::parse)?;
    let backend = named.or(default_backend).ok_or_else(|| DomainError::not_found("backend", "(default)"))?;
    let template = TemplateId::parse(spec.template.clone())?;
    let created = SystemTime::now();
    let mut record = PoolRecord {
        name,
        spec: PoolSpec::new(backend, template, spec.min_size, spec.max_size),
        warm_process: None,
        generation: 0,
        made_from: String::new(),
        declared: String::new(),
        created,
        updated: created,
    };
    FIELDS.iter().try_for_each(|field| apply(&mut record, &spec, field))?;
    Ok(record)
}

/// What an update changes.
pub(crate) fn update(request: v1::UpdatePoolRequest) -> Result<(PoolName, PoolUpdate)> {
    let name = name(request.name)?;
    let spec = request.spec.unwrap_or_default();
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(DomainError::invalid("update_mask", "name at least one field").into());
    }
    let unknown = paths.iter().find(|path| !FIELDS.contains(&field(path)));
    if let Some(unknown) = unknown {
        let problem = format!("{unknown:.64?} cannot be changed: name some of {}", FIELDS.join(", "));
        return Err(DomainError::invalid("update_mask", problem).into());
    }
    let update =
        move |record: &mut PoolRecord| paths.iter().try_for_each(|path| apply(record, &spec, field(path)));
    Ok((name, Box::new(update)))
}

/// A path is relative to the specification, and may say so.
fn field(path: &str) -> &str {
    path.strip_prefix("spec.").unwrap_or(path)
}

/// Takes one field over; what is absent or zero where that is no value means the default.
fn apply(record: &mut PoolRecord, spec: &v1::PoolSpec, field: &str) -> Result<()> {
    let span = |value: Option<prost_types::Duration>, default: Duration| match value {
        Some(value) => duration(&format!("spec.{field}"), value),
        None => Ok(default),
    };
    let new = &mut record.spec;
    match field {
        "template" => new.template = TemplateId::parse(spec.template.clone())?,
        "limits" => new.limits = limits(spec.limits),
        "min_size" => new.min_size = spec.min_size,
        "max_size" => new.max_size = spec.max_size,
        "pinned_size" => new.pinned_size = spec.pinned_size,
        "headroom" => new.headroom = spec.headroom.unwrap_or_else(default::headroom),
        "refill_concurrency" => {
            let asked = Some(spec.refill_concurrency).filter(|asked| *asked != 0);
            new.refill_concurrency = asked.unwrap_or_else(default::refill_concurrency);
        }
        "refill_delay" => new.refill_delay = span(spec.refill_delay, default::refill_delay())?,
        "max_age" => new.max_age = span(spec.max_age, default::max_age())?,
        "health_check_interval" => {
            new.health_check_interval = span(spec.health_check_interval, default::health_check_interval())?;
        }
        "max_idle_memory_bytes" => {
            new.max_idle_memory_bytes = spec.max_idle_memory_bytes.filter(|bytes| *bytes != 0);
        }
        "warm_process" => record.warm_process = spec.warm_process.clone().map(warm_process).transpose()?,
        "named_only" => new.named_only = spec.named_only,
        "draining" => new.draining = spec.draining,
        "target_hit_rate" => {
            let unsaid = spec.target_hit_rate == 0.0;
            new.target_hit_rate = if unsaid { default::target_hit_rate() } else { spec.target_hit_rate };
        }
        "scale_down_delay" => {
            new.scale_down_delay = span(spec.scale_down_delay, default::scale_down_delay())?
        }
        "schedules" => new.schedules = spec.schedules.iter().map(schedule).collect::<Result<_>>()?,
        _ => {}
    }
    Ok(())
}

fn warm_process(spec: v1::ProcessSpec) -> Result<ProcessSpec> {
    super::process::spec(String::new(), Some(spec))
        .map_err(|error| super::process::elsewhere(error, "spec.warm_process"))
}

fn schedule(schedule: &v1::PoolSchedule) -> Result<Schedule> {
    let minute = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let days = schedule.days.iter().map(|day| match v1::Weekday::try_from(*day) {
        Ok(v1::Weekday::Monday) => Ok(Weekday::Mon),
        Ok(v1::Weekday::Tuesday) => Ok(Weekday::Tue),
        Ok(v1::Weekday::Wednesday) => Ok(Weekday::Wed),
        Ok(v1::Weekday::Thursday) => Ok(Weekday::Thu),
        Ok(v1::Weekday::Friday) => Ok(Weekday::Fri),
        Ok(v1::Weekday::Saturday) => Ok(Weekday::Sat),
        Ok(v1::Weekday::Sunday) => Ok(Weekday::Sun),
        _ => Err(DomainError::invalid("spec.schedules.days", format!("{day} is not a day")).into()),
    });
    Ok(Schedule {
        days: days.collect::<Result<_>>()?,
        from_minute: minute(schedule.from_minute),
        to_minute: minute(schedule.to_minute),
        min_size: schedule.min_size,
    })
}

pub(crate) fn api_pool(view: &PoolView) -> v1::Pool {
    let PoolView { record, status, counters, .. } = view;
    let health = match status.health {
        Health::Healthy => v1::PoolHealth::Healthy,
        Health::Refilling => v1::PoolHealth::Refilling,
        Health::Failing => v1::PoolHealth::Failing,
        Health::Draining => v1::PoolHealth::Draining,
        Health::Drained => v1::PoolHealth::Drained,
    };
    let failure = status.last_failure.as_ref().map(|failure| v1::Failure {
        code: tonic::Code::Unavailable as u32,
        reason: "REFILL_FAILED".to_owned(),
        message: failure.message.clone(),
        metadata: std::collections::BTreeMap::new(),
    });
    v1::Pool {
        name: record.name.to_string(),
        spec: Some(api_spec(record)),
        status: Some(v1::PoolStatus {
            health: health.into(),
            target_size: status.target,
            ready: status.ready,
            creating: status.creating,
            removing: status.removing,
            arrivals_per_second: status.arrivals_per_second,
            create_duration: status.create_duration.map(api_duration),
            oldest_age: status.oldest_age.map(api_duration),
            idle_memory_bytes: status.idle_memory_bytes,
            last_failure: failure,
            retry_time: status.retry_time.map(|time| timestamp(moment(time))),
            saturated: status.saturated,
        }),
        counters: Some(v1::PoolCounters {
            hits: counters.hits,
            misses: counters.misses,
            created: counters.created,
            refill_failures: counters.refill_failures,
            recycled: counters.recycled,
            unhealthy: counters.unhealthy,
            claim_time: Some(api_duration(counters.claim_time)),
            idle_time: Some(api_duration(counters.idle_time)),
            misses_unfit: counters.misses_unfit,
            claim_failures: counters.claim_failures,
            surplus: counters.surplus,
        }),
        create_time: Some(timestamp(record.created)),
        update_time: Some(timestamp(record.updated)),
    }
}

fn api_spec(record: &PoolRecord) -> v1::PoolSpec {
    let spec = &record.spec;
    v1::PoolSpec {
        backend: spec.backend.to_string(),
        template: spec.template.to_string(),
        limits: Some(api_limits(&spec.limits)),
        min_size: spec.min_size,
        max_size: spec.max_size,
        pinned_size: spec.pinned_size,
        headroom: Some(spec.headroom),
        refill_concurrency: spec.refill_concurrency,
        refill_delay: Some(api_duration(spec.refill_delay)),
        max_age: Some(api_duration(spec.max_age)),
        health_check_interval: Some(api_duration(spec.health_check_interval)),
        max_idle_memory_bytes: spec.max_idle_memory_bytes,
        warm_process: record.warm_process.as_ref().map(super::process::api_spec),
        named_only: spec.named_only,
        draining: spec.draining,
        target_hit_rate: spec.target_hit_rate,
        scale_down_delay: Some(api_duration(spec.scale_down_delay)),
        schedules: spec.schedules.iter().map(api_schedule).collect(),
    }
}

fn api_schedule(schedule: &Schedule) -> v1::PoolSchedule {
    let day = |day: &Weekday| match day {
        Weekday::Mon => v1::Weekday::Monday,
        Weekday::Tue => v1::Weekday::Tuesday,
        Weekday::Wed => v1::Weekday::Wednesday,
        Weekday::Thu => v1::Weekday::Thursday,
        Weekday::Fri => v1::Weekday::Friday,
        Weekday::Sat => v1::Weekday::Saturday,
        Weekday::Sun => v1::Weekday::Sunday,
    };
    v1::PoolSchedule {
        days: schedule.days.iter().map(|one| day(one).into()).collect(),
        from_minute: schedule.from_minute.into(),
        to_minute: schedule.to_minute.into(),
        min_size: schedule.min_size,
    }
}

pub(crate) fn api_plan(plan: &PlanView) -> v1::PlanPoolResponse {
    v1::PlanPoolResponse {
        rows: plan.rows.iter().map(api_row).collect(),
        start_time: Some(timestamp(moment(plan.start))),
        end_time: Some(timestamp(moment(plan.end))),
        claims: plan.claims,
        create_duration: plan.make_time.map(api_duration),
    }
}

fn api_row(row: &PlanRow) -> v1::PlanRow {
    let (size, mean_size, largest_size) = match row.size {
        PlanSize::Fixed(size) => (Some(size), f64::from(size), size),
        PlanSize::Adaptive { mean, most } => (None, mean, most),
    };
    v1::PlanRow {
        size,
        mean_size,
        largest_size,
        hit_rate: row.hit_rate,
        wait_p50: Some(api_duration(row.wait_p50)),
        wait_p99: Some(api_duration(row.wait_p99)),
        idle_memory_bytes: row.idle_memory_bytes_mean,
        idle_time: Some(api_duration(Duration::try_from_secs_f64(row.idle_seconds).unwrap_or_default())),
    }
}
