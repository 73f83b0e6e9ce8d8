//! What one call does while another one has the same sandbox in hand.

use crate::daemon::Node;
use hostel_proto::v1::{self, CreateSandboxRequest, SandboxState};
use std::sync::atomic::Ordering;
use tonic::Code;

#[tokio::test]
async fn a_fork_that_is_deleted_while_it_is_made_is_gone_when_both_are_done() {
    let node = Node::new();
    let daemon = node.start().await;
    let parent = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    node.host.creation_ms.store(300, Ordering::SeqCst);
    let fork = v1::ForkSandboxRequest { sandbox_id: parent.clone(), count: 1, ..Default::default() };
    let (mut forking, mut sandboxes) = (daemon.sandboxes(), daemon.sandboxes());
    let delete = async {
        let child = loop {
            let all = sandboxes.list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap();
            let found = all.into_inner().sandboxes.into_iter().find(|sandbox| sandbox.id != parent);
            match found {
                Some(child) => break child,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(child.state(), SandboxState::Creating);
        daemon.delete(&child.id).await.unwrap();
        child.id
    };
    let (forked, child) = tokio::join!(forking.fork_sandbox(fork), delete);
    forked.unwrap();
    assert_eq!(daemon.get(&child).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(node.host.live(), 1, "only the parent is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_to_delete_a_creation_that_fails_leaves_the_next_of_that_name_alone() {
    let node = Node::new();
    let daemon = node.start().await;
    let named = || CreateSandboxRequest { sandbox_id: "name".into(), ..Default::default() };
    for _ in 0..20 {
        let before = node.host.creations.load(Ordering::SeqCst);
        node.host.creation_ms.store(20, Ordering::SeqCst);
        node.host.broken.store(true, Ordering::SeqCst);
        let delete = async {
            while node.host.creations.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
            daemon.delete("name").await
        };
        let again = async {
            let first = daemon.create(named()).await.unwrap_err();
            node.host.broken.store(false, Ordering::SeqCst);
            node.host.creation_ms.store(0, Ordering::SeqCst);
            daemon.create(named()).await.unwrap();
            first
        };
        let (deleted, first) = tokio::join!(delete, again);
        // Whoever deleted ended the making of the first, or came in time for the second one, all of it; nobody has half
        // of it.
        let there = daemon.get("name").await;
        let ended_first = first.code() == Code::FailedPrecondition;
        assert_eq!(deleted.is_ok(), ended_first || there.is_err(), "{deleted:?} {first:?} {there:?}");
        assert_eq!(node.host.live(), usize::from(there.is_ok()));
        if there.is_ok() {
            daemon.delete("name").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_creation_that_is_deleted_keeps_its_name_until_nothing_is_left_of_it() {
    let node = Node::new();
    let daemon = node.start().await;
    let named = || CreateSandboxRequest { sandbox_id: "name".into(), ..Default::default() };
    node.host.creation_ms.store(600_000, Ordering::SeqCst);
    node.host.lingering.store(true, Ordering::SeqCst);
    let delete = async {
        while node.host.creations.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut deleting = Box::pin(daemon.delete("name"));
        while node.host.settles.load(Ordering::SeqCst) == 0 {
            assert!(futures::poll!(&mut deleting).is_pending());
            tokio::task::yield_now().await;
        }
        assert_eq!(daemon.create(named()).await.unwrap_err().code(), Code::AlreadyExists);
        node.host.creation_ms.store(0, Ordering::SeqCst);
        node.host.lingering.store(false, Ordering::SeqCst);
        deleting.await.unwrap();
        daemon.create(named()).await.unwrap();
    };
    let (created, ()) = tokio::join!(daemon.create(named()), delete);
    assert_eq!(created.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(node.host.live(), 1);
}

#[tokio::test]
async fn forks_whose_caller_goes_away_are_undone_and_no_more_are_begun() {
    let node = Node::new();
    let daemon = node.start().await;
    let parent = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    node.host.creation_ms.store(300, Ordering::SeqCst);
    let before = node.host.creations.load(Ordering::SeqCst);
    let fork = v1::ForkSandboxRequest { sandbox_id: parent.clone(), count: 20, ..Default::default() };
    let mut sandboxes = daemon.sandboxes();
    let mut forking = Box::pin(sandboxes.fork_sandbox(fork));
    while node.host.creations.load(Ordering::SeqCst) == before {
        assert!(futures::poll!(&mut forking).is_pending());
        tokio::task::yield_now().await;
    }
    drop(forking);
    // It takes the parent in hand only when the forking is over.
    daemon.pause_and_resume(&parent).await;
    assert_eq!(node.host.live(), 1, "only the parent is left");
    let begun = node.host.creations.load(Ordering::SeqCst) - before;
    assert!(begun < 20, "{begun} were begun");
    let all = daemon.sandboxes().list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap();
    assert_eq!(all.into_inner().sandboxes.len(), 1);
}
