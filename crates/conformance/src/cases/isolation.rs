//! What a sandbox sees of the world.

use super::lifecycle::host_processes_with;
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq};
use crate::harness::{Harness, Sandbox, script};
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{Capability, NetworkPolicy};
use std::sync::Arc;

cases! { "isolation":
    only_its_own_processes_show,
    another_sandbox_does_not_show,
    files_of_another_sandbox_do_not_show,
    it_has_a_name_of_its_own,
    paths_of_the_host_do_not_show,
    nothing_gets_onto_the_host,
    devices_of_another_sandbox_are_untouched,
    signals_do_not_leave [PrivateUserIds],
    user_ids_are_its_own [PrivateUserIds],
    what_is_required_and_missing_is_refused,
}

type H = Arc<Harness>;

async fn only_its_own_processes_show(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let report = sandbox.report().await?;
    let processes = report["processes"].as_array().cloned().unwrap_or_default();
    // The supervisor, this process, and room for a helper.
    ensure!((2..=4).contains(&processes.len()), "{} processes show: {processes:?}", processes.len());
    ensure!(processes.iter().any(|process| process["pid"] == 1), "PID 1 does not show: {processes:?}");
    ensure!(report["pid"].as_u64().is_some_and(|pid| pid < 1000), "its pid is {}", report["pid"]);
    Ok(())
}

async fn another_sandbox_does_not_show(h: H) -> Outcome {
    let (one, other) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let time = format!("1000.{:09}", uuid::Uuid::new_v4().as_u128() % 1_000_000_000);
    one.inside()?.start(script(&format!("exec sleep {time}"))).await?;
    if h.factory().is_local() {
        crate::harness::eventually(|| async {
            ensure!(!host_processes_with(&time).is_empty(), "it does not run");
            Ok(())
        })
        .await?;
    }
    let root = |text: &str| ProcessSpec { user: Some("0".to_owned()), ..script(text) };
    let look = "cat /proc/[0-9]*/cmdline | tr '\\000' '\\n'; ls /proc";
    let seen = other.finish(root(look)).await?.text();
    ensure!(!seen.contains(&time), "a process of another sandbox shows");
    // Everything that it may signal; on a host without PID namespaces that would be the host.
    let report = other.report().await?;
    let count = report["processes"].as_array().map_or(usize::MAX, Vec::len);
    ensure!(count <= 4, "{count} processes show");
    other.finish(root("kill -9 -1")).await?;
    let running = one.inside()?.processes().await?.iter().filter(|process| process.exit.is_none()).count();
    ensure_eq!(running, 1, "processes of the other sandbox after a kill of everything");
    ensure_eq!(other.sh("echo alive").await?, "alive\n");
    Ok(())
}

async fn files_of_another_sandbox_do_not_show(h: H) -> Outcome {
    let (one, other) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let places = ["/tmp", "/var/tmp", "/dev/shm", "/root", "/home", "/run", "/srv", "/opt", "/mnt", "/var"];
    let name = format!("mark-{}", uuid::Uuid::new_v4());
    let write = |place: &&str| format!("mkdir -p {place}; echo x > {place}/{name};");
    let text: String = places.iter().map(write).collect();
    let spec = ProcessSpec {
        user: Some("0".to_owned()),
        ..script(&format!("({text}) 2>/dev/null; ls /tmp/{name}"))
    };
    one.finish(spec).await?.success()?;
    for place in places {
        ensure!(!other.exists(&format!("{place}/{name}")).await?, "{place}/{name} shows in another sandbox");
        let on_host = std::path::Path::new(place).join(&name);
        ensure!(!h.factory().is_local() || !on_host.exists(), "{} is on the host", on_host.display());
    }
    Ok(())
}

async fn it_has_a_name_of_its_own(h: H) -> Outcome {
    let (one, other) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let name = |report: serde_json::Value| report["hostname"].as_str().unwrap_or_default().to_owned();
    let (first, second) = (name(one.report().await?), name(other.report().await?));
    ensure!(!first.is_empty() && !second.is_empty(), "no name");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    ensure!(first != host.trim() && second != host.trim(), "it has the host's name {host}");
    ensure!(first != second, "two sandboxes are both {first}");
    Ok(())
}

async fn paths_of_the_host_do_not_show(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let report = sandbox.report().await?;
    for path in h.factory().host_paths() {
        for part in ["mounts", "cgroup", "environment", "cwd"] {
            ensure!(!report[part].to_string().contains(&path), "{path} shows in {part}: {}", report[part]);
        }
    }
    ensure!(
        report["cgroup"].as_array().is_some_and(|lines| lines
            .iter()
            .all(|line| { line.as_str().is_some_and(|line| line.ends_with(":/")) })),
        "its cgroup is {}",
        report["cgroup"]
    );
    Ok(())
}

async fn nothing_gets_onto_the_host(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let name = format!("hostel-evil-{}", uuid::Uuid::new_v4());
    let places = [
        "/",
        "/tmp",
        "/etc",
        "/usr",
        "/usr/bin",
        "/usr/local",
        "/var",
        "/dev",
        "/root",
        "/boot",
        "/lib",
        "/sys",
    ];
    let text: String = places.iter().map(|place| format!("echo x > {place}/{name};")).collect();
    let spec = ProcessSpec { user: Some("0".to_owned()), ..script(&format!("({text}) 2>/dev/null")) };
    sandbox.finish(spec).await?;
    for place in places {
        let path = std::path::Path::new(place).join(&name);
        ensure!(!h.factory().is_local() || !path.exists(), "{} is on the host", path.display());
    }
    Ok(())
}

/// Only tries what would do no lasting harm to a host whose devices these turned out to be.
async fn devices_of_another_sandbox_are_untouched(h: H) -> Outcome {
    let (one, other) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let name = format!("/dev/hostel-evil-{}", uuid::Uuid::new_v4());
    let text = format!("(mkdir {name}; touch -d @1000000000 /dev/full; mknod {name}-n c 1 5) 2>&1; true");
    one.finish(ProcessSpec { user: Some("0".to_owned()), ..script(&text) }).await?;
    let look = format!(
        "ls -d {name}* 2>/dev/null; stat -c %Y /dev/full; wc -c < /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c"
    );
    let seen = other.sh(&look).await?;
    ensure!(
        !seen.contains("evil") && !seen.starts_with("1000000000"),
        "another sandbox's devices changed: {seen}"
    );
    ensure!(seen.ends_with("\n0\n4\n4\n"), "devices do not work: {seen:?}");
    ensure!(!h.factory().is_local() || !std::path::Path::new(&name).exists(), "{name} is on the host");
    Ok(())
}

async fn signals_do_not_leave(h: H) -> Outcome {
    let (sandbox, victim) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let time = format!("1000.{:09}", uuid::Uuid::new_v4().as_u128() % 1_000_000_000);
    let process = victim.inside()?.start(script(&format!("exec sleep {time}"))).await?;
    let numbers = |argument: &str| {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let words = entries.filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let own = line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes());
            own.then(|| entry.file_name().to_string_lossy().into_owned())
        });
        words.collect::<Vec<_>>()
    };
    // Its number as the host knows it, and as its own sandbox does. No other process is aimed at.
    let mut targets = vec![process.pid.to_string()];
    if h.factory().is_local() {
        targets.extend(
            crate::harness::eventually(|| async {
                let found = numbers(&time);
                ensure!(!found.is_empty(), "it does not run");
                Ok(found)
            })
            .await?,
        );
    }
    let text = format!("for pid in {}; do kill -9 $pid 2>/dev/null; done; echo tried", targets.join(" "));
    for user in ["0", "1000"] {
        let spec = ProcessSpec { user: Some(user.to_owned()), ..script(&text) };
        // It may hit itself where its own number is among them.
        sandbox.finish(spec).await?;
    }
    ensure!(
        victim.inside()?.process(&process.id).await?.exit.is_none(),
        "a process of another sandbox was killed"
    );
    Ok(())
}

/// The range of the host's user ids that a sandbox has: first and count.
async fn id_range(sandbox: &Sandbox) -> Outcome<Vec<(u64, u64)>> {
    let report = sandbox.report().await?;
    let lines = report["uid_map"].as_array().cloned().unwrap_or_default();
    let ranges = lines.iter().filter_map(|line| {
        let fields: Vec<u64> =
            line.as_str()?.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        Some((*fields.get(1)?, *fields.get(2)?))
    });
    Ok(ranges.collect())
}

async fn user_ids_are_its_own(h: H) -> Outcome {
    let (one, other) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let (first, second) = (id_range(&one).await?, id_range(&other).await?);
    ensure!(!first.is_empty() && !second.is_empty(), "no map of user ids");
    for (begin, count) in first.iter().chain(&second) {
        ensure!(*begin >= 65_536, "{count} ids from {begin} belong to the host");
    }
    for (begin, count) in &first {
        for (other_begin, other_count) in &second {
            let apart = begin + count <= *other_begin || other_begin + other_count <= *begin;
            ensure!(apart, "{begin}+{count} and {other_begin}+{other_count} overlap");
        }
    }
    // The whole range that useradd and packages use is there.
    for user in ["0", "1000", "65534"] {
        let spec = ProcessSpec { user: Some(user.to_owned()), ..script("id -u") };
        ensure_eq!(one.finish(spec).await?.success()?.text().trim(), user);
    }
    Ok(())
}

async fn what_is_required_and_missing_is_refused(h: H) -> Outcome {
    let backend = h.backend();
    let missing = Capability::ALL.iter().filter(|capability| !backend.capabilities().has(**capability));
    for capability in missing {
        let told = backend.capabilities().require(*capability);
        ensure!(
            matches!(&told, Err(hostel_sandbox::Error::CapabilityMissing { capability: named, detail })
                if named == capability && !detail.is_empty()),
            "{capability} is missing, and it says {told:?}"
        );
    }
    for (policy, capability) in [
        (NetworkPolicy::open(), Capability::NetworkOpen),
        (NetworkPolicy::allowlist(Vec::new()), Capability::NetworkAllowlist),
        (NetworkPolicy::none(), Capability::NetworkNone),
    ] {
        if !h.has(capability) {
            let mut spec = h.spec();
            spec.network = policy.clone();
            let id = hostel_sandbox::SandboxId::generate();
            h.watch_id(&id);
            // Never silently weaker, whoever asks.
            ensure!(backend.create(&id, &spec).await.is_err(), "{policy:?} was given without {capability}");
        }
    }
    Ok(())
}
