//! What operators rely on, one by one.

use crate::host::{Host, Place, spec};
use hostel_pool::{Action, Health, Pool, Pressure, RemoveReason, Schedule, Time};
use hostel_sandbox::SandboxId;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn full(min: u32, max: u32) -> Host {
    let mut host = Host::with(spec(min, max));
    host.carry_out();
    assert_eq!(host.waiting(), min.max(2));
    host
}

#[test]
fn a_template_change_rolls_over_without_a_gap() {
    let mut host = full(5, 5);
    host.new_generation();
    for _ in 0..20 {
        host.poll();
        let status = host.pool.status(host.now);
        assert!(status.ready >= 5 && status.ready + status.creating <= 7, "{status:?}");
        host.pass(SECOND);
        host.made(0, false);
        host.removed(0);
    }
    host.carry_out();
    assert!(host.pool.members().all(|member| member.generation == 2));
    assert_eq!((host.pool.counters().recycled, host.pool.counters().misses), (5, 0));
}

#[test]
fn during_a_roll_over_claims_get_the_new_ones_first() {
    let mut host = full(3, 3);
    host.new_generation();
    host.poll();
    host.made(0, false);
    let best = host.pool.claim(host.now).unwrap();
    assert_eq!(best.as_str(), "sb-3");
    assert!(host.pool.claim(host.now).is_some(), "old ones are given when there are no new ones");
}

#[test]
fn of_one_generation_the_oldest_is_given() {
    let mut host = Host::with(spec(3, 3));
    host.poll();
    while host.waiting() < 3 {
        host.pass(SECOND);
        host.made(0, false);
        host.poll();
    }
    let order: Vec<String> = (0..3).map(|_| host.pool.claim(host.now).unwrap().to_string()).collect();
    assert_eq!(order, ["sb-0", "sb-1", "sb-2"]);
    assert_eq!(host.pool.claim(host.now), None);
}

#[test]
fn age_replaces_only_when_the_new_one_is_there() {
    let mut host = full(3, 3);
    host.pass(Duration::from_secs(3600));
    host.poll();
    let status = host.pool.status(host.now);
    assert_eq!((status.ready, status.old, status.creating), (3, 3, 2));
    host.make_failed(0);
    host.make_failed(0);
    assert_eq!(host.poll(), 0);
    let status = host.pool.status(host.now);
    assert_eq!((status.ready, status.health), (3, Health::Failing));
    assert_eq!(status.last_failure.unwrap().message, "no room");
    host.settle();
    let status = host.pool.status(host.now);
    assert_eq!((status.ready, status.old, status.health), (3, 0, Health::Healthy));
    assert_eq!(status.last_failure, None);
    assert_eq!(host.pool.counters().recycled, 3);
}

#[test]
fn refills_wait_behind_a_claim_but_not_behind_claims_without_end() {
    let delay = Duration::from_millis(50);
    let mut host = full(4, 4);
    let begin = host.now;
    host.claim();
    host.pass(delay / 2);
    host.claim();
    assert_eq!(host.poll(), 0, "what was claimed has the machine to itself");
    assert_eq!(host.pool.status(host.now).health, Health::Refilling);
    host.wake();
    assert_eq!(host.now, begin.after(delay), "the second claim does not make the wait longer");
    assert_eq!(host.poll(), 2);
    // They are under way already.
    host.made(0, false);
    host.claim();
    assert_eq!(host.poll(), 1);
}

#[test]
fn a_claim_that_finds_nothing_ends_the_wait_of_refills() {
    let mut host = full(2, 2);
    host.update(|spec| spec.refill_delay = Duration::from_secs(60));
    host.claim();
    host.claim();
    assert_eq!(host.poll(), 0);
    host.claim();
    assert_eq!(host.poll(), 2);
    host.carry_out();
    host.update(|spec| spec.refill_delay = Duration::ZERO);
    host.claim();
    assert_eq!(host.poll(), 1, "without a delay they begin at once");
}

#[test]
fn failing_refills_are_tried_one_at_a_time_and_ever_more_rarely() {
    let mut host = Host::with(spec(10, 10));
    let begin = host.now;
    let mut tries = 0;
    while host.now.since(begin) < Duration::from_secs(600) {
        tries += host.poll();
        for _ in 0..2 {
            host.make_failed(0);
        }
        host.wake();
    }
    assert!((10..40).contains(&tries), "{tries} tries in ten minutes");
    host.carry_out();
    host.settle();
    assert_eq!(host.waiting(), 10);
}

#[test]
fn refills_that_wait_for_room_show_it_and_wait_again_at_once() {
    let mut host = Host::with(spec(2, 2));
    assert_eq!(host.poll(), 2);
    for _ in 0..5 {
        host.pass(Duration::from_secs(30));
        host.make_starved(0);
        assert_eq!(host.poll(), 1, "there is always one in the queue");
        let status = host.pool.status(host.now);
        assert_eq!((status.retry_time, status.health), (None, Health::Refilling));
        assert_eq!(status.last_failure.unwrap().message, "no room");
    }
    host.carry_out();
    assert_eq!(host.pool.status(host.now).last_failure, None);
    assert_eq!(host.pool.counters().refill_failures, 5);
}

#[test]
fn without_room_for_new_ones_beside_the_old_one_old_goes_at_a_time() {
    let mut host = full(3, 3);
    host.new_generation();
    assert_eq!(host.poll(), 2, "they wait for room");
    host.pass(10 * SECOND);
    host.make_starved(0);
    assert_eq!(host.poll(), 2, "one goes, another attempt waits");
    let status = host.pool.status(host.now);
    assert_eq!((status.ready, status.removing, status.health), (2, 1, Health::Refilling));
    host.make_starved(0);
    host.poll();
    assert_eq!(host.pool.status(host.now).ready, 2, "it began before the one gave way");
    for fresh in 1..=3u32 {
        host.removed(0);
        assert_eq!(host.pool.status(host.now).health, Health::Refilling);
        host.made(0, false);
        host.poll();
        let status = host.pool.status(host.now);
        assert_eq!((status.old, status.ready), (2u32.saturating_sub(fresh), fresh.max(2)), "{status:?}");
    }
    let status = host.pool.status(host.now);
    assert_eq!((status.ready, status.old, status.health), (3, 0, Health::Healthy));
    // The next time there may be room.
    host.new_generation();
    host.poll();
    assert_eq!(host.pool.status(host.now).ready, 3);
}

#[test]
fn what_is_of_another_template_goes_at_once_and_so_does_what_still_comes() {
    let mut host = full(3, 3);
    host.claim();
    host.pass(SECOND);
    assert_eq!(host.poll(), 1);
    host.new_template();
    assert_eq!(host.pool.best(), None, "nobody gets what they did not ask for");
    host.poll();
    assert_eq!((host.waiting(), host.pool.status(host.now).creating), (0, 2));
    host.made(0, true);
    assert_eq!(host.pool.best(), None);
    host.carry_out();
    assert!(host.pool.members().all(|member| member.generation == 2));
    assert_eq!(host.waiting(), 3);
}

#[test]
fn a_bound_of_idle_memory_keeps_fewer_the_oldest_go_and_the_size_does_not_flap() {
    let mut host = full(10, 10);
    host.update(|spec| spec.max_idle_memory_bytes = Some(350 << 20));
    assert_eq!(host.pool.status(host.now).idle_memory_bytes, None, "nothing is known yet");
    host.measured(0, 100);
    host.carry_out();
    let status = host.pool.status(host.now);
    assert_eq!((host.waiting(), status.target, status.health), (3, 3, Health::Healthy));
    assert!(status.idle_memory_bytes.unwrap() <= 350 << 20, "{status:?}");
    assert_eq!(host.pool.counters().surplus, 7);
    for index in 0..3 {
        host.measured(index, 80);
    }
    host.carry_out();
    assert_eq!(host.waiting(), 3, "less for a moment says little");
    host.pass(Duration::from_secs(600));
    host.measured(0, 80);
    host.carry_out();
    assert_eq!(host.waiting(), 4);
    // One that is larger than the bound: none is kept, but now and then one is made to see whether that is still so.
    host.measured(0, 2000);
    host.carry_out();
    assert_eq!(host.waiting(), 0);
    let trial = host.now.after(Duration::from_secs(600));
    assert!(host.pool.next_wake().is_some_and(|wake| wake <= trial));
    host.pass(Duration::from_secs(600));
    host.carry_out();
    assert_eq!(host.waiting(), 1);
    host.measured(0, 2000);
    host.carry_out();
    assert_eq!(host.waiting(), 0);
    host.pass(Duration::from_secs(600));
    host.carry_out();
    host.measured(0, 80);
    host.carry_out();
    assert_eq!(host.waiting(), 4);
    host.measured(0, 2000);
    host.carry_out();
    assert_eq!(host.waiting(), 0, "by the mean, not even one");
    host.update(|spec| spec.max_idle_memory_bytes = None);
    host.carry_out();
    assert_eq!(host.waiting(), 10);
}

#[test]
fn members_that_die_young_do_not_make_a_hot_loop() {
    let mut host = full(2, 2);
    let (begin, mut made) = (host.now, 0);
    while host.now.since(begin) < Duration::from_secs(600) {
        host.pass(Duration::from_millis(100));
        for _ in 0..host.waiting() {
            host.died(0);
        }
        host.poll();
        for _ in 0..2 {
            host.made(0, false);
        }
        made = host.sandboxes.len();
    }
    assert!(made < 80, "{made} made in ten minutes");
    let status = host.pool.status(host.now);
    assert_eq!(status.health, Health::Failing);
    assert!(status.last_failure.unwrap().message.contains("died"));
    host.settle();
    host.settle();
    assert_eq!(host.pool.status(host.now).health, Health::Healthy);
}

#[test]
fn pressure_shrinks_and_eases_slowly() {
    let mut host = Host::with(hostel_pool::PoolSpec { pinned_size: Some(6), ..spec(2, 8) });
    host.carry_out();
    assert_eq!(host.waiting(), 6);
    host.pressure(Pressure::High);
    host.carry_out();
    assert_eq!(host.waiting(), 2);
    host.pressure(Pressure::Critical);
    host.carry_out();
    assert_eq!(host.waiting(), 0);
    host.pressure(Pressure::None);
    host.carry_out();
    assert_eq!(host.waiting(), 0, "it does not grow back at once");
    host.settle();
    assert_eq!(host.waiting(), 6);
}

#[test]
fn what_is_made_for_a_pool_that_drains_is_removed() {
    let mut host = Host::with(spec(2, 2));
    host.poll();
    host.update(|spec| spec.draining = true);
    host.made(0, false);
    assert_eq!(host.pool.claim(host.now), None);
    let Action::Remove { reason, .. } = host.pool.poll(host.now).remove(0) else { panic!("not removed") };
    assert_eq!(reason, RemoveReason::Draining);
}

#[test]
fn adopted_members_are_claimed_at_once_but_after_those_that_were_checked() {
    let mut host = full(3, 3);
    host.pass(SECOND);
    host.restart();
    assert_eq!(host.pool.status(host.now).ready, 3);
    host.poll();
    host.checked(2, true);
    let first = host.pool.claim(host.now).unwrap();
    assert_eq!(first.as_str(), "sb-2");
    assert!(host.pool.claim(host.now).is_some());
}

#[test]
fn an_adopted_member_that_does_not_answer_is_given_after_a_good_check_only() {
    let mut host = full(2, 2);
    host.pass(SECOND);
    host.restart_in_doubt(0);
    let status = host.pool.status(host.now);
    assert_eq!((status.ready, status.health), (1, Health::Refilling));
    assert_eq!(host.pool.best().map(SandboxId::as_str), Some("sb-1"));
    host.claim();
    assert_eq!(host.pool.best(), None);
    host.poll();
    host.checked(0, true);
    assert_eq!(host.pool.best().map(SandboxId::as_str), Some("sb-0"));
}

#[test]
fn an_unhealthy_member_is_never_given() {
    let mut host = full(2, 2);
    host.pass(Duration::from_secs(30));
    host.poll();
    host.checked(0, false);
    assert_eq!(host.in_lost(), 1);
    assert!(host.pool.claim(host.now).is_some());
    assert_eq!(host.pool.claim(host.now), None);
    assert_eq!(host.pool.counters().unhealthy, 1);
}

#[test]
fn ten_thousand_members_are_no_burden() {
    let now = Time::from_secs(1_795_000_000);
    let member = |index: u32| SandboxId::parse(format!("sb-{index}")).unwrap();
    let adopted = (0..10_000).map(|index| (member(index), 1, now)).collect();
    let full = hostel_pool::PoolSpec { refill_concurrency: 64, ..spec(10_000, 10_000) };
    let mut pool = Pool::restore(full, 1, Default::default(), &Default::default(), adopted, now);
    let (begin, mut claiming) = (Instant::now(), Duration::ZERO);
    for index in 0..10_000u32 {
        let now = now.after(Duration::from_millis(u64::from(index)));
        let claim = Instant::now();
        assert!(pool.claim(now).is_some());
        claiming += claim.elapsed();
        for action in pool.poll(now) {
            match action {
                Action::Make { attempt } => pool.made(attempt, member(10_000 + index), 1, SECOND / 2, now),
                Action::Check { member } => pool.checked(&member, true, now),
                Action::Remove { member, .. } => pool.removed(&member, now),
            }
        }
    }
    println!("10,000 claims of 10,000: {claiming:?}, with all else {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

impl Host {
    fn in_lost(&self) -> usize {
        self.sandboxes.values().filter(|place| **place == Place::Lost).count()
    }
}

#[test]
fn a_schedule_raises_the_size_for_its_hours() {
    let mut busy = spec(1, 9);
    busy.headroom = 0;
    busy.schedules = vec![Schedule { days: vec![], from_minute: 600, to_minute: 660, min_size: 7 }];
    let midnight = 1_795_000_000 / 86_400 * 86_400;
    let at = |minute: u64| Time::from_secs(midnight + minute * 60);
    let mut pool = Pool::new(busy, 1, at(599));
    pool.poll(at(599));
    assert_eq!(pool.status(at(599)).target, 1);
    assert!(pool.next_wake().unwrap() <= at(600));
    assert_eq!(pool.status(at(600)).target, 7);
    assert_eq!(pool.status(at(660)).target, 1);
}

#[test]
fn an_attempt_for_the_template_before_does_not_hold_up_the_new_one() {
    let mut host = Host::with(hostel_pool::PoolSpec { headroom: 0, ..spec(1, 1) });
    assert_eq!(host.poll(), 1);
    host.new_generation();
    assert_eq!(host.poll(), 1);
}

#[test]
fn a_large_pool_that_was_adopted_is_checked_a_few_at_a_time() {
    let mut host = Host::with(hostel_pool::PoolSpec { refill_concurrency: 64, ..spec(200, 200) });
    host.carry_out();
    host.restart();
    assert_eq!(host.poll(), 32);
    let (mut rounds, mut checks) = (0, 32);
    while host.pool.members().any(|member| member.checking) {
        (0..32).for_each(|_| host.checked(0, true));
        checks += host.poll();
        rounds += 1;
    }
    assert_eq!((checks, rounds), (200, 7));
    // Also when members go while they are under check.
    host.pass(Duration::from_secs(30));
    for _ in 0..200 {
        host.poll();
        host.claim();
    }
    host.settle();
}

#[test]
fn every_wait_is_counted_once() {
    let mut host = full(3, 3);
    host.pass(10 * SECOND);
    host.claim();
    host.pass(5 * SECOND);
    host.died(0);
    host.pass(SECOND);
    host.taken_away(0);
    host.pass(SECOND);
    host.carry_out();
    host.given();
    let counters = host.pool.counters();
    assert_eq!(counters.idle_time, (10 + 15 + 16) * SECOND);
    assert_eq!((counters.claim_time, counters.hits, counters.unhealthy), (SECOND / 1000, 1, 1));
    assert_eq!(counters.created, 6);
}

#[test]
fn a_claim_is_one_arrival_and_one_outcome_however_many_it_takes() {
    let mut host = full(3, 3);
    host.claim();
    host.claim_failed();
    host.claim_failed();
    host.given();
    let counters = host.pool.counters();
    assert_eq!((counters.hits, counters.misses, counters.claim_failures), (1, 0, 2));
    let arrivals: u64 = host.pool.history().arrivals().map(|arrivals| u64::from(arrivals.count)).sum();
    assert_eq!(arrivals, 1);
    host.claim();
    assert_eq!(host.pool.counters().misses, 1, "nothing was left");
    host.carry_out();
    host.claim();
    host.leaves();
    let counters = host.pool.counters();
    assert_eq!((counters.hits, counters.claim_failures, counters.unhealthy), (2, 3, 2), "it was well");
    host.carry_out();
    host.claim();
    host.refused();
    let counters = host.pool.counters();
    assert_eq!((counters.hits, counters.misses, counters.unhealthy), (2, 2, 2), "it got none");
    host.update(|spec| spec.draining = true);
    host.poll();
    for _ in 0..4 {
        host.removed(0);
    }
    assert_eq!(host.pool.status(host.now).health, Health::Drained);
}

#[test]
fn what_a_claim_took_in_vain_is_not_drained_before_it_is_gone() {
    let mut host = full(2, 2);
    host.claim();
    host.claim();
    host.claim_failed();
    host.update(|spec| spec.draining = true);
    host.poll();
    assert_eq!(host.pool.status(host.now).health, Health::Draining);
    host.removed(0);
    assert_eq!(host.pool.status(host.now).health, Health::Drained);
}

#[test]
fn a_member_that_is_told_twice_is_there_once() {
    let mut pool = Pool::new(spec(2, 2), 1, Time::default());
    let member = SandboxId::parse("sb-1").unwrap();
    pool.made(1, member.clone(), 1, SECOND, Time::default());
    pool.made(1, member.clone(), 1, SECOND, Time::default());
    assert_eq!((pool.status(Time::default()).ready, pool.members().count()), (1, 1));
    pool.died(&member, Time::default());
    pool.made(1, member, 1, SECOND, Time::default());
    assert_eq!((pool.status(Time::default()).ready, pool.members().count()), (0, 1));
    assert_eq!(pool.claim(Time::default()), None);
}
