//! What goes wrong with pools: crashes and deaths at the worst moment, no room, changes under their feet.

use crate::daemon::{Node, Running, eventually};
use crate::metrics::scrape;
use crate::pools::{claim, full, get, make, pool_of_one, spec, until};
use hostel_proto::v1::{
    self, CreateSandboxRequest, Pool, PoolHealth, PoolSpec, ResourceLimits, SandboxState, StartKind,
};
use hostel_sandbox::template::{Probe, Template, TemplateCommand, TemplateSource};
use hostel_sandbox::{BackendEvent, SandboxId, TemplateId};
use hosteld::Config;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Code;

pub(crate) fn with_token() -> CreateSandboxRequest {
    let env = [("TOKEN".to_owned(), "secret".to_owned())].into();
    CreateSandboxRequest { sandbox_id: "mine".into(), env, ..Default::default() }
}

/// The sandboxes that are bound to somebody.
pub(crate) fn bound(node: &Node) -> Vec<SandboxId> {
    let sandboxes = node.host.sandboxes.lock().unwrap();
    let bound = sandboxes.iter().filter(|(_, sandbox)| !sandbox.bound.lock().unwrap().is_empty());
    bound.map(|(id, _)| id.clone()).collect()
}

/// Claims, and goes away once the sandbox is bound and not yet given.
async fn leave_a_claim_midway(node: &Node, daemon: &Running) {
    node.host.holding.store(true, Ordering::SeqCst);
    tokio::select! {
        made = claim(daemon, with_token()) => panic!("{made:?}"),
        () = eventually("one is bound", || !bound(node).is_empty()) => {}
    }
}

#[tokio::test]
async fn a_daemon_that_dies_over_a_claim_leaves_the_next_caller_nothing_of_it() {
    let node = Node::new();
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    leave_a_claim_midway(&node, &daemon).await;
    let token = bound(&node);
    daemon.kill().await;

    let daemon = node.start().await;
    assert!(token.iter().all(|id| !node.host.sandboxes.lock().unwrap().contains_key(id)), "it is removed");
    full(&daemon, 1).await;
    let made = claim(&daemon, CreateSandboxRequest::default()).await.unwrap().sandbox.unwrap();
    assert!(!bound(&node).iter().any(|id| id.as_str() == made.id), "it holds another's token");
}

#[tokio::test]
async fn one_that_dies_while_it_is_claimed_is_given_to_nobody() {
    let node = Node::new();
    let daemon = node.start().await;
    let other = daemon.create(CreateSandboxRequest::default()).await.unwrap().id;
    // Nothing else is there to be given.
    let refill_delay = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    make(&daemon, "p", PoolSpec { refill_delay, ..spec(1) }).await.unwrap();
    full(&daemon, 1).await;
    node.host.holding.store(true, Ordering::SeqCst);
    let dies = async {
        eventually("one is bound", || !bound(&node).is_empty()).await;
        let mut dead = bound(&node);
        dead.push(SandboxId::parse(other.as_str()).unwrap());
        for sandbox in dead {
            let died = BackendEvent::Died { sandbox, reason: "guest_died".into() };
            daemon.backend.tell.send(died).await.unwrap();
        }
        // Events are heard in their order.
        while daemon.get(&other).await.unwrap().state() != SandboxState::Failed {
            tokio::task::yield_now().await;
        }
        node.host.holding.store(false, Ordering::SeqCst);
    };
    let (made, ()) = tokio::join!(claim(&daemon, with_token()), dies);
    let made = made.unwrap();
    assert_eq!((made.start_kind(), made.sandbox.unwrap().id.as_str()), (StartKind::Cold, "mine"));
    assert!(bound(&node).is_empty(), "what died is removed");
    let pool = full(&daemon, 1).await;
    assert_eq!(pool.counters.unwrap().claim_failures, 1);
}

#[tokio::test]
async fn refills_wait_for_room_and_get_what_is_given_back() {
    let node = Node::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = Config { max_sandboxes: 4, metrics_listen: Some(free), ..node.config() };
    let daemon = node.start_with(config).await;
    let mut used = Vec::new();
    for _ in 0..3 {
        used.push(daemon.create(CreateSandboxRequest::default()).await.unwrap().id);
    }
    make(&daemon, "p", spec(1)).await.unwrap();
    let waits = async { while !scrape(free).await.contains("hostel_admission_queue{kind=\"refill\"} 1") {} };
    tokio::time::timeout(Duration::from_secs(30), waits).await.unwrap();
    let status = get(&daemon, "p").await.unwrap().status.unwrap();
    assert_eq!((status.health(), status.creating), (PoolHealth::Refilling, 1));
    // The last place is for whoever asks, not for a pool.
    daemon.delete(&used[0]).await.unwrap();
    let pool = full(&daemon, 1).await;
    assert_eq!(pool.counters.unwrap().refill_failures, 0);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_pool_that_is_deleted_waits_for_nothing_that_is_being_made() {
    let node = Node::new();
    let daemon = node.start().await;
    node.host.creation_ms.store(600_000, Ordering::SeqCst);
    make(&daemon, "p", spec(1)).await.unwrap();
    eventually("one is being made", || node.host.creations.load(Ordering::SeqCst) == 1).await;
    let delete = v1::DeletePoolRequest { name: "p".into(), allow_missing: false };
    daemon.pools().delete_pool(delete).await.unwrap();
    assert_eq!(get(&daemon, "p").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(node.host.live(), 0);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_pool_is_gone_only_when_nothing_is_left_of_what_was_being_made() {
    let node = Node::new();
    let daemon = node.start().await;
    node.host.creation_ms.store(600_000, Ordering::SeqCst);
    node.host.lingering.store(true, Ordering::SeqCst);
    make(&daemon, "p", spec(1)).await.unwrap();
    eventually("one is being made", || node.host.creations.load(Ordering::SeqCst) == 1).await;
    let (mut pools, delete) =
        (daemon.pools(), v1::DeletePoolRequest { name: "p".into(), allow_missing: false });
    let mut deleting = Box::pin(pools.delete_pool(delete));
    while node.host.settles.load(Ordering::SeqCst) == 0 {
        assert!(futures::poll!(&mut deleting).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&daemon, "p").await.unwrap().status.unwrap().creating, 1);
    assert!(futures::poll!(&mut deleting).is_pending());
    node.host.lingering.store(false, Ordering::SeqCst);
    deleting.await.unwrap();
    assert_eq!(get(&daemon, "p").await.unwrap_err().code(), Code::NotFound);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn what_no_size_would_serve_is_no_demand() {
    let node = Node::new();
    let daemon = node.start().await;
    let inodes = |inodes| Some(ResourceLimits { disk_inodes: Some(inodes), ..Default::default() });
    make(&daemon, "p", PoolSpec { limits: inodes(500), ..spec(0) }).await.unwrap();
    for (asked, unfit) in [(inodes(1000), 1), (inodes(500), 1), (None, 1)] {
        let request = CreateSandboxRequest { limits: asked, pool: "p".into(), ..Default::default() };
        assert_eq!(claim(&daemon, request).await.unwrap().start_kind(), StartKind::Cold);
        let counters = get(&daemon, "p").await.unwrap().counters.unwrap();
        assert_eq!(counters.misses_unfit, unfit, "{counters:?}");
    }
}

#[tokio::test]
async fn a_claim_whose_caller_goes_away_is_undone() {
    let node = Node::new();
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    leave_a_claim_midway(&node, &daemon).await;
    // That the caller is gone is heard before what comes later over the same connection is answered.
    for _ in 0..10 {
        assert_eq!(daemon.get("mine").await.unwrap_err().code(), Code::NotFound);
    }
    node.host.holding.store(false, Ordering::SeqCst);
    eventually("what was bound is removed", || bound(&node).is_empty()).await;
    let pool =
        until(&daemon, "p", "undone", |pool| pool.counters.as_ref().unwrap().claim_failures == 1).await;
    assert_eq!(pool.counters.unwrap().hits, 1);
    assert_eq!(daemon.get("mine").await.unwrap_err().code(), Code::NotFound);
    full(&daemon, 1).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_limit_that_cannot_change_takes_no_warm_sandbox_with_it() {
    let node = Node::new();
    node.host.fixed_pids.store(true, Ordering::SeqCst);
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    let limits = Some(ResourceLimits { pids: Some(33), ..Default::default() });
    let made = claim(&daemon, CreateSandboxRequest { limits, ..Default::default() }).await.unwrap();
    assert_eq!((made.start_kind(), made.sandbox.unwrap().limits.unwrap().pids), (StartKind::Cold, Some(33)));
    let counters = full(&daemon, 1).await.counters.unwrap();
    assert_eq!((counters.misses_unfit, counters.claim_failures, counters.created), (1, 0, 1));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_pool_goes_on_while_its_backend_does_not_say_what_stands_behind_its_template() {
    let node = Node::new();
    node.host.silent.store(true, Ordering::SeqCst);
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    assert_eq!(claim(&daemon, CreateSandboxRequest::default()).await.unwrap().start_kind(), StartKind::Warm);
    full(&daemon, 1).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_gets_a_sandbox_of_the_template_that_the_pool_had_before() {
    let node = Node::new();
    let id = TemplateId::parse("other").unwrap();
    let template = Template::new(id.clone(), TemplateSource::Imported);
    node.host.templates.lock().unwrap().insert(id, template);
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    node.host.creation_ms.store(600_000, Ordering::SeqCst);
    let other = PoolSpec { template: "other".into(), ..spec(1) };
    crate::pools::update(&daemon, other, &["template"]).await.unwrap();
    eventually("its successor is being made", || node.host.creations.load(Ordering::SeqCst) == 2).await;
    node.host.creation_ms.store(0, Ordering::SeqCst);
    let request = CreateSandboxRequest { template: "other".into(), ..Default::default() };
    assert_eq!(claim(&daemon, request.clone()).await.unwrap().start_kind(), StartKind::Cold);
    let pool = get(&daemon, "p").await.unwrap();
    let (status, counters) = (pool.status.unwrap(), pool.counters.unwrap());
    assert_eq!((status.ready, counters.hits), (0, 0), "it serves nobody and takes room");
    assert_eq!(counters.recycled, 1);
    daemon.kill().await;

    // Nothing of it is left for the next daemon.
    node.host.creation_ms.store(600_000, Ordering::SeqCst);
    let daemon = node.start().await;
    eventually("its successor is being made", || node.host.creations.load(Ordering::SeqCst) == 4).await;
    node.host.creation_ms.store(0, Ordering::SeqCst);
    assert_eq!(claim(&daemon, request).await.unwrap().start_kind(), StartKind::Cold);
    daemon.kill().await;
}

fn rolled_over(pool: &Pool) -> bool {
    let (status, counters) = (pool.status.as_ref().unwrap(), pool.counters.as_ref().unwrap());
    counters.recycled == 1 && status.ready == 1 && status.creating == 0 && status.removing == 0
}

#[tokio::test]
async fn a_node_without_room_to_spare_rolls_over_one_at_a_time() {
    let node = Node::new();
    *node.host.version.lock().unwrap() = Some("sha256:1".to_owned());
    let daemon = node.start_with(Config { max_sandboxes: 4, ..node.config() }).await;
    make(&daemon, "p", spec(3)).await.unwrap();
    full(&daemon, 3).await;
    *node.host.version.lock().unwrap() = Some("sha256:2".to_owned());
    let all_new = |pool: &Pool| {
        let (status, counters) = (pool.status.as_ref().unwrap(), pool.counters.as_ref().unwrap());
        assert!(status.ready >= 2, "{pool:#?}");
        counters.recycled == 3 && status.ready == 3 && status.removing == 0
    };
    // The first attempt waits half a minute for room beside the old ones.
    crate::pools::until_within(&daemon, "p", "rolled over", Duration::from_secs(90), all_new).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn another_image_behind_the_same_name_rolls_the_pool_over() {
    let node = Node::new();
    *node.host.version.lock().unwrap() = Some("sha256:1".to_owned());
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    let old = node.host.sandboxes.lock().unwrap().keys().next().unwrap().clone();
    *node.host.version.lock().unwrap() = Some("sha256:2".to_owned());
    until(&daemon, "p", "rolled over", rolled_over).await;
    assert!(!node.host.sandboxes.lock().unwrap().contains_key(&old));
    daemon.stop().await.unwrap();

    // What the last daemon saw is known to the next.
    let daemon = node.start().await;
    let pool = full(&daemon, 1).await;
    assert_eq!(pool.counters.unwrap().recycled, 1);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn warm_ones_are_past_start_commands_and_probe_and_another_template_rolls_over() {
    let node = Node::new();
    let command = |word: &str| TemplateCommand {
        argv: vec!["echo".to_owned(), word.to_owned()],
        ..TemplateCommand::default()
    };
    let id = TemplateId::parse("prepared").unwrap();
    let mut template = Template::new(id.clone(), TemplateSource::Imported);
    template.start_commands = vec![command("start")];
    template.probe =
        Some(Probe { command: command("probe"), interval: Probe::INTERVAL, timeout: Probe::TIMEOUT });
    node.host.templates.lock().unwrap().insert(id, template);
    let daemon = node.start().await;
    pool_of_one(&daemon).await;
    let prepared = PoolSpec { template: "prepared".into(), ..spec(1) };
    crate::pools::update(&daemon, prepared, &["template"]).await.unwrap();
    until(&daemon, "p", "rolled over", rolled_over).await;

    let request = CreateSandboxRequest { template: "prepared".into(), ..Default::default() };
    let made = claim(&daemon, request).await.unwrap();
    assert_eq!(made.start_kind(), StartKind::Warm);
    let list = v1::ListProcessesRequest { sandbox_id: made.sandbox.unwrap().id, ..Default::default() };
    let processes = daemon.processes().list_processes(list).await.unwrap().into_inner().processes;
    let mut run: Vec<_> = processes.iter().map(|process| process.command.join(" ")).collect();
    run.sort();
    assert_eq!(run, ["echo probe", "echo start"]);
    daemon.stop().await.unwrap();
}
