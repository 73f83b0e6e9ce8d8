//! Making a container: a disk, a control directory, the engine's part, a word from the guest.

use crate::abilities::Facts;
use crate::backend::Inner;
use crate::container::{self, Plan};
use crate::disk::{self, Kind, Place};
use crate::engine::{Fault, QUESTION, WORK, bounded};
use crate::environment::Environment;
use crate::ground::SOCKET;
use crate::handle::Handle;
use crate::image::Image;
use crate::seeds::Seeds;
use crate::snapshot;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, StartContainerOptions,
};
use hostel_guest_client::{Endpoint, Guest, ProcessDefaults};
use hostel_guest_protocol::{GuestConfig, TOKEN_LEN};
use hostel_sandbox::template::Template;
use hostel_sandbox::{
    Capability, Created, Error, ExecutionEnvironment, ResourceLimits, Result, SandboxId, SandboxSpec,
    Stopwatch, Weakness,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// How long a started container may take until its guest reports.
pub(crate) const BIRTH: Duration = Duration::from_secs(30);
/// How often to look whether it died before that.
const LOOK: Duration = Duration::from_millis(200);
/// Who processes run as where nobody says.
const DEFAULT_USER: &str = "1000:1000";
const DEFAULT_WORKDIR: &str = "/workspace";
/// The kernel ends these before the guest, which has 500.
const OOM_SCORE: i32 = 800;

/// Why there is no sandbox and nobody says why.
const BROKE: &str = "the task that did broke";

/// What a new sandbox stands on.
pub(crate) struct Recipe {
    pub(crate) template: Template,
    pub(crate) image: Image,
    /// The image goes with the sandbox.
    pub(crate) own_image: bool,
    /// Its disk starts as a copy of this sandbox's.
    pub(crate) copy_of: Option<SandboxId>,
}

/// Everything that was decided about a sandbox before anything of it is made.
struct Draft {
    limits: ResourceLimits,
    weaknesses: Vec<Weakness>,
    disk: Kind,
    places: Vec<Place>,
    config: GuestConfig,
    facts: Arc<Facts>,
}

/// A sandbox that was made, on its way to whoever asked for it; destroyed where it does not arrive.
struct Unclaimed {
    /// Until it has arrived.
    created: Option<Created>,
    inner: Arc<Inner>,
}

impl Unclaimed {
    fn claim(mut self) -> Option<Created> {
        self.created.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some(unwanted) = self.created.take() else { return };
        self.inner.tasks.spawn(async move {
            if let Err(error) = unwanted.environment.destroy().await {
                let sandbox = unwanted.environment.id();
                tracing::warn!(%sandbox, %error, "a sandbox that nobody waited for is left for the next sweep");
            }
        });
    }
}

impl Inner {
    /// Makes a sandbox to its end, whether or not the caller still waits: an engine does not notice that somebody
    /// hung up, and would leave half of one behind. Until that is over its id stands, from the first moment on.
    pub(crate) async fn create(
        self: &Arc<Self>,
        id: &SandboxId,
        spec: &SandboxSpec,
        recipe: Recipe,
    ) -> Result<Created> {
        self.capabilities().require(spec.network.needs())?;
        self.stand(id)?;
        let (inner, id, spec) = (Arc::clone(self), id.clone(), spec.clone());
        let (sender, made) = tokio::sync::oneshot::channel();
        self.tasks.spawn(async move {
            let made = inner.create_wholly(&id, &spec, recipe).await;
            let _ = sender.send(made.map(|created| Unclaimed { created: Some(created), inner }));
        });
        let unclaimed = made.await.map_err(|_| Error::internal("make a container", BROKE))??;
        unclaimed.claim().ok_or_else(|| Error::internal("make a container", BROKE))
    }

    async fn create_wholly(
        self: &Arc<Self>,
        id: &SandboxId,
        spec: &SandboxSpec,
        recipe: Recipe,
    ) -> Result<Created> {
        let made = Box::pin(self.build(id, spec, &recipe)).await;
        if made.is_err() {
            self.remove_unmade(id).await;
            if recipe.own_image {
                self.remove_image(&recipe.image.id).await;
            }
            self.unstand(id);
        }
        made
    }

    async fn draft(&self, spec: &SandboxSpec, recipe: &Recipe) -> Result<Draft> {
        let facts = self.facts().await?;
        if facts.remote && !facts.architecture.is_empty() && facts.architecture != std::env::consts::ARCH {
            let detail = format!(
                "it is on {}, and this daemon has a guest for {} alone",
                facts.architecture,
                std::env::consts::ARCH
            );
            return Err(Error::Unavailable { what: "engine", detail });
        }
        let capabilities = self.capabilities();
        let mut limits = facts.held(&spec.limits);
        limits.disk_inodes = limits.disk_inodes.filter(|_| capabilities.has(Capability::InodeLimit));
        let told = [
            Capability::MemoryLimit,
            Capability::CpuLimit,
            Capability::PidsLimit,
            Capability::DiskLimit,
            Capability::PrivateUserIds,
        ];
        let mut weaknesses: Vec<Weakness> = capabilities
            .missing
            .iter()
            .filter(|weakness| told.contains(&weakness.capability))
            .cloned()
            .collect();
        if facts.memory && !facts.swap {
            let detail = "the kernel does not count swap: a sandbox may use swap beyond its memory";
            weaknesses.push(Weakness { capability: Capability::MemoryLimit, detail: detail.to_owned() });
        }
        let disk = Kind::choose(&facts, &self.ground, &limits);
        if disk == Kind::Engine {
            limits.disk_bytes = None;
        }
        let config = guest_config(spec, recipe, &limits);
        let places =
            if disk.has_places() { disk::places(&config.workdir, &recipe.image.volumes) } else { Vec::new() };
        Ok(Draft { limits, weaknesses, disk, places, config, facts })
    }

    async fn build(self: &Arc<Self>, id: &SandboxId, spec: &SandboxSpec, recipe: &Recipe) -> Result<Created> {
        let mut clock = Stopwatch::start();
        let draft = self.draft(spec, recipe).await?;
        let (container, guest) = if draft.facts.remote {
            self.build_there(id, recipe, &draft, &mut clock).await?
        } else {
            self.build_here(id, recipe, &draft, &mut clock).await?
        };
        if draft.disk == Kind::Engine {
            self.sow(&guest, &recipe.image, &draft.places).await?;
        }
        clock.lap("start");
        let GuestConfig { token, env, user, workdir, .. } = draft.config;
        let handle = Handle {
            sandbox: id.clone(),
            container,
            image: recipe.image.id.clone(),
            own_image: recipe.own_image,
            disk: draft.disk,
            token,
            remote: draft.facts.remote,
            template: recipe.template.id.clone(),
            limits: draft.limits.clone(),
            defaults: ProcessDefaults { env, user, workdir },
        };
        let encoded = handle.encode()?;
        let environment: Arc<dyn ExecutionEnvironment> =
            Environment::start(Arc::clone(self), guest, handle, Some(false));
        Ok(Created {
            environment,
            handle: encoded,
            limits: draft.limits,
            weaknesses: draft.weaknesses,
            stages: clock.stages(),
        })
    }

    /// On an engine that sees this host's files. → the container, and its guest.
    async fn build_here(
        self: &Arc<Self>,
        id: &SandboxId,
        recipe: &Recipe,
        draft: &Draft,
        clock: &mut Stopwatch,
    ) -> Result<(String, Guest)> {
        self.ground.make_ready()?;
        let report = self.ground.make_control(id, &draft.config, draft.facts.first_id)?;
        let seeds = self.lay_ground(id, recipe, draft).await?;
        clock.lap("ground");
        // At once: what the engine looks for before it binds is there from the first moment.
        let (container, filled) = tokio::join!(
            self.make_container(id, recipe, draft),
            self.fill_disk(id, recipe, draft, seeds.as_ref())
        );
        let container = container?;
        filled?;
        clock.lap("container");
        let guest = self.start_container(id, &container, &report, recipe, draft).await?;
        Ok((container, guest))
    }

    /// On any other.
    async fn build_there(
        self: &Arc<Self>,
        id: &SandboxId,
        recipe: &Recipe,
        draft: &Draft,
        clock: &mut Stopwatch,
    ) -> Result<(String, Guest)> {
        let container = self.make_container(id, recipe, draft).await?;
        self.pack_guest(&container, &draft.config).await?;
        clock.lap("container");
        let client = self.engine.client().await?;
        bounded(WORK, client.start_container(&container, None::<StartContainerOptions>))
            .await
            .map_err(|fault| not_started(fault, recipe))?;
        let guest = self.hear_remote_guest(&container, &draft.config.token).await?;
        Ok((container, guest))
    }

    async fn make_container(&self, id: &SandboxId, recipe: &Recipe, draft: &Draft) -> Result<String> {
        let plan = Plan {
            sandbox: id,
            template: &recipe.template.id,
            image: &recipe.image.id,
            image_bytes: recipe.image.bytes,
            limits: &draft.limits,
            disk: draft.disk,
            places: &draft.places,
            volumes: &recipe.image.volumes,
            facts: &draft.facts,
            ground: &self.ground,
        };
        let options =
            CreateContainerOptionsBuilder::default().name(&container::name(&self.ground, id)).build();
        let client = self.engine.client().await?;
        let made = match bounded(WORK, client.create_container(Some(options), plan.body())).await {
            Ok(made) => made,
            Err(fault) if fault.is_missing() => return Err(Error::not_found("image", &recipe.image.id)),
            Err(fault) if fault.is_conflict() => {
                return Err(Error::AlreadyExists { kind: "sandbox", id: id.to_string() });
            }
            Err(fault) if fault.is_unseen_source() => {
                let said = fault.during("make a container");
                let detail = format!("the engine does not see this host's files, so it is elsewhere: {said}");
                return Err(Error::Unavailable { what: "engine", detail });
            }
            Err(fault) => return Err(fault.during("make a container")),
        };
        // A limit that the engine took and dropped is told only here.
        let dropped = made.warnings.iter().find(|warning| {
            let warning = warning.to_lowercase();
            warning.contains("discarded") || warning.contains("not support") || warning.contains("without")
        });
        if let Some(warning) = dropped {
            return Err(Error::internal("make a container with every limit", warning));
        }
        Ok(made.id)
    }

    /// Makes the places of a disk, still without one: an engine binds only what is there.
    async fn lay_ground(
        self: &Arc<Self>,
        id: &SandboxId,
        recipe: &Recipe,
        draft: &Draft,
    ) -> Result<Option<Seeds>> {
        if !draft.disk.is_ours() {
            return Ok(None);
        }
        let seeds = self.seeds(&recipe.image, &draft.places).await?;
        self.ground.make_mount_point(id)?;
        if draft.disk == Kind::Memory {
            self.ground.mount_memory(id, &draft.limits)?;
        }
        self.make_places(id, draft, &seeds)?;
        Ok(Some(seeds))
    }

    fn make_places(&self, id: &SandboxId, draft: &Draft, seeds: &Seeds) -> Result<()> {
        let owner = seeds.ids_of(&draft.config.user).unwrap_or_default();
        self.ground.make_places(id, &draft.places, owner, draft.facts.first_id)
    }

    async fn fill_disk(
        &self,
        id: &SandboxId,
        recipe: &Recipe,
        draft: &Draft,
        seeds: Option<&Seeds>,
    ) -> Result<()> {
        let Some(seeds) = seeds else { return Ok(()) };
        if draft.disk == Kind::Image {
            self.ground.mount_image(id, &draft.limits).await?;
        }
        let point = self.ground.mount_point(id);
        match &recipe.copy_of {
            Some(parent) => {
                let from = self.ground.mount_point(parent);
                snapshot::copy_disk(self.ground.guest(), &from, &point).await?;
                self.ground.move_places(id, parent, &draft.places);
            }
            None => self.plant(seeds, &draft.places, &point).await?,
        }
        // Whatever came into them, they are directories.
        self.make_places(id, draft, seeds)
    }

    /// Starts a container and waits for its guest, which speaks before the engine has finished its own part.
    async fn start_container(
        self: &Arc<Self>,
        id: &SandboxId,
        container: &str,
        report: &UnixListener,
        recipe: &Recipe,
        draft: &Draft,
    ) -> Result<Guest> {
        let client = self.engine.client().await?;
        let name = container.to_owned();
        let mut start = self.tasks.spawn(async move {
            bounded(WORK, client.start_container(&name, None::<StartContainerOptions>)).await
        });
        let accepted = tokio::select! {
            accepted = report.accept() => Some(accepted),
            started = &mut start => {
                let started = started.map_err(|error| Error::internal("start a container", error))?;
                started.map_err(|fault| not_started(fault, recipe))?;
                None
            }
        };
        self.wait_for_guest(id, container, report, accepted, draft).await
    }

    async fn wait_for_guest(
        &self,
        id: &SandboxId,
        container: &str,
        report: &UnixListener,
        mut accepted: Option<std::io::Result<(UnixStream, SocketAddr)>>,
        draft: &Draft,
    ) -> Result<Guest> {
        let begin = Instant::now();
        let (stream, _) = loop {
            if let Some(accepted) = accepted {
                break accepted.map_err(|error| Error::internal("hear from a guest", error))?;
            }
            accepted = tokio::select! {
                now = report.accept() => Some(now),
                () = tokio::time::sleep(LOOK) => {
                    self.must_run(container, begin).await?;
                    None
                }
            };
        };
        let stream = stream.into_std().map_err(|error| Error::internal("use a guest's connection", error))?;
        let endpoint = Endpoint::open(&self.ground.control(id), SOCKET, draft.config.token.clone())?;
        let (guest, said) = Guest::born(endpoint, stream, BIRTH).await?;
        for weakness in said {
            tracing::debug!(sandbox = %id, weakness, "the guest could not have everything");
        }
        Ok(guest)
    }

    /// Fails if a container that has not reported yet never will.
    pub(crate) async fn must_run(&self, container: &str, since: Instant) -> Result<()> {
        let client = self.engine.client().await?;
        let found = bounded(QUESTION, client.inspect_container(container, None::<InspectContainerOptions>))
            .await
            .map_err(|fault| fault.during("look after a container"))?;
        let state = found.state.unwrap_or_default();
        if state.running != Some(true) {
            let detail = format!(
                "the guest ended with {} before it was ready{}",
                state.exit_code.unwrap_or_default(),
                state
                    .error
                    .filter(|error| !error.is_empty())
                    .map_or(String::new(), |error| format!(": {error}"))
            );
            return Err(Error::internal("start a container", detail));
        }
        if since.elapsed() > BIRTH {
            let detail = "the container runs, but its guest cannot reach us: is the engine on another host?"
                .to_owned();
            return Err(Error::Unavailable { what: "guest", detail });
        }
        Ok(())
    }
}

/// Why a container did not start, as far as the image is to blame.
fn not_started(fault: Fault, recipe: &Recipe) -> Error {
    match fault {
        // A full disk is nobody's template.
        fault if fault.is_full() => fault.during("start a container"),
        Fault::Answer { message, .. } if message.contains("exec format error") => Error::invalid(
            "template",
            format!("the template {} is for another architecture: {message}", recipe.template.id),
        ),
        Fault::Answer { message, .. } if message.contains("rootfs") || message.contains("mountpoint") => {
            let problem =
                format!("no container can be made of the template {}: {message}", recipe.template.id);
            Error::invalid("template", problem)
        }
        fault => fault.during("start a container"),
    }
}

fn guest_config(spec: &SandboxSpec, recipe: &Recipe, limits: &ResourceLimits) -> GuestConfig {
    let (template, image) = (&recipe.template, &recipe.image);
    let mut env = image.env.clone();
    env.extend(template.env.clone());
    let first = |said: [&Option<String>; 2], otherwise: &str| {
        said.into_iter().flatten().next().cloned().unwrap_or_else(|| otherwise.to_owned())
    };
    let of_template = ProcessDefaults {
        env,
        user: first([&template.user, &image.user], DEFAULT_USER),
        workdir: first([&template.workdir, &image.workdir], DEFAULT_WORKDIR),
    };
    let token = (0..TOKEN_LEN / 16).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
    GuestConfig { token, ..base_config(&of_template.with(spec), limits) }
}

/// What a guest is told, but for its token.
pub(crate) fn base_config(defaults: &ProcessDefaults, limits: &ResourceLimits) -> GuestConfig {
    GuestConfig { oom_score_adj: OOM_SCORE, can_switch_user: true, ..defaults.config(limits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_sandbox::TemplateId;
    use hostel_sandbox::template::TemplateSource;

    #[test]
    fn a_full_disk_is_not_the_templates_fault() {
        let template = Template::new(TemplateId::generate(), TemplateSource::Imported);
        let recipe = Recipe { template, image: Image::default(), own_image: false, copy_of: None };
        let said = |message: &str| Fault::Answer { status: 500, message: message.to_owned() };
        let full = "error mounting to rootfs at /x: create mountpoint: no space left on device";
        assert!(matches!(not_started(said(full), &recipe), Error::LimitReached { what: "disk", .. }));
        let broken = "error mounting to rootfs at /x: not a directory";
        assert!(matches!(not_started(said(broken), &recipe), Error::InvalidArgument { .. }));
    }
}
