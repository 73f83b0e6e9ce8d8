//! Jails that were made ahead, and what becomes of them.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/jails.rs"]
mod jails;

use hostel_conformance::Harness;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Backend, Capability, SandboxSpec, TemplateId};
use jails::{Jails, create, end};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

fn cell(handle: &Value) -> String {
    handle["cell"].as_str().unwrap().to_owned()
}

/// Fields of a file below `/proc`, as the host sees it, but for what no two jails have alike.
fn facts(pid: &Value, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let alike = |line: &&str| {
        ["Cap", "NoNewPrivs", "Seccomp", "Sig", "Shd", "Groups", "Threads", "FDSize", "Max "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    text.lines().filter(alike).map(str::to_owned).collect()
}

/// The mounts of a report, without numbers of mounts and devices, and with the ids that are seen inside.
fn mounts(report: &Value) -> Vec<String> {
    let map = report["uid_map"][0].as_str().unwrap();
    let base = format!("id={}", map.split_whitespace().nth(1).unwrap());
    let lines = report["mounts"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    lines.map(|line| line.splitn(4, ' ').nth(3).unwrap().replace(&base, "id=0")).collect()
}

/// How many files a process has open, without sockets: how many connections its callers keep is up to them. Nothing
/// where only root may look: a guest shows itself to nobody else.
fn open_files(handle: &Value) -> Option<usize> {
    let open = match std::fs::read_dir(format!("/proc/{}/fd", handle["pid"])) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !rustix::process::getuid().is_root() => {
            return None;
        }
        open => open.unwrap().flatten(),
    };
    let files = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    Some(files.filter(|target| !target.to_string_lossy().starts_with("socket:")).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jail_made_ahead_is_like_any_other() {
    let mut seen = Vec::new();
    for ahead in [0, 2] {
        let jails = Jails::start(ahead).await;
        let harness = Harness::new(jails.clone());
        let waiting = if ahead > 0 { jails.waiting(ahead, &[]).await } else { Vec::new() };
        let (sandbox, handle) = create(&harness, |spec| {
            spec.limits.memory_bytes = Some(200 << 20);
            spec.limits.pids = Some(77);
            spec.env.insert("A".to_owned(), "b".to_owned());
        })
        .await;
        assert_eq!(waiting.contains(&cell(&handle)), ahead > 0);
        let mut report = sandbox.report().await.unwrap();
        assert_eq!(report["hostname"], sandbox.environment().id().as_str());
        let sizes = sandbox.sh("df -k /dev/shm | tail -1; ls -l /dev / /proc/self/fd | wc -l").await.unwrap();
        let mut kept = vec![Value::from(sizes), Value::from(mounts(&report))];
        for name in ["status", "signals", "limits", "cgroup", "interfaces", "environment", "descriptors"] {
            if name == "status" {
                report[name].as_object_mut().unwrap().remove("NSpid");
            }
            kept.push(report[name].take());
        }
        kept.extend(["status", "limits"].map(|file| Value::from(facts(&handle["pid"], file))));
        kept.push(Value::from(open_files(&handle)));
        seen.push(kept);
        end(harness, &jails).await;
    }
    for (one, other) in seen[0].iter().zip(&seen[1]) {
        assert_eq!(one, other);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_at_the_same_time_get_one_each() {
    let jails = Jails::start(3).await;
    let harness = Harness::new(jails.clone());
    let waiting = jails.waiting(3, &[]).await;
    let mut creations = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let harness = harness.clone();
        creations.spawn(async move {
            let (sandbox, handle) = create(&harness, |_| ()).await;
            let host = sandbox.sh("cat /proc/sys/kernel/hostname").await.unwrap();
            assert_eq!(host.trim(), sandbox.environment().id().as_str());
            cell(&handle)
        });
    }
    let cells: BTreeSet<String> = creations.join_all().await.into_iter().collect();
    assert_eq!(cells.len(), 8);
    assert!(waiting.iter().all(|cell| cells.contains(cell)), "{waiting:?} waited");
    end(harness, &jails).await;
}

/// A root with the probe and a file that says which one it is.
fn root(home: &Path, name: &str) -> std::path::PathBuf {
    let root = home.join(name);
    for directory in ["bin", "etc"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::write(root.join("bin/probe"), hostel_guest_binary::PROBE).unwrap();
    std::fs::write(root.join("etc/marker"), name).unwrap();
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_is_removed_is_not_served_to_anybody() {
    let jails = Jails::start(2).await;
    let harness = Harness::new(jails.clone());
    if !harness.has(Capability::TemplateImport) {
        return end(harness, &jails).await;
    }
    let id = TemplateId::parse("replaced").unwrap();
    let mut before = jails.waiting(2, &[]).await;
    for name in ["first", "second"] {
        let template = Template::new(id.clone(), TemplateSource::Imported);
        let source = root(jails.home.path(), name);
        jails.jail.import_template_directory(template, &source).await.unwrap();
        let of_it = |spec: &mut SandboxSpec| spec.template = Some(id.clone());
        // The second one waited, of a shape that was asked for by the first.
        for round in 0..2 {
            let (sandbox, handle) = create(&harness, of_it).await;
            assert_eq!(sandbox.get("/etc/marker").await.unwrap(), name.as_bytes());
            assert_eq!(before.contains(&cell(&handle)), round == 1, "{before:?} waited in round {round}");
            sandbox.environment().destroy().await.unwrap();
            before = jails.waiting(1, &before).await;
        }
        // Sandboxes are gone when their deletion is answered, but those that wait still stand on it.
        jails.jail.delete_template(&id).await.unwrap();
        before = jails.jail.waiting();
        let refused = harness.sandbox_from_result(&id).await;
        assert!(refused.is_err());
    }
    end(harness, &jails).await;
}
