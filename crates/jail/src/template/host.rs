//! The template `host`: a skeleton of directories and a minimal `/etc`, over which the host's `/usr` is
//! mounted. Nothing of the host's own configuration, users or secrets is in it.

use super::{HOST, Recipe};
use hostel_sandbox::TemplateId;
use hostel_sandbox::template::{Template, TemplateSource};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// The user that processes have unless they ask for another.
pub(crate) const USER: &str = "agent";
const USER_ID: u32 = 1000;
/// Where they start.
pub(crate) const WORKDIR: &str = "/workspace";

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
const DIRECTORIES: [(&str, u32); 17] = [
    ("usr", 0o755),
    ("etc", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/certs", 0o755),
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

/// Writes the skeleton where this version of it is not there yet. Jails of an older one keep theirs: each has
/// its own directory, named by what is in it.
pub(super) fn generate(templates: &Path, own_ids: bool) -> io::Result<Recipe> {
    let home = templates.join(HOST);
    fs::create_dir_all(&home)?;
    let new = home.join("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir(&new)?;
    let fingerprint = write_skeleton(&new, own_ids)?;
    let name = format!("rootfs-{fingerprint:016x}");
    if home.join(&name).exists() {
        fs::remove_dir_all(&new)?;
    } else {
        fs::rename(&new, home.join(&name))?;
    }
    let id = TemplateId::parse(HOST).map_err(io::Error::other)?;
    let mut template = Template::new(id, TemplateSource::Host);
    if own_ids {
        template.user = Some(USER.to_owned());
    }
    template.workdir = Some(WORKDIR.to_owned());
    Ok(Recipe { template, layers: vec![format!("templates/{HOST}/{name}")], host_usr: true })
}

fn write_skeleton(root: &Path, own_ids: bool) -> io::Result<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut fingerprint = DefaultHasher::new();
    own_ids.hash(&mut fingerprint);
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for (directory, mode) in DIRECTORIES {
        make_directory(&root.join(directory), mode)?;
    }
    for directory in ["home/agent", "workspace"] {
        make_directory(&root.join(directory), 0o755)?;
        if own_ids {
            chown(root.join(directory), Some(USER_ID), Some(USER_ID))?;
        }
    }
    for link in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        // A host whose /bin is not a link into /usr is older than this kernel; its programs are in /usr/bin too.
        if let Ok(target) = fs::read_link(Path::new("/").join(link)) {
            (link, &target).hash(&mut fingerprint);
            symlink(target, root.join(link))?;
        }
    }
    for (file, content) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("resolv.conf", ""),
        ("hostname", "sandbox\n"),
        ("host.conf", "multi on\n"),
    ] {
        fs::write(root.join("etc").join(file), content)?;
    }
    symlink("../usr/lib/os-release", root.join("etc/os-release"))?;
    symlink("../proc/mounts", root.join("etc/mtab"))?;
    for file in COPIED {
        if let Ok(content) = fs::read(Path::new("/etc").join(file)) {
            (file, &content).hash(&mut fingerprint);
            fs::write(root.join("etc").join(file), content)?;
        }
    }
    copy_links("/etc/alternatives", &root.join("etc/alternatives"), &mut fingerprint)?;
    Ok(fingerprint.finish())
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// `/usr/bin/awk` and many others point to links here.
fn copy_links(from: &str, to: &Path, fingerprint: &mut impl std::hash::Hasher) -> io::Result<()> {
    use std::hash::Hash;
    make_directory(to, 0o755)?;
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    let mut links: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?)))
        .collect();
    links.sort();
    for (name, target) in links {
        (&name, &target).hash(fingerprint);
        symlink(target, to.join(name))?;
    }
    Ok(())
}
