//! `PoolService`. What changes pools goes on when the caller goes away.

use super::{Answer, Frames, peer};
use crate::convert::{duration, pool as convert, timestamp};
use crate::error::Error;
use crate::page;
use crate::pools::{LivePool, PoolView};
use crate::request_id::repeat;
use crate::sandboxes::Sandboxes;
use crate::status::invalid;
use hostel_pool::PoolName;
use hostel_proto::v1;
use hostel_proto::v1::pool_service_server::PoolService;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Bounds of the interval between two messages about one pool, and what 0 means.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const INTERVAL: Duration = Duration::from_secs(1);
/// Most pools that a watcher names, and most sizes of a plan.
const MOST_NAMES: usize = 1000;
const MOST_SIZES: usize = 64;
/// Messages that a watcher may be behind before it is waited for.
const BUFFER: usize = 16;

/// The service over the pools.
pub(crate) struct Pools(pub Sandboxes);

#[tonic::async_trait]
impl PoolService for Pools {
    async fn create_pool(&self, request: Request<v1::CreatePoolRequest>) -> Answer<v1::CreatePoolResponse> {
        let peer = peer(&request)?;
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let repeat = repeat(&peer, "CreatePool", id, &request)?;
        let default = self.0.backends().default().map(|backend| backend.name());
        let record = convert::record(request.name, request.spec, default)?;
        let this = self.0.clone();
        let made = async move { this.pools().create(&this, record, repeat).await };
        let view = self.0.to_the_end(made).await?;
        Ok(Response::new(v1::CreatePoolResponse { pool: Some(convert::api_pool(&view)) }))
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Answer<v1::GetPoolResponse> {
        let pool = self.pool(request.into_inner().name)?;
        Ok(Response::new(v1::GetPoolResponse { pool: Some(convert::api_pool(&pool.view())) }))
    }

    async fn list_pools(&self, request: Request<v1::ListPoolsRequest>) -> Answer<v1::ListPoolsResponse> {
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let after: Option<PoolName> = page::position(&request.page_token, &["pools"])?;
        let mut pools = self.0.pools().all();
        pools.retain(|pool| after.as_ref().is_none_or(|after| pool.name() > after));
        let more = pools.len() > size;
        pools.truncate(size);
        let next = pools.last().filter(|_| more).map(|last| page::token(last.name(), &["pools"]));
        Ok(Response::new(v1::ListPoolsResponse {
            pools: pools.iter().map(|pool| convert::api_pool(&pool.view())).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn update_pool(&self, request: Request<v1::UpdatePoolRequest>) -> Answer<v1::UpdatePoolResponse> {
        let (name, update) = convert::update(request.into_inner())?;
        let this = self.0.clone();
        let view = self.0.to_the_end(async move { this.pools().update(&this, &name, update).await }).await?;
        Ok(Response::new(v1::UpdatePoolResponse { pool: Some(convert::api_pool(&view)) }))
    }

    async fn delete_pool(&self, request: Request<v1::DeletePoolRequest>) -> Answer<v1::DeletePoolResponse> {
        let request = request.into_inner();
        let name = convert::name(request.name)?;
        let this = self.0.clone();
        match self.0.to_the_end(async move { this.pools().delete(&this, &name).await }).await {
            Err(Error::Domain(hostel_sandbox::Error::NotFound { kind: "pool", .. }))
                if request.allow_missing => {}
            other => other?,
        }
        Ok(Response::new(v1::DeletePoolResponse {}))
    }

    async fn drain_pool(&self, request: Request<v1::DrainPoolRequest>) -> Answer<v1::DrainPoolResponse> {
        let name = convert::name(request.into_inner().name)?;
        let this = self.0.clone();
        let view = self.0.to_the_end(async move { this.pools().drain(&this, &name).await }).await?;
        Ok(Response::new(v1::DrainPoolResponse { pool: Some(convert::api_pool(&view)) }))
    }

    type WatchPoolsStream = Frames<v1::WatchPoolsResponse>;

    async fn watch_pools(&self, request: Request<v1::WatchPoolsRequest>) -> Answer<Self::WatchPoolsStream> {
        let request = request.into_inner();
        if request.names.len() > MOST_NAMES {
            return Err(invalid("names", format!("at most {MOST_NAMES}")));
        }
        let names = request.names.into_iter().map(convert::name).collect::<Result<Vec<_>, _>>()?;
        let asked = request.interval.map(|interval| duration("interval", interval)).transpose()?;
        let interval = asked.filter(|asked| !asked.is_zero()).unwrap_or(INTERVAL);
        if !INTERVALS.contains(&interval) {
            return Err(invalid("interval", "100 milliseconds to 1 hour"));
        }
        let place = self.0.place_for_watcher()?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        let watcher =
            Watcher { sandboxes: self.0.clone(), names, seen: BTreeMap::new(), sender, _place: place };
        self.0.tasks().spawn(watcher.run(interval));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn plan_pool(&self, request: Request<v1::PlanPoolRequest>) -> Answer<v1::PlanPoolResponse> {
        let request = request.into_inner();
        let pool = self.pool(request.name)?;
        let mut sizes = request.sizes;
        if sizes.len() > MOST_SIZES || sizes.iter().any(|size| *size > hostel_pool::spec::MAX_SIZE) {
            let most = hostel_pool::spec::MAX_SIZE;
            return Err(invalid("sizes", format!("at most {MOST_SIZES} sizes of at most {most}")));
        }
        sizes.sort_unstable();
        sizes.dedup();
        let window = request.window.map(|window| duration("window", window)).transpose()?;
        let plan = pool.plan(&self.0, sizes, window).await?;
        Ok(Response::new(convert::api_plan(&plan)))
    }
}

impl Pools {
    fn pool(&self, name: String) -> Result<Arc<LivePool>, Error> {
        self.0.pools().get(&convert::name(name)?)
    }
}

/// Tells one client of pools, each when it changed since it was told last.
struct Watcher {
    sandboxes: Sandboxes,
    /// Empty: all.
    names: Vec<PoolName>,
    seen: BTreeMap<PoolName, PoolView>,
    sender: mpsc::Sender<Result<v1::WatchPoolsResponse, Status>>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn run(mut self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stop = self.sandboxes.stopping().clone();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.sender.closed() => return,
                () = stop.cancelled() => {
                    let _ = self.sender.try_send(Err(Error::Draining.into()));
                    return;
                }
            }
            for (view, deleted) in self.news() {
                let message = v1::WatchPoolsResponse {
                    pool: Some(convert::api_pool(&view)),
                    deleted,
                    time: Some(timestamp(SystemTime::now())),
                };
                let sent = tokio::select! {
                    sent = self.sender.send(Ok(message)) => sent.is_ok(),
                    // Whoever does not read holds up no end.
                    () = stop.cancelled() => false,
                };
                if !sent {
                    return;
                }
            }
        }
    }

    fn news(&mut self) -> Vec<(PoolView, bool)> {
        let wanted = |name: &PoolName| self.names.is_empty() || self.names.contains(name);
        let pools = self.sandboxes.pools().all();
        let views = pools.iter().filter(|pool| wanted(pool.name())).map(|pool| pool.view());
        let now: BTreeMap<PoolName, PoolView> = views.map(|view| (view.record.name.clone(), view)).collect();
        let gone = self.seen.iter().filter(|(name, _)| !now.contains_key(*name));
        let mut news: Vec<_> = gone.map(|(_, view)| (view.clone(), true)).collect();
        let changed =
            now.iter().filter(|(name, view)| self.seen.get(*name).is_none_or(|seen| differs(seen, view)));
        news.extend(changed.map(|(_, view)| (view.clone(), false)));
        self.seen = now;
        news
    }
}

/// Whether there is something to tell: ages, rates and memory alone change all the time.
fn differs(seen: &PoolView, now: &PoolView) -> bool {
    let still = |view: &PoolView| {
        let mut still = view.clone();
        still.status.oldest_age = None;
        still.status.arrivals_per_second = 0.0;
        still.status.dispersion = 0.0;
        still.status.idle_memory_bytes = None;
        still
    };
    still(seen) != still(now)
}
