//! What other sizes would have done with the demand that a pool met.

use super::LivePool;
use super::live::State;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::sandboxes::Sandboxes;
use hostel_pool::{History, PlanOptions, PlanRow, PoolSpec, Time, plan};
use hostel_sandbox::Error as DomainError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The sizes that are tried where nobody names any, as far as they may matter.
const SIZES: [u32; 21] =
    [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024];

/// A replay.
#[derive(Debug)]
pub(crate) struct PlanView {
    pub(crate) rows: Vec<PlanRow>,
    pub(crate) start: Time,
    pub(crate) end: Time,
    pub(crate) claims: u64,
    /// The time to make one that was assumed.
    pub(crate) make_time: Option<Duration>,
}

impl LivePool {
    /// Replays the demand of the last `window`, or all that is kept, against these sizes or a range of them. It ends when
    /// the caller goes away.
    ///
    /// # Errors
    /// `WrongState` (`NO_DEMAND`) where nothing was claimed; `LimitReached` while another is under way on the node.
    pub(crate) async fn plan(
        &self,
        sandboxes: &Sandboxes,
        sizes: Vec<u32>,
        window: Option<Duration>,
    ) -> Result<PlanView> {
        let turn = Arc::clone(&sandboxes.pools().0.plans).try_acquire_owned().map_err(|_| {
            let detail = "another is being made on this node, ask again when it is done".to_owned();
            DomainError::LimitReached { what: "plans", detail }
        })?;
        let end = self.clock.now();
        let (history, spec, target, cost) = {
            let state = lock(&self.state);
            let target = state.brain.status(end).target;
            let cost = state.brain.cost().or_else(|| mean_limit(&state));
            (state.brain.history().clone(), state.record.spec.clone(), target, cost)
        };
        let since = window.map(|window| end.before(window));
        let (start, claims) = demand(&history, since).ok_or_else(|| {
            let detail = format!(
                "nothing was claimed from the pool {} in that time: there is nothing to replay",
                self.name
            );
            Error::from(DomainError::wrong_state("NO_DEMAND", detail))
        })?;
        let sizes = if sizes.is_empty() { range(spec.max_size.max(target.saturating_mul(2))) } else { sizes };
        let memory = match cost {
            Some(cost) => cost,
            None => limit(sandboxes, &spec).await,
        };
        let make_time = history.durations().mean();
        let options = PlanOptions { since, ..PlanOptions::new(spec, memory) };
        let _ends_with_the_caller = Stop(Arc::clone(&options.stop));
        // Seconds of work for a week of busy demand.
        let replay = move || {
            let _turn = turn;
            plan(&history, &sizes, &options)
        };
        let replayed = tokio::task::spawn_blocking(replay).await;
        let rows = replayed.map_err(|error| DomainError::internal("replay the demand", error))?;
        Ok(PlanView { rows, start, end, claims, make_time })
    }
}

/// Ends a replay when it is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The memory that a warm sandbox may use, in bytes, on average; nothing where none is there or has such a limit.
fn mean_limit(state: &State) -> Option<u64> {
    let limits = state.warm.values().filter_map(|warm| warm.record.limits.memory_bytes);
    let (sum, count) =
        limits.fold((0u64, 0u64), |(sum, count), limit| (sum.saturating_add(limit), count + 1));
    sum.checked_div(count)
}

/// The memory that the next one may use, in bytes; 0 where nothing says.
async fn limit(sandboxes: &Sandboxes, spec: &PoolSpec) -> u64 {
    let template = sandboxes.template_named(&spec.backend, &spec.template).await.ok().flatten();
    let (limits, most) =
        template.map(|template| (template.limits.clone(), template.max_limits.clone())).unwrap_or_default();
    let limits = spec.limits.or(&limits).or(&sandboxes.settings().default_limits).at_most(&most);
    limits.memory_bytes.unwrap_or_default()
}

/// When the demand begins, and how many claims it has.
fn demand(history: &History, since: Option<Time>) -> Option<(Time, u64)> {
    let mut arrivals = history
        .arrivals()
        .map(|arrivals| (Time::from_secs(arrivals.second), arrivals.count))
        .filter(|(time, _)| since.is_none_or(|since| *time >= since))
        .peekable();
    let (start, _) = *arrivals.peek()?;
    Some((start, arrivals.map(|(_, count)| u64::from(count)).sum()))
}

fn range(most: u32) -> Vec<u32> {
    let above = SIZES.iter().position(|size| *size >= most).unwrap_or(SIZES.len() - 1);
    SIZES[..=above].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_reaches_the_largest_size() {
        assert_eq!(range(5), [0, 1, 2, 3, 4, 6]);
        assert_eq!(range(0), [0]);
        assert_eq!(range(1_000_000).len(), SIZES.len());
    }
}
