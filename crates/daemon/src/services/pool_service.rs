//! `PoolService`. Pools come with a later version; until then every call says so.

use super::{Answer, Frames};
use crate::error::Error;
use hostel_proto::v1;
use hostel_proto::v1::pool_service_server::PoolService;
use tonic::{Request, Status};

/// The service without pools.
pub(crate) struct Pools;

#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
fn not_yet<T>() -> Result<T, Status> {
    Err(Error::NotYet { what: "pool" }.into())
}

#[tonic::async_trait]
impl PoolService for Pools {
    async fn create_pool(&self, _: Request<v1::CreatePoolRequest>) -> Answer<v1::CreatePoolResponse> {
        not_yet()
    }

    async fn get_pool(&self, _: Request<v1::GetPoolRequest>) -> Answer<v1::GetPoolResponse> {
        not_yet()
    }

    async fn list_pools(&self, _: Request<v1::ListPoolsRequest>) -> Answer<v1::ListPoolsResponse> {
        not_yet()
    }

    async fn update_pool(&self, _: Request<v1::UpdatePoolRequest>) -> Answer<v1::UpdatePoolResponse> {
        not_yet()
    }

    async fn delete_pool(&self, _: Request<v1::DeletePoolRequest>) -> Answer<v1::DeletePoolResponse> {
        not_yet()
    }

    async fn drain_pool(&self, _: Request<v1::DrainPoolRequest>) -> Answer<v1::DrainPoolResponse> {
        not_yet()
    }

    type WatchPoolsStream = Frames<v1::WatchPoolsResponse>;

    async fn watch_pools(&self, _: Request<v1::WatchPoolsRequest>) -> Answer<Self::WatchPoolsStream> {
        not_yet()
    }
}
