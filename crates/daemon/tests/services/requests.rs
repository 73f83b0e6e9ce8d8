//! Requests that are repeated: after a broken connection, at the same time, after a restart.

use crate::daemon::{Node, reason};
use hostel_proto::v1::{self, CreateSandboxRequest};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Code;

fn request(id: &str, labels: &[(&str, &str)]) -> CreateSandboxRequest {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    CreateSandboxRequest { request_id: id.to_owned(), labels, ..Default::default() }
}

#[tokio::test]
async fn the_same_request_makes_one_sandbox_also_at_the_same_time_and_across_restarts() {
    let node = Node::new();
    node.host.creation_ms.store(30, Ordering::SeqCst);
    let daemon = node.start().await;
    let labels = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
    let made = futures::future::join_all((0..8).map(|_| daemon.create(request("r", &labels)))).await;
    let ids: Vec<String> = made.into_iter().map(|sandbox| sandbox.unwrap().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(node.host.creations.load(Ordering::SeqCst), 1);
    let error = daemon.create(request("r", &[("a", "2")])).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::AlreadyExists, "request_id_reused"));
    daemon.kill().await;
    let daemon = node.start().await;
    assert_eq!(daemon.create(request("r", &labels)).await.unwrap().id, ids[0]);
    let error = daemon.create(request("r", &[("a", "2")])).await.unwrap_err();
    assert_eq!(reason(&error), "request_id_reused");
    daemon.delete(&ids[0]).await.unwrap();
    assert_eq!(daemon.create(request("r", &labels)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(node.host.creations.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_is_followed_unless_it_can_come_back() {
    let node = Node::new();
    node.host.creation_ms.store(100, Ordering::SeqCst);
    let daemon = node.start().await;
    let impatient = Duration::from_millis(40);
    for (request_id, left) in [("", 0), ("r", 1)] {
        let call = daemon.create(request(request_id, &[]));
        assert!(tokio::time::timeout(impatient, call).await.is_err());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(node.host.live(), left, "{request_id:?}");
    }
    let list =
        daemon.sandboxes().list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.sandboxes.len(), 1);
}

#[tokio::test]
async fn a_chosen_id_is_taken_once() {
    let daemon = Node::new().start().await;
    let request = CreateSandboxRequest { sandbox_id: "mine".into(), ..Default::default() };
    assert_eq!(daemon.create(request.clone()).await.unwrap().id, "mine");
    let error = daemon.create(request).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::AlreadyExists, "ALREADY_EXISTS"));
}

#[tokio::test]
async fn a_process_is_started_once_for_one_request() {
    let node = Node::new();
    let daemon = node.start().await;
    let id = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    let first = daemon.start_process(&id, &["sleep"], "r").await.unwrap();
    assert_eq!(daemon.start_process(&id, &["sleep"], "r").await.unwrap().id, first.id);
    let error = daemon.start_process(&id, &["cat"], "r").await.unwrap_err();
    assert_eq!(reason(&error), "request_id_reused");
    daemon.stop().await.unwrap();
    let daemon = node.start().await;
    assert_eq!(daemon.start_process(&id, &["sleep"], "r").await.unwrap().id, first.id);
    // One that came to nothing may be tried again.
    for _ in 0..2 {
        let error = daemon.start_process(&id, &["nonsense"], "other").await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn forks_and_snapshots_are_made_once_for_one_request() {
    let node = Node::new();
    let daemon = node.start().await;
    let id = daemon.create(request("", &[("a", "1")])).await.unwrap().id;
    let fork = v1::ForkSandboxRequest {
        sandbox_id: id.clone(),
        request_id: "f".into(),
        count: 3,
        ..Default::default()
    };
    let snapshot =
        v1::SnapshotSandboxRequest { sandbox_id: id.clone(), request_id: "s".into(), ..Default::default() };
    let forked = daemon.sandboxes().fork_sandbox(fork.clone()).await.unwrap().into_inner();
    for result in &forked.results {
        let Some(v1::fork_result::Result::Sandbox(child)) = &result.result else { panic!("{result:?}") };
        assert_eq!((child.parent_id.as_str(), child.labels["a"].as_str()), (id.as_str(), "1"));
    }
    let template =
        daemon.sandboxes().snapshot_sandbox(snapshot.clone()).await.unwrap().into_inner().template.unwrap();
    daemon.stop().await.unwrap();
    let daemon = node.start().await;
    assert_eq!(daemon.sandboxes().fork_sandbox(fork).await.unwrap().into_inner(), forked);
    let again = daemon.sandboxes().snapshot_sandbox(snapshot).await.unwrap().into_inner().template.unwrap();
    assert_eq!(again.name, template.name);
    assert_eq!(daemon.get(&id).await.unwrap().snapshot_template, template.name);
    let from = CreateSandboxRequest { template: template.name.clone(), ..Default::default() };
    assert_eq!(daemon.create(from).await.unwrap().template, template.name);
    assert_eq!(node.host.live(), 5);
}
