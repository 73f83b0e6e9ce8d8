//! What can be done inside a sandbox: processes, files, and listening for those inside.
//!
//! Apart from [`crate::ExecutionEnvironment`] because backends differ in how sandboxes are made, held and removed, and
//! yet share how to work inside them: all that have our guest in the sandbox do. The rules of
//! [`crate::environment`] hold here too; every call may also answer `Unavailable` where the sandbox does not.

use crate::error::Result;
use crate::file::{ByteStream, Compression, FileEvent, FileInfo, FilePage, WriteOptions};
use crate::id::ProcessId;
use crate::listener::ListenAddress;
use crate::process::{AttachOptions, Attachment, ProcessInfo, ProcessSpec, TerminalSize};
use async_trait::async_trait;
use std::os::fd::OwnedFd;
use tokio::sync::mpsc;

/// Processes, files and listeners of one live sandbox.
pub trait Inside: Processes + Files + Listeners {}

impl<T: Processes + Files + Listeners> Inside for T {}

/// Processes of one live sandbox.
#[async_trait]
pub trait Processes: Send + Sync {
    /// Starts a process.
    ///
    /// # Errors
    /// `NotFound` (`program`) for a program that is not there; `InvalidArgument` for a user, a directory or a
    /// program that cannot be run; `AlreadyExists` for its id;
    /// `WrongState` while paused; `LimitReached`.
    async fn start(&self, spec: ProcessSpec) -> Result<ProcessInfo>;

    /// Attaches to a process, running or ended. # Errors: `NotFound`; `WrongState` (`STDIN_HELD`).
    async fn attach(&self, process: &ProcessId, options: AttachOptions) -> Result<Attachment>;

    /// Starts and attaches in one step, so that nothing is missed and a round trip is saved.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::attach`].
    async fn exec(&self, spec: ProcessSpec, options: AttachOptions) -> Result<Attachment> {
        let process = self.start(spec).await?;
        self.attach(&process.id, options).await
    }

    /// The processes, running and lately ended, oldest first. # Errors: `Unavailable`.
    async fn processes(&self) -> Result<Vec<ProcessInfo>>;

    /// One process. # Errors: `NotFound`.
    async fn process(&self, process: &ProcessId) -> Result<ProcessInfo>;

    /// Sends a signal, 1 to 64, to the process group. # Errors: `NotFound`; `WrongState` once it ended.
    async fn signal(&self, process: &ProcessId, signal: i32) -> Result<()>;

    /// Kills every process of the sandbox, those that others started inside it included, however many there are and
    /// however fast they start others. The sandbox and its files stay. They are dead, or dying, when it returns.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    async fn kill_all(&self) -> Result<()>;

    /// Gives the terminal a new size. # Errors: `NotFound`; `WrongState` without a terminal.
    async fn resize(&self, process: &ProcessId, size: TerminalSize) -> Result<()>;

    /// Waits for the end, which is in what it returns. # Errors: `NotFound`.
    async fn wait(&self, process: &ProcessId) -> Result<ProcessInfo>;

    /// Has the sandbox do what it will do for its first caller — start a process of no consequence, where it has the
    /// program for that, and give back its end —, so that this caller finds everything at hand. Nothing is left of it:
    /// the process is in no list, and its output nowhere.
    ///
    /// # Errors
    /// `Unavailable` where the sandbox does not answer.
    async fn rehearse(&self) -> Result<()> {
        Ok(())
    }
}

/// Files of one live sandbox. Paths are resolved inside its root, whatever links are there.
#[async_trait]
pub trait Files: Send + Sync {
    /// Metadata. With `follow` of what a link points at. # Errors: `NotFound`.
    async fn stat(&self, path: &str, follow: bool) -> Result<FileInfo>;

    /// Entries of a directory, sorted by the bytes of their names, after the name `after` and at most `limit`. There may
    /// be fewer, also none, though there is more: [`FilePage::next`] says so.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where it is no directory.
    async fn list(&self, path: &str, after: Option<&[u8]>, limit: usize) -> Result<FilePage>;

    /// Bytes of a regular file from `offset`, at most `length`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where it is not a regular file.
    async fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<(FileInfo, ByteStream)>;

    /// Writes a regular file. An `Err` in the stream gives up and leaves the old content.
    ///
    /// # Errors
    /// `NotFound` for a missing parent; `AlreadyExists`; `LimitReached` (`disk`).
    async fn write(&self, path: &str, options: WriteOptions, content: ByteStream) -> Result<FileInfo>;

    /// Makes a directory. # Errors: `AlreadyExists` (not with `parents`); `NotFound` for a missing parent.
    async fn make_directory(&self, path: &str, parents: bool, mode: Option<u32>) -> Result<FileInfo>;

    /// Moves within the sandbox (rename(2)). # Errors: `NotFound`; `AlreadyExists` unless `overwrite`.
    async fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<FileInfo>;

    /// Removes. # Errors: `NotFound`; `WrongState` (`DIRECTORY_NOT_EMPTY`) unless `recursive`.
    async fn remove(&self, path: &str, recursive: bool) -> Result<()>;

    /// Changes below a path from now on. Ends when the receiver is dropped. # Errors: `NotFound`.
    async fn watch(&self, path: &str, recursive: bool) -> Result<mpsc::Receiver<Result<FileEvent>>>;

    /// Unpacks a tar archive into a directory, which is made if absent. Unpacking happens inside the sandbox.
    ///
    /// # Errors
    /// `InvalidArgument` for a broken archive; `LimitReached` (`disk`). What was unpacked stays.
    async fn import(&self, path: &str, compression: Compression, archive: ByteStream) -> Result<u64>;

    /// Packs a file or directory, or what a link leads to, as tar, names relative to the path's parent.
    /// # Errors: `NotFound`.
    async fn export(&self, path: &str, compression: Compression) -> Result<ByteStream>;
}

/// Sockets that programs inside connect to and the daemon accepts on.
#[async_trait]
pub trait Listeners: Send + Sync {
    /// A stream socket that listens there, nonblocking. It lives as long as the sandbox: asked for again, by the next
    /// daemon too, it is the same one, and connections made meanwhile wait. At most
    /// [`crate::listener::MAX_LISTENERS`] of them.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists` (`listener`) where something else is at the path or has the port;
    /// `LimitReached` (`listeners`); `WrongState` while paused.
    async fn listen(&self, address: &ListenAddress) -> Result<OwnedFd>;
}
