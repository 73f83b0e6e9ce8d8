//! Random interleavings of everything that can happen to a pool, beside a model of its owner.

use crate::host::Host;
use hostel_pool::{Health, Pressure};
use proptest::prelude::*;
use std::time::Duration;

/// One thing that happens. Indices pick among what there is, by remainder.
#[derive(Debug, Clone)]
enum Event {
    Claim,
    Given,
    ClaimFailed,
    Leaves,
    Refused,
    Missed,
    Pass(u64),
    Wake,
    Made { index: usize, behind: bool },
    MakeFailed(usize),
    MakeStarved(usize),
    MakeGivenUp(usize),
    Checked { index: usize, healthy: bool },
    Measured { index: usize, mebibytes: u64 },
    Died(usize),
    Removed(usize),
    TakenAway(usize),
    Sizes { min: u32, more: u32, headroom: u32, pin: bool },
    Pace { concurrency: u32, max_age: u64, interval: u64 },
    Bound(Option<u64>),
    Drain(bool),
    NewGeneration,
    NewTemplate,
    Pressure(u8),
    Restart,
    RestartInDoubt(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let index = 0usize..64;
    prop_oneof![
        8 => Just(Event::Claim),
        6 => Just(Event::Given),
        1 => Just(Event::ClaimFailed),
        1 => Just(Event::Leaves),
        1 => Just(Event::Refused),
        1 => Just(Event::Missed),
        5 => (0u64..20_000).prop_map(Event::Pass),
        5 => Just(Event::Wake),
        10 => (index.clone(), prop::bool::weighted(0.1)).prop_map(|(index, behind)| Event::Made { index, behind }),
        3 => index.clone().prop_map(Event::MakeFailed),
        1 => index.clone().prop_map(Event::MakeStarved),
        1 => index.clone().prop_map(Event::MakeGivenUp),
        6 => (index.clone(), prop::bool::weighted(0.8)).prop_map(|(index, healthy)| Event::Checked { index, healthy }),
        2 => (index.clone(), 0u64..200).prop_map(|(index, mebibytes)| Event::Measured { index, mebibytes }),
        2 => index.clone().prop_map(Event::Died),
        4 => index.clone().prop_map(Event::Removed),
        1 => index.clone().prop_map(Event::TakenAway),
        1 => (0u32..6, 1u32..12, 0u32..4, any::<bool>())
            .prop_map(|(min, more, headroom, pin)| Event::Sizes { min, more, headroom, pin }),
        1 => (1u32..8, 10u64..100, 1u64..40)
            .prop_map(|(concurrency, max_age, interval)| Event::Pace { concurrency, max_age, interval }),
        1 => prop::option::of(8u64..1000).prop_map(Event::Bound),
        1 => any::<bool>().prop_map(Event::Drain),
        1 => Just(Event::NewGeneration),
        1 => Just(Event::NewTemplate),
        1 => (0u8..3).prop_map(Event::Pressure),
        1 => Just(Event::Restart),
        1 => index.prop_map(Event::RestartInDoubt),
    ]
}

fn happen(host: &mut Host, event: Event) {
    match event {
        Event::Claim => host.claim(),
        Event::Given => host.given(),
        Event::ClaimFailed => host.claim_failed(),
        Event::Leaves => host.leaves(),
        Event::Refused => host.refused(),
        Event::Missed => host.missed(),
        Event::Pass(millis) => host.pass(Duration::from_millis(millis)),
        Event::Wake => host.wake(),
        Event::Made { index, behind } => host.made(index, behind),
        Event::MakeFailed(index) => host.make_failed(index),
        Event::MakeStarved(index) => host.make_starved(index),
        Event::MakeGivenUp(index) => host.make_given_up(index),
        Event::Checked { index, healthy } => host.checked(index, healthy),
        Event::Measured { index, mebibytes } => host.measured(index, mebibytes),
        Event::Died(index) => host.died(index),
        Event::Removed(index) => host.removed(index),
        Event::TakenAway(index) => host.taken_away(index),
        Event::Sizes { min, more, headroom, pin } => host.update(|spec| {
            spec.min_size = min;
            spec.max_size = min + more;
            spec.headroom = headroom;
            spec.pinned_size = pin.then_some(min + more / 2);
        }),
        Event::Pace { concurrency, max_age, interval } => host.update(|spec| {
            spec.refill_concurrency = concurrency;
            spec.max_age = Duration::from_secs(max_age);
            spec.health_check_interval = Duration::from_secs(interval);
        }),
        Event::Bound(mebibytes) => {
            host.update(|spec| spec.max_idle_memory_bytes = mebibytes.map(|mebibytes| mebibytes << 20));
        }
        Event::Drain(draining) => host.update(|spec| spec.draining = draining),
        Event::NewGeneration => host.new_generation(),
        Event::NewTemplate => host.new_template(),
        Event::Pressure(level) => host.pressure(match level {
            0 => Pressure::None,
            1 => Pressure::High,
            _ => Pressure::Critical,
        }),
        Event::Restart => host.restart(),
        Event::RestartInDoubt(index) => host.restart_in_doubt(index),
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_invariants_hold(
        events in prop::collection::vec((event(), prop::bool::weighted(0.7)), 0..200)
    ) {
        let mut host = Host::new();
        for (event, poll) in events {
            happen(&mut host, event);
            if poll {
                host.poll();
            }
            host.check_books();
        }
        host.pressure(Pressure::None);
        host.settle();
        let status = host.pool.status(host.now);
        prop_assert_eq!((status.creating, status.removing, status.old), (0, 0, 0));
        prop_assert_eq!(status.ready, status.target);
        prop_assert_eq!(status.retry_time, None);
        let expected = if host.pool.spec().draining { Health::Drained } else { Health::Healthy };
        prop_assert_eq!(status.health, expected);

        host.update(|spec| spec.draining = true);
        host.settle();
        prop_assert_eq!(host.pool.status(host.now).health, Health::Drained);
        prop_assert_eq!(host.waiting(), 0);
        prop_assert_eq!(host.pool.members().count(), 0);
    }

    #[test]
    fn what_is_outdated_is_replaced_also_where_there_is_no_room_beside_it(
        events in prop::collection::vec((event(), prop::bool::weighted(0.7)), 0..100),
        room in 1u32..6,
    ) {
        let mut host = Host::new();
        for (event, poll) in events {
            happen(&mut host, event);
            if poll {
                host.poll();
            }
        }
        host.pressure(Pressure::None);
        host.new_generation();
        let room = host.settle_in(room);
        let status = host.pool.status(host.now);
        prop_assert_eq!(status.ready, status.target.min(room));
    }
}
