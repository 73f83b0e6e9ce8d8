//! What other sizes would have done with the demand that was recorded.

mod replay;

use crate::history::History;
use crate::sizing::Sizer;
use crate::spec::PoolSpec;
use crate::time::Time;
use replay::{Replay, Tally};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What a replay goes by.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// The pool's specification: `refill_concurrency` for every row, all of it for the controller's.
    pub spec: PoolSpec,
    /// The memory of one warm sandbox, in bytes.
    pub memory_bytes: u64,
    /// How long making one takes. `None`: as recorded, or one second where nothing is.
    pub make_time: Option<Duration>,
    /// Only demand from here on. `None`: all.
    pub since: Option<Time>,
    /// Set once nobody waits for the rows any more: the replay then ends soon, with rows that say nothing.
    pub stop: Arc<AtomicBool>,
}

impl PlanOptions {
    /// Options for all that is recorded.
    #[must_use]
    pub fn new(spec: PoolSpec, memory_bytes: u64) -> Self {
        Self { spec, memory_bytes, make_time: None, since: None, stop: Arc::default() }
    }
}

/// The size that a row is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PlanSize {
    /// Always this many.
    Fixed(u32),
    /// As the controller would have sized it.
    Adaptive {
        /// Its mean target.
        mean: f64,
        /// Its greatest target.
        most: u32,
    },
}

/// What one size would have done.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRow {
    /// The size.
    pub size: PlanSize,
    /// Claims that were replayed.
    pub claims: u64,
    /// The share of claims that find a warm sandbox, 0 to 1. 1 when there were none.
    pub hit_rate: f64,
    /// The wait that half of the claims do not exceed: none where one is warm, else the time to make one.
    pub wait_p50: Duration,
    /// The wait that 99 of 100 claims do not exceed.
    pub wait_p99: Duration,
    /// Memory of waiting sandboxes, in bytes, on average over time.
    pub idle_memory_bytes_mean: u64,
    /// How long sandboxes waited in all, in seconds.
    pub idle_seconds: f64,
}

/// Replays `history` against fixed sizes and, in the last row, against the controller. Each replay begins with a full
/// pool. Claims of one second are spread over it by chance; members neither age nor fail. Of more than 20 million
/// claims, the newest are replayed.
#[must_use]
pub fn plan(history: &History, sizes: &[u32], options: &PlanOptions) -> Vec<PlanRow> {
    let fixed = sizes.iter().map(|size| {
        let tally = Replay::new(history, options, *size).run(history, options, |_, _| *size);
        row(PlanSize::Fixed(*size), &tally, options)
    });
    let mut rows: Vec<PlanRow> = fixed.collect();
    rows.push(adaptive(history, options));
    rows
}

fn adaptive(history: &History, options: &PlanOptions) -> PlanRow {
    let spec = PoolSpec { draining: false, ..options.spec.clone() };
    let begin = replay::begin(history, options);
    let mut sizer = Sizer::new(begin);
    sizer.look_now(&spec, begin);
    let first = sizer.target(&spec, begin);
    let mut seen = 0;
    let replay = Replay::new(history, options, first);
    let tally = replay.run(history, options, |now, replay| {
        for took in replay.take_made() {
            sizer.made(took);
        }
        (seen..replay.claims()).for_each(|_| sizer.arrived(now));
        seen = replay.claims();
        sizer.look(&spec, now);
        sizer.target(&spec, now)
    });
    row(PlanSize::Adaptive { mean: tally.mean_target(), most: tally.most_target }, &tally, options)
}

fn row(size: PlanSize, tally: &Tally, options: &PlanOptions) -> PlanRow {
    let memory = tally.mean_ready() * options.memory_bytes as f64;
    PlanRow {
        size,
        claims: tally.claims(),
        hit_rate: tally.hit_rate(),
        wait_p50: tally.wait(0.5),
        wait_p99: tally.wait(0.99),
        // The cast saturates.
        idle_memory_bytes_mean: memory.round() as u64,
        idle_seconds: tally.idle_seconds,
    }
}
