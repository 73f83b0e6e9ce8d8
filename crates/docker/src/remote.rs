//! Engines that do not share this host's files: the guest goes into a container as an archive, and is reached by one
//! exec for each sandbox, `hostel-guest relay`, that carries all connections.

use crate::backend::Inner;
use crate::container::{CONTROL_INSIDE, GUEST_INSIDE, HOME_INSIDE};
use crate::create::BIRTH;
use crate::engine::{Fault, QUESTION, TRANSFER, WORK, bounded};
use crate::ground::{CONFIG, SECRET_OWNER, SOCKET};
use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ExecConfig, Mount, MountType, MountVolumeOptions};
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt as _;
use hostel_guest_client::{Dial, Endpoint, Guest, Relay, Streams};
use hostel_guest_protocol::GuestConfig;
use hostel_sandbox::{Error, Result};
use prost::Message as _;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::io::StreamReader;

/// Why guests are reached through the engine, for people. And why there is no disk of ours.
pub(crate) const NO_DISK: &str = "the engine does not share this host's files";
/// The same of an engine on this host.
pub(crate) const NO_OWNER: &str = "the daemon runs as an ordinary user, and what it shares with containers would belong to their users, too";
/// What that costs.
pub(crate) const COSTS: &str = "guests are reached through the engine, so every call takes its way and sandboxes \
    cannot be reached while it is away; a sandbox takes one process more, and while its processes limit is used up \
    no lost connection comes back";
/// Bytes read from an exec at once.
const OUTPUT: usize = 64 << 10;
/// Most of what an exec says that is passed on.
const MOST_SAID: usize = 300;

/// The volume that the guest comes in: it can be written before the start, however read-only the root is.
pub(crate) fn volume() -> Mount {
    Mount {
        target: Some(HOME_INSIDE.to_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(false),
        // Of images that have something there, nothing is wanted.
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}

/// Everything of ours in a container. It belongs to nobody else there, so that root, who has no capabilities, can
/// change nothing of it.
fn archive(executable: &[u8], config: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(executable.len() + (16 << 10)));
    let mut add = |path: &str, mode: u32, content: Option<&[u8]>| {
        let mut header = tar::Header::new_ustar();
        let kind = if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(SECRET_OWNER.into());
        header.set_gid(SECRET_OWNER.into());
        header.set_size(content.map_or(0, |content| content.len() as u64));
        archive.append_data(&mut header, path, content.unwrap_or_default())
    };
    let below = |path: &str| path.trim_start_matches(HOME_INSIDE).trim_start_matches('/').to_owned();
    let control = below(CONTROL_INSIDE);
    add("./", 0o711, None)?;
    add(&below(GUEST_INSIDE), 0o555, Some(executable))?;
    add(&control, 0o700, None)?;
    add(&format!("{control}/{CONFIG}"), 0o600, Some(config))?;
    add(&below(crate::disk::SPILL_INSIDE), 0o700, None)?;
    archive.into_inner()
}

/// Starts relays in a container.
struct Exec {
    inner: Arc<Inner>,
    container: String,
}

#[async_trait]
impl Dial for Exec {
    async fn dial(&self) -> Result<Streams> {
        let unavailable = |fault: Fault| match fault {
            Fault::Answer { message, .. } => Error::Unavailable { what: "guest", detail: message },
            fault => fault.during("reach a guest"),
        };
        let client = self.inner.engine.client().await?;
        let socket = format!("{CONTROL_INSIDE}/{SOCKET}");
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            // The guest's own user, who has no rights beyond its files.
            user: Some(format!("{SECRET_OWNER}:{SECRET_OWNER}")),
            working_dir: Some("/".to_owned()),
            cmd: Some(vec![GUEST_INSIDE.to_owned(), "relay".to_owned(), "--socket".to_owned(), socket]),
            ..ExecConfig::default()
        };
        let made =
            bounded(QUESTION, client.create_exec(&self.container, config)).await.map_err(unavailable)?;
        let options = StartExecOptions { output_capacity: Some(OUTPUT), ..StartExecOptions::default() };
        let started = bounded(WORK, client.start_exec(&made.id, Some(options))).await.map_err(unavailable)?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(Error::internal("reach a guest", "the engine did not attach"));
        };
        let output = output.filter_map(|said| std::future::ready(standard_output(said)));
        Ok(Streams { input, output: Box::pin(StreamReader::new(output)) })
    }
}

fn standard_output(
    said: std::result::Result<LogOutput, bollard::errors::Error>,
) -> Option<io::Result<Bytes>> {
    let text =
        |message: &[u8]| String::from_utf8_lossy(message).trim().chars().take(MOST_SAID).collect::<String>();
    match said {
        Ok(LogOutput::StdOut { message }) => Some(Ok(message)),
        Ok(LogOutput::StdErr { message }) => {
            tracing::debug!(said = text(&message), "a relay");
            None
        }
        // What the engine says where it could not start it.
        Ok(LogOutput::Console { message } | LogOutput::StdIn { message }) => {
            Some(Err(io::Error::other(text(&message))))
        }
        Err(error) => Some(Err(io::Error::other(error))),
    }
}

impl Inner {
    /// Whether guests are reached through the engine alone.
    pub(crate) fn is_remote(&self) -> bool {
        self.engine.is_remote()
    }

    /// The guest of a container, through the engine. Nothing is done before the first call.
    pub(crate) fn remote_guest(self: &Arc<Self>, container: &str, token: &[u8]) -> Guest {
        let exec = Exec { inner: Arc::clone(self), container: container.to_owned() };
        Guest::new(Endpoint::relayed(Relay::new(exec), token))
    }

    /// Puts the guest into a container that was not started yet.
    ///
    /// # Errors
    /// `Unavailable`, `LimitReached` for a full disk, `Internal`.
    pub(crate) async fn pack_guest(&self, container: &str, config: &GuestConfig) -> Result<()> {
        let packed = archive(self.ground.executable(), &config.encode_to_vec())
            .map_err(|error| Error::internal("pack the guest", error))?;
        let client = self.engine.client().await?;
        let options = UploadToContainerOptionsBuilder::default().path(HOME_INSIDE).build();
        let sent = client.upload_to_container(container, Some(options), bollard::body_full(packed.into()));
        bounded(TRANSFER, sent).await.map_err(|fault| fault.during("put the guest into a container"))
    }

    /// Waits for the guest of a container that was just started.
    ///
    /// # Errors
    /// `Internal` where it ended; `Unavailable`.
    pub(crate) async fn hear_remote_guest(self: &Arc<Self>, container: &str, token: &[u8]) -> Result<Guest> {
        let begin = Instant::now();
        let guest = self.remote_guest(container, token);
        match guest.ping(BIRTH).await {
            Ok(()) => Ok(guest),
            Err(error) => {
                self.must_run(container, begin).await?;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_belongs_to_the_guest_alone() {
        let packed = archive(b"program", b"secret").unwrap();
        let mut archive = tar::Archive::new(&packed[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (65_533, 65_533));
            assert_eq!(header.mode().unwrap() & 0o022, 0, "nobody else writes it");
            found.push((entry.path().unwrap().display().to_string(), header.mode().unwrap(), entry.size()));
        }
        let expected = [
            ("./", 0o711, 0),
            ("guest", 0o555, 7),
            ("run", 0o700, 0),
            ("run/config", 0o600, 6),
            ("spill", 0o700, 0),
        ];
        let expected: Vec<_> = expected.map(|(path, mode, size)| (path.to_owned(), mode, size)).into();
        assert_eq!(found, expected);
    }
}
