//! Pools of warm sandboxes.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::{Pool, PoolEvent, PoolPlan, PoolSpec};
use crate::page;
use hostel_proto::v1;
use std::time::Duration;
use tonic::Streaming;

/// What pool to make.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatePool {
    /// The name to have, `[a-z][a-z0-9-]{0,62}`.
    pub name: String,
    /// Makes the call repeatable.
    pub request_id: Option<String>,
    /// What it shall be.
    pub spec: PoolSpec,
}

/// A field of [`PoolSpec`] that can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolField {
    /// `template`.
    Template,
    /// `limits`, all of them.
    Limits,
    /// `min_size`.
    MinSize,
    /// `max_size`.
    MaxSize,
    /// `pinned_size`.
    PinnedSize,
    /// `headroom`.
    Headroom,
    /// `refill_concurrency`.
    RefillConcurrency,
    /// `refill_delay`.
    RefillDelay,
    /// `max_age`.
    MaxAge,
    /// `health_check_interval`.
    HealthCheckInterval,
    /// `max_idle_memory_bytes`.
    MaxIdleMemory,
    /// `target_hit_rate`.
    TargetHitRate,
    /// `scale_down_delay`.
    ScaleDownDelay,
    /// `schedules`, all of them.
    Schedules,
    /// `warm_process`.
    WarmProcess,
    /// `named_only`.
    NamedOnly,
    /// `draining`.
    Draining,
}

impl PoolField {
    /// As an update mask spells it.
    fn path(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Limits => "limits",
            Self::MinSize => "min_size",
            Self::MaxSize => "max_size",
            Self::PinnedSize => "pinned_size",
            Self::Headroom => "headroom",
            Self::RefillConcurrency => "refill_concurrency",
            Self::RefillDelay => "refill_delay",
            Self::MaxAge => "max_age",
            Self::HealthCheckInterval => "health_check_interval",
            Self::MaxIdleMemory => "max_idle_memory_bytes",
            Self::TargetHitRate => "target_hit_rate",
            Self::ScaleDownDelay => "scale_down_delay",
            Self::Schedules => "schedules",
            Self::WarmProcess => "warm_process",
            Self::NamedOnly => "named_only",
            Self::Draining => "draining",
        }
    }
}

/// Which pools to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchPools {
    /// Only these, which need not exist yet. Empty: all.
    pub names: Vec<String>,
    /// The shortest time between two messages about one pool, 100 milliseconds to 1 hour. `None`: 1 second.
    pub interval: Option<Duration>,
}

impl Client {
    /// Makes a pool and returns at once; it fills behind.
    ///
    /// # Errors
    /// The daemon's refusal, `ALREADY_EXISTS` when the name is taken.
    pub async fn create_pool(&self, create: CreatePool) -> Result<Pool> {
        let request = v1::CreatePoolRequest {
            request_id: create.request_id.unwrap_or_default(),
            name: create.name,
            spec: Some(convert::pool_spec(&create.spec)),
        };
        let response = self.pools().create_pool(request).await.map_err(convert::error)?;
        convert::pool(convert::required(response.into_inner().pool, "the pool")?)
    }

    /// Tells about a pool.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn get_pool(&self, name: &str) -> Result<Pool> {
        let request = v1::GetPoolRequest { name: name.to_owned() };
        let response = self.pools().get_pool(request).await.map_err(convert::error)?;
        convert::pool(convert::required(response.into_inner().pool, "the pool")?)
    }

    /// Lists pools by name, all pages.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_pools(&self) -> Result<Vec<Pool>> {
        let mut pools = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListPoolsRequest { page_size: 1000, page_token: page_token.clone() };
            let response = self.pools().list_pools(request).await.map_err(convert::error)?.into_inner();
            for pool in response.pools {
                pools.push(convert::pool(pool)?);
            }
            if !page::turn(&mut page_token, response.next_page_token)? {
                return Ok(pools);
            }
        }
    }

    /// Changes these fields of a pool while it works; the others of `spec` are not looked at.
    ///
    /// # Errors
    /// The daemon's refusal, also when `fields` is empty.
    pub async fn update_pool(&self, name: &str, spec: &PoolSpec, fields: &[PoolField]) -> Result<Pool> {
        let paths = fields.iter().map(|field| field.path().to_owned()).collect();
        let request = v1::UpdatePoolRequest {
            name: name.to_owned(),
            spec: Some(convert::pool_spec(spec)),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        let response = self.pools().update_pool(request).await.map_err(convert::error)?;
        convert::pool(convert::required(response.into_inner().pool, "the pool")?)
    }

    /// Removes a pool and its warm sandboxes. Those that were claimed go on.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such and that is not allowed.
    pub async fn delete_pool(&self, name: &str, allow_missing: bool) -> Result<()> {
        let request = v1::DeletePoolRequest { name: name.to_owned(), allow_missing };
        self.pools().delete_pool(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Stops refilling, removes what is warm and returns when nothing is. [`Self::update_pool`] takes it up again.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn drain_pool(&self, name: &str) -> Result<Pool> {
        let request = v1::DrainPoolRequest { name: name.to_owned() };
        let response = self.pools().drain_pool(request).await.map_err(convert::error)?;
        convert::pool(convert::required(response.into_inner().pool, "the pool")?)
    }

    /// Watches pools: each as it is, and again when it changes.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn watch_pools(&self, watch: WatchPools) -> Result<PoolWatch> {
        let request = v1::WatchPoolsRequest {
            names: watch.names,
            interval: watch.interval.map(convert::duration_to_wire),
        };
        let response = self.pools().watch_pools(request).await.map_err(convert::error)?;
        Ok(PoolWatch(response.into_inner()))
    }

    /// Replays the demand of the last `window`, or all that is kept, against other sizes; where none are named, a
    /// range that the daemon chooses.
    ///
    /// # Errors
    /// The daemon's refusal, `NO_DEMAND` when nothing was claimed in that time.
    pub async fn plan_pool(&self, name: &str, sizes: &[u32], window: Option<Duration>) -> Result<PoolPlan> {
        let request = v1::PlanPoolRequest {
            name: name.to_owned(),
            sizes: sizes.to_vec(),
            window: window.map(convert::duration_to_wire),
        };
        let response = self.pools().plan_pool(request).await.map_err(convert::error)?;
        Ok(convert::plan(response.into_inner()))
    }
}

/// Pools as they change. Dropping it ends the watch.
#[derive(Debug)]
pub struct PoolWatch(Streaming<v1::WatchPoolsResponse>);

impl PoolWatch {
    /// The next change; `None` when the daemon ended the watch. Cancel safe.
    ///
    /// # Errors
    /// What ended the watch.
    pub async fn next(&mut self) -> Result<Option<PoolEvent>> {
        self.0.message().await.map_err(convert::error)?.map(convert::pool_event).transpose()
    }
}
