//! What is left of jails, and who has their ids.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/jails.rs"]
mod jails;

use bytes::Bytes;
use hostel_conformance::Harness;
use hostel_sandbox::{Backend, SandboxId};
use jails::{Jails, create, end};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Who has a range of ids on this host.
fn owner(range: u64) -> Option<String> {
    std::fs::read_to_string(format!("/run/hostel-ids/{range}")).ok()
}

fn name(home: &Path) -> Option<String> {
    Some(std::fs::read_to_string(home.join("state/instance")).unwrap())
}

fn spill(home: &Path, cell: &str) -> PathBuf {
    home.join("state/spill").join(cell)
}

/// Ends a daemon's part; what it made stays.
async fn stop(harness: Arc<Harness>, jails: Arc<Jails>) -> TempDir {
    jails.jail.shutdown().await;
    drop(harness);
    let Jails { jail, home } = Arc::into_inner(jails).unwrap();
    drop(jail);
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_nobody_elses_until_everything_of_a_jail_is_gone() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    let (sandbox, handle) = create(&harness, |_| ()).await;
    let (cell, Some(range)) = (handle["cell"].as_str().unwrap().to_owned(), handle["range"].as_u64()) else {
        drop(sandbox);
        return end(harness, &jails).await;
    };
    // Nobody can remove what something is mounted on.
    let busy = spill(jails.home.path(), &cell).join("busy");
    std::fs::create_dir(&busy).unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&busy).status().unwrap().success());
    sandbox.environment().destroy().await.unwrap();
    drop(sandbox);
    let home = stop(harness, jails).await;
    let unmounted = Command::new("umount").arg(&busy).status().unwrap().success();
    assert_eq!(owner(range), name(home.path()));
    assert!(unmounted);

    let jails = Jails::start_in(home, 0).await;
    assert_eq!(jails.jail.remove_orphans().await.unwrap(), 1);
    let harness = Harness::new(jails.clone());
    end(harness, &jails).await;
    assert_ne!(owner(range), name(jails.home.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_jail_does_not_cost_another_one_its_ids() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    let (sandbox, handle) = create(&harness, |_| ()).await;
    if let Some(range) = handle["range"].as_u64() {
        std::fs::create_dir(spill(jails.home.path(), &format!("c{range}-dead"))).unwrap();
        assert_eq!(jails.jail.remove_orphans().await.unwrap(), 1);
        assert_eq!(owner(range), name(jails.home.path()));
    }
    drop(sandbox);
    end(harness, &jails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_that_was_given_up_can_be_tried_again() {
    let jails = Jails::start(0).await;
    let harness = Harness::new(jails.clone());
    let id = SandboxId::generate();
    let created = jails.jail.create(&id, &harness.spec()).await.unwrap();
    let handle: Bytes = created.handle.clone();
    drop(created);
    let home = stop(harness, jails).await;
    let jails = Jails::start_in(home, 0).await;
    let value: serde_json::Value = serde_json::from_slice(&handle).unwrap();
    let first = Pid::from_raw(i32::try_from(value["pid"].as_u64().unwrap()).unwrap()).unwrap();
    kill_process(first, Signal::STOP).unwrap();
    let adoption = tokio::time::timeout(Duration::from_millis(100), jails.jail.adopt(&id, &handle));
    let given_up = adoption.await.is_err();
    kill_process(first, Signal::CONT).unwrap();
    assert!(given_up);
    let environment = jails.jail.adopt(&id, &handle).await.unwrap();
    assert_eq!(jails.jail.remove_orphans().await.unwrap(), 0);
    environment.destroy().await.unwrap();
    drop(environment);
    end(Harness::new(jails.clone()), &jails).await;
}
