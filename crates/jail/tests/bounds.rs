//! What is accepted works, up to its bounds.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/jails.rs"]
mod jails;

use hostel_conformance::{Harness, patience};
use hostel_sandbox::process::ExitReason;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{
    Backend, BackendEvent, Capability, Error, ResourceLimits, SandboxId, SandboxSpec, TemplateId,
};
use jails::{Jails, create, end};
use serde_json::json;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

fn id(name: &str) -> TemplateId {
    TemplateId::parse(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jail_stands_on_as_many_layers_as_a_template_may_have() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    if !harness.has(Capability::TemplateImport) {
        return end(harness, &jails).await;
    }
    let name = |index: usize| format!("a-template-with-a-name-that-is-not-short-{index}");
    let mut count = 0;
    let refused = loop {
        let root = jails.home.path().join(format!("root-{count}"));
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join(format!("file-{count}")), "x").unwrap();
        let source = match count {
            0 => TemplateSource::Imported,
            _ => TemplateSource::Layer { base: id(&name(count - 1)) },
        };
        let template = Template::new(id(&name(count)), source);
        match jails.jail.import_template_directory(template, &root).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::LimitReached { .. }), "{refused}");
    assert_eq!(count, 60);
    let (sandbox, _) = create(&harness, |spec| spec.template = Some(id(&name(count - 1)))).await;
    for file in 0..count {
        assert_eq!(sandbox.get(&format!("/file-{file}")).await.unwrap(), b"x");
    }
    end(harness, &jails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_environment_reaches_the_processes() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    // The kernel takes 128 KiB a variable.
    let value = "x".repeat((64 << 10) - "V0=".len() - 1);
    let fill = |spec: &mut SandboxSpec| {
        spec.env = (0..4).map(|index| (format!("V{index}"), value.clone())).collect();
        spec.validate().unwrap();
    };
    let (sandbox, _) = create(&harness, fill).await;
    let seen = sandbox.sh("echo ${#V0} ${#V1} ${#V2} ${#V3}").await.unwrap();
    let length = value.len();
    assert_eq!(seen, format!("{length} {length} {length} {length}\n"));
    end(harness, &jails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_below_what_is_in_use_is_refused_and_nothing_dies() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    if !harness.has(Capability::MemoryLimit) {
        return end(harness, &jails).await;
    }
    let sizes = |spec: &mut SandboxSpec| {
        spec.limits.memory_bytes = Some(256 << 20);
        // What of it is in memory leaves /dev/shm enough to fill.
        spec.limits.disk_bytes = Some(32 << 20);
    };
    let (sandbox, _) = create(&harness, sizes).await;
    let fill = "head -c 67108864 /dev/zero > /dev/shm/fill || exit; sleep 1000 > /dev/null 2>&1 &";
    sandbox.sh(fill).await.unwrap();
    let limit = |bytes| ResourceLimits { memory_bytes: Some(bytes), ..ResourceLimits::default() };
    let refused = sandbox.environment().update_limits(&limit(32 << 20)).await.unwrap_err();
    assert!(matches!(refused, Error::WrongState { .. }), "{refused}");
    let seen = sandbox.sh("wc -c < /dev/shm/fill; cat /proc/[0-9]*/comm | grep -c sleep").await.unwrap();
    assert_eq!(seen, "67108864\n1\n");
    sandbox.sh("rm /dev/shm/fill").await.unwrap();
    sandbox.environment().update_limits(&limit(32 << 20)).await.unwrap();
    end(harness, &jails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sockets_keep_is_bounded_by_the_memory() {
    const MEMORY: u64 = 64 << 20;
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    if !harness.has(Capability::MemoryLimit) {
        return end(harness, &jails).await;
    }
    let mut spec = harness.spec();
    spec.limits.memory_bytes = Some(MEMORY);
    let created = harness.backend().create(&SandboxId::generate(), &spec).await.unwrap();
    let told = created.weaknesses.iter().any(|weakness| weakness.detail.contains("sockets"));
    let handle: serde_json::Value = serde_json::from_slice(&created.handle).unwrap();
    let sandbox = harness.keep(created);
    let [limit, _] = memory_files(&handle["pid"].to_string());
    if told {
        // Only where the kernel has no such bound: version 1, built without it.
        assert!(limit.ends_with("memory.limit_in_bytes"), "{limit:?}");
        assert!(!limit.with_file_name("memory.kmem.tcp.limit_in_bytes").exists(), "{limit:?}");
        drop(sandbox);
        return end(harness, &jails).await;
    }
    let (is_v2, mut deaths) = (limit.ends_with("memory.max"), jails.jail.take_events().unwrap());
    let finished = match sandbox.run_probe(&["eat-sockets", &(4 * MEMORY).to_string()]).await {
        Ok(finished) => finished,
        // The kernel may choose the guest where an ordinary user's daemon cannot keep it from that.
        Err(failure) => {
            assert!(is_v2 && !harness.has(Capability::PrivateUserIds), "{failure:?}");
            assert_eq!(next_death(&mut deaths).await, (sandbox.id().clone(), "out_of_memory".to_owned()));
            drop(sandbox);
            return end(harness, &jails).await;
        }
    };
    // On version 2 sockets keep what the memory has room for, and who goes on is ended as for any other memory.
    if !(is_v2 && finished.exit.reason == ExitReason::OutOfMemory) {
        let text = finished.success().unwrap().text();
        let kept: u64 = text.strip_prefix("refused ").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(kept < MEMORY, "{text}");
    }
    drop(sandbox);
    end(harness, &jails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_no_process_holds_leaves_enough_for_processes() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    if !harness.has(Capability::MemoryLimit) {
        return end(harness, &jails).await;
    }
    let in_memory = |spec: &mut SandboxSpec| {
        spec.limits.memory_bytes = Some(64 << 20);
        spec.limits.disk_bytes = Some(60 << 20);
        spec.limits.disk_inodes = Some(20_000);
    };
    let (sandbox, handle) = create(&harness, in_memory).await;
    assert_eq!(
        (&handle["limits"]["disk_bytes"], &handle["limits"]["disk_inodes"]),
        (&json!(32 << 20), &json!(8192))
    );
    let much = "1073741824";
    for eater in [
        &["eat-disk", "/tmp/fill", much][..],
        &["eat-inodes", "/tmp", "1000000"],
        &["eat-disk", "/dev/shm/fill", much],
        &["eat-inodes", "/dev/shm", "1000000"],
        &["eat-shm", much],
    ] {
        let text = sandbox.run_probe(eater).await.unwrap().success().unwrap().text();
        assert!(text.starts_with("refused "), "{eater:?}: {text}");
    }
    sandbox.sh("for i in 1 2 3; do cat /proc/self/status; done").await.unwrap();
    assert_eq!(sandbox.environment().stats().await.unwrap().oom_kills, Some(0));
    drop(sandbox);
    end(harness, &jails).await;
}

/// Who dies next, and why.
async fn next_death(deaths: &mut mpsc::Receiver<BackendEvent>) -> (SandboxId, String) {
    let BackendEvent::Died { sandbox, reason } =
        tokio::time::timeout(patience(), deaths.recv()).await.unwrap().unwrap();
    (sandbox, reason)
}

/// Where the limit of a process's memory is, and what is in use of it. They are there where limits are held.
fn memory_files(pid: &str) -> [PathBuf; 2] {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group =
        |of: &str| groups.lines().find_map(|line| line.split_once(of).map(|(_, path)| path.to_owned()));
    let (base, group, files) = match (group(":memory:/"), group("0::/")) {
        (Some(group), _) => {
            ("/sys/fs/cgroup/memory", group, ["memory.limit_in_bytes", "memory.usage_in_bytes"])
        }
        (None, group) => ("/sys/fs/cgroup", group.unwrap(), ["memory.max", "memory.current"]),
    };
    let files = files.map(|file| Path::new(base).join(&group).join(file));
    assert!(files.iter().all(|file| file.exists()), "{files:?} are not there: {groups}");
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_ended_for_memory_says_so() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    if !harness.has(Capability::MemoryLimit) {
        return end(harness, &jails).await;
    }
    let mut deaths = jails.jail.take_events().unwrap();
    for (reason, runs_out) in [("guest_died", false), ("out_of_memory", true)] {
        let (sandbox, handle) = create(&harness, |_| ()).await;
        let pid = handle["pid"].to_string();
        let [limit, used] = memory_files(&pid);
        if runs_out {
            // As if somebody had found memory that nobody holds and nobody counts.
            sandbox.sh("head -c 16777216 /dev/zero > /dev/shm/fill").await.unwrap();
            let kept = std::fs::read_to_string(used).unwrap();
            std::fs::write(&limit, kept.trim()).unwrap();
            for _ in 0..100 {
                let _ = sandbox.sh("true").await;
                if !Path::new(&format!("/proc/{pid}")).exists() {
                    break;
                }
            }
        } else {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        assert_eq!(next_death(&mut deaths).await, (sandbox.id().clone(), reason.to_owned()));
        drop(sandbox);
    }
    end(harness, &jails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_not_finished_leaves_nothing_behind() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    if !harness.has(Capability::Snapshot) {
        return end(harness, &jails).await;
    }
    let (sandbox, _) = create(&harness, |_| ()).await;
    let template = |name: &str| Template::new(id(name), TemplateSource::Imported);
    for name in ["kept", "lost"] {
        sandbox.sh(&format!("echo {name} > /tmp/which")).await.unwrap();
        sandbox.environment().snapshot(template(name)).await.unwrap();
    }
    drop(sandbox);
    harness.clean_up().await.unwrap();
    jails.jail.shutdown().await;
    drop(harness);
    // As one that was killed before it could write the record.
    let jails = std::sync::Arc::into_inner(jails).unwrap();
    std::fs::remove_file(jails.home.path().join("state/templates/lost/template.json")).unwrap();
    let Jails { jail, home } = jails;
    drop(jail);
    let jails = Jails::start_in(home, 0).await;
    let harness = Harness::new(jails.clone());
    let (sandbox, _) = create(&harness, |spec| spec.template = Some(id("kept"))).await;
    assert_eq!(sandbox.get("/tmp/which").await.unwrap(), b"kept\n");
    sandbox.sh("echo again > /tmp/which").await.unwrap();
    sandbox.environment().snapshot(template("lost")).await.unwrap();
    let (again, _) = create(&harness, |spec| spec.template = Some(id("lost"))).await;
    assert_eq!(again.get("/tmp/which").await.unwrap(), b"again\n");
    drop((sandbox, again));
    end(harness, &jails).await;
}
