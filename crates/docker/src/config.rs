//! What the backend is told when the daemon starts.

use std::path::PathBuf;

/// Where the backend keeps its things and which engine it uses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Survives reboots: disks, what is known of images. Mode 0700, ours alone.
    pub state_directory: PathBuf,
    /// Does not survive reboots: sockets. Mode 0700, ours alone.
    pub runtime_directory: PathBuf,
    /// The static guest executable.
    pub guest: &'static [u8],
    /// The engine: `unix:///path` or `tcp://host:port`.
    pub host: String,
    /// Speak TLS with an engine at `tcp://`: the directory of `ca.pem`, which the engine's certificate must be signed
    /// by, and of `cert.pem` and `key.pem`, where it asks for ours.
    pub certificates: Option<PathBuf>,
    /// The image of the template `default`.
    pub default_image: String,
}

/// Where an engine listens unless told otherwise.
const USUAL_HOST: &str = "unix:///var/run/docker.sock";
/// A small image that every registry has.
const USUAL_IMAGE: &str = "debian:bookworm-slim";

impl Config {
    /// The usual engine and image for two directories.
    #[must_use]
    pub fn new(state_directory: PathBuf, runtime_directory: PathBuf, guest: &'static [u8]) -> Self {
        let (host, default_image) = (USUAL_HOST.to_owned(), USUAL_IMAGE.to_owned());
        Self { state_directory, runtime_directory, guest, host, certificates: None, default_image }
    }
}
