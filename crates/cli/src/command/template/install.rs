//! `hostel template install-cli`: the claude binary as a layer on top of a template.

use super::{existing, made, tool};
use crate::args::InstallArgs;
use crate::command::{Context, Outcome};
use crate::failure::Failure;
use crate::output::{self, json, progress::Progress};
use crate::signals::Signals;
use hostel_client::domain::template::TemplateSource;
use hostel_client::domain::{BackendName, ResourceLimits};
use hostel_client::model::Template;
use hostel_client::{Client, ImportTemplate};
use sha2::{Digest as _, Sha512};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Which version, and what its archives' checksums are.
const PINS: &str = include_str!("../../../../../images/pins");
/// The label that says which version a template has.
const VERSION: &str = "claude.version";
/// Where the binary is in the sandbox. A jail of the template `host` has the host's /usr, which nothing covers.
const DIRECTORY: &str = "opt/claude/bin";
const PATH: &str = "/opt/claude/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What it needs to be of use: it has about 250 MB of its own, and runs compilers and tests.
const MEMORY: u64 = 2 << 30;
const PROCESSES: u32 = 512;
/// The backend that has the template `host`.
const BACKEND: &str = "jail";

/// What is to be installed.
#[derive(Debug, PartialEq, Eq)]
struct Pin<'a> {
    version: &'a str,
    /// `@scope/name-platform@version`, as npm takes it.
    package: String,
    /// `sha512-…`, as npm writes it.
    integrity: &'a str,
}

impl<'a> Pin<'a> {
    /// Reads the file for an architecture as Rust calls it.
    fn read(pins: &'a str, architecture: &str) -> Result<Self, Failure> {
        let platform = match architecture {
            "x86_64" => "linux-x64",
            "aarch64" => "linux-arm64",
            other => {
                let message = format!("there is no claude binary for {other}");
                return Err(Failure::other("PLATFORM", message));
            }
        };
        let pins = pins.lines().filter(|line| !line.starts_with('#'));
        let words = pins.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut found = words.filter_map(|words| match words[..] {
            ["claude", version, on, package, integrity] if on == platform => {
                Some(Self { version, package: format!("{package}@{version}"), integrity })
            }
            _ => None,
        });
        let missing = || Failure::other("PINS", "the list of versions in this hostel is broken");
        found.next().ok_or_else(missing)
    }
}

pub(super) async fn install(context: &Context, client: &Client, args: InstallArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let pin = Pin::read(PINS, std::env::consts::ARCH)?;
    let backend = backend()?;
    if let Some(template) = existing(client, &args.name, &backend).await? {
        let version = template.labels.get(VERSION);
        if version.is_some_and(|version| version == pin.version) {
            output::note(&format!("the template {} has claude {} already", args.name, pin.version));
            return made(context, &template);
        }
        if !args.replace {
            let what =
                version.map_or_else(|| "no claude of ours".to_owned(), |version| format!("claude {version}"));
            let message = format!(
                "there is a template {} with {what}: --replace replaces it, --name gives the new one another name",
                args.name
            );
            return Err(Failure::other("TEMPLATE_EXISTS", message));
        }
    }
    let place = TempDir::with_prefix("hostel-cli-").map_err(|error| local("make a directory", &error))?;
    let unpacked = async {
        let archive = match args.archive.clone() {
            Some(archive) => archive,
            None => fetch(&pin, place.path()).await?,
        };
        verify(&pin, archive.clone()).await?;
        unpack(&archive, place.path()).await
    };
    let size = signals.guard(Box::pin(unpacked)).await?;
    let imported = import(client, &args, &backend, &pin, place.path(), size);
    let template = signals.guard(Box::pin(imported)).await?;
    output::note(&format!(
        "claude {} is there: hostel run --template {} -- claude --version",
        pin.version, args.name
    ));
    made(context, &template)
}

/// Has npm fetch the archive.
async fn fetch(pin: &Pin<'_>, place: &Path) -> Result<PathBuf, Failure> {
    output::note(&format!("fetching {} (about 170 MB)", pin.package));
    let _spinner = Progress::new("npm pack", None, false);
    let without = format!(
        "get the archive where npm is, with `npm pack {}`, and give it with --archive FILE",
        pin.package
    );
    let mut npm = tool::command("npm");
    npm.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]).arg(place).arg(&pin.package);
    let name = tool::output(&mut npm, &without).await?;
    let name = name.lines().last().unwrap_or_default().trim().to_owned();
    // npm says a name, not a path; whatever it says, it stays in our directory.
    let name = Path::new(&name).file_name().map(ToOwned::to_owned).unwrap_or_default();
    Ok(place.join(name))
}

/// Compares the archive's checksum with the one that this hostel was made for.
async fn verify(pin: &Pin<'_>, archive: PathBuf) -> Result<(), Failure> {
    let shown = archive.display().to_string();
    let bar = Progress::new("checking", Progress::total(&archive), false);
    let hashed = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
        let mut file = fs::File::open(&archive)?;
        let (mut hash, mut buffer) = (Sha512::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(format!("sha512-{}", json::base64(&hash.finalize()))),
                length => {
                    hash.update(&buffer[..length]);
                    bar.add(length as u64);
                }
            }
        }
    });
    let found = hashed
        .await
        .map_err(|error| Failure::other("CHECKSUM", error.to_string()))?
        .map_err(|error| Failure::other("LOCAL_FILE", format!("cannot read {shown}: {error}")))?;
    if found == pin.integrity {
        return Ok(());
    }
    let message = format!(
        "{shown} is not what this hostel was made for, {}: its checksum is {found}, not {}",
        pin.package, pin.integrity
    );
    Err(Failure::other("CHECKSUM", message))
}

/// Unpacks the binary to where the layer is packed from, and gives its size.
async fn unpack(archive: &Path, place: &Path) -> Result<u64, Failure> {
    let target = place.join("layer").join(DIRECTORY);
    fs::create_dir_all(&target).map_err(|error| local("make a directory", &error))?;
    let mut directory = place.join("layer");
    for part in [""].into_iter().chain(DIRECTORY.split('/')) {
        directory.push(part);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&directory, mode).map_err(|error| local("change a directory", &error))?;
    }
    let mut tar = tool::command("tar");
    tar.args(["--extract", "--gzip", "--no-same-owner", "--strip-components=1", "--file"]).arg(archive);
    tar.arg("--directory").arg(&target).arg("package/claude");
    tool::output(&mut tar, "it is part of every Debian").await?;
    let binary = target.join("claude");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
        .and_then(|()| binary.metadata())
        .map(|metadata| metadata.len())
        .map_err(|error| local("look at the binary", &error))
}

async fn import(
    client: &Client,
    args: &InstallArgs,
    backend: &BackendName,
    pin: &Pin<'_>,
    place: &Path,
    size: u64,
) -> Result<Template, Failure> {
    let mut import = ImportTemplate::new(args.name.clone());
    import.backend = Some(backend.clone());
    import.replace = args.replace;
    let template = &mut import.template;
    template.source = TemplateSource::Layer { base: args.base.clone() };
    template.labels = [(VERSION.to_owned(), pin.version.to_owned())].into();
    template.env = [("PATH".to_owned(), PATH.to_owned())].into();
    template.limits =
        ResourceLimits { memory_bytes: Some(MEMORY), pids: Some(PROCESSES), ..ResourceLimits::default() };
    // Packed by tar, so that everything belongs to root whoever we are.
    let mut tar = tool::command("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--file=-"]);
    tar.arg("--directory").arg(place.join("layer")).arg("opt");
    tool::import(client, import, &mut tar, "it is part of every Debian", Some(size)).await
}

fn backend() -> Result<BackendName, Failure> {
    Ok(BackendName::parse(BACKEND).map_err(hostel_client::Error::from)?)
}

fn local(what: &str, error: &std::io::Error) -> Failure {
    Failure::other("LOCAL_FILE", format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_are_complete() {
        for architecture in ["x86_64", "aarch64"] {
            let pin = Pin::read(PINS, architecture).unwrap();
            assert!(
                pin.package.ends_with(pin.version)
                    && pin.package.starts_with("@anthropic-ai/claude-code-linux-")
            );
            // 64 bytes.
            assert!(pin.integrity.starts_with("sha512-") && pin.integrity.len() == 7 + 88);
        }
        assert!(Pin::read(PINS, "riscv64").is_err() && Pin::read("", "x86_64").is_err());
    }

    #[tokio::test]
    async fn another_archive_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "something else").unwrap();
        let pin = Pin::read(PINS, "x86_64").unwrap();
        let refused = verify(&pin, file.path().to_owned()).await.unwrap_err();
        assert_eq!(refused.reason(), "CHECKSUM");
    }
}
