//! How the size follows the demand.

use crate::host::spec;
use hostel_pool::{Action, History, Pool, PoolSpec, Schedule, Time};
use hostel_sandbox::SandboxId;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Claims every `gap` for `span`, with an owner that makes at once and says that it took `takes`.
fn claims(pool: &mut Pool, from: Time, gap: Duration, span: Duration, takes: Duration) -> Time {
    let (mut now, end) = (from, from.after(span));
    while now < end {
        now = now.after(gap);
        pool.claim(now);
        for action in pool.poll(now) {
            if let Action::Make { attempt } = action {
                let member = SandboxId::parse(format!("sb-{}", pool.counters().created)).unwrap();
                pool.made(attempt, member, 1, takes, now);
            }
        }
    }
    now
}

/// Nobody claims; the pool is polled when it wants to be.
fn quiet(pool: &mut Pool, from: Time, span: Duration) -> Time {
    let (mut now, end) = (from, from.after(span));
    while let Some(wake) = pool.next_wake().filter(|wake| *wake < end) {
        now = now.max(wake);
        pool.poll(now);
    }
    pool.poll(end);
    end
}

#[test]
fn the_size_follows_demand_up_at_once_and_down_after_the_delay() {
    let patient = PoolSpec { scale_down_delay: 3600 * SECOND, max_age: 100 * 3600 * SECOND, ..spec(0, 100) };
    let mut pool = Pool::new(patient, 1, Time::default());
    let now = claims(&mut pool, Time::default(), SECOND / 10, 120 * SECOND, SECOND * 3 / 20);
    let busy = pool.status(now);
    assert!((5..12).contains(&busy.target), "{busy:?}");
    assert!((9.0..12.0).contains(&busy.arrivals_per_second), "{busy:?}");
    assert!(!busy.saturated, "{busy:?}");
    let now = quiet(&mut pool, now, 3500 * SECOND);
    assert_eq!(pool.status(now).target, busy.target, "it waits for the delay");
    let now = quiet(&mut pool, now, 4 * 3600 * SECOND);
    assert_eq!(pool.status(now).target, 2, "the headroom is left");
}

#[test]
fn a_restart_does_not_forget_the_demand() {
    let begin = Time::from_secs(1_795_000_000);
    // The owner of this test looks only at claims, so that refills must not wait behind them.
    let spec = PoolSpec { refill_delay: Duration::ZERO, ..spec(0, 100) };
    let mut pool = Pool::new(spec.clone(), 1, begin);
    let now = claims(&mut pool, begin, SECOND / 5, 600 * SECOND, SECOND * 3 / 10);
    let before = pool.status(now).target;
    let history = History::decode(&pool.history().encode()).unwrap();
    let later = now.after(10 * SECOND);
    let again = Pool::restore(spec.clone(), 1, pool.counters(), &history, vec![], later);
    let after = again.status(later).target;
    assert!(before > 6 && after >= 6, "{before} then {after} from the history alone");
    assert_eq!(again.counters(), pool.counters());
    let members = pool.members().map(|member| (member.id, member.generation, member.made)).collect();
    let mut again = Pool::restore(spec, 1, pool.counters(), &history, members, later);
    again.poll(later);
    assert_eq!(again.status(later).target, before, "what was adopted is not removed at once");
}

#[test]
fn more_demand_than_makers_can_make_is_told() {
    let begin = Time::from_secs(1_795_000_000);
    let mut pool = Pool::new(spec(0, 20), 1, begin);
    let now = claims(&mut pool, begin, SECOND / 10, 120 * SECOND, SECOND);
    assert!(pool.status(now).saturated);
    assert!(pool.status(now).target <= 20);
    pool.update(PoolSpec { refill_concurrency: 20, ..spec(0, 20) }, now);
    assert!(!pool.status(now).saturated);
}

#[test]
fn a_pin_wins_over_demand_and_schedules() {
    let begin = Time::from_secs(1_795_000_000);
    let always = Schedule { days: vec![], from_minute: 0, to_minute: 1440, min_size: 9 };
    let pinned = PoolSpec { pinned_size: Some(3), schedules: vec![always], ..spec(1, 20) };
    let mut pool = Pool::new(pinned.clone(), 1, begin);
    let now = claims(&mut pool, begin, SECOND / 10, 60 * SECOND, SECOND / 2);
    assert_eq!(pool.status(now).target, 3);
    pool.update(PoolSpec { pinned_size: None, ..pinned }, now);
    assert!(pool.status(now).target >= 9);
}

#[test]
fn absurd_times_do_no_harm() {
    let always = Schedule { days: vec![], from_minute: 0, to_minute: 1440, min_size: 3 };
    let mut pool = Pool::new(PoolSpec { schedules: vec![always], ..spec(1, 20) }, 1, Time(Duration::MAX));
    for now in [Time::default(), Time(Duration::MAX), Time::from_secs(5)] {
        pool.claim(now);
        for action in pool.poll(now) {
            if let Action::Make { attempt } = action {
                let member = SandboxId::parse(format!("sb-{}", pool.counters().created)).unwrap();
                pool.made(attempt, member, 1, Duration::MAX, now);
            }
        }
        pool.make_failed(7, String::new(), now);
        assert!(pool.next_wake().is_some());
        assert!(pool.status(now).target >= 3);
    }
    assert!(History::decode(&pool.history().encode()).is_ok());
}
