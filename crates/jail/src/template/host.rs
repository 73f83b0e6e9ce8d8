//! The template `host`: a skeleton of directories and a minimal `/etc`, over which the host's `/usr` is
//! mounted. Nothing of the host's own configuration, users or secrets is in it.

use super::{HOST, Recipe};
use hostel_sandbox::TemplateId;
use hostel_sandbox::template::{Template, TemplateSource};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// The user that processes have unless they ask for another.
pub(crate) const USER: &str = "agent";
const USER_ID: u32 = 1000;
/// Where they start.
pub(crate) const WORKDIR: &str = "/workspace";

/// How the names of skeletons begin.
const SKELETON: &str = "rootfs-";

/// Files of the host's `/etc` that say how its `/usr` works and nothing about the host.
const COPIED: [&str; 9] = [
    "ld.so.cache",
    "ld.so.conf",
    "nsswitch.conf",
    "services",
    "protocols",
    "mime.types",
    "shells",
    "debian_version",
    "ssl/certs/ca-certificates.crt",
];
const ALTERNATIVES: &str = "etc/alternatives";
const DIRECTORIES: [(&str, u32); 18] = [
    ("usr", 0o755),
    ("etc", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/certs", 0o755),
    (ALTERNATIVES, 0o755),
    ("proc", 0o755),
    ("dev", 0o755),
    ("sys", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("var/log", 0o755),
    ("var/cache", 0o755),
    ("root", 0o700),
    ("home", 0o755),
    ("opt", 0o755),
    ("mnt", 0o755),
];

const FILES: [(&str, &str); 6] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("resolv.conf", ""),
    ("hostname", "sandbox\n"),
    ("host.conf", "multi on\n"),
];
/// Directories of the user that processes have.
const OWNED: [&str; 2] = ["home/agent", "workspace"];

/// Writes the skeleton where this version of it is not there yet. Jails of an older one keep theirs: each has
/// its own directory, named by what is in it.
pub(super) fn generate(templates: &Path, own_ids: bool) -> io::Result<Recipe> {
    let home = templates.join(HOST);
    let skeleton = Skeleton::of_host(own_ids);
    let name = skeleton.name();
    if !home.join(&name).exists() {
        fs::create_dir_all(&home)?;
        let new = home.join("new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir(&new)?;
        skeleton.write(&new)?;
        fs::rename(&new, home.join(&name))?;
    }
    let id = TemplateId::parse(HOST).map_err(io::Error::other)?;
    let mut template = Template::new(id, TemplateSource::Host);
    if own_ids {
        template.user = Some(USER.to_owned());
    }
    template.workdir = Some(WORKDIR.to_owned());
    Ok(Recipe { template, layers: vec![layer(&name)], host_usr: true })
}

/// The skeletons of before this host, or this program, was another: the directory of each, and what it was. Jails and
/// snapshots may stand on them.
pub(super) fn earlier(templates: &Path, now: &Recipe) -> io::Result<Vec<(String, Recipe)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(templates.join(HOST))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let layers = vec![layer(&name)];
        if name.starts_with(SKELETON) && layers != now.layers {
            found.push((format!("{HOST}/{name}"), Recipe { layers, ..now.clone() }));
        }
    }
    Ok(found)
}

fn layer(name: &str) -> String {
    format!("templates/{HOST}/{name}")
}

/// All that is in the skeleton. Paths are below its root.
#[derive(Hash)]
struct Skeleton {
    directories: &'static [(&'static str, u32)],
    /// Directories of the user [`USER_ID`], where users are the sandbox's own.
    owned: &'static [&'static str],
    own_ids: bool,
    links: Vec<(PathBuf, PathBuf)>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Skeleton {
    /// What this host's `/usr` needs.
    fn of_host(own_ids: bool) -> Self {
        let etc = Path::new("etc");
        // A host whose /bin is not a link into /usr is older than this kernel; its programs are in /usr/bin too.
        let mut links: Vec<_> = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]
            .iter()
            .filter_map(|link| Some((PathBuf::from(link), fs::read_link(Path::new("/").join(link)).ok()?)))
            .collect();
        links.push((etc.join("os-release"), "../usr/lib/os-release".into()));
        links.push((etc.join("mtab"), "../proc/mounts".into()));
        links.extend(alternatives());
        let mut files: Vec<_> =
            FILES.iter().map(|(name, text)| (etc.join(name), text.as_bytes().to_vec())).collect();
        files.extend(COPIED.iter().filter_map(|name| {
            let file = etc.join(name);
            fs::read(Path::new("/").join(&file)).ok().map(|content| (file, content))
        }));
        Self { directories: &DIRECTORIES, owned: &OWNED, own_ids, links, files }
    }

    /// A name for its directory, which another content does not have.
    fn name(&self) -> String {
        let mut fingerprint = DefaultHasher::new();
        self.hash(&mut fingerprint);
        format!("{SKELETON}{:016x}", fingerprint.finish())
    }

    fn write(&self, root: &Path) -> io::Result<()> {
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        for (directory, mode) in self.directories {
            make_directory(&root.join(directory), *mode)?;
        }
        for directory in self.owned {
            make_directory(&root.join(directory), 0o755)?;
            if self.own_ids {
                chown(root.join(directory), Some(USER_ID), Some(USER_ID))?;
            }
        }
        for (link, target) in &self.links {
            symlink(target, root.join(link))?;
        }
        self.files.iter().try_for_each(|(file, content)| fs::write(root.join(file), content))
    }
}

/// `/usr/bin/awk` and many others point to links here.
fn alternatives() -> Vec<(PathBuf, PathBuf)> {
    let below = Path::new(ALTERNATIVES);
    let Ok(entries) = fs::read_dir(Path::new("/").join(below)) else { return Vec::new() };
    let mut links: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((below.join(entry.file_name()), fs::read_link(entry.path()).ok()?)))
        .collect();
    links.sort();
    links
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::super::Templates;
    use super::*;

    #[test]
    fn an_earlier_skeleton_goes_when_nobody_stands_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Templates::open(directory.path().to_owned(), false).unwrap();
        let layers = || open().recipe(None).unwrap().layers;
        assert!(!open().has_replaced());
        let now = layers();
        let old = directory.path().join(HOST).join("rootfs-0123456789abcdef");
        fs::create_dir(&old).unwrap();
        fs::write(directory.path().join(HOST).join("a file of somebody's"), "").unwrap();

        let templates = open();
        assert_eq!(templates.recipe(None).unwrap().layers, now);
        assert!(templates.has_replaced());
        let own = layer("rootfs-0123456789abcdef");
        assert!(templates.unneeded(|layer| layer == own).unwrap().is_empty(), "a jail stands on it");
        let held = templates.hold_layers(std::slice::from_ref(&own));
        assert!(templates.unneeded(|_| false).unwrap().is_empty(), "one is about to");
        drop(held);
        let unneeded = templates.unneeded(|_| false).unwrap();
        assert_eq!(unneeded.len(), 1);
        assert_eq!((&unneeded[0].layer, unneeded[0].subvolume()), (&own, None));
        templates.discard(&unneeded[0].directory);
        assert!(!old.exists() && !open().has_replaced());
        assert_eq!(layers(), now);
    }

    #[test]
    fn nothing_is_unneeded_while_a_record_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Templates::open(directory.path().to_owned(), false).unwrap();
        drop(open());
        fs::create_dir(directory.path().join(HOST).join("rootfs-0123456789abcdef")).unwrap();
        let snapshot = directory.path().join("snapshot");
        fs::create_dir(&snapshot).unwrap();
        fs::write(snapshot.join(super::super::RECORD), "{").unwrap();
        assert!(open().unneeded(|_| false).unwrap().is_empty(), "it may stand on that");
        fs::remove_dir_all(snapshot).unwrap();
        assert_eq!(open().unneeded(|_| false).unwrap().len(), 1);
    }
}
