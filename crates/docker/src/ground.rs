//! What the backend stands on at this host: its directories, and what of them containers get to see.
//!
//! Everything that is bound into containers lies in one place, a small file system in memory of its own where we may
//! mount one: a container's list of mounts then shows no path of the host.

use crate::config::Config;
use crate::digits;
use crate::tools;
use hostel_guest_protocol::GuestConfig;
use hostel_sandbox::{Error, Result, SandboxId};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use tokio::net::UnixListener;

/// In a sandbox's control directory: where the guest listens, where it says that it is ready, what it is told.
pub(crate) const SOCKET: &str = "guest.sock";
pub(crate) const REPORT: &str = "report.sock";
pub(crate) const CONFIG: &str = "config";
/// The owner of control directories: nobody's id inside, so that only the guest's rights open them.
pub(crate) const SECRET_OWNER: u32 = 65_533;
/// Room for executables and sockets.
const PLACE_OPTIONS: &str = "size=64m,nr_inodes=64k,mode=0711";

/// The directories of the backend.
pub(crate) struct Ground {
    /// Names this state directory among others of the same engine.
    pub(crate) instance: String,
    pub(crate) state: PathBuf,
    place: PathBuf,
    guest: PathBuf,
    executable: &'static [u8],
    root: bool,
    /// Whether the engine sees what we mount; once it was reached.
    shared: OnceLock<bool>,
    /// Whether the place is there.
    ready: Mutex<bool>,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let operation = format!("{what} {}", path.display());
    move |error| Error::internal(operation, error)
}

fn private_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("make", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("close to others", path))
}

/// A name for this state directory that no other one has, kept in it.
fn instance(state: &Path) -> Result<String> {
    let file = state.join("owner");
    if let Ok(text) = fs::read_to_string(&file)
        && text.len() == 12
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(text);
    }
    let name = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
    fs::write(&file, &name).map_err(failed("write", &file))?;
    Ok(name)
}

/// Whether what we mount is seen by the engine: not where one of us has a mount namespace of its own, as services of
/// systemd may. Without an engine the host's first process stands for it.
fn mounts_are_shared(engine: Option<PathBuf>) -> bool {
    let theirs = engine.or_else(|| fs::read_link("/proc/1/ns/mnt").ok());
    theirs.is_some() && theirs == fs::read_link("/proc/self/ns/mnt").ok()
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

fn disks(root: bool, shared: bool) -> Result<(), &'static str> {
    let problem = if !root {
        "the daemon runs as an ordinary user"
    } else if !shared {
        "the engine does not see what the daemon mounts"
    } else if !Path::new("/dev/loop-control").exists() {
        "there are no loop devices"
    } else if !tools::has("mkfs.ext4") {
        "mkfs.ext4 is not installed"
    } else {
        return Ok(());
    };
    Err(problem)
}

impl Ground {
    /// Makes the directories.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let state = config.state_directory.clone();
        let place = config.runtime_directory.join("place");
        for directory in [&state, &state.join("disks"), &state.join("seeds"), &config.runtime_directory] {
            private_directory(directory)?;
        }
        let root = nix::unistd::geteuid().is_root();
        let guest = place.join(format!("guest-{}", digits::name_of(config.guest, 8)));
        Ok(Self {
            instance: instance(&state)?,
            state,
            place,
            guest,
            executable: config.guest,
            root,
            shared: OnceLock::new(),
            ready: Mutex::default(),
        })
    }

    /// Makes the place from which containers get their guest, before the first of them.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn make_ready(&self) -> Result<()> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if *ready {
            return Ok(());
        }
        let place = &self.place;
        fs::create_dir_all(place).map_err(failed("make", place))?;
        if self.root && self.shares_mounts() && !is_mount_point(place) {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("hostel"), place, Some("tmpfs"), flags, Some(PLACE_OPTIONS))
                .map_err(|errno| Error::internal(format!("mount {}", place.display()), errno))?;
        }
        for directory in [place.join("s"), place.join("d")] {
            fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        }
        self.install()?;
        *ready = true;
        Ok(())
    }

    /// Puts the executable into the place, under a name that says what is in it.
    fn install(&self) -> Result<()> {
        if fs::metadata(&self.guest).is_ok_and(|found| found.len() == self.executable.len() as u64) {
            return Ok(());
        }
        let new = self.place.join(format!("new-{}", uuid::Uuid::new_v4().simple()));
        fs::write(&new, self.executable).map_err(failed("write", &new))?;
        let mode = fs::Permissions::from_mode(0o555);
        fs::set_permissions(&new, mode).map_err(failed("make executable", &new))?;
        fs::rename(&new, &self.guest).map_err(failed("put in place", &self.guest))
    }

    /// Whether it is known what the engine sees.
    pub(crate) fn knows_engine(&self) -> bool {
        self.shared.get().is_some()
    }

    /// Hears in which mount namespace the engine is.
    pub(crate) fn learn(&self, engine: PathBuf) {
        let _ = self.shared.set(mounts_are_shared(Some(engine)));
    }

    /// Before the engine was reached the host's first process stands for it.
    fn shares_mounts(&self) -> bool {
        self.shared.get().copied().unwrap_or_else(|| mounts_are_shared(None))
    }

    /// Takes the place away where no sandbox needs it any more.
    pub(crate) fn clear(&self) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if is_mount_point(&self.place) && self.found().is_empty() {
            let _ = umount2(&self.place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            *ready = false;
        }
    }

    /// Whether the daemon is root on this host.
    pub(crate) fn is_root(&self) -> bool {
        self.root
    }

    /// Whether sandboxes can have disks that we make.
    pub(crate) fn disks(&self) -> Result<(), &'static str> {
        disks(self.root, self.shares_mounts())
    }

    /// The guest's executable itself.
    pub(crate) fn executable(&self) -> &'static [u8] {
        self.executable
    }

    /// Makes an empty directory that exists nowhere else, for whoever wants to know whether somebody sees it.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn make_mark(&self) -> Result<PathBuf> {
        let mark = self.state.join(format!("mark-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&mark).map_err(failed("make", &mark))?;
        Ok(mark)
    }

    /// Where the guest's executable is.
    pub(crate) fn guest(&self) -> &Path {
        &self.guest
    }

    /// Where a sandbox's control directory is.
    pub(crate) fn control(&self, sandbox: &SandboxId) -> PathBuf {
        self.place.join("s").join(sandbox.as_str())
    }

    /// Where a sandbox's disk is mounted.
    pub(crate) fn mount_point(&self, sandbox: &SandboxId) -> PathBuf {
        self.place.join("d").join(sandbox.as_str())
    }

    /// The file of a sandbox's disk.
    pub(crate) fn disk_image(&self, sandbox: &SandboxId) -> PathBuf {
        self.state.join("disks").join(format!("{sandbox}.img"))
    }

    /// What is kept of an image, by its id.
    pub(crate) fn seeds(&self, image: &str) -> PathBuf {
        self.state.join("seeds").join(image.trim_start_matches("sha256:"))
    }

    /// The ids of images of which something is kept.
    pub(crate) fn seeded(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state.join("seeds")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // Engines say so of every id; a name without it could be a repository's.
        names.map(|name| format!("sha256:{name}")).collect()
    }

    /// Makes a sandbox's control directory: what the guest is told, and a socket on which it reports.
    ///
    /// # Errors
    /// `AlreadyExists` where the sandbox has one; `Internal`.
    pub(crate) fn make_control(
        &self,
        sandbox: &SandboxId,
        config: &GuestConfig,
        first_id: u32,
    ) -> Result<UnixListener> {
        let directory = self.control(sandbox);
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyExists { kind: "sandbox", id: sandbox.to_string() });
            }
            made => made.map_err(failed("make", &directory))?,
        }
        let told = directory.join(CONFIG);
        fs::write(&told, config.encode_to_vec()).map_err(failed("write", &told))?;
        // Through a descriptor: names of sockets hold 107 bytes, those of directories more (unix(7)).
        let opened = fs::File::open(&directory).map_err(failed("open", &directory))?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{REPORT}", opened.as_raw_fd()))
            .map_err(failed("listen in", &directory))?;
        if self.root {
            for path in [&told, &directory.join(REPORT), &directory] {
                chown(path, Some(first_id + SECRET_OWNER), Some(first_id + SECRET_OWNER))
                    .map_err(failed("give away", path))?;
            }
            fs::set_permissions(&told, fs::Permissions::from_mode(0o600)).map_err(failed("close", &told))?;
        }
        Ok(listener)
    }

    /// Removes a sandbox's control directory.
    pub(crate) fn remove_control(&self, sandbox: &SandboxId) {
        let directory = self.control(sandbox);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %directory.display(), %error, "a control directory could not be removed");
            }
            _ => {}
        }
    }

    /// Sandboxes of which something is on this host.
    pub(crate) fn found(&self) -> Vec<SandboxId> {
        let names = |directory: PathBuf| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let mut found: Vec<String> = [self.place.join("s"), self.place.join("d"), self.state.join("disks")]
            .into_iter()
            .flat_map(names)
            .map(|name| name.trim_end_matches(".img").to_owned())
            .collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|name| SandboxId::parse(name).ok()).collect()
    }
}
