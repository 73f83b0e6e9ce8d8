//! A daemon with the agent CLI, a scripted model behind its gateway, and a store.

use hostel_session::client::Address;
use hostel_session::{
    BlobLocation, BlobStore, CreateSession, Delivery, Event, EventKind, HostConfig, LocalSessionHost,
    Pattern, SendMessage, Session, SessionHost, SessionId, Store, StoreUrl, agent::Content, open_store,
};
use hostel_testkit::{ModelOptions, ModelServer, Script};
use hostel_tests::{Setup, TestDaemon, gateway, skip};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a turn may take at most, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) model: ModelServer,
    pub(crate) daemon: TestDaemon,
    pub(crate) host: Arc<LocalSessionHost>,
    place: tempfile::TempDir,
}

impl Stage {
    /// Nothing where the agent CLI cannot be fetched.
    pub(crate) async fn start() -> Option<Self> {
        let model = ModelServer::start(ModelOptions::default()).await.unwrap();
        let place = tempfile::tempdir().unwrap();
        let environment = vec![gateway(place.path(), &model.url(), "sk-of-the-node")];
        let daemon = match TestDaemon::with_claude(Setup { environment, ..Setup::default() }) {
            Ok(daemon) => daemon,
            Err(why) => {
                skip(&why);
                return None;
            }
        };
        let host = open(&daemon, &place, HostConfig::default()).await;
        Some(Self { model, daemon, host, place })
    }

    /// The host goes away in good order, and another takes over.
    pub(crate) async fn restart_host(&mut self) {
        self.restart_host_with(HostConfig::default()).await;
    }

    /// The same, with another configuration.
    pub(crate) async fn restart_host_with(&mut self, config: HostConfig) {
        self.host.shutdown().await;
        self.host = open(&self.daemon, &self.place, config).await;
    }

    /// The same, with an agent that waits for a session, and another for one that wants to be asked.
    pub(crate) async fn keep_warm(&mut self) {
        self.restart_host_with(HostConfig { warm_agents: 1, warm_asking_agents: 1, ..HostConfig::default() })
            .await;
        let waits = |pool: &str| {
            let pool = self.daemon.hostel(&["--json", "pool", "get", pool]).stdout;
            let pool: Value = serde_json::from_str(&pool).unwrap_or_default();
            pool["status"]["ready"].as_u64() > Some(0)
        };
        hostel_tests::eventually("agents wait", || waits("hostel-agents") && waits("hostel-agents-asking"));
    }

    /// The store, beside the host's own connection to it.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        open_store(&url(&self.place)).await.unwrap()
    }

    /// Its blobs, beside the host's own way to them.
    pub(crate) fn blobs(&self) -> BlobStore {
        blobs(&self.place)
    }

    /// Where they are.
    pub(crate) fn blob_directory(&self) -> PathBuf {
        self.place.path().join("blobs")
    }

    pub(crate) async fn create(&self, pattern: Pattern, config: Value) -> Session {
        let create = CreateSession {
            pattern: Some(pattern),
            config: serde_json::from_value(config).unwrap(),
            ..CreateSession::default()
        };
        self.host.create(create).await.unwrap().session
    }

    pub(crate) async fn send(&self, id: &SessionId, script: Script) -> String {
        let content = vec![Content::Text { text: script.prompt("Do it.") }];
        self.host.send(id, SendMessage { content, idempotency_key: None }).await.unwrap().message.id
    }

    /// Reads events after a number until one is what is looked for.
    pub(crate) async fn events_until(
        &self,
        id: &SessionId,
        after: u64,
        is_last: impl Fn(&Event) -> bool,
    ) -> Vec<Arc<Event>> {
        let mut events: Vec<Arc<Event>> = Vec::new();
        let reading = async {
            let mut subscription = self.host.subscribe(id, after).await.unwrap();
            loop {
                match subscription.next().await.unwrap().expect("more events") {
                    Delivery::Event(event) => {
                        let last = is_last(&event);
                        events.push(event);
                        if last {
                            return;
                        }
                    }
                    Delivery::Compacted { .. } => {}
                }
            }
        };
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            let told: Vec<_> = events.iter().map(|event| format!("{event:.300?}")).collect();
            panic!("what was looked for did not come:\n{}\n{}", told.join("\n"), self.daemon.log());
        }
        events
    }

    /// Waits for the end of a message's turn; its outcome, and the events until then.
    pub(crate) async fn turn(&self, id: &SessionId, message: &str) -> (Value, Vec<Arc<Event>>) {
        let ends = |event: &Event| {
            event.kind == EventKind::TurnCompleted && event.message_id.as_deref() == Some(message)
        };
        let events = self.events_until(id, 0, ends).await;
        let data: Value = serde_json::from_str(events.last().unwrap().data.get()).unwrap();
        (data["outcome"].clone(), events)
    }
}

/// A task with a command in it.
pub(crate) fn work() -> Script {
    Script::new()
        .tool("Bash", json!({ "command": "echo by-the-agent > made; cat made", "description": "write" }))
        .text("all done")
}

/// How an agent is to be that asks nobody.
pub(crate) fn unasked() -> Value {
    json!({ "permissionMode": "bypassPermissions" })
}

fn url(place: &tempfile::TempDir) -> StoreUrl {
    StoreUrl::sqlite(place.path().join("sessions.db"))
}

/// What is too large for the store, beside the host's own.
pub(crate) fn blobs(place: &tempfile::TempDir) -> BlobStore {
    BlobStore::open(&BlobLocation::Directory(place.path().join("blobs"))).unwrap()
}

/// A host on a daemon, with its store in a directory.
pub(crate) async fn open(
    daemon: &TestDaemon,
    place: &tempfile::TempDir,
    config: HostConfig,
) -> Arc<LocalSessionHost> {
    let socket = format!("unix://{}", daemon.runtime().join("hosteld.sock").display());
    let config = HostConfig { daemon: socket.parse::<Address>().unwrap(), ..config };
    LocalSessionHost::open(open_store(&url(place)).await.unwrap(), blobs(place), config).await.unwrap()
}
