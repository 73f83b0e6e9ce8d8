//! Pools.

use super::process::process_spec;
use super::sandbox::{limits, limits_to_wire};
use super::{duration_to_wire, optional, required, seconds, time, unknown};
use crate::error::Result;
use crate::model::{
    Failure, PlanRow, Pool, PoolCounters, PoolEvent, PoolHealth, PoolPlan, PoolSchedule, PoolSpec,
    PoolStatus, Weekday,
};
use hostel_proto::v1;
use hostel_sandbox::process::{ProcessSpec, TerminalSize};
use hostel_sandbox::{BackendName, TemplateId};
use std::time::Duration;

pub(crate) fn pool(wire: v1::Pool) -> Result<Pool> {
    Ok(Pool {
        name: wire.name,
        spec: spec(required(wire.spec, "what a pool shall be")?)?,
        status: status(required(wire.status, "what a pool is")?),
        counters: counters(wire.counters.unwrap_or_default()),
        create_time: time(wire.create_time),
        update_time: time(wire.update_time),
    })
}

fn spec(wire: v1::PoolSpec) -> Result<PoolSpec> {
    Ok(PoolSpec {
        backend: optional(wire.backend).map(BackendName::parse).transpose()?,
        template: TemplateId::parse(wire.template)?,
        limits: limits(wire.limits.unwrap_or_default()),
        min_size: wire.min_size,
        max_size: wire.max_size,
        pinned_size: wire.pinned_size,
        headroom: wire.headroom,
        refill_concurrency: Some(wire.refill_concurrency),
        refill_delay: wire.refill_delay.map(span),
        max_age: wire.max_age.map(span),
        health_check_interval: wire.health_check_interval.map(span),
        max_idle_memory_bytes: wire.max_idle_memory_bytes,
        target_hit_rate: Some(wire.target_hit_rate),
        scale_down_delay: wire.scale_down_delay.map(span),
        schedules: wire.schedules.into_iter().map(schedule).collect::<Result<_>>()?,
        warm_process: wire.warm_process.map(warm_process),
        named_only: wire.named_only,
        draining: wire.draining,
    })
}

/// What the wire can say and we cannot is cut.
fn span(duration: prost_types::Duration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

fn warm_process(wire: v1::ProcessSpec) -> ProcessSpec {
    let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
    ProcessSpec {
        argv: wire.command,
        env: wire.env.into_iter().collect(),
        cwd: optional(wire.working_directory),
        user: optional(wire.user),
        terminal: wire
            .terminal
            .map(|size| TerminalSize { rows: side(size.rows), columns: side(size.columns) }),
        stdin: wire.stdin,
        timeout: wire.timeout.map(span),
        ..ProcessSpec::default()
    }
}

fn schedule(wire: v1::PoolSchedule) -> Result<PoolSchedule> {
    Ok(PoolSchedule {
        days: wire.days.into_iter().map(weekday).collect::<Result<_>>()?,
        from_minute: wire.from_minute,
        to_minute: wire.to_minute,
        min_size: wire.min_size,
    })
}

fn weekday(number: i32) -> Result<Weekday> {
    use v1::Weekday as Wire;
    Ok(match Wire::try_from(number).unwrap_or(Wire::Unspecified) {
        Wire::Monday => Weekday::Mon,
        Wire::Tuesday => Weekday::Tue,
        Wire::Wednesday => Weekday::Wed,
        Wire::Thursday => Weekday::Thu,
        Wire::Friday => Weekday::Fri,
        Wire::Saturday => Weekday::Sat,
        Wire::Sunday => Weekday::Sun,
        Wire::Unspecified => return Err(unknown("day of the week", number)),
    })
}

fn weekday_to_wire(day: Weekday) -> i32 {
    use v1::Weekday as Wire;
    let wire = match day {
        Weekday::Mon => Wire::Monday,
        Weekday::Tue => Wire::Tuesday,
        Weekday::Wed => Wire::Wednesday,
        Weekday::Thu => Wire::Thursday,
        Weekday::Fri => Wire::Friday,
        Weekday::Sat => Wire::Saturday,
        Weekday::Sun => Wire::Sunday,
    };
    wire.into()
}

pub(crate) fn pool_spec(spec: &PoolSpec) -> v1::PoolSpec {
    v1::PoolSpec {
        backend: spec.backend.as_ref().map(ToString::to_string).unwrap_or_default(),
        template: spec.template.to_string(),
        limits: Some(limits_to_wire(&spec.limits)),
        min_size: spec.min_size,
        max_size: spec.max_size,
        pinned_size: spec.pinned_size,
        headroom: spec.headroom,
        refill_concurrency: spec.refill_concurrency.unwrap_or_default(),
        refill_delay: spec.refill_delay.map(duration_to_wire),
        max_age: spec.max_age.map(duration_to_wire),
        health_check_interval: spec.health_check_interval.map(duration_to_wire),
        max_idle_memory_bytes: spec.max_idle_memory_bytes,
        warm_process: spec.warm_process.as_ref().map(process_spec),
        named_only: spec.named_only,
        draining: spec.draining,
        target_hit_rate: spec.target_hit_rate.unwrap_or_default(),
        scale_down_delay: spec.scale_down_delay.map(duration_to_wire),
        schedules: spec.schedules.iter().map(schedule_to_wire).collect(),
    }
}

fn schedule_to_wire(schedule: &PoolSchedule) -> v1::PoolSchedule {
    v1::PoolSchedule {
        days: schedule.days.iter().copied().map(weekday_to_wire).collect(),
        from_minute: schedule.from_minute,
        to_minute: schedule.to_minute,
        min_size: schedule.min_size,
    }
}

fn status(wire: v1::PoolStatus) -> PoolStatus {
    let health = match wire.health() {
        v1::PoolHealth::Healthy => PoolHealth::Healthy,
        v1::PoolHealth::Refilling => PoolHealth::Refilling,
        v1::PoolHealth::Failing => PoolHealth::Failing,
        v1::PoolHealth::Draining => PoolHealth::Draining,
        v1::PoolHealth::Drained => PoolHealth::Drained,
        v1::PoolHealth::Unspecified => PoolHealth::Unknown,
    };
    PoolStatus {
        health,
        target_size: wire.target_size,
        ready: wire.ready,
        creating: wire.creating,
        removing: wire.removing,
        arrivals_per_second: wire.arrivals_per_second,
        create_seconds: wire.create_duration.map(seconds),
        oldest_age_seconds: wire.oldest_age.map(seconds),
        last_failure: wire
            .last_failure
            .map(|failure| Failure { reason: failure.reason, message: failure.message }),
        retry_time: time(wire.retry_time),
        saturated: wire.saturated,
        idle_memory_bytes: wire.idle_memory_bytes,
    }
}

fn counters(wire: v1::PoolCounters) -> PoolCounters {
    PoolCounters {
        hits: wire.hits,
        misses: wire.misses,
        misses_unfit: wire.misses_unfit,
        claim_failures: wire.claim_failures,
        created: wire.created,
        refill_failures: wire.refill_failures,
        recycled: wire.recycled,
        unhealthy: wire.unhealthy,
        surplus: wire.surplus,
        claim_seconds: wire.claim_time.map(seconds).unwrap_or_default(),
        idle_seconds: wire.idle_time.map(seconds).unwrap_or_default(),
    }
}

pub(crate) fn pool_event(wire: v1::WatchPoolsResponse) -> Result<PoolEvent> {
    let pool = pool(required(wire.pool, "the pool")?)?;
    Ok(PoolEvent { pool, deleted: wire.deleted, time: time(wire.time) })
}

pub(crate) fn plan(wire: v1::PlanPoolResponse) -> PoolPlan {
    PoolPlan {
        rows: wire.rows.into_iter().map(row).collect(),
        start_time: time(wire.start_time),
        end_time: time(wire.end_time),
        claims: wire.claims,
        create_seconds: wire.create_duration.map(seconds),
    }
}

fn row(wire: v1::PlanRow) -> PlanRow {
    PlanRow {
        size: wire.size,
        hit_rate: wire.hit_rate,
        wait_p50_seconds: wire.wait_p50.map(seconds).unwrap_or_default(),
        wait_p99_seconds: wire.wait_p99.map(seconds).unwrap_or_default(),
        idle_memory_bytes: wire.idle_memory_bytes,
        idle_seconds: wire.idle_time.map(seconds).unwrap_or_default(),
        mean_size: wire.mean_size,
        largest_size: wire.largest_size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_comes_back_as_it_went() {
        let spec = PoolSpec {
            backend: Some(BackendName::parse("jail").unwrap()),
            pinned_size: Some(0),
            headroom: Some(0),
            refill_concurrency: Some(3),
            refill_delay: Some(Duration::from_millis(20)),
            max_age: Some(Duration::from_secs(60)),
            health_check_interval: Some(Duration::from_millis(1500)),
            max_idle_memory_bytes: Some(1 << 30),
            target_hit_rate: Some(0.95),
            scale_down_delay: Some(Duration::ZERO),
            schedules: vec![PoolSchedule {
                days: Weekday::ALL.to_vec(),
                from_minute: 480,
                to_minute: 1440,
                min_size: 9,
            }],
            warm_process: Some(ProcessSpec {
                argv: vec!["sh".to_owned()],
                terminal: Some(TerminalSize::default()),
                cwd: Some("/workspace".to_owned()),
                ..ProcessSpec::default()
            }),
            named_only: true,
            draining: true,
            ..PoolSpec::new(TemplateId::parse("host").unwrap(), 0, 10)
        };
        assert_eq!(super::spec(pool_spec(&spec)).unwrap(), spec);
        assert!(weekday(0).is_err() && weekday(8).is_err());
    }
}
