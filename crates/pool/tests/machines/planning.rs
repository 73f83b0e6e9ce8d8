//! The planner, and the controller that it replays.

use crate::host::spec;
use hostel_pool::{History, PlanOptions, PlanRow, PlanSize, Time, plan};
use std::time::{Duration, Instant};

/// Claims by chance: exponential gaps from a fixed sequence.
fn by_chance(per_second: f64, hours: f64) -> History {
    let (mut history, mut time, mut state) = (History::new(), 1_795_000_000.0, 1u64);
    let end = time + hours * 3600.0;
    while time < end {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        time -= unit.ln() / per_second;
        history.arrived(Time(Duration::from_secs_f64(time)));
    }
    (0..100).for_each(|_| history.made(Duration::from_millis(700)));
    history
}

fn adaptive(rows: &[PlanRow]) -> &PlanRow {
    let last = rows.last().unwrap();
    assert!(matches!(last.size, PlanSize::Adaptive { .. }));
    last
}

#[test]
fn more_hits_and_costs_more() {
    let history = by_chance(2.0, 3.0);
    let mut options = PlanOptions::new(spec(0, 50), 1 << 20);
    options.spec.refill_concurrency = 8;
    let rows = plan(&history, &[0, 1, 2, 4, 8, 16], &options);
    assert_eq!(rows.len(), 7);
    for pair in rows[..6].windows(2) {
        assert!(pair[1].hit_rate > pair[0].hit_rate || pair[0].hit_rate == 1.0, "{pair:?}");
        assert!(pair[1].idle_seconds > pair[0].idle_seconds, "{pair:?}");
        assert!(pair[1].wait_p99 <= pair[0].wait_p99, "{pair:?}");
    }
    assert_eq!((rows[0].hit_rate, rows[0].idle_memory_bytes_mean), (0.0, 0));
    assert!(rows[0].wait_p50 > Duration::from_millis(500));
    assert_eq!((rows[5].wait_p50, rows[5].wait_p99), (Duration::ZERO, Duration::ZERO));
    assert!(rows[5].idle_memory_bytes_mean > 12 << 20);
}

#[test]
fn the_controller_reaches_its_hit_rate() {
    for (per_second, makers, hit_rate) in [(0.05, 2, 0.95), (2.0, 8, 0.99), (20.0, 32, 0.99)] {
        let mut options = PlanOptions::new(spec(0, 500), 1 << 20);
        options.spec.headroom = 0;
        options.spec.refill_concurrency = makers;
        options.spec.target_hit_rate = hit_rate;
        let rows = plan(&by_chance(per_second, 6.0), &[], &options);
        let row = adaptive(&rows);
        println!("{per_second}/s by chance, {makers} makers: {row:?}");
        assert!(row.hit_rate >= hit_rate - 0.01, "{row:?}");
    }
}

#[test]
fn the_controller_learns_bursts() {
    let mut history = History::new();
    for minute in 0..600u64 {
        (0..30).for_each(|_| history.arrived(Time::from_secs(1_795_000_000 + minute * 60)));
    }
    (0..100).for_each(|_| history.made(Duration::from_millis(1500)));
    let rows = plan(&history, &[5, 30], &PlanOptions::new(spec(0, 500), 1 << 20));
    println!("{rows:?}");
    assert!(rows[0].hit_rate < 0.3 && rows[1].hit_rate > 0.99, "{rows:?}");
    assert!(adaptive(&rows).hit_rate > 0.97, "{rows:?}");
    let PlanSize::Adaptive { most, .. } = adaptive(&rows).size else { panic!("the last row") };
    assert!((30..60).contains(&most), "{rows:?}");
}

#[test]
fn a_week_is_replayed_fast() {
    let history = by_chance(1.0, 24.0 * 7.0);
    let begin = Instant::now();
    let rows = plan(&history, &[4], &PlanOptions::new(spec(0, 50), 1 << 20));
    println!("{} claims, two rows: {:?}", rows[0].claims, begin.elapsed());
    assert!(rows[0].claims > 300_000);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn no_demand_is_no_division_by_zero() {
    let rows = plan(&History::new(), &[0, 5], &PlanOptions::new(spec(0, 5), u64::MAX));
    assert!(rows.iter().all(|row| row.hit_rate == 1.0 && row.idle_seconds == 0.0), "{rows:?}");
}

#[test]
fn only_what_is_asked_for_is_replayed() {
    let mut history = History::new();
    (0..100u64).for_each(|second| history.arrived(Time::from_secs(1_795_000_000 + second)));
    let since = |second: u64| PlanOptions {
        since: Some(Time::from_secs(1_795_000_000 + second)),
        ..PlanOptions::new(spec(0, 5), 1)
    };
    assert_eq!(plan(&history, &[1], &since(90))[0].claims, 10);
    assert_eq!(plan(&history, &[1], &since(100))[0].claims, 0);
}

#[test]
fn a_second_in_which_the_daemon_was_restarted_is_replayed_like_others() {
    let mut history = History::new();
    let now = Time::from_secs(7);
    for _ in 0..50 {
        (0..3).for_each(|_| history.arrived(now));
        history = History::decode(&history.encode()).unwrap();
    }
    let row = &plan(&history, &[2], &PlanOptions::new(spec(0, 5), 1 << 20))[0];
    assert_eq!(row.claims, 150);
}
