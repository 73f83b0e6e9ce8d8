//! The gRPC services of `hostel.v1`: each call is read, done by the registry or the sandbox, and answered.

mod attach;
mod byte_streams;
mod file_service;
mod network_service;
mod node_service;
mod pool_service;
mod process_service;
mod sandbox_service;
mod secret_service;
mod template_service;
mod upload;
mod usage_service;

pub(crate) use file_service::Files;
pub(crate) use network_service::Networks;
pub(crate) use node_service::NodeInfo;
pub(crate) use pool_service::Pools;
pub(crate) use process_service::Processes;
pub(crate) use sandbox_service::SandboxCalls;
pub(crate) use secret_service::Secrets;
pub(crate) use template_service::Templates;
pub(crate) use upload::told_when_broken_off;
pub(crate) use usage_service::Usage;

use crate::listen::Peer;
use futures::Stream;
use std::pin::Pin;
use tonic::{Request, Response, Status};

/// What a call answers with.
type Answer<T> = Result<Response<T>, Status>;
/// What a streaming call sends.
type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Who calls. Every connection that was accepted has a peer.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("nobody knows who you are"))
}
