//! Making, listing, changing and ending sandboxes, and what is refused.

use crate::daemon::{Node, reason};
use hostel_proto::v1::{self, CreateSandboxRequest, SandboxState};
use hostel_sandbox::{BackendEvent, SandboxId};
use hosteld::Config;
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt as _;

fn labelled(key: &str, value: &str) -> CreateSandboxRequest {
    let labels = [(key.to_owned(), value.to_owned())].into();
    CreateSandboxRequest { labels, ..Default::default() }
}

#[tokio::test]
async fn a_sandbox_lives_from_creation_to_deletion() {
    let node = Node::new();
    let daemon = node.start().await;
    let created = daemon.sandboxes().create_sandbox(labelled("tier", "web")).await.unwrap().into_inner();
    assert_eq!(created.stages[0].name, "clone");
    let sandbox = created.sandbox.unwrap();
    assert_eq!((sandbox.state(), sandbox.template.as_str()), (SandboxState::Ready, "host"));
    assert_eq!(sandbox.last_transition.clone().unwrap().actor, format!("uid:{}", nix::unistd::getuid()));
    assert_eq!(daemon.get(&sandbox.id).await.unwrap(), sandbox);
    // A default limit that the backend cannot hold is left out and told.
    let limits = sandbox.limits.unwrap();
    assert_eq!((limits.disk_bytes, limits.pids), (None, Some(256)));
    assert!(sandbox.weaknesses.iter().any(|weakness| weakness.capability == "disk_limit"));
    daemon.delete(&sandbox.id).await.unwrap();
    let gone = daemon.get(&sandbox.id).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(gone.get_error_details().resource_info().unwrap().resource_name, sandbox.id);
    assert_eq!(daemon.delete(&sandbox.id).await.unwrap_err().code(), Code::NotFound);
    let request =
        v1::DeleteSandboxRequest { sandbox_id: sandbox.id, allow_missing: true, ..Default::default() };
    daemon.sandboxes().delete_sandbox(request).await.unwrap();
    assert_eq!(node.host.live(), 0);
    daemon.stop().await.unwrap();
    assert!(!node.socket().exists());
}

#[tokio::test]
async fn what_is_asked_for_and_missing_is_refused_with_its_name() {
    let daemon = Node::new().start().await;
    let disk = v1::ResourceLimits { disk_bytes: Some(1 << 30), ..Default::default() };
    let open = v1::NetworkPolicy { mode: v1::NetworkMode::Open.into(), ..Default::default() };
    for (request, capability) in [
        (CreateSandboxRequest { limits: Some(disk), ..Default::default() }, "disk_limit"),
        (CreateSandboxRequest { network_policy: Some(open), ..Default::default() }, "network_open"),
        (
            CreateSandboxRequest { required_capabilities: vec!["disk_limit".into()], ..Default::default() },
            "disk_limit",
        ),
    ] {
        let error = daemon.create(request).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::Unimplemented, "CAPABILITY_MISSING"));
        let details = error.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["capability"], capability);
    }
}

#[tokio::test]
async fn bad_requests_are_refused_and_name_the_field() {
    let daemon = Node::new().start().await;
    let tiny = v1::ResourceLimits { memory_bytes: Some(1), ..Default::default() };
    let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
    for (request, field) in [
        (CreateSandboxRequest { sandbox_id: "../x".into(), ..Default::default() }, "sandbox_id"),
        (CreateSandboxRequest { limits: Some(tiny), ..Default::default() }, "limits.memory_bytes"),
        (CreateSandboxRequest { request_id: "ü".into(), ..Default::default() }, "request_id"),
        (
            CreateSandboxRequest { working_directory: "a\0b".into(), ..Default::default() },
            "working_directory",
        ),
        (
            CreateSandboxRequest { required_capabilities: vec!["x".into()], ..Default::default() },
            "required_capabilities",
        ),
        (
            CreateSandboxRequest {
                expiration: Some(v1::create_sandbox_request::Expiration::ExpireTime(past)),
                ..Default::default()
            },
            "expire_time",
        ),
    ] {
        let error = daemon.create(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let details = error.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    for request in [
        CreateSandboxRequest { template: "none".into(), ..Default::default() },
        CreateSandboxRequest { backend: "none".into(), ..Default::default() },
        CreateSandboxRequest { pool: "none".into(), ..Default::default() },
    ] {
        assert_eq!(daemon.create(request).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn pages_and_selectors_find_every_sandbox_once() {
    let daemon = Node::new().start().await;
    let mut ids = Vec::new();
    for index in 0..7 {
        let tier = if index % 2 == 0 { "web" } else { "db" };
        ids.push(daemon.create(labelled("tier", tier)).await.unwrap().id);
    }
    let mut request = v1::ListSandboxesRequest { page_size: 2, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = daemon.sandboxes().list_sandboxes(request.clone()).await.unwrap().into_inner();
        seen.extend(page.sandboxes.into_iter().map(|sandbox| sandbox.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    ids.reverse();
    assert_eq!(seen, ids, "newest first");
    // The token belongs to its listing.
    request.label_selector = "tier=web".into();
    let error = daemon.sandboxes().list_sandboxes(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    request.page_token.clear();
    request.page_size = 100;
    let page = daemon.sandboxes().list_sandboxes(request).await.unwrap().into_inner();
    assert_eq!(page.sandboxes.len(), 4);
}

#[tokio::test]
async fn a_page_has_few_sandboxes_where_they_are_large() {
    let daemon = Node::new().start().await;
    let env = BTreeMap::from([("MUCH".to_owned(), "x".repeat(200 << 10))]);
    let mut ids = Vec::new();
    for _ in 0..12 {
        let large = CreateSandboxRequest { env: env.clone(), ..Default::default() };
        ids.push(daemon.create(large).await.unwrap().id);
    }
    ids.reverse();
    let mut request = v1::ListSandboxesRequest::default();
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = daemon.sandboxes().list_sandboxes(request.clone()).await.unwrap().into_inner();
        assert!(page.encoded_len() < (1 << 20) + (64 << 10), "{} bytes", page.encoded_len());
        seen.extend(page.sandboxes.into_iter().map(|sandbox| sandbox.id));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!((seen, pages), (ids, 3));
}

#[tokio::test]
async fn pausing_stops_calls_until_it_is_resumed() {
    let daemon = Node::new().start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let pause = v1::PauseSandboxRequest { sandbox_id: id.clone() };
    for _ in 0..2 {
        let paused = daemon.sandboxes().pause_sandbox(pause.clone()).await.unwrap().into_inner();
        assert_eq!(paused.sandbox.unwrap().state(), SandboxState::Paused);
    }
    let error = daemon.start_process(&id, &["echo"], "").await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "SANDBOX_STATE"));
    let resume = v1::ResumeSandboxRequest { sandbox_id: id.clone() };
    daemon.sandboxes().resume_sandbox(resume).await.unwrap();
    daemon.start_process(&id, &["echo"], "").await.unwrap();
}

#[tokio::test]
async fn an_update_changes_what_the_mask_names() {
    let daemon = Node::new().start().await;
    let id = daemon.create(labelled("a", "1")).await.unwrap().id;
    let update = |paths: &[&str]| v1::UpdateSandboxRequest {
        sandbox_id: id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
        labels: [("b".to_owned(), "2".to_owned())].into(),
        expiration: Some(v1::update_sandbox_request::Expiration::Lifetime(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        })),
        ..Default::default()
    };
    let changed = daemon.sandboxes().update_sandbox(update(&["lifetime"])).await.unwrap().into_inner();
    let sandbox = changed.sandbox.unwrap();
    assert!(sandbox.expire_time.is_some() && sandbox.labels.contains_key("a"));
    let changed = daemon.sandboxes().update_sandbox(update(&["labels"])).await.unwrap().into_inner();
    assert!(changed.sandbox.unwrap().labels.contains_key("b"));
    for paths in [&[][..], &["backend"]] {
        let error = daemon.sandboxes().update_sandbox(update(paths)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn time_idleness_and_death_end_a_sandbox_and_the_record_tells() {
    let node = Node::new();
    let config = Config { record_retention: Duration::from_millis(600), ..node.config() };
    let daemon = node.start_with(config).await;
    let short = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
    let timed = CreateSandboxRequest {
        expiration: Some(v1::create_sandbox_request::Expiration::Lifetime(short)),
        ..Default::default()
    };
    let idle = CreateSandboxRequest { idle_timeout: Some(short), ..Default::default() };
    let timed = daemon.create(timed).await.unwrap().id;
    let idling = daemon.create(idle.clone()).await.unwrap().id;
    let busy = daemon.create(idle).await.unwrap().id;
    let dying = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let process = daemon.start_process(&busy, &["sleep"], "").await.unwrap();
    let sandbox = SandboxId::parse(dying.clone()).unwrap();
    daemon.backend.tell.send(BackendEvent::Died { sandbox, reason: "guest_died".into() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    for (id, state, reason) in [
        (&timed, SandboxState::Stopped, "deadline"),
        (&idling, SandboxState::Stopped, "idle_timeout"),
        (&busy, SandboxState::Ready, "created"),
        (&dying, SandboxState::Failed, "guest_died"),
    ] {
        let sandbox = daemon.get(id).await.unwrap();
        assert_eq!((sandbox.state(), sandbox.last_transition.unwrap().reason.as_str()), (state, reason));
    }
    assert_eq!(node.host.live(), 1);
    let kill = v1::SignalProcessRequest { sandbox_id: busy.clone(), process_id: process.id, signal: 9 };
    daemon.processes().signal_process(kill).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(daemon.get(&busy).await.unwrap().state(), SandboxState::Stopped);
    assert_eq!(daemon.get(&timed).await.unwrap_err().code(), Code::NotFound, "kept long enough");
}

#[tokio::test]
async fn a_deletion_that_fails_can_be_repeated() {
    let node = Node::new();
    let daemon = node.start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    node.host.stuck.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(daemon.delete(&id).await.unwrap_err().code(), Code::Internal);
    assert_eq!(daemon.get(&id).await.unwrap().state(), SandboxState::Stopping);
    node.host.stuck.store(false, std::sync::atomic::Ordering::SeqCst);
    daemon.delete(&id).await.unwrap();
}

#[tokio::test]
async fn a_full_or_drained_node_takes_no_more() {
    let node = Node::new();
    let config = Config { max_sandboxes: 1, ..node.config() };
    let daemon = node.start_with(config).await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let mut hurried = tonic::Request::new(CreateSandboxRequest::default());
    hurried.set_timeout(Duration::from_millis(300));
    let error = daemon.sandboxes().create_sandbox(hurried).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::ResourceExhausted, "NO_ROOM"));
    assert!(error.get_error_details().retry_info().is_some());
    // Who waits is next.
    let (waited, deleted) = tokio::join!(daemon.create(CreateSandboxRequest::default()), daemon.delete(&id));
    deleted.unwrap();
    daemon.delete(&waited.unwrap().id).await.unwrap();
    daemon.node().drain_node(v1::DrainNodeRequest { resume: false }).await.unwrap();
    let error = daemon.create(CreateSandboxRequest::default()).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Unavailable, "NODE_DRAINING"));
    daemon.stop().await.unwrap();
    let daemon = node.start().await;
    let info =
        daemon.node().get_node_info(v1::GetNodeInfoRequest {}).await.unwrap().into_inner().node.unwrap();
    assert_eq!(info.state(), v1::NodeState::Draining, "holds across restarts");
    daemon.node().drain_node(v1::DrainNodeRequest { resume: true }).await.unwrap();
    daemon.create(CreateSandboxRequest::default()).await.unwrap();
}

#[tokio::test]
async fn the_node_tells_what_it_has_and_what_is_missing() {
    let daemon = Node::new().start().await;
    let node =
        daemon.node().get_node_info(v1::GetNodeInfoRequest {}).await.unwrap().into_inner().node.unwrap();
    assert!(node.backends[0].is_default && node.backends[0].capabilities.contains(&"pty".to_owned()));
    assert!(node.capacity.unwrap().memory_bytes > 0);
    let checks = daemon.node().doctor(v1::DoctorRequest {}).await.unwrap().into_inner().checks;
    assert!(checks.iter().any(|check| check.name == "cgroup_version"));
    assert!(checks.iter().any(|check| check.name == "disk_limit" && check.detail.contains("no quota here")));
}
