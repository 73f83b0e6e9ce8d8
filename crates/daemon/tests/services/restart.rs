//! What a restart keeps, and how a shutdown ends.

use crate::daemon::{Node, words};
use hostel_proto::v1::{self, CreateSandboxRequest, SandboxState};
use hostel_sandbox::SandboxId;
use hosteld::{Backends, build_with};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test]
async fn sandboxes_are_taken_back_and_lost_ones_are_told() {
    let node = Node::new();
    let daemon = node.start().await;
    let kept = daemon.create(CreateSandboxRequest::default()).await.unwrap();
    let lost = daemon.create(CreateSandboxRequest::default()).await.unwrap();
    let paused = daemon.create(CreateSandboxRequest::default()).await.unwrap();
    let pause = v1::PauseSandboxRequest { sandbox_id: paused.id.clone() };
    daemon.sandboxes().pause_sandbox(pause).await.unwrap();
    let short = prost_types::Duration { seconds: 0, nanos: 200_000_000 };
    let timed = CreateSandboxRequest {
        expiration: Some(v1::create_sandbox_request::Expiration::Lifetime(short)),
        ..Default::default()
    };
    let timed = daemon.create(timed).await.unwrap();
    let process = daemon.start_process(&kept.id, &["sleep"], "").await.unwrap();
    daemon.kill().await;
    node.host.sandboxes.lock().unwrap().retain(|id, _| id.as_str() != lost.id);
    tokio::time::sleep(Duration::from_millis(250)).await;

    let daemon = node.start().await;
    assert_eq!(daemon.get(&kept.id).await.unwrap(), kept);
    assert_eq!(daemon.get(&paused.id).await.unwrap().state(), SandboxState::Paused);
    let lost = daemon.get(&lost.id).await.unwrap();
    assert_eq!(lost.state(), SandboxState::Failed);
    assert_eq!(lost.last_transition.unwrap().reason, "lost_on_restart");
    let list = v1::ListProcessesRequest { sandbox_id: kept.id, ..Default::default() };
    let processes = daemon.processes().list_processes(list).await.unwrap().into_inner().processes;
    assert_eq!(processes[0].id, process.id);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let timed = daemon.get(&timed.id).await.unwrap();
    assert_eq!(
        (timed.state(), timed.last_transition.unwrap().reason.as_str()),
        (SandboxState::Stopped, "deadline")
    );
}

/// Freezes or thaws behind the daemon's back, as it looks when it died between the deed and the word.
fn set_frozen(node: &Node, id: &str, frozen: bool) {
    let id = SandboxId::parse(id).unwrap();
    node.host.sandboxes.lock().unwrap()[&id].paused.store(frozen, Ordering::SeqCst);
}

fn is_frozen(node: &Node, id: &str) -> bool {
    let id = SandboxId::parse(id).unwrap();
    node.host.sandboxes.lock().unwrap()[&id].paused.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_sandbox_is_frozen_or_not_as_its_record_says() {
    let node = Node::new();
    let daemon = node.start().await;
    let ready = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let paused = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let pause = v1::PauseSandboxRequest { sandbox_id: paused.clone() };
    daemon.sandboxes().pause_sandbox(pause).await.unwrap();
    daemon.kill().await;
    set_frozen(&node, &ready, true);
    set_frozen(&node, &paused, false);

    let daemon = node.start().await;
    assert!(!is_frozen(&node, &ready) && is_frozen(&node, &paused));
    assert_eq!(daemon.get(&ready).await.unwrap().state(), SandboxState::Ready);
    assert_eq!(daemon.get(&paused).await.unwrap().state(), SandboxState::Paused);
    daemon.start_process(&ready, &["sleep"], "").await.unwrap();

    // Whoever resumes wants it to go on, whatever the record says.
    set_frozen(&node, &ready, true);
    let resume = v1::ResumeSandboxRequest { sandbox_id: ready.clone() };
    daemon.sandboxes().resume_sandbox(resume).await.unwrap();
    assert!(!is_frozen(&node, &ready));
}

#[tokio::test]
async fn changed_limits_outlive_the_daemon_and_those_that_failed_are_put_back() {
    let node = Node::new();
    let daemon = node.start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let pids = |pids| v1::UpdateSandboxRequest {
        sandbox_id: id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["limits".to_owned()] }),
        limits: Some(v1::ResourceLimits { pids: Some(pids), ..Default::default() }),
        ..Default::default()
    };
    let held = || {
        let sandboxes = node.host.sandboxes.lock().unwrap();
        sandboxes[&SandboxId::parse(id.as_str()).unwrap()].limits.lock().unwrap().pids
    };
    daemon.sandboxes().update_sandbox(pids(77)).await.unwrap();
    node.host.unbindable.store(true, Ordering::SeqCst);
    daemon.sandboxes().update_sandbox(pids(99)).await.unwrap_err();
    node.host.unbindable.store(false, Ordering::SeqCst);
    assert_eq!(held(), Some(77));
    assert_eq!(daemon.get(&id).await.unwrap().limits.unwrap().pids, Some(77));
    daemon.kill().await;
    // The backend takes it back by the newest handle alone.
    let daemon = node.start().await;
    assert_eq!(daemon.get(&id).await.unwrap().state(), SandboxState::Ready);
}

#[tokio::test]
async fn three_hundred_sandboxes_are_recovered_within_a_second() {
    let node = Node::new();
    let daemon = node.start().await;
    let made =
        futures::future::join_all((0..300).map(|_| daemon.create(CreateSandboxRequest::default()))).await;
    assert!(made.iter().all(Result::is_ok));
    daemon.kill().await;
    let begin = Instant::now();
    let daemon = node.start().await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let all = v1::ListSandboxesRequest { page_size: 1000, ..Default::default() };
    assert_eq!(daemon.sandboxes().list_sandboxes(all).await.unwrap().into_inner().sandboxes.len(), 300);
}

#[tokio::test]
async fn a_second_daemon_is_refused() {
    let node = Node::new();
    let daemon = node.start().await;
    let refused = build_with(node.config(), Backends::of(vec![])).await.err().unwrap().to_string();
    assert!(refused.contains("another daemon"), "{refused}");
    daemon.stop().await.unwrap();
    node.start().await.stop().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_open_streams_and_keeps_sandboxes() {
    let node = Node::new();
    let daemon = node.start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let mut watch =
        daemon.sandboxes().watch_sandboxes(v1::WatchSandboxesRequest::default()).await.unwrap().into_inner();
    let start = v1::StartProcessRequest {
        sandbox_id: id.clone(),
        spec: Some(v1::ProcessSpec { command: words(&["sleep"]), ..Default::default() }),
        ..Default::default()
    };
    let open = v1::ExecOpen { start: Some(start), ..Default::default() };
    let first = v1::ExecProcessRequest { frame: Some(v1::exec_process_request::Frame::Open(open)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([first]), futures::stream::pending());
    let mut exec = daemon.processes().exec_process(requests).await.unwrap().into_inner();
    exec.message().await.unwrap();
    let files = v1::WatchFilesRequest { sandbox_id: id, path: "/".into(), recursive: true };
    let mut files = daemon.files().watch_files(files).await.unwrap().into_inner();

    let begin = Instant::now();
    let (stopped, watched, executed, changed) = tokio::join!(
        daemon.stop(),
        async {
            loop {
                if let Err(status) = watch.message().await {
                    break status;
                }
            }
        },
        async {
            loop {
                if let Err(status) = exec.message().await {
                    break status;
                }
            }
        },
        async {
            loop {
                if let Err(status) = files.message().await {
                    break status;
                }
            }
        },
    );
    stopped.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    for status in [watched, executed, changed] {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(crate::daemon::reason(&status), "DRAINING");
    }
    assert_eq!(node.host.live(), 1);
}
