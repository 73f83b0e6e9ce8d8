//! `SandboxService`.

use super::{Answer, Frames, peer};
use crate::convert::{api_duration, duration, optional_id, sandbox as convert, sandbox_id, watch};
use crate::deadline::until;
use crate::listen::Peer;
use crate::page;
use crate::request_id::repeat;
use crate::sandboxes::{Position, Sandboxes, position};
use crate::status::invalid;
use futures::StreamExt as _;
use hostel_proto::v1;
use hostel_proto::v1::sandbox_service_server::SandboxService;
use hostel_sandbox::TemplateId;
use hostel_sandbox::label::Selector;
use prost::Message as _;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Bounds of the interval between two measurements.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// Where a page of sandboxes ends, whatever it may hold by its number: clients take messages of 4 MiB, and an environment
/// alone may have 256 KiB.
const MOST_BYTES: usize = 1 << 20;

/// The service over the registry.
pub(crate) struct SandboxCalls(pub Sandboxes);

#[tonic::async_trait]
impl SandboxService for SandboxCalls {
    async fn create_sandbox(
        &self,
        request: Request<v1::CreateSandboxRequest>,
    ) -> Answer<v1::CreateSandboxResponse> {
        let (peer, until) = (peer(&request)?, until(&request));
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let repeat = repeat(&peer, "CreateSandbox", id, &request)?;
        let new = convert::new_sandbox(request, until)?;
        let outcome = self.0.create(new, peer.actor.to_string(), repeat).await?;
        Ok(Response::new(convert::api_created(&outcome)))
    }

    async fn get_sandbox(&self, request: Request<v1::GetSandboxRequest>) -> Answer<v1::GetSandboxResponse> {
        let id = sandbox_id(request.into_inner().sandbox_id)?;
        let record = self.0.get(&id)?.record();
        Ok(Response::new(v1::GetSandboxResponse { sandbox: Some(convert::api_sandbox(&record)) }))
    }

    async fn list_sandboxes(
        &self,
        request: Request<v1::ListSandboxesRequest>,
    ) -> Answer<v1::ListSandboxesResponse> {
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let states = convert::states(&request.states)?;
        let selector = Selector::parse(&request.label_selector).map_err(crate::Error::from)?;
        let mut named: Vec<String> = states.iter().map(ToString::to_string).collect();
        named.sort();
        let states_text = named.join(",");
        let filter = ["sandboxes", request.label_selector.as_str(), states_text.as_str()];
        let after: Option<Position> = page::position(&request.page_token, &filter)?;
        let page = self.0.page(&selector, &states, after.as_ref(), size);
        let (mut sandboxes, mut bytes, mut next) = (Vec::new(), 0, page.next);
        let mut last = None;
        for record in &page.records {
            let sandbox = convert::api_sandbox(record);
            bytes += sandbox.encoded_len();
            if bytes > MOST_BYTES && last.is_some() {
                next = last;
                break;
            }
            last = Some(position(record));
            sandboxes.push(sandbox);
        }
        Ok(Response::new(v1::ListSandboxesResponse {
            sandboxes,
            next_page_token: next.map(|next| page::token(&next, &filter)).unwrap_or_default(),
            cursor: watch::api_cursor(self.0.store(), page.cursor),
        }))
    }

    async fn update_sandbox(
        &self,
        request: Request<v1::UpdateSandboxRequest>,
    ) -> Answer<v1::UpdateSandboxResponse> {
        let actor = actor(&peer(&request)?);
        let (id, update) = convert::update(request.into_inner())?;
        let record = self.0.update(&id, update, actor).await?;
        Ok(Response::new(v1::UpdateSandboxResponse { sandbox: Some(convert::api_sandbox(&record)) }))
    }

    async fn delete_sandbox(
        &self,
        request: Request<v1::DeleteSandboxRequest>,
    ) -> Answer<v1::DeleteSandboxResponse> {
        let actor = actor(&peer(&request)?);
        let request = request.into_inner();
        let id = sandbox_id(request.sandbox_id)?;
        let grace = convert::grace(request.grace_period)?;
        match self.0.delete(&id, grace, actor).await {
            Err(crate::Error::Domain(hostel_sandbox::Error::NotFound { kind: "sandbox", .. }))
                if request.allow_missing => {}
            other => other?,
        }
        Ok(Response::new(v1::DeleteSandboxResponse {}))
    }

    async fn pause_sandbox(
        &self,
        request: Request<v1::PauseSandboxRequest>,
    ) -> Answer<v1::PauseSandboxResponse> {
        let actor = actor(&peer(&request)?);
        let id = sandbox_id(request.into_inner().sandbox_id)?;
        let record = self.0.pause(&id, actor).await?;
        Ok(Response::new(v1::PauseSandboxResponse { sandbox: Some(convert::api_sandbox(&record)) }))
    }

    async fn resume_sandbox(
        &self,
        request: Request<v1::ResumeSandboxRequest>,
    ) -> Answer<v1::ResumeSandboxResponse> {
        let actor = actor(&peer(&request)?);
        let id = sandbox_id(request.into_inner().sandbox_id)?;
        let record = self.0.resume(&id, actor).await?;
        Ok(Response::new(v1::ResumeSandboxResponse { sandbox: Some(convert::api_sandbox(&record)) }))
    }

    async fn snapshot_sandbox(
        &self,
        request: Request<v1::SnapshotSandboxRequest>,
    ) -> Answer<v1::SnapshotSandboxResponse> {
        let peer = peer(&request)?;
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let repeat = repeat(&peer, "SnapshotSandbox", request_id, &request)?;
        let id = sandbox_id(request.sandbox_id)?;
        let name = optional_id(request.template, TemplateId::parse)?;
        let backend = self.0.get(&id)?.record().backend.clone();
        let template = self.0.snapshot(id, name, request.labels, actor(&peer), repeat).await?;
        let template = crate::convert::template::api_template(&template, &[backend], None, 0);
        Ok(Response::new(v1::SnapshotSandboxResponse { template: Some(template) }))
    }

    async fn fork_sandbox(
        &self,
        request: Request<v1::ForkSandboxRequest>,
    ) -> Answer<v1::ForkSandboxResponse> {
        let peer = peer(&request)?;
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let repeat = repeat(&peer, "ForkSandbox", request_id, &request)?;
        let outcomes = self.0.fork(convert::fork(request)?, actor(&peer), repeat).await?;
        let results = outcomes.into_iter().map(convert::api_fork).collect();
        Ok(Response::new(v1::ForkSandboxResponse { results }))
    }

    type WatchSandboxesStream = Frames<v1::WatchSandboxesResponse>;

    async fn watch_sandboxes(
        &self,
        request: Request<v1::WatchSandboxesRequest>,
    ) -> Answer<Self::WatchSandboxesStream> {
        let request = request.into_inner();
        let cursor = watch::cursor(self.0.store(), &request.cursor)?;
        let filter = watch::filter(request.sandbox_ids, &request.label_selector)?;
        let store = self.0.store().clone();
        let items = ReceiverStream::new(self.0.watch(cursor, filter).await?);
        let frames = items.map(move |item| Ok(watch::api_item(&store, &item?)));
        Ok(Response::new(Box::pin(frames)))
    }

    async fn get_sandbox_stats(
        &self,
        request: Request<v1::GetSandboxStatsRequest>,
    ) -> Answer<v1::GetSandboxStatsResponse> {
        let id = sandbox_id(request.into_inner().sandbox_id)?;
        let stats = Some(measure(&self.0, &id).await?);
        Ok(Response::new(v1::GetSandboxStatsResponse { stats }))
    }

    type StreamSandboxStatsStream = Frames<v1::StreamSandboxStatsResponse>;

    async fn stream_sandbox_stats(
        &self,
        request: Request<v1::StreamSandboxStatsRequest>,
    ) -> Answer<Self::StreamSandboxStatsStream> {
        let request = request.into_inner();
        let id = sandbox_id(request.sandbox_id)?;
        let interval = interval(request.interval)?;
        let first = measure(&self.0, &id).await?;
        let state = (self.0.clone(), id, Some(first));
        let frames = futures::stream::try_unfold(state, move |(sandboxes, id, first)| async move {
            let stats = match first {
                Some(first) => first,
                None => {
                    tokio::select! {
                        () = tokio::time::sleep(interval) => {}
                        () = sandboxes.stopping().cancelled() => return Err(crate::Error::Draining.into()),
                    }
                    match measure(&sandboxes, &id).await {
                        Ok(stats) => stats,
                        // The end of the sandbox is the end of its measurements.
                        Err(_) if sandboxes.get(&id).is_ok_and(|entry| entry.live().is_ok()) => {
                            return Ok(Some((None, (sandboxes, id, None))));
                        }
                        Err(_) => return Ok(None),
                    }
                }
            };
            Ok::<_, Status>(Some((Some(stats), (sandboxes, id, None))))
        });
        let frames = frames.filter_map(|frame| async move {
            let stats = frame.transpose()?;
            Some(stats.map(|stats| v1::StreamSandboxStatsResponse { stats: Some(stats) }))
        });
        Ok(Response::new(Box::pin(frames)))
    }
}

fn actor(peer: &Peer) -> String {
    peer.actor.to_string()
}

async fn measure(sandboxes: &Sandboxes, id: &hostel_sandbox::SandboxId) -> Result<v1::SandboxStats, Status> {
    let entry = sandboxes.get(id)?;
    let stats = entry.live()?.stats().await.map_err(crate::Error::from)?;
    Ok(convert::api_stats(&stats, &entry.record()))
}

#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
fn interval(interval: Option<prost_types::Duration>) -> Result<Duration, Status> {
    let interval = interval.unwrap_or_default();
    if interval == api_duration(Duration::ZERO) {
        return Ok(Duration::from_secs(1));
    }
    let interval = duration("interval", interval)?;
    if INTERVALS.contains(&interval) {
        return Ok(interval);
    }
    Err(invalid("interval", "100 milliseconds to 1 hour"))
}
