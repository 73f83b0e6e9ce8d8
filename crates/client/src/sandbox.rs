//! Making, changing and watching sandboxes.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::{CreatedSandbox, ForkOutcome, Sandbox, SandboxEvent, SandboxPage, SandboxStats, Template};
use crate::page;
use hostel_proto::v1;
use hostel_proto::v1::watch_sandboxes_response::Item;
use hostel_sandbox::file::{InitialFile, validate_initial};
use hostel_sandbox::label::Labels;
use hostel_sandbox::{
    ModelAccess, NetworkPolicy, ResourceLimits, SandboxId, SandboxSpec, SandboxState, SecretRef, TemplateId,
};
use std::time::Duration;
use tonic::{Request, Streaming};

/// Largest page that the daemon gives.
const PAGE_SIZE: i32 = 1000;

/// What sandbox to make.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateSandbox {
    /// The id to have; made by the daemon where absent.
    pub id: Option<SandboxId>,
    /// Makes the call repeatable. Absent: each call makes a sandbox.
    pub request_id: Option<String>,
    /// What it shall be.
    pub spec: SandboxSpec,
    /// Whether `spec.network` was asked for; otherwise the template's policy holds.
    pub network_given: bool,
    /// What is written into it before anybody sees it: at most 64 files with 1 MiB together.
    pub files: Vec<InitialFile>,
    /// The pool to claim from. Absent: any that fits, or none.
    pub pool: Option<String>,
    /// How long it may take: the template's start commands and probe, and the wait for room. Absent: the daemon's
    /// own bound of 60 seconds.
    pub wait: Option<Duration>,
}

/// What to change of a sandbox; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateSandbox {
    /// Labels instead of those it has.
    pub labels: Option<Labels>,
    /// Delete it this long from now.
    pub lifetime: Option<Duration>,
    /// Delete it when nothing happened in it for this long.
    pub idle_timeout: Option<Duration>,
    /// Limits; those that are absent stay.
    pub limits: Option<ResourceLimits>,
    /// What it may reach.
    pub network: Option<NetworkPolicy>,
    /// Secrets instead of those it has.
    pub secrets: Option<Vec<SecretRef>>,
    /// Its way to a model; `Some(None)` takes it away.
    pub model: Option<Option<ModelAccess>>,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListSandboxes {
    /// Which labels they must have. Empty: all.
    pub label_selector: String,
    /// Which states they may be in. Empty: all.
    pub states: Vec<SandboxState>,
}

/// How to fork.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ForkSandbox {
    /// Makes the call repeatable.
    pub request_id: Option<String>,
    /// How many, 1 to 100. 0 means 1.
    pub count: u32,
    /// Labels over those of the parent.
    pub labels: Labels,
    /// When the forks are stopped, counted from now. Absent: as the parent.
    pub lifetime: Option<Duration>,
    /// How long it may take, for all together. Absent: the daemon's own bound of 60 seconds.
    pub wait: Option<Duration>,
}

/// The longest deadline that is sent: gRPC has eight digits for one, and tonic panics where they do not do.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A request with a deadline, where there is one.
fn within<T>(wait: Option<Duration>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(wait) = wait {
        request.set_timeout(wait.min(LONGEST));
    }
    request
}

/// Which changes to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchSandboxes {
    /// Begin after this cursor. Empty: from now on.
    pub cursor: String,
    /// Only these. Empty: all.
    pub sandbox_ids: Vec<SandboxId>,
    /// Only sandboxes with these labels. Empty: all.
    pub label_selector: String,
}

impl Client {
    /// Makes a sandbox, or claims a warm one from a pool, and returns when it is ready.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] before anything is sent, else the daemon's refusal.
    pub async fn create_sandbox(&self, create: CreateSandbox) -> Result<CreatedSandbox> {
        create.spec.validate()?;
        validate_initial(&create.files)?;
        let request = within(create.wait, convert::create_request(create));
        let response = self.sandboxes().create_sandbox(request).await.map_err(convert::error)?;
        convert::created(response.into_inner())
    }

    /// Tells about a sandbox.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn get_sandbox(&self, id: &SandboxId) -> Result<Sandbox> {
        let request = v1::GetSandboxRequest { sandbox_id: id.to_string() };
        let response = self.sandboxes().get_sandbox(request).await.map_err(convert::error)?;
        convert::sandbox(convert::required(response.into_inner().sandbox, "the sandbox")?)
    }

    /// Lists sandboxes, newest first, all pages.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_sandboxes(&self, list: &ListSandboxes) -> Result<SandboxPage> {
        let mut page = SandboxPage { sandboxes: Vec::new(), cursor: String::new() };
        let mut request = v1::ListSandboxesRequest {
            page_size: PAGE_SIZE,
            page_token: String::new(),
            label_selector: list.label_selector.clone(),
            states: list.states.iter().copied().map(convert::state_to_wire).collect(),
        };
        loop {
            let response =
                self.sandboxes().list_sandboxes(request.clone()).await.map_err(convert::error)?.into_inner();
            for sandbox in response.sandboxes {
                page.sandboxes.push(convert::sandbox(sandbox)?);
            }
            if request.page_token.is_empty() {
                page.cursor = response.cursor;
            }
            if !page::turn(&mut request.page_token, response.next_page_token)? {
                return Ok(page);
            }
        }
    }

    /// Changes a live sandbox: all of it, or nothing.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such, `INVALID_ARGUMENT` when nothing is named.
    pub async fn update_sandbox(&self, id: &SandboxId, update: UpdateSandbox) -> Result<Sandbox> {
        let request = convert::update_request(id, update);
        let response = self.sandboxes().update_sandbox(request).await.map_err(convert::error)?;
        convert::sandbox(convert::required(response.into_inner().sandbox, "the sandbox")?)
    }

    /// Ends a sandbox with everything in it, at once.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn delete_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.delete(id, Duration::ZERO, false).await
    }

    /// Ends a sandbox that may be gone already.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn delete_sandbox_if_there(&self, id: &SandboxId) -> Result<()> {
        self.delete(id, Duration::ZERO, true).await
    }

    /// Ends a sandbox: its processes get SIGTERM, and SIGKILL after `grace`, at most 5 minutes.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn delete_sandbox_gracefully(&self, id: &SandboxId, grace: Duration) -> Result<()> {
        self.delete(id, grace, false).await
    }

    async fn delete(&self, id: &SandboxId, grace: Duration, allow_missing: bool) -> Result<()> {
        let request = v1::DeleteSandboxRequest {
            sandbox_id: id.to_string(),
            grace_period: (!grace.is_zero()).then(|| convert::duration_to_wire(grace)),
            allow_missing,
        };
        self.sandboxes().delete_sandbox(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Freezes every process of a sandbox.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn pause_sandbox(&self, id: &SandboxId) -> Result<Sandbox> {
        let request = v1::PauseSandboxRequest { sandbox_id: id.to_string() };
        let response = self.sandboxes().pause_sandbox(request).await.map_err(convert::error)?;
        convert::sandbox(convert::required(response.into_inner().sandbox, "the sandbox")?)
    }

    /// Lets the processes of a paused sandbox go on.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn resume_sandbox(&self, id: &SandboxId) -> Result<Sandbox> {
        let request = v1::ResumeSandboxRequest { sandbox_id: id.to_string() };
        let response = self.sandboxes().resume_sandbox(request).await.map_err(convert::error)?;
        convert::sandbox(convert::required(response.into_inner().sandbox, "the sandbox")?)
    }

    /// Makes a template of the files of a sandbox; the daemon names it where `name` is absent.
    ///
    /// # Errors
    /// The daemon's refusal, `ALREADY_EXISTS` when the name is taken.
    pub async fn snapshot_sandbox(
        &self,
        id: &SandboxId,
        name: Option<&TemplateId>,
        labels: &Labels,
    ) -> Result<Template> {
        let request = v1::SnapshotSandboxRequest {
            sandbox_id: id.to_string(),
            request_id: String::new(),
            template: name.map(ToString::to_string).unwrap_or_default(),
            labels: labels.clone().into_iter().collect(),
        };
        let response = self.sandboxes().snapshot_sandbox(request).await.map_err(convert::error)?;
        convert::template(convert::required(response.into_inner().template, "the template")?)
    }

    /// Makes sandboxes that begin with a copy of the files of another. Each succeeds or fails by itself.
    ///
    /// # Errors
    /// The daemon's refusal, when none was tried.
    pub async fn fork_sandbox(&self, id: &SandboxId, fork: ForkSandbox) -> Result<Vec<ForkOutcome>> {
        let request = v1::ForkSandboxRequest {
            sandbox_id: id.to_string(),
            request_id: fork.request_id.unwrap_or_default(),
            count: fork.count,
            labels: fork.labels.into_iter().collect(),
            expiration: fork.lifetime.map(|lifetime| {
                v1::fork_sandbox_request::Expiration::Lifetime(convert::duration_to_wire(lifetime))
            }),
            ..Default::default()
        };
        let response =
            self.sandboxes().fork_sandbox(within(fork.wait, request)).await.map_err(convert::error)?;
        response.into_inner().results.into_iter().map(convert::fork_outcome).collect()
    }

    /// Measures what a sandbox uses now.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn sandbox_stats(&self, id: &SandboxId) -> Result<SandboxStats> {
        let request = v1::GetSandboxStatsRequest { sandbox_id: id.to_string() };
        let response = self.sandboxes().get_sandbox_stats(request).await.map_err(convert::error)?;
        Ok(convert::stats(convert::required(response.into_inner().stats, "the statistics")?))
    }

    /// Measures what a sandbox uses every `interval`, 100 milliseconds to 1 hour.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn watch_stats(&self, id: &SandboxId, interval: Duration) -> Result<StatsWatch> {
        let request = v1::StreamSandboxStatsRequest {
            sandbox_id: id.to_string(),
            interval: Some(convert::duration_to_wire(interval)),
        };
        let response = self.sandboxes().stream_sandbox_stats(request).await.map_err(convert::error)?;
        Ok(StatsWatch(response.into_inner()))
    }

    /// Watches sandboxes change.
    ///
    /// # Errors
    /// The daemon's refusal, `CURSOR_EXPIRED` when the events after the cursor are no longer kept.
    pub async fn watch_sandboxes(&self, watch: &WatchSandboxes) -> Result<SandboxWatch> {
        let request = v1::WatchSandboxesRequest {
            cursor: watch.cursor.clone(),
            sandbox_ids: watch.sandbox_ids.iter().map(ToString::to_string).collect(),
            label_selector: watch.label_selector.clone(),
        };
        let response = self.sandboxes().watch_sandboxes(request).await.map_err(convert::error)?;
        Ok(SandboxWatch { items: response.into_inner(), cursor: watch.cursor.clone() })
    }
}

/// Changes of sandboxes as they happen. Dropping it ends the watch.
#[derive(Debug)]
pub struct SandboxWatch {
    items: Streaming<v1::WatchSandboxesResponse>,
    cursor: String,
}

impl SandboxWatch {
    /// The next change; `None` when the daemon ended the watch. Cancel safe.
    ///
    /// # Errors
    /// What ended the watch.
    pub async fn next(&mut self) -> Result<Option<SandboxEvent>> {
        loop {
            match self.items.message().await.map_err(convert::error)? {
                None => return Ok(None),
                Some(v1::WatchSandboxesResponse { item: Some(Item::Event(event)) }) => {
                    let event = convert::event(event)?;
                    self.cursor.clone_from(&event.cursor);
                    return Ok(Some(event));
                }
                Some(v1::WatchSandboxesResponse { item: Some(Item::Bookmark(cursor)) }) => {
                    self.cursor = cursor
                }
                Some(_) => {}
            }
        }
    }

    /// Where to go on when this one has ended: behind all that it was told of, also of sandboxes that were not chosen.
    #[must_use]
    pub fn cursor(&self) -> &str {
        &self.cursor
    }
}

/// Measurements of a sandbox as they are made. Dropping it ends them.
#[derive(Debug)]
pub struct StatsWatch(Streaming<v1::StreamSandboxStatsResponse>);

impl StatsWatch {
    /// The next measurement; `None` when the sandbox has ended. Cancel safe.
    ///
    /// # Errors
    /// What ended the watch.
    pub async fn next(&mut self) -> Result<Option<SandboxStats>> {
        let message = self.0.message().await.map_err(convert::error)?;
        message
            .map(|message| Ok(convert::stats(convert::required(message.stats, "the statistics")?)))
            .transpose()
    }
}
