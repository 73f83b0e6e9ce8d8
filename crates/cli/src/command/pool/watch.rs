//! `hostel pool watch`.

use super::super::{Context, Outcome};
use super::health;
use crate::args::WatchPoolArgs;
use crate::failure::Failure;
use crate::output::{self, human};
use hostel_client::model::PoolEvent;
use hostel_client::{Client, WatchPools};

pub(super) async fn watch(context: &Context, client: &Client, args: WatchPoolArgs) -> Outcome {
    let watch = WatchPools { names: args.names, interval: Some(args.interval) };
    let mut events = client.watch_pools(watch).await?;
    if !context.json {
        let header = [
            "TIME",
            "NAME",
            "HEALTH",
            "READY/TARGET",
            "MAKING",
            "HITS",
            "MISSES",
            "HIT%",
            "CLAIMS/S",
            "MAKE TIME",
        ];
        output::line(&row(header.map(str::to_owned)))?;
    }
    loop {
        match events.next().await {
            Ok(Some(event)) if context.json => output::json(&event)?,
            Ok(Some(event)) => output::line(&told(&event))?,
            Err(error) if !error.is_connection() => return Err(error.into()),
            Ok(None) | Err(_) => return Err(Failure::other("CONNECTION_LOST", "the daemon ended the watch")),
        }
    }
}

fn row(cells: [String; 10]) -> String {
    let [time, name, health, size, making, hits, misses, rate, demand, took] = cells;
    format!(
        "{time:8}  {name:20}  {health:9}  {size:>12}  {making:>6}  {hits:>8}  {misses:>8}  {rate:>7}  {demand:>8}  {took:>9}"
    )
}

fn told(event: &PoolEvent) -> String {
    let pool = &event.pool;
    let (status, counters) = (&pool.status, &pool.counters);
    let dash = || "-".to_owned();
    human::printable(&row([
        event.time.map_or_else(dash, |time| time.strftime("%H:%M:%S").to_string()),
        pool.name.clone(),
        if event.deleted { "deleted".to_owned() } else { health(status.health).to_owned() },
        format!("{}/{}", status.ready, status.target_size),
        status.creating.to_string(),
        counters.hits.to_string(),
        counters.misses.to_string(),
        counters.hit_rate().map_or_else(dash, human::percent),
        format!("{:.2}", status.arrivals_per_second),
        status.create_seconds.map_or_else(dash, human::brief),
    ]))
}
