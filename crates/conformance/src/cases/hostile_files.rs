//! Files that want to lead somebody out, hold somebody up, or break something.

use crate::archive;
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, script};
use crate::session::patiently;
use hostel_sandbox::file::{Compression, WriteOptions};
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{Capability, Error};
use std::sync::Arc;

cases! { "hostile_files":
    links_to_the_host_end_inside,
    dots_end_at_the_root,
    writing_through_links_stays_inside,
    links_of_proc_lead_nowhere,
    a_directory_that_is_swapped_for_a_link_leads_nowhere,
    pipes_and_devices_are_neither_read_nor_written,
    bad_paths_are_refused,
    a_deep_tree_is_removed,
    archives_with_bad_names_stay_inside,
    archives_that_write_through_links_stay_inside,
    archives_with_devices_make_none_that_works,
    broken_archives_are_refused,
    an_archive_bomb_ends_at_the_disk_limit [DiskLimit],
}

type H = Arc<Harness>;

/// A name that nothing on the host has.
fn evil() -> String {
    format!("hostel-evil-{}", uuid::Uuid::new_v4())
}

/// The root, or where that is read-only a directory in it: what goes before a name.
fn writable_below_root(h: &Harness) -> &'static str {
    if h.has(Capability::WritableRoot) { "" } else { "tmp/" }
}

/// Fails if something got out.
fn not_on_host(h: &Harness, name: &str) -> Outcome {
    for directory in ["/", "/tmp", "/etc", "/root", "/var/tmp", "."] {
        let path = std::path::Path::new(directory).join(name);
        ensure!(
            !h.factory().is_local() || path.symlink_metadata().is_err(),
            "{} is on the host",
            path.display()
        );
    }
    Ok(())
}

async fn links_to_the_host_end_inside(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // Not in /tmp itself: hosts with fs.protected_symlinks let nobody follow a stranger's link there.
    sandbox.sh("mkdir /tmp/own").await?;
    // The same file by its own path, and through links that would lead to the host's if they were followed there.
    sandbox.put("/tmp/own/mark", "inside").await?;
    sandbox.sh("cd /tmp/own; ln -s /tmp/own/mark abs; ln -s ../../../../../../tmp/own/mark rel; ln -s / root; ln -s /etc etc").await?;
    for path in [
        "/tmp/own/abs",
        "/tmp/own/rel",
        "/tmp/own/root/tmp/own/mark",
        "/tmp/own/root/tmp/own/root/../tmp/own/abs",
    ] {
        ensure_eq!(sandbox.get(path).await?, b"inside", "{path}");
    }
    let inside = sandbox.sh("cat /etc/passwd 2>/dev/null || true").await?;
    if sandbox.exists("/etc/passwd").await? {
        ensure_eq!(sandbox.get("/tmp/own/etc/passwd").await?, inside.as_bytes());
    }
    // A file that only the host has.
    let here = std::env::current_exe()?;
    let target = format!("/tmp/own/root{}", here.display());
    ensure!(!h.factory().is_local() || sandbox.get(&target).await.is_err(), "{target} of the host was read");
    Ok(())
}

async fn dots_end_at_the_root(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let name = evil();
    let place = writable_below_root(&h);
    let above = format!("/{}{place}{name}", "../".repeat(40));
    sandbox.put(&above, "x").await?;
    not_on_host(&h, &name)?;
    ensure_eq!(sandbox.get(&format!("/{place}{name}")).await?, b"x");
    ensure_eq!(sandbox.get(&format!("/tmp/../../{place}{name}")).await?, b"x");
    Ok(())
}

async fn writing_through_links_stays_inside(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // Not in /tmp itself: hosts with fs.protected_symlinks let nobody follow a stranger's link there.
    sandbox.sh("mkdir /tmp/own").await?;
    let name = evil();
    let place = writable_below_root(&h);
    sandbox.sh(&format!("cd /tmp/own; ln -s /{place} up; ln -s ../../../../../{place} up2")).await?;
    for link in ["up", "up2"] {
        sandbox.put(&format!("/tmp/own/{link}/{name}"), "x").await?;
        sandbox.inside()?.make_directory(&format!("/tmp/own/{link}/{name}-d"), true, None).await?;
        sandbox
            .inside()?
            .rename(&format!("/tmp/own/{link}/{name}"), &format!("/tmp/own/{link}/{name}-r"), true)
            .await?;
        for suffix in ["", "-d", "-r"] {
            not_on_host(&h, &format!("{name}{suffix}"))?;
        }
    }
    let tar = archive::Archive::new().file(&name, 0o644, b"x")?.bytes()?;
    sandbox.inside()?.import("/tmp/own/up2", Compression::None, archive::stream(tar)).await?;
    not_on_host(&h, &name)
}

async fn links_of_proc_lead_nowhere(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let name = evil();
    // For whoever resolves these in the wrong process they lead to another root.
    for path in ["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/thread-self/root", "/dev/fd/3"] {
        let path = format!("{path}/{name}");
        let write = sandbox.inside()?.write(&path, WriteOptions::default(), archive::stream("x"));
        let _ = patiently("writing", write).await?;
        not_on_host(&h, &name)?;
    }
    let exe = patiently("reading", sandbox.inside()?.read("/proc/1/exe", 0, Some(1))).await?;
    ensure!(exe.is_err(), "the supervisor's program was read through /proc/1/exe");
    let spec = ProcessSpec {
        user: Some("0".to_owned()),
        ..script("ln -s /proc/1/root /tmp/x; ln -s /proc/self/fd /tmp/y")
    };
    sandbox.finish(spec).await?.success()?;
    let _ = patiently("reading", sandbox.inside()?.read("/tmp/x/etc/hostname", 0, None)).await?;
    sandbox.inside()?.make_directory(&format!("/tmp/{name}"), false, None).await?;
    let removed =
        patiently("removing", sandbox.inside()?.remove(&format!("/tmp/x/tmp/{name}"), true)).await?;
    ensure!(removed.is_err(), "a directory was removed through /proc/1/root");
    Ok(())
}

async fn a_directory_that_is_swapped_for_a_link_leads_nowhere(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let name = evil();
    // A race that whoever checks first and opens then would lose sooner or later.
    let text = "mkdir -p /tmp/a; while [ ! -e /tmp/stop ]; do
        mv -T /tmp/a /tmp/b 2>/dev/null; ln -s ../../../../../../.. /tmp/a; rm -f /tmp/a; mv -T /tmp/b /tmp/a 2>/dev/null
    done";
    let racing = sandbox.open(script(text)).await?;
    for turn in 0..300 {
        let path = format!("/tmp/a/{name}");
        let _ = sandbox.inside()?.write(&path, WriteOptions::default(), archive::stream("x")).await;
        if turn % 10 == 0 {
            let _ = sandbox.inside()?.remove(&path, true).await;
            not_on_host(&h, &name)?;
        }
    }
    sandbox.put("/tmp/stop", "").await?;
    racing.finish().await?;
    not_on_host(&h, &name)
}

async fn pipes_and_devices_are_neither_read_nor_written(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    // Not in /tmp itself: hosts with fs.protected_symlinks let nobody follow a stranger's link there.
    sandbox.sh("mkdir /tmp/own").await?;
    sandbox.sh("mkfifo /tmp/own/pipe; mkdir /tmp/own/dir; ln -s pipe /tmp/own/link").await?;
    for path in [
        "/tmp/own/pipe",
        "/tmp/own/link",
        "/dev/zero",
        "/dev/null",
        "/dev/full",
        "/tmp/own/dir",
        "/dev/ptmx",
        "/dev/tty",
    ] {
        let read = patiently(format!("reading {path}"), sandbox.inside()?.read(path, 0, Some(1))).await?;
        ensure_err!(read.map(|_| ()), Error::InvalidArgument { .. } | Error::NotFound { .. });
        let in_place = WriteOptions { offset: Some(0), ..WriteOptions::default() };
        let write = patiently(
            format!("writing {path}"),
            sandbox.inside()?.write(path, in_place, archive::stream("x")),
        )
        .await?;
        ensure!(write.is_err(), "{path} was written");
    }
    Ok(())
}

async fn bad_paths_are_refused(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let (long, longer) = (format!("/tmp/{}", "x".repeat(256)), "/y".repeat(4096));
    for path in ["", "relative", "./x", "/tmp/a\0b", "\0", &long, &longer] {
        let shown: String = path.chars().take(20).collect();
        let write = sandbox.inside()?.write(path, WriteOptions::default(), archive::stream("x")).await;
        ensure!(matches!(write, Err(Error::InvalidArgument { .. })), "write {shown:?}: {write:?}");
        let stat = sandbox.inside()?.stat(path, true).await;
        ensure!(matches!(stat, Err(Error::InvalidArgument { .. })), "stat {shown:?}: {stat:?}");
        let remove = sandbox.inside()?.remove(path, true).await;
        ensure!(matches!(remove, Err(Error::InvalidArgument { .. })), "remove {shown:?}: {remove:?}");
        let rename = sandbox.inside()?.rename("/tmp", path, true).await;
        ensure!(matches!(rename, Err(Error::InvalidArgument { .. })), "rename {shown:?}: {rename:?}");
    }
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn a_deep_tree_is_removed(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let said = sandbox.run_probe(&["deep", "/tmp/deep", "3000"]).await?.success()?.text();
    // Deeper than any path can be long, of which there are 5 bytes a level and at most 4096. AppArmor, which an engine
    // may confine containers with, names whole paths, and none above 8192 bytes (its parameter `path_max`).
    let deep_enough = match said.trim().split_once(' ') {
        Some(("refused", why)) => {
            let levels = why.strip_suffix(" File name too long (os error 36)");
            levels.and_then(|levels| levels.parse().ok()).is_some_and(|levels: u32| levels > 1000)
        }
        _ => said == "took 3000\n",
    };
    ensure!(deep_enough, "{said}");
    ensure!(sandbox.exists("/tmp/deep/dddd").await?, "no tree");
    patiently("removing", sandbox.inside()?.remove("/tmp/deep", true)).await??;
    ensure!(!sandbox.exists("/tmp/deep").await?, "it is still there");
    Ok(())
}

/// Imports an archive into /tmp/into, refused or not, and looks what it did elsewhere.
async fn import_hostile(h: &Harness, name: &str, tar: Vec<u8>) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p /tmp/victim /tmp/into; echo safe > /tmp/victim/file").await?;
    let imported = patiently(
        "an import",
        sandbox.inside()?.import("/tmp/into", Compression::None, archive::stream(tar)),
    )
    .await?;
    if let Err(error) = imported {
        ensure_err!(Err::<(), _>(error), Error::InvalidArgument { .. });
    }
    not_on_host(h, name)?;
    for path in ["/", "/etc/", "/tmp/", "/tmp/victim/", "/usr/"] {
        ensure!(!sandbox.exists(&format!("{path}{name}")).await?, "the archive wrote {path}{name}");
    }
    ensure_eq!(sandbox.get("/tmp/victim/file").await?, b"safe\n");
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn archives_with_bad_names_stay_inside(h: H) -> Outcome {
    let name = evil();
    for bad in [
        format!("/{name}"),
        format!("/tmp/{name}"),
        format!("../{name}"),
        format!("../../../../../../tmp/{name}"),
        format!("a/../../victim/{name}"),
        format!("./.././../{name}"),
        format!("//{name}"),
    ] {
        let tar = archive::Archive::new().file(&bad, 0o644, b"evil")?.bytes()?;
        import_hostile(&h, &name, tar).await.map_err(|failure| failure.while_(&bad))?;
    }
    for bad in ["..", ".", "/", "a/..", ""] {
        let tar =
            archive::Archive::new().directory(bad)?.file("a/../../victim/file", 0o644, b"evil")?.bytes()?;
        import_hostile(&h, &name, tar).await.map_err(|failure| failure.while_(bad))?;
    }
    Ok(())
}

async fn archives_that_write_through_links_stay_inside(h: H) -> Outcome {
    let name = evil();
    let new = archive::Archive::new;
    let tars = [
        new().symlink("l", "/tmp/victim")?.file(&format!("l/{name}"), 0o644, b"evil")?,
        new().symlink("l", "../victim")?.file(&format!("l/{name}"), 0o644, b"evil")?,
        new().symlink("l", "..")?.symlink("l/m", "..")?.file(&format!("l/m/{name}"), 0o644, b"evil")?,
        new().symlink("f", "/tmp/victim/file")?.file("f", 0o644, b"evil")?,
        new().hard_link("f", "/tmp/victim/file")?.file("f", 0o644, b"evil")?,
        new().hard_link("f", "../victim/file")?.file("f", 0o644, b"evil")?,
        new().symlink("l", "/tmp/victim")?.hard_link("f", "l/file")?.file("f", 0o644, b"evil")?,
        new().directory("d")?.symlink("d", "/tmp/victim")?.file(&format!("d/{name}"), 0o644, b"evil")?,
        new().symlink("l", "/proc/self/root")?.file(&format!("l/tmp/{name}"), 0o644, b"evil")?,
    ];
    for (number, tar) in tars.into_iter().enumerate() {
        let imported = import_hostile(&h, &name, tar.bytes()?).await;
        imported.map_err(|failure| failure.while_(format!("archive {number}")))?;
    }
    Ok(())
}

async fn archives_with_devices_make_none_that_works(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let tar = archive::Archive::new()
        .entry(tar::EntryType::Char, "zero", "", 0o666, b"")?
        .entry(tar::EntryType::Block, "disk", "", 0o666, b"")?
        .file("suid", 0o4755, b"x")?
        .bytes()?;
    let _ = patiently(
        "an import",
        sandbox.inside()?.import("/tmp/into", Compression::None, archive::stream(tar)),
    )
    .await?;
    let text = "for f in zero disk; do head -c 1 /tmp/into/$f 2>/dev/null | wc -c; done";
    let spec = ProcessSpec { user: Some("0".to_owned()), ..script(text) };
    ensure_eq!(sandbox.finish(spec).await?.success()?.text(), "0\n0\n");
    Ok(())
}

async fn broken_archives_are_refused(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let whole = archive::Archive::new().file("file", 0o644, &vec![b'x'; 100_000])?.bytes()?;
    let mut wrong_sum = whole.clone();
    wrong_sum[150] ^= 1;
    let cut = whole[..50_000].to_vec();
    let noise = crate::pattern::bytes(1, 0, 100_000);
    for (name, compression, bytes) in [
        ("noise", Compression::None, noise.clone()),
        ("cut", Compression::None, cut),
        ("wrong checksum", Compression::None, wrong_sum),
        ("noise as zstd", Compression::Zstd, noise),
        ("tar as zstd", Compression::Zstd, whole.clone()),
        ("zstd as tar", Compression::None, zstd::encode_all(whole.as_slice(), 1)?),
    ] {
        let import = sandbox.inside()?.import("/tmp/into", compression, archive::stream(bytes));
        let imported = patiently(name, import).await?;
        ensure!(matches!(imported, Err(Error::InvalidArgument { .. })), "{name}: {imported:?}");
    }
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn an_archive_bomb_ends_at_the_disk_limit(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.limits.disk_bytes = Some(16 << 20)).await?;
    let tar = archive::Archive::new().file("bomb", 0o644, &vec![b'0'; 512 << 20])?.bytes()?;
    let small = zstd::encode_all(tar.as_slice(), 1)?;
    drop(tar);
    ensure!(small.len() < 1 << 20, "no bomb: {} bytes", small.len());
    let import = sandbox.inside()?.import("/tmp/into", Compression::Zstd, archive::stream(small));
    ensure_err!(patiently("an import", import).await?, Error::LimitReached { .. });
    sandbox.inside()?.remove("/tmp/into", true).await?;
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}
