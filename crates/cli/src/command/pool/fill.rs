//! Waiting until a new pool has its target size.

use crate::failure::Failure;
use crate::output::{self, progress::Count};
use hostel_client::model::{Pool, PoolHealth};
use hostel_client::{Client, WatchPools};
use std::time::Duration;
use tokio::time::timeout;

/// How often the daemon tells.
const INTERVAL: Duration = Duration::from_millis(100);
/// Failed refills after which nobody need wait any longer.
const FAILURES: u64 = 3;

/// The pool, once it has its target size.
///
/// # Errors
/// `POOL_NOT_FILLED` when that takes longer than `limit`, or refills fail.
pub(super) async fn filled(client: &Client, name: &str, limit: Duration) -> Result<Pool, Failure> {
    let watch = WatchPools { names: vec![name.to_owned()], interval: Some(INTERVAL) };
    let mut watch = client.watch_pools(watch).await?;
    let bar = Count::new(name);
    let waiting = async {
        let mut told = String::new();
        while let Some(event) = watch.next().await? {
            let pool = event.pool;
            if event.deleted {
                return Err(unfilled(name, "somebody deleted it"));
            }
            bar.at(pool.status.ready.into(), pool.status.target_size.into());
            if pool.status.health == PoolHealth::Healthy {
                return Ok(pool);
            }
            let failure = pool.status.last_failure.as_ref().map_or("", |failure| failure.message.as_str());
            if pool.counters.refill_failures >= FAILURES {
                return Err(unfilled(name, failure));
            }
            if !failure.is_empty() && told != failure {
                failure.clone_into(&mut told);
                bar.suspend(|| output::note(&format!("a refill failed and is tried again: {failure}")));
            }
        }
        Err(unfilled(name, "the daemon stopped"))
    };
    match timeout(limit, waiting).await {
        Ok(result) => result,
        Err(_) => Err(unfilled(name, &format!("it is not full after {limit:?}"))),
    }
}

fn unfilled(name: &str, why: &str) -> Failure {
    let message = format!("the pool {name} was made and stays, but does not fill: {why}");
    Failure::other("POOL_NOT_FILLED", message)
}
