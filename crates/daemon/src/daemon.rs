//! The daemon as a whole: built with everything bound and recovered, run until told to stop, then drained.

use crate::backends::Backends;
use crate::capacity::budget;
use crate::config::Config;
use crate::deadline::DeadlineLayer;
use crate::descriptors;
use crate::error::{Error, Result};
use crate::health;
use crate::host::Machine;
use crate::listen::{Address, Listeners, Most};
use crate::metrics::Metrics;
use crate::reach::Reach;
use crate::sandboxes::{Sandboxes, Settings};
use crate::services::{Files, Networks, NodeInfo, Pools, Processes, SandboxCalls, Secrets, Templates, Usage};
use crate::state_directory::Directories;
use crate::store::{Store, StoreThread};
use hostel_proto::FILE_DESCRIPTOR_SET;
use hostel_proto::v1::file_service_server::FileServiceServer;
use hostel_proto::v1::network_service_server::NetworkServiceServer;
use hostel_proto::v1::node_service_server::NodeServiceServer;
use hostel_proto::v1::pool_service_server::PoolServiceServer;
use hostel_proto::v1::process_service_server::ProcessServiceServer;
use hostel_proto::v1::sandbox_service_server::SandboxServiceServer;
use hostel_proto::v1::secret_service_server::SecretServiceServer;
use hostel_proto::v1::template_service_server::TemplateServiceServer;
use hostel_proto::v1::usage_service_server::UsageServiceServer;
use sd_notify::NotifyState;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower::util::{MapRequestLayer, MapResponseLayer};

/// Flow control: bytes that may be under way on one stream, on one connection, and in one frame. Output is meant to
/// reach a gigabyte a second, so none of them may be what it waits for.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME: u32 = 1 << 20;
/// HTTP/2 keepalive: how often a silent client is asked, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most calls under way on one connection.
const STREAMS: u32 = 10_000;

/// A daemon that is ready to run.
pub struct Daemon {
    config: Config,
    listeners: Listeners,
    routes: Routes,
    health: HealthReporter,
    sandboxes: Sandboxes,
    store: Store,
    store_thread: StoreThread,
    stop: CancellationToken,
    _directories: Directories,
}

/// Builds a daemon with the backends that this program was built with.
///
/// # Errors
/// Whatever keeps it from running: configuration, directories, another daemon, records, backends, addresses.
pub async fn build(mut config: Config) -> Result<Daemon> {
    config.validate()?;
    // Half of the descriptors, at least, are for what the connections ask for.
    config.max_connections = config.max_connections.min(descriptors::raise() / 2).max(1);
    let directories = Directories::prepare(&config)?;
    let backends = Backends::open(&config).await?;
    assemble(config, directories, backends).await
}

/// Builds a daemon with these backends, the default first.
///
/// # Errors
/// As [`build`].
pub async fn build_with(config: Config, backends: Backends) -> Result<Daemon> {
    config.validate()?;
    let directories = Directories::prepare(&config)?;
    assemble(config, directories, backends).await
}

async fn assemble(config: Config, directories: Directories, backends: Backends) -> Result<Daemon> {
    let most = Most { all: config.max_connections, each: config.max_connections_per_user };
    let listeners = Listeners::bind(&config.listen, most)?;
    let (store, store_thread) = Store::open(&config.state_directory)?;
    let stop = CancellationToken::new();
    let settings = Settings {
        max_sandboxes: config.max_sandboxes,
        budget: budget(&Machine::look(&config.state_directory), config.max_sandboxes),
        overcommit: config.overcommit,
        memory_pressure: config.memory_pressure,
        max_watchers: config.max_watchers,
        max_imports: config.max_imports.max(1),
        record_retention: config.record_retention,
        default_limits: config.default_limits.clone(),
        default_lifetime: config.default_lifetime,
    };
    let metrics = Metrics::new();
    let reach = Reach::open(&config.reach, &config.state_directory, metrics.clone()).await?;
    let sandboxes = Sandboxes::new(store.clone(), backends, reach, metrics, settings, stop.clone());
    sandboxes.recover().await?;
    sandboxes.declare(&config.template_directories).await;
    sandboxes.pools().declare(&sandboxes, &config.pool_directories).await;
    if let Some(address) = config.metrics_listen {
        crate::metrics::serve(&sandboxes, address).await?;
    }
    let (routes, health) = routes(&config, &sandboxes).await?;
    Ok(Daemon {
        config,
        listeners,
        routes,
        health,
        sandboxes,
        store,
        store_thread,
        stop,
        _directories: directories,
    })
}

async fn routes(config: &Config, sandboxes: &Sandboxes) -> Result<(Routes, HealthReporter)> {
    let most = config.max_message_bytes;
    let node = NodeInfo {
        sandboxes: sandboxes.clone(),
        state_directory: config.state_directory.clone(),
        started: SystemTime::now(),
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health::serving(&health).await;
    // The files describe the session server's service too, which is not here.
    let described = || {
        health::services()
            .fold(tonic_reflection::server::Builder::configure(), |builder, name| {
                builder.with_service_name(name)
            })
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed = |error| Error::Config(format!("reflection: {error}"));
    // The older name too, by which most tools still ask: grpcurl of many distributions, gRPC's own for Python.
    let (reflection, older_reflection) =
        (described().build_v1().map_err(failed)?, described().build_v1alpha().map_err(failed)?);
    let sandbox_service = SandboxServiceServer::new(SandboxCalls(sandboxes.clone()));
    let mut routes = Routes::builder();
    routes
        .add_service(sandbox_service.max_decoding_message_size(most))
        .add_service(ProcessServiceServer::new(Processes(sandboxes.clone())).max_decoding_message_size(most))
        .add_service(FileServiceServer::new(Files(sandboxes.clone())).max_decoding_message_size(most))
        .add_service(TemplateServiceServer::new(Templates(sandboxes.clone())).max_decoding_message_size(most))
        .add_service(NodeServiceServer::new(node).max_decoding_message_size(most))
        .add_service(PoolServiceServer::new(Pools(sandboxes.clone())).max_decoding_message_size(most))
        .add_service(NetworkServiceServer::new(Networks(sandboxes.clone())).max_decoding_message_size(most))
        .add_service(UsageServiceServer::new(Usage(sandboxes.clone())).max_decoding_message_size(most))
        .add_service(SecretServiceServer::new(Secrets(sandboxes.clone())).max_decoding_message_size(most))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(older_reflection);
    Ok((routes.routes(), health))
}

impl Daemon {
    /// Where it listens, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.listeners.addresses()
    }

    /// Serves until `shutdown` resolves, then drains: accepts nothing more, ends streams, waits for calls under way,
    /// lets go of the backends, writes the records back. Sandboxes keep running. The drain is bounded by
    /// [`Config::drain_timeout`].
    ///
    /// # Errors
    /// Where serving fails by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        self.sandboxes.listen_to_backends();
        self.sandboxes.run_deadlines();
        self.sandboxes.pools().run(&self.sandboxes);
        let accept = CancellationToken::new();
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_concurrent_streams(STREAMS)
            .layer(MapResponseLayer::new(crate::unreadable::answer::<tonic::body::Body>))
            .layer(MapRequestLayer::new(crate::services::told_when_broken_off))
            .layer(DeadlineLayer { default: self.config.default_deadline })
            .add_routes(self.routes);
        for address in self.listeners.addresses() {
            tracing::info!(%address, "listening");
        }
        let connections = self.listeners.into_stream();
        let mut serving =
            pin!(server.serve_with_incoming_shutdown(connections, accept.clone().cancelled_owned()));
        notify(NotifyState::Ready);
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = shutdown => None,
        };
        let begin = Instant::now();
        notify(NotifyState::Stopping);
        let mut drain = Drain {
            sandboxes: self.sandboxes,
            store: self.store,
            store_thread: self.store_thread,
            health: self.health,
            stop: self.stop,
            limit: self.config.drain_timeout,
        };
        accept.cancel();
        let failed = match ended {
            Some(ended) => ended.err(),
            None => drain.end_calls(serving).await,
        };
        drain.finish().await;
        tracing::info!(duration = ?begin.elapsed(), "stopped; sandboxes keep running");
        failed.map_or(Ok(()), |error| {
            Err(Error::Listen { address: "the configured addresses".to_owned(), detail: error.to_string() })
        })
    }
}

/// What is let go of at the end, in order.
struct Drain {
    sandboxes: Sandboxes,
    store: Store,
    store_thread: StoreThread,
    health: HealthReporter,
    stop: CancellationToken,
    limit: Duration,
}

impl Drain {
    /// Ends streams and waits for the calls under way.
    async fn end_calls<E>(&mut self, serving: impl Future<Output = std::result::Result<(), E>>) -> Option<E> {
        health::over(&mut self.health).await;
        self.stop.cancel();
        match tokio::time::timeout(self.limit, serving).await {
            Ok(ended) => ended.err(),
            Err(_) => {
                tracing::warn!(limit = ?self.limit, "calls under way did not end in time and are dropped");
                None
            }
        }
    }

    /// Lets go of the backends and writes the records back.
    async fn finish(self) {
        self.stop.cancel();
        if tokio::time::timeout(self.limit, self.sandboxes.finish()).await.is_err() {
            tracing::warn!(limit = ?self.limit, "work under way did not end in time; the next start takes it up");
        }
        // They wrote when the stop began; calls that ended since have claimed, too.
        if tokio::time::timeout(self.limit, self.sandboxes.pools().write(true)).await.is_err() {
            tracing::warn!(limit = ?self.limit, "what pools did last was not written in time and is forgotten");
        }
        if tokio::time::timeout(self.limit, self.sandboxes.reach().shutdown()).await.is_err() {
            tracing::warn!(limit = ?self.limit, "connections of sandboxes did not end in time");
        }
        for backend in self.sandboxes.backends().all() {
            if tokio::time::timeout(self.limit, backend.shutdown()).await.is_err() {
                tracing::warn!(backend = %backend.name(), "the backend did not let go in time");
            }
        }
        if let Err(error) = self.store.checkpoint().await {
            tracing::warn!(%error, "the records were not written back; the next start does it");
        }
        let Self { sandboxes, store, store_thread, .. } = self;
        drop((sandboxes, store));
        // Whoever still holds the store keeps its thread; everything is committed all the same.
        let joined = tokio::task::spawn_blocking(move || store_thread.join());
        if tokio::time::timeout(Duration::from_secs(1), joined).await.is_err() {
            tracing::debug!("somebody still holds the store");
        }
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
