//! What a claim takes of a pool where it comes to nothing, and what is counted of it.

use crate::daemon::{Node, Running, eventually};
use crate::files::read;
use crate::metrics::scrape;
use crate::pool_faults::{bound, with_token};
use crate::pools::{claim, full, get, make, spec, update};
use hostel_proto::v1::{self, CreateSandboxRequest, PoolCounters, PoolSpec, StartKind};
use hosteld::Config;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;
use tonic::Code;

/// A daemon with a pool of so many, which makes no others for a minute after a claim.
async fn with_pool(node: &Node, size: u32) -> Running {
    let daemon = node.start().await;
    fill(&daemon, size).await;
    daemon
}

async fn fill(daemon: &Running, size: u32) {
    let refill_delay = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    make(daemon, "p", PoolSpec { refill_delay, ..spec(size) }).await.unwrap();
    full(daemon, size).await;
}

async fn counters(daemon: &Running) -> PoolCounters {
    get(daemon, "p").await.unwrap().counters.unwrap()
}

fn with_file(path: &str) -> CreateSandboxRequest {
    let file = v1::InitialFile { path: path.into(), content: b"one".as_slice().into(), permissions: None };
    CreateSandboxRequest { sandbox_id: "mine".into(), files: vec![file], ..Default::default() }
}

async fn content(daemon: &Running, path: &str) -> Vec<u8> {
    let request = v1::ReadFileRequest { sandbox_id: "mine".into(), path: path.into(), ..Default::default() };
    read(daemon, request).await.unwrap()
}

#[tokio::test]
async fn what_one_cannot_become_takes_one_at_most_and_is_not_its_fault() {
    let node = Node::new();
    let daemon = with_pool(&node, 3).await;
    node.host.refusing.store(true, Ordering::SeqCst);
    let made = claim(&daemon, with_token()).await.unwrap();
    assert_eq!((made.start_kind(), made.sandbox.unwrap().id.as_str()), (StartKind::Cold, "mine"));
    let counters = counters(&daemon).await;
    assert_eq!((counters.hits, counters.misses, counters.misses_unfit), (0, 1, 0));
    assert_eq!((counters.claim_failures, counters.unhealthy), (1, 0));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_guest_that_hangs_over_the_files_of_a_claim_makes_it_a_cold_start() {
    let node = Node::new();
    let daemon = with_pool(&node, 2).await;
    for warm in node.host.sandboxes.lock().unwrap().values() {
        warm.hung.store(true, Ordering::SeqCst);
    }
    let made = claim(&daemon, with_file("/w/a")).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Cold);
    assert_eq!(content(&daemon, "/w/a").await, b"one");
    let counters = counters(&daemon).await;
    assert_eq!((counters.hits, counters.misses, counters.claim_failures), (0, 1, 1));
    assert_eq!(counters.unhealthy, 1);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn where_one_dies_over_the_files_of_a_claim_the_caller_gets_another() {
    let node = Node::new();
    let daemon = with_pool(&node, 1).await;
    for warm in node.host.sandboxes.lock().unwrap().values() {
        warm.dead.store(true, Ordering::SeqCst);
    }
    // The older one is given first.
    update(&daemon, spec(2), &["pinned_size"]).await.unwrap();
    full(&daemon, 2).await;
    let made = claim(&daemon, with_file("/w/a")).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Warm);
    assert_eq!(content(&daemon, "/w/a").await, b"one");
    let counters = counters(&daemon).await;
    assert_eq!((counters.hits, counters.misses, counters.claim_failures), (1, 0, 1));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_claim_whose_files_are_refused_is_no_hit() {
    let node = Node::new();
    let metrics = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let daemon = node.start_with(Config { metrics_listen: Some(metrics), ..node.config() }).await;
    fill(&daemon, 2).await;
    let refused = claim(&daemon, with_file("/proc/version")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let counters = counters(&daemon).await;
    assert_eq!((counters.hits, counters.misses), (0, 1));
    assert_eq!((counters.claim_failures, counters.unhealthy), (1, 0));
    let count = "hostel_pool_claim_seconds_count{pool=\"p\"}";
    assert!(!scrape(metrics).await.contains(count));
    let made = claim(&daemon, with_file("/w/a")).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Warm);
    assert!(scrape(metrics).await.contains(&format!("{count} 1\n")));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_claim_that_ends_after_the_stop_began_is_counted() {
    let node = Node::new();
    let daemon = with_pool(&node, 1).await;
    let mut told = daemon.pools().watch_pools(v1::WatchPoolsRequest::default()).await.unwrap().into_inner();
    node.host.holding.store(true, Ordering::SeqCst);
    let mut sandboxes = daemon.sandboxes();
    let stops = async {
        eventually("one is bound", || !bound(&node).is_empty()).await;
        let ended = async {
            // Streams end with the stop.
            while let Ok(Some(_)) = told.message().await {}
            node.host.holding.store(false, Ordering::SeqCst);
        };
        let (stopped, ()) = tokio::join!(daemon.stop(), ended);
        stopped.unwrap();
    };
    let (made, ()) = tokio::join!(sandboxes.create_sandbox(with_token()), stops);
    made.unwrap();

    let daemon = node.start().await;
    let counters = counters(&daemon).await;
    assert_eq!(counters.hits + counters.misses, 1, "{counters:?}");
    let plan = v1::PlanPoolRequest { name: "p".into(), ..Default::default() };
    assert_eq!(daemon.pools().plan_pool(plan).await.unwrap().into_inner().claims, 1);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn an_id_that_a_claim_is_about_to_give_costs_the_others_no_warm_sandbox() {
    let node = Node::new();
    let daemon = with_pool(&node, 4).await;
    node.host.holding.store(true, Ordering::SeqCst);
    let others = async {
        eventually("one is bound", || !bound(&node).is_empty()).await;
        for _ in 0..3 {
            assert_eq!(claim(&daemon, with_token()).await.unwrap_err().code(), Code::AlreadyExists);
        }
        assert_eq!(bound(&node).len(), 1);
        node.host.holding.store(false, Ordering::SeqCst);
    };
    let (made, ()) = tokio::join!(claim(&daemon, with_token()), others);
    let made = made.unwrap();
    assert_eq!((made.start_kind(), made.sandbox.unwrap().id.as_str()), (StartKind::Warm, "mine"));
    let counters = counters(&daemon).await;
    assert_eq!((counters.hits, counters.misses, counters.claim_failures), (1, 0, 0));
    // Once it is free again it can be had again.
    daemon.delete("mine").await.unwrap();
    assert_eq!(claim(&daemon, with_token()).await.unwrap().start_kind(), StartKind::Warm);
    daemon.stop().await.unwrap();
}
