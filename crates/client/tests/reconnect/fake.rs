//! A daemon with one process in memory, which dies on purpose: all connections at once, like `kill -9`. The
//! process lives on.

mod service;

use hostel_client::Address;
use service::Service;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::UnixListenerStream;

/// What the process and the daemon do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// Bytes that the process writes.
    pub(crate) stdout: usize,
    pub(crate) stderr: usize,
    /// Whether the process ends without waiting for the end of stdin.
    pub(crate) closes_stdin: bool,
    /// The daemon dies each time that so many bytes went through it.
    pub(crate) dies_after: Option<usize>,
    /// Whether a new daemon does not say how far stdin was accepted.
    pub(crate) forgets_stdin: bool,
    /// The first daemon dies after it started the process and before it says so.
    pub(crate) dies_before_opening: bool,
    /// What does not answer, so that nothing can be started.
    pub(crate) away: Option<&'static str>,
}

/// What happened so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) stdin: Vec<u8>,
    pub(crate) stdin_closed: bool,
    /// Calls that were told of what does not answer.
    pub(crate) refused: usize,
    /// Processes started.
    pub(crate) processes: usize,
    /// Daemons started.
    pub(crate) lives: usize,
    /// Bytes of output given to connections.
    pub(crate) sent: usize,
    pub(crate) acknowledged: u64,
    request_id: String,
    /// Bytes that went through the present daemon.
    through: usize,
    stopped: bool,
}

struct Shared {
    behaviour: Behaviour,
    seen: Mutex<Seen>,
    die: Notify,
}

impl Shared {
    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts bytes that went through, and dies when it is time.
    fn went_through(&self, bytes: usize) {
        let through = self.seen(|seen| {
            seen.through += bytes;
            seen.through
        });
        if self.behaviour.dies_after.is_some_and(|limit| through >= limit) {
            self.die.notify_one();
        }
    }
}

/// The daemon, and the next one when it dies.
pub(crate) struct FakeDaemon {
    address: Address,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    _directory: tempfile::TempDir,
}

impl FakeDaemon {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosteld.sock");
        let shared = Arc::new(Shared { behaviour, seen: Mutex::default(), die: Notify::new() });
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn({
            let (path, shared) = (path.clone(), Arc::clone(&shared));
            move || {
                while !shared.seen(|seen| seen.stopped) {
                    live(&path, &shared, &ready);
                }
            }
        });
        is_ready.recv().unwrap();
        Self { address: Address::Unix(path), shared, thread: Mutex::new(Some(thread)), _directory: directory }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen(|seen| seen.clone())
    }

    /// Dies for good.
    pub(crate) fn stop(&self) {
        self.shared.seen(|seen| seen.stopped = true);
        self.shared.die.notify_one();
        if let Some(thread) = self.thread.lock().unwrap().take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One life of the daemon: its own runtime, so that everything in it goes at once.
fn live(path: &std::path::Path, shared: &Arc<Shared>, ready: &std::sync::mpsc::SyncSender<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let _ = ready.try_send(());
        shared.seen(|seen| {
            seen.lives += 1;
            seen.through = 0;
        });
        let server = tonic::transport::Server::builder()
            .add_service(Service::server(Arc::clone(shared)))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::select! {
            result = server => result.unwrap(),
            () = shared.die.notified() => {}
        }
    });
    runtime.shutdown_background();
}

/// What a stream holds from `offset` on: bytes that tell their position.
pub(crate) fn pattern(stream: usize, offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length)
        .map(|at| u8::try_from((at * 31 + (at >> 8) * 7 + stream) % 251).unwrap())
        .collect()
}
